"""How far a figure could lie from what other patients would give: percentile intervals over resampled records.

After Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: records (patients) are drawn with
replacement, their counts summed, the figure computed from the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.evaluate.beats import Score

DRAWS = 2_000
LEVEL = 95.0


def intervals(each: Mapping[str, Score], *, draws: int = DRAWS, seed: int = 0) -> dict[str, list[float] | None]:
    """Return the 95 % interval of se, ppv and f1 in per cent over records; None where fewer than half are defined."""
    counts = np.array([[score.tp, score.fn, score.fp] for score in each.values()], dtype=np.float64).reshape(-1, 3)
    if not len(counts):
        return dict.fromkeys(("se", "ppv", "f1"))
    rng = np.random.default_rng(seed)
    tp, fn, fp = counts[rng.integers(0, len(counts), (draws, len(counts)))].sum(axis=1).T
    rates = {"se": (tp, tp + fn), "ppv": (tp, tp + fp), "f1": (2 * tp, 2 * tp + fn + fp)}
    out: dict[str, list[float] | None] = {}
    for name, (above, below) in rates.items():
        known = below > 0
        values = 100 * above[known] / below[known]
        edge = (100 - LEVEL) / 2
        is_defined = known.sum() > draws / 2
        out[name] = [round(float(x), 2) for x in np.percentile(values, [edge, 100 - edge])] if is_defined else None
    return out


def interval(counts: Sequence[tuple[int, int]], *, draws: int = DRAWS, seed: int = 0) -> list[float] | None:
    """Return the 95 % interval of a share in per cent from (part, whole) of every record; None without any."""
    each = {str(n): Score(part, whole - part, 0) for n, (part, whole) in enumerate(counts)}
    return intervals(each, draws=draws, seed=seed)["se"]


def headline(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the intervals for the sets of `export.evaluate.report.evaluate`."""
    out: dict[str, Any] = {}
    for name, one in figures.items():
        if not (isinstance(one, Mapping) and "per_record" in one and "gross" in one):
            continue
        kinds = [kind for kind in one["gross"] if kind != "matrix"]
        for label in ("gross", "gross_without_232"):
            if label not in one and label != "gross":
                continue
            each = {
                kind: {
                    record: Score(*(told[kind][key] for key in ("tp", "fn", "fp")))
                    for record, told in one["per_record"].items()
                    if kind in told and not (label != "gross" and record == "232")
                }
                for kind in kinds
            }
            out[f"{name} {label}"] = {kind: intervals(scores) for kind, scores in each.items() if scores}
    for snr, one in figures.get("noise", {}).items():
        if snr != "records":
            out[f"noise {snr}"] = {kind: one[kind]["interval"] for kind in ("qrs", "V")}
    if "cinc2017" in figures:
        out["cinc2017 records"] = {kind: figures["cinc2017"][kind]["interval"] for kind in ("af", "noise")}
    return out
