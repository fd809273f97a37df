"""What was wanted and what was reached, side by side, from the JSON files of the other parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Found = Mapping[str, Any]


def load(docs: Path) -> dict[str, Any]:
    """Return what each part wrote last; parts that were never run are missing."""
    parts = {"figures": "encoder.json"} | {
        name: f"encoder-{name}.json" for name in ("waves", "folds", "localisation", "speed", "calibration")
    }
    return {
        name: json.loads((docs / file).read_text(encoding="utf-8"))
        for name, file in parts.items()
        if (docs / file).exists()
    }


def rows(found: Found) -> list[tuple[str, str, str, bool | None]]:
    """Return (what, goal, reached, whether) of every goal; "not measured" and None where its part is missing."""
    out: list[tuple[str, str, str, bool | None]] = []
    for what, goal, wanted, values in GOALS:
        try:
            reached = values(found)
        except (KeyError, TypeError):
            out.append((what, goal, "not measured", None))
            continue
        met = all(value is not None and test(value) for value, test in zip(reached, wanted, strict=True))
        out.append((what, goal, " / ".join("–" if value is None else f"{value:,}" for value in reached), met))
    return out


def table(found: Found) -> str:
    """Return the goals as a Markdown table."""
    lines = ["| what | goal | reached | |", "| --- | --- | --- | --- |"]
    signs = {True: "met", False: "not met", None: ""}
    return "\n".join([*lines, *(f"| {what} | {goal} | {got} | {signs[met]} |" for what, goal, got, met in rows(found))])


def _least(value: float) -> Callable[[float], bool]:
    return lambda got: got >= value


def _most(value: float) -> Callable[[float], bool]:
    return lambda got: got <= value


def _beats(found: Found, name: str, kind: str, rate: str, *, without_232: bool = False) -> float:
    part = "gross_without_232" if without_232 else "gross"
    return float(found["figures"][name][part][kind][rate])


def _gain(found: Found, kind: str) -> float:
    """Return F1 of two leads minus F1 of the better single one, on DS2 without 232."""
    one, other, two = (
        _beats(found, name, kind, "f1", without_232=True) for name in ("mitdb", "mitdb_second_lead", "mitdb_two_leads")
    )
    return round(two - max(one, other), 2)


def _wave(found: Found, wave: str, key: str, form: str = "single") -> list[float]:
    return [found["waves"][form][f"{wave} {edge}"][key] for edge in ("onset", "offset")]


def _em(found: Found, snr: str, kind: str, rate: str) -> float:
    return float(found["figures"]["noise"][snr][kind][rate])


GOALS: tuple[tuple[str, str, tuple[Callable[[float], bool], ...], Callable[[Found], list[float]]], ...] = (
    (
        "QRS Se / PPV, DS2, one lead",
        "≥ 99.95 / ≥ 99.95",
        (_least(99.95),) * 2,
        lambda f: [_beats(f, "mitdb", "qrs", rate) for rate in ("se", "ppv")],
    ),
    ("V F1, DS2", "≥ 98", (_least(98),), lambda f: [_beats(f, "mitdb", "V", "f1")]),
    (
        "S F1, DS2 without 232 / gross",
        "≥ 75 / ≥ 50",
        (_least(75), _least(50)),
        lambda f: [_beats(f, "mitdb", "S", "f1", without_232=True), _beats(f, "mitdb", "S", "f1")],
    ),
    (
        "S / V F1, svdb test records",
        "≥ 75 / ≥ 92",
        (_least(75), _least(92)),
        lambda f: [_beats(f, "svdb", kind, "f1") for kind in ("S", "V")],
    ),
    (
        "AF: seconds F1 DS2 without 232 / cinc2017 records F1",
        "≥ 97 / ≥ 90",
        (_least(97), _least(90)),
        lambda f: [_beats(f, "mitdb", "af_seconds", "f1", without_232=True), f["figures"]["cinc2017"]["af"]["f1"]],
    ),
    (
        "VT, VF seconds Se at ≤ 1 false minute per hour / sinus specificity, cross-validated",
        "≥ 95 / ≥ 99.5",
        (_least(95), _least(99.5)),
        lambda f: [
            f["folds"]["ventricular"]["at_one_false_minute_per_hour"]["seconds"]["se"],
            f["folds"]["ventricular"]["at_one_false_minute_per_hour"]["sinus_specificity"],
        ],
    ),
    (
        "asystole called asystole / called VT or VF, % of seconds, cross-validated",
        "≥ 95 / ≤ 1",
        (_least(95), _most(1)),
        lambda f: [f["folds"]["asystole"][key] for key in ("called_asystole", "called_vt_vf")],
    ),
    (
        "paced seconds Se, leaving one record out",
        "≥ 90",
        (_least(90),),
        lambda f: [f["folds"]["paced"]["gross"]["se"]],
    ),
    (
        "electrode motion 6 / 0 dB: QRS PPV",
        "≥ 99.5 / ≥ 97",
        (_least(99.5), _least(97)),
        lambda f: [_em(f, snr, "qrs", "ppv") for snr in ("6 dB", "0 dB")],
    ),
    ("electrode motion 6 dB: V F1", "≥ 90", (_least(90),), lambda f: [_em(f, "6 dB", "V", "f1")]),
    (
        "noisy records of cinc2017 flagged, F1",
        "≥ 75",
        (_least(75),),
        lambda f: [f["figures"]["cinc2017"]["noise"]["f1"]],
    ),
    (
        "LUDB folds, F1 within 150 ms: QRS on / off",
        "≥ 99",
        (_least(99),) * 2,
        lambda f: _wave(f, "QRS", "f1"),
    ),
    (
        "LUDB folds: P on / off, T on / off",
        "≥ 96",
        (_least(96),) * 4,
        lambda f: [*_wave(f, "P", "f1"), *_wave(f, "T", "f1")],
    ),
    (
        "LUDB folds: σ of QRS on / off, one lead, ms",
        "≤ 8",
        (_most(8),) * 2,
        lambda f: _wave(f, "QRS", "sd_ms"),
    ),
    (
        "the same, 12 leads at once",
        "≤ 8",
        (_most(8),) * 2,
        lambda f: _wave(f, "QRS", "sd_ms", "pooled"),
    ),
    (
        "localisation from frame scores, IoU, all / positives",
        "≥ 85 / ≥ 75",
        (_least(85), _least(75)),
        lambda f: [f["localisation"]["iou"]["within its recording"]["macro"][key] for key in ("all", "positives")],
    ),
    (
        "ECG-s per CPU-s, one thread, int8 / fp32",
        "≥ 10,000 / ≥ 4,500",
        (_least(10_000), _least(4_500)),
        lambda f: [f["speed"][name]["ecg_s_per_cpu_s"] for name in ("anyecg int8", "anyecg")],
    ),
    (
        "two leads of DS2 against the better one, F1 of QRS / V / S without 232",
        "never worse",
        (_least(0),) * 3,
        lambda f: [_gain(f, kind) for kind in ("qrs", "V", "S")],
    ),
    (
        "12 leads of LUDB against the best one, QRS F1",
        "never worse",
        (_least(0),),
        lambda f: [
            round(
                f["waves"]["qrs_by_r_peaks"]["pooled"]["f1"]
                - max(one["f1"] for one in f["waves"]["qrs_by_r_peaks"]["single"].values()),
                2,
            )
        ],
    ),
)
