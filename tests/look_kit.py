"""What tests of the model that looks need: a random adapter and projector for the default base, and their card."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.assistant.model import find_model
from edge.assistant.soft import FRAME, KINDS, LABELS, MARKS, QUALITIES, ProjectorCard
from edge.encoder.contract import RHYTHMS

RANK = 4


def write_random_adapter(path: Path, blocks: int = 2, strength: float = 4.0) -> None:
    """Write a LoRA on the first blocks of SmolLM2-135M."""
    rng = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for n in range(blocks):
        for name, inputs, outputs in (("attn_q", 576, 576), ("attn_v", 576, 192), ("ffn_down", 1536, 576)):
            a = rng.normal(0, inputs**-0.5, (RANK, inputs)).astype(np.float16)
            b = rng.normal(0, strength * RANK**-0.5, (outputs, RANK)).astype(np.float16)
            writer.add_tensor(f"blk.{n}.{name}.weight.lora_a", a)
            writer.add_tensor(f"blk.{n}.{name}.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_random_projector(path: Path, width: int = 576) -> None:
    """Write a linear projector with the graph's contract, whose heads say nothing."""
    rng = np.random.default_rng(6)
    weight = rng.normal(0, 0.01, (FRAME, width)).astype(np.float32)
    edges = rng.normal(0, 0.01, (1, width)).astype(np.float32)
    marks = rng.normal(0, 0.01, (len(MARKS), width)).astype(np.float32)
    silent = np.zeros((width, 1 + len(KINDS) + 3 * len(LABELS)), np.float32)
    whole = np.zeros(len(RHYTHMS) + len(QUALITIES) + 5, np.float32)
    nodes = [
        helper.make_node("MatMul", ["frames", "w"], ["rows"]),
        helper.make_node("Concat", ["edges", "rows", "edges"], ["all"], axis=0),
        helper.make_node("Gather", ["all", "row"], ["soft"], axis=0),
        helper.make_node("MatMul", ["soft", "s"], ["said"]),
        helper.make_node("Identity", ["e"], ["whole"]),
        helper.make_node("Identity", ["m"], ["marks"]),
    ]
    asked = (("row", ["places"]), ("tenths", ["places"]))
    graph = helper.make_graph(
        nodes,
        "projector",
        [
            helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["time", FRAME]),
            *(helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in asked),
        ],
        [
            helper.make_tensor_value_info("soft", TensorProto.FLOAT, ["places", width]),
            helper.make_tensor_value_info("said", TensorProto.FLOAT, ["places", silent.shape[1]]),
            helper.make_tensor_value_info("whole", TensorProto.FLOAT, list(whole.shape)),
            helper.make_tensor_value_info("marks", TensorProto.FLOAT, list(marks.shape)),
        ],
        [
            numpy_helper.from_array(*one)
            for one in ((weight, "w"), (edges, "edges"), (silent, "s"), (whole, "e"), (marks, "m"))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def write_small_base(path: Path, blocks: int = 2) -> Path:
    """Write the first blocks of SmolLM2-135M as a model of its own: the same words and widths, quick."""
    model = gguf.GGUFReader(find_model())
    writer = gguf.GGUFWriter(path, "llama")
    for field in model.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "llama.block_count"):
            continue
        kind = field.types[0]
        sub_kind = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_kind)
    writer.add_block_count(blocks)
    for tensor in model.tensors:
        if not tensor.name.startswith("blk.") or int(tensor.name.split(".")[1]) < blocks:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_card(folder: Path, encoder: str, base: Path | None = None) -> ProjectorCard:
    """Write adapter, projector and card into `folder`, for the encoder with that checkpoint id."""
    if not (folder / "adapter.gguf").exists():
        write_random_adapter(folder / "adapter.gguf")
    write_random_projector(folder / "projector.onnx")
    facts = {
        "checkpoint": "random",
        "encoder": encoder,
        "base_sha256": sha256(base or find_model()),
        "file": "projector.onnx",
        "sha256": sha256(folder / "projector.onnx"),
        "adapter": "adapter.gguf",
        "adapter_sha256": sha256(folder / "adapter.gguf"),
    }
    (folder / "projector.json").write_text(json.dumps(facts), encoding="utf-8")
    return ProjectorCard.load(folder / "projector.json")


@cache
def sha256(path: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def embedding_rows() -> NDArray[np.float32]:
    """Return the embedding table of the default base."""
    reader = gguf.GGUFReader(find_model())
    tensor = next(t for t in reader.tensors if t.name == "token_embd.weight")
    return gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type).astype(np.float32)


def divergence(p: NDArray[np.float32], q: NDArray[np.float32]) -> float:
    """Return the KL divergence of the softmax of `q` from that of `p`."""
    a, b = (x.astype(np.float64) - x.max() for x in (p, q))
    a, b = a - np.log(np.exp(a).sum()), b - np.log(np.exp(b).sum())
    return float((np.exp(a) * (a - b)).sum())
