"""What knowing the wearer brings: beats with and without `rules.wearer`, on clean and on noisy records, and its cost.

Validation decides whether it is switched on: it must find more V and S, and may cost nothing in noise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge.encoder.session import Encoder
from edge.rhythm.rules import Rules
from edge.rhythm.session import RhythmSession
from export.datasets.reader import digital, names
from export.datasets.splits import Part
from export.evaluate import beats as ec57
from export.evaluate.beats import figures
from export.evaluate.noise import noisy_counts
from export.evaluate.reading import score
from export.evaluate.report import beat_figures

_KINDS = ("qrs", "V", "S")


def rules(*, on: bool) -> Rules:
    """Return the default rules, or with the wearer's weighing switched off."""
    default = Rules()
    return default if on else default.override({"wearer": {"encoder_weight": 1, "own_weight": 0}})


def measure(encoder: Encoder) -> dict[str, Any]:
    """Return figures without and with, on validation and test records, in 6 dB of electrode motion, and the cost."""
    out: dict[str, Any] = {}
    parts: tuple[Part, ...] = ("validation", "test")
    for part in parts:
        out[part] = {"without": _figures(encoder, part, on=False), "with": _figures(encoder, part, on=True)}
    return out | {"cost": cost(encoder)}


def _figures(encoder: Encoder, part: Part, *, on: bool) -> dict[str, Any]:
    chosen = rules(on=on)
    out: dict[str, Any] = {}
    for name, db, leads in (("mitdb", "mitdb", (0,)), ("mitdb two leads", "mitdb", (0, 1)), ("svdb", "svdb", (0,))):
        found = beat_figures(encoder, db, part, leads, ec57.SKIP_S, chosen)
        gross = found["gross_without_232" if "gross_without_232" in found else "gross"]
        out[name] = {kind: gross[kind] for kind in _KINDS}
    mitdb = names("mitdb", part)[:: 2 if part == "test" else 1]
    each = noisy_counts(encoder, 6, mitdb, part=part, rules=chosen)
    total = sum((counts for counts, _ in each.values()), np.zeros((ec57.NONE + 1, ec57.NONE + 1), dtype=np.int64))
    out["mitdb 6 dB"] = {
        "qrs": figures(ec57.qrs(total)),
        "V": figures(ec57.ventricular(total)),
        "S": figures(ec57.supraventricular(total)),
    }
    return out


def cost(encoder: Encoder, record: str = "200", seconds: int = 600) -> dict[str, float]:
    """Return CPU-ms that the rhythm session needs for ten minutes of a record, the least of five, without and with."""
    samples, uv_per_lsb, fs_hz = digital("mitdb", record)
    hops = list(score(encoder, samples[:1, : int(seconds * fs_hz)], uv_per_lsb[:1], fs_hz))
    out = {"without_ms": np.inf, "with_ms": np.inf}
    for _ in range(5):
        for name, on in (("without_ms", False), ("with_ms", True)):
            session = RhythmSession("cost", fs_hz, ["unknown"], rules(on=on))
            began = time.process_time()
            for hop in hops:
                session.feed(hop)
            out[name] = min(out[name], 1000 * (time.process_time() - began))
    return {name: round(float(value), 1) for name, value in out.items()}


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "F1 in per cent, without → with; DS2 without record 232.",
        "",
        "| records | QRS | V | S |",
        "| --- | --- | --- | --- |",
    ]
    for part in ("validation", "test"):
        for name, without in found[part]["without"].items():
            with_ = found[part]["with"][name]
            cells = (f"{without[kind]['f1']} → {with_[kind]['f1']}" for kind in _KINDS)
            lines.append(f"| {part}, {name} | {' | '.join(cells)} |")
    cost_ = found["cost"]
    more = 100 * (cost_["with_ms"] / cost_["without_ms"] - 1)
    return "\n".join([
        *lines,
        "",
        f"Cost: {cost_['without_ms']} → {cost_['with_ms']} CPU-ms for ten minutes of record 200 in the rhythm session "
        f"({more:+.0f} %).",
    ])  # fmt: skip
