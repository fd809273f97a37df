"""A tiny encoder with random weights that keeps the contract, and its card: quick, shift-equivariant, meaningless."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.encoder.card import Card
from edge.encoder.contract import BEAT_CLASSES, BEAT_FS_HZ, MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS, TOKEN_DIM, WAVES

CHANNELS = 16


def tiny_card(folder: Path, seed: int = 0, *, leave_out: str | None = None, look_further: bool = False) -> Card:
    """Write a tiny encoder and its card into `folder`.

    leave_out     drop one output
    look_further  break the contract: see more than 2 s ahead
    """
    weights = tiny_onnx(seed, leave_out=leave_out, look_further=look_further)
    (folder / "tiny.onnx").write_bytes(weights)
    facts = {
        "checkpoint": f"tiny-{seed}",
        "file": "tiny.onnx",
        "sha256": hashlib.sha256(weights).hexdigest(),
        "thresholds": {"r_peak": 0.5},
    }
    (folder / "tiny.json").write_text(json.dumps(facts), encoding="utf-8")
    return Card.load(folder / "tiny.json")


def tiny_onnx(seed: int, *, leave_out: str | None = None, look_further: bool = False) -> bytes:
    """Return the ONNX file: masked leads → strided convolutions → lead mean → context of ±1 s → heads."""
    graph = _Graph(seed)
    graph.constant("zero", np.float32(0))
    graph.constant("one", np.float32(1))
    graph.node("Shape", "ecg", out="shape")
    for name, index in (("batch", 0), ("lead", 1), ("time", 2)):
        graph.constant(f"{name}_at", np.array([index], np.int64))
        graph.node("Gather", "shape", f"{name}_at", out=name, axis=0)
    graph.constant("minus_one", np.array([-1], np.int64))
    graph.constant("one_channel", np.array([1], np.int64))
    graph.constant("channels", np.array([CHANNELS], np.int64))
    graph.node("Concat", "minus_one", "one_channel", "time", out="lead_shape", axis=0)
    graph.node("IsNaN", "ecg", out="missing")
    graph.node("Where", "missing", "zero", "ecg", out="filled")
    graph.node("Reshape", "filled", "lead_shape", out="flat")
    graph.node("Where", "missing", "zero", "one", out="there")
    graph.node("Reshape", "there", "lead_shape", out="there_flat")
    graph.node("Concat", "flat", "there_flat", out="pair", axis=1)
    graph.conv("pair", "stem", 2, CHANNELS, kernel=8, stride=4, pads=(2, 2))
    graph.conv("stem", "stem2", CHANNELS, CHANNELS, kernel=5, pads=(2, 2))
    graph.node("Concat", "batch", "lead", "channels", "minus_one", out="pool_shape", axis=0)
    graph.node("Reshape", "stem2", "pool_shape", out="by_lead")
    graph.constant("lead_axis", np.array([1], np.int64))
    graph.node("ReduceMean", "by_lead", "lead_axis", out="pooled", keepdims=0)
    graph.conv(
        "pooled",
        "wide",
        CHANNELS,
        CHANNELS,
        kernel=9,
        pads=(0, 160) if look_further else (32, 32),
        dilation=20 if look_further else 8,
    )
    graph.head("wide", "r_peak", 1, stride=1, squash="Sigmoid", drop=True)
    graph.head("wide", "beat", len(BEAT_CLASSES), stride=1, squash="Softmax")
    graph.head("wide", "morphology", len(MORPHOLOGIES), stride=1, squash="Softmax")
    graph.head("wide", "rhythm", len(RHYTHMS), stride=32, squash="Softmax")
    graph.head("wide", "quality", 1, stride=32, squash="Sigmoid", drop=True)
    graph.delineation("wide")
    graph.head("wide", "tokens", TOKEN_DIM, stride=8, squash="Tanh")
    return graph.serialised(leave_out)


class _Graph:
    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._outputs: dict[str, list[str | int]] = {}

    def constant(self, name: str, value: np.ndarray | np.generic) -> None:
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)

    def node(self, op: str, *inputs: str, out: str, **attributes: object) -> None:
        self._nodes.append(helper.make_node(op, list(inputs), [out], **attributes))

    def conv(
        self,
        source: str,
        out: str,
        n_in: int,
        n_out: int,
        *,
        kernel: int,
        stride: int = 1,
        pads: tuple[int, int] = (0, 0),
        dilation: int = 1,
        relu: bool = True,
    ) -> None:
        weight = self._rng.normal(0, (n_in * kernel) ** -0.5, (n_out, n_in, kernel)).astype(np.float32)
        self.constant(f"{out}_w", weight)
        self.constant(f"{out}_b", self._rng.normal(0, 0.1, n_out).astype(np.float32))
        raw = f"{out}_raw" if relu else out
        self.node(
            *("Conv", source, f"{out}_w", f"{out}_b"),
            out=raw,
            kernel_shape=[kernel],
            strides=[stride],
            pads=list(pads),
            dilations=[dilation],
        )
        if relu:
            self.node("Relu", raw, out=out)

    def head(self, source: str, name: str, n: int, *, stride: int, squash: str, drop: bool = False) -> None:
        self.conv(source, f"{name}_conv", CHANNELS, n, kernel=stride, stride=stride, relu=False)
        self.node("Transpose", f"{name}_conv", out=f"{name}_frames", perm=[0, 2, 1])
        axis = {"axis": -1} if squash == "Softmax" else {}
        self.node(squash, f"{name}_frames", out=f"{name}_squashed" if drop else name, **axis)
        if drop:
            self.constant(f"{name}_last", np.array([2], np.int64))
            self.node("Squeeze", f"{name}_squashed", f"{name}_last", out=name)
        self._outputs[name] = ["batch", "frames_" + str(stride)] + ([] if drop else [n])

    def delineation(self, source: str) -> None:
        """Four samples to a frame: [batch, frames, 4 · waves] reshaped to [batch, time, waves]."""
        n = len(WAVES)
        self.conv(source, "waves_conv", CHANNELS, MODEL_FS_HZ // BEAT_FS_HZ * n, kernel=1, relu=False)
        self.node("Transpose", "waves_conv", out="waves_frames", perm=[0, 2, 1])
        self.constant("waves_shape", np.array([0, -1, n], np.int64))
        self.node("Reshape", "waves_frames", "waves_shape", out="waves_samples")
        self.node("Softmax", "waves_samples", out="delineation", axis=-1)
        self._outputs["delineation"] = ["batch", "samples", n]

    def serialised(self, leave_out: str | None) -> bytes:
        graph = helper.make_graph(
            self._nodes,
            "tiny",
            [helper.make_tensor_value_info("ecg", TensorProto.FLOAT, ["batch", "lead", "time"])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in self._outputs.items()
                if name != leave_out
            ],
            list(self._constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())
