"""`python -m export.quantize`: static int8 of the shipped encoder, measured, and shipped only if it earns its place.

QDQ form, int8 weights per channel, activations by the range seen on training records. Convolutions and the additions
between them become integer; `FLOAT_LAYERS`, pooling over leads, softmaxes and sigmoids stay fp32. The checkpoint id
stays: it names the trained weights, whatever their precision (`edge.encoder.card`).

Requirements to ship: at least `MIN_SPEED_UP` on one thread, at most `MAX_LOSS` points of F1 lost for QRS and V on the
validation records, and the bits of a long window equal to those of short ones (`edge.encoder.stride`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.card import Card
from edge.encoder.contract import MODEL_FS_HZ, OUTPUTS
from edge.encoder.session import Encoder
from edge.encoder.stride import choose_stride
from export.datasets.reader import load
from export.datasets.splits import DATABASES

MIN_SPEED_UP = 1.5
MAX_LOSS = 0.3
"""Points of F1."""
WINDOW_S = 40
WINDOWS = 96
"""Calibration windows, as many from each database."""
SHORT = ("cinc2017", "ludb", "ptbxl")
"""Databases of shorter recordings: taken as they are."""
FLOAT_LAYERS = ("to64", "beats", "waves", "rhythm")
"""The first convolution, whose inputs are squashed signals that 8 bits blur, and the last ones, which give logits."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether int8 is shipped, and why."""

    ships: bool
    reason: str


def decide(speed_up: float, losses: dict[str, float], *, same_bits: bool) -> Verdict:
    """Return whether int8 weights may be shipped.

    speed_up   ECG-seconds per CPU-second over those of fp32, one thread
    losses     points of F1 lost on validation, by name
    same_bits  long windows gave the bits of short ones
    """
    if speed_up < MIN_SPEED_UP:
        return Verdict(False, f"not shipped: {speed_up:.2f} times the speed of fp32, {MIN_SPEED_UP} are wanted")
    lost = {name: loss for name, loss in losses.items() if loss > MAX_LOSS}
    if lost:
        told = ", ".join(f"{name} {loss:.2f}" for name, loss in lost.items())
        return Verdict(False, f"not shipped: points of F1 lost on validation: {told}; at most {MAX_LOSS} may be")
    if not same_bits:
        return Verdict(False, "not shipped: a long window changes bits, live and batch readings would differ")
    return Verdict(True, f"shipped: {speed_up:.2f} times the speed of fp32, no F1 loss above {MAX_LOSS} points")


class Windows:
    """Calibration windows as ONNX Runtime's calibrator wants them: one feed per call, None at the end."""

    def __init__(self, windows: Sequence[NDArray[np.float32]]) -> None:
        self._left: Iterator[NDArray[np.float32]] = iter(windows)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next feed."""
        window = next(self._left, None)
        return None if window is None else {"ecg": window}


def training_windows(count: int = WINDOWS, seed: int = 5) -> list[NDArray[np.float32]]:
    """Return windows [1, lead, time] of training records only, one or two leads, as the gateway would feed them."""
    rng = np.random.default_rng(seed)
    out = []
    for db in DATABASES:
        records = [record for record in load(db, "train") if record.seconds >= WINDOW_S or db in SHORT]
        for _ in range(count // len(DATABASES)):
            record = records[rng.integers(len(records))]
            seconds = min(WINDOW_S, record.seconds)
            start = int(rng.integers(record.seconds - seconds + 1)) * MODEL_FS_HZ
            leads = record.ecg.shape[0] if rng.random() < 0.5 else 1
            out.append(record.ecg[None, :leads, start : start + seconds * MODEL_FS_HZ].astype(np.float32))
    return out


def quantize(source: Path, target: Path, windows: Sequence[NDArray[np.float32]], **changed: Any) -> None:
    """Write the int8 form of an exported encoder; `changed` overrides options of `quantize_static`."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = Path(folder) / "plain.onnx"
        quant_pre_process(str(source), str(plain), skip_symbolic_shape=True)
        nodes = onnx.load(str(plain)).graph.node
        kept = [node.name for node in nodes if node.op_type == "Conv" and _is_float(node.name)]
        options: dict[str, Any] = {
            "quant_format": QuantFormat.QDQ,
            "op_types_to_quantize": ["Conv", "Add", "Relu"],
            "per_channel": True,
            "activation_type": QuantType.QUInt8,
            "weight_type": QuantType.QInt8,
            "calibrate_method": CalibrationMethod.MinMax,
            "nodes_to_exclude": kept,
        } | changed
        quantize_static(str(plain), str(target), Windows(windows), **options)


def _is_float(name: str) -> bool:
    return any(f"/{layer}/" in name for layer in FLOAT_LAYERS)


def speed(encoder: Encoder, seconds: int = 136, repeats: int = 5) -> float:
    """Return ECG-seconds of one lead per CPU-second, in the windows of a batch reading (120 s and their margins)."""
    ecg = np.random.default_rng(0).normal(0, 0.2, (2, 1, seconds * MODEL_FS_HZ)).astype(np.float32)
    encoder.run(ecg)
    best_s = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        encoder.run(ecg)
        best_s = min(best_s, time.process_time() - began)
    return float(ecg.shape[0] * seconds / best_s)


def apart(one: Encoder, other: Encoder, windows: Sequence[NDArray[np.float32]]) -> dict[str, dict[str, float]]:
    """Return mean and largest absolute difference of each output."""
    gaps: dict[str, list[NDArray[np.float32]]] = {name: [] for name in OUTPUTS}
    for window in windows:
        a, b = one.run(window), other.run(window)
        for name in OUTPUTS:
            gaps[name].append(np.abs(getattr(a, name) - getattr(b, name)).ravel())
    joined = {name: np.concatenate(parts) for name, parts in gaps.items()}
    return {name: {"mean": float(gap.mean()), "max": float(gap.max())} for name, gap in joined.items()}


def validation_f1(encoder: Encoder) -> dict[str, float]:
    """Return F1 in per cent of QRS, V and S on the validation records of mitdb and svdb, one lead."""
    from export.evaluate import beats as ec57
    from export.evaluate.report import beat_figures

    out: dict[str, float] = {}
    for db in ("mitdb", "svdb"):
        gross = beat_figures(encoder, db, "validation", (0,), ec57.SKIP_S)["gross"]
        out |= {f"{db} {name}": float(gross[name]["f1"]) for name in ("qrs", "V", "S")}
    return out


def measure(fp32: Encoder, int8: Encoder) -> dict[str, Any]:
    """Return speed, differences, validation figures of both, and whether long windows keep the bits of int8."""
    fast, slow = speed(int8), speed(fp32)
    figures = {"fp32": validation_f1(fp32), "int8": validation_f1(int8)}
    stride = choose_stride(int8)
    return {
        "ecg_s_per_cpu_s": {"fp32": round(slow), "int8": round(fast)},
        "speed_up": round(fast / slow, 2),
        "validation_f1": figures,
        "difference": apart(fp32, int8, training_windows(8, seed=9)),
        "same_bits": stride.hops > 1 and choose_stride(int8, leads=2).hops > 1,
        "stride": stride.reason,
    }


def card_of(source: Card, target: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Return the card of the int8 weights: the checkpoint of its fp32 source, its own hash and measurements."""
    facts = {name: value for name, value in source.facts.items() if name != "metrics"}
    return facts | {
        "file": target.name,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "precision": "int8",
        "quantization": found,
        "metrics": {f"validation {name} f1": value for name, value in found["validation_f1"]["int8"].items()},
        "limits": [*facts["limits"], "int8: measured on validation records only; the test figures are those of fp32."],
    }


def main() -> None:
    """Quantize, measure, decide; without `--out` the files go beside the source card if they pass."""
    parser = argparse.ArgumentParser(prog="python -m export.quantize", description=__doc__)
    parser.add_argument("--card", type=Path, default=None, help="card of the fp32 weights; default: the shipped one")
    parser.add_argument("--out", type=Path, default=None, help="folder for the files, whether they pass or not")
    given = parser.parse_args()
    source = Card.load(given.card)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"{source.weights.stem}-int8.onnx"
        quantize(source.weights, weights, training_windows())
        draft = weights.with_suffix(".json")
        facts = card_of(source, weights, {"validation_f1": {"int8": {}}})
        draft.write_text(json.dumps(facts), encoding="utf-8")
        found = measure(Encoder(source, provider="cpu"), Encoder(Card.load(draft), provider="cpu"))
        both = found["validation_f1"]
        losses = {name: both["fp32"][name] - both["int8"][name] for name in both["fp32"] if not name.endswith(" S")}
        verdict = decide(found["speed_up"], losses, same_bits=found["same_bits"])
        print(json.dumps(found | {"bytes": weights.stat().st_size}, indent=1))
        print(verdict.reason)
        out = given.out or (source.path.parent if verdict.ships else None)
        if out is None:
            return
        out.mkdir(parents=True, exist_ok=True)
        target = out / weights.name
        target.write_bytes(weights.read_bytes())
        text = json.dumps(card_of(source, target, found), indent=2, ensure_ascii=False)
        target.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
