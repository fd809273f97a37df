"""Delineation of LUDB: on and offsets of P, QRS and T within 150 ms, in each lead alone and in twelve leads at once.

Each fold's network has seen none of its records. An onset or offset is found if one of the same wave lies within
150 ms; the mean and the standard deviation are of the difference (found − annotated) of those found. Only the stretch
that the cardiologists annotated counts. With twelve leads the reference is the median over the leads of each wave that
at least half of them show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ
from edge.encoder.delineation import delineation
from edge.encoder.intervals import Span, spans
from edge.encoder.scoring import HopJob
from edge.encoder.session import Encoder
from edge.encoder.windows import hops_in
from edge.rhythm.rules import Rules
from export.datasets.folders import records_folder
from export.datasets.reader import digital
from export.datasets.splits import fold
from export.evaluate import beats as ec57
from export.evaluate.beats import Score, figures
from export.evaluate.bootstrap import intervals
from export.evaluate.reading import read_samples, samples_reader

WAVES = ("P", "QRS", "T")
EDGES = ("onset", "offset")
_SYMBOL = {"p": "P", "N": "QRS", "t": "T"}
_REACH_S = 0.15

Spans = dict[str, list[Span]]
"""Of each wave, in seconds."""


@dataclass(frozen=True, slots=True)
class Found:
    """One record, in one lead or in all: points found, missed, invented, and how far off the found ones are."""

    record: str
    fold: int
    scores: Mapping[tuple[str, str], Score]
    off_ms: Mapping[tuple[str, str], NDArray[np.float64]]
    qrs: Score
    """QRS complexes by the R peaks of the gateway, within 150 ms of an annotated one."""


def annotated(name: str, lead: str) -> Spans:
    """Return the waves of one lead as LUDB has them."""
    notes = wfdb.rdann(str(records_folder("ludb") / name), lead.lower())
    at = np.asarray(notes.sample) / 500.0
    out: Spans = {wave: [] for wave in WAVES}
    symbols = list(notes.symbol)
    for i in range(1, len(symbols) - 1):
        if symbols[i] in _SYMBOL and symbols[i - 1] == "(" and symbols[i + 1] == ")":
            out[_SYMBOL[symbols[i]]].append((float(at[i - 1]), float(at[i + 1])))
    return out


def common(each: Sequence[Spans]) -> Spans:
    """Return the median over leads of every wave that at least half of the leads show."""
    out: Spans = {}
    for wave in WAVES:
        every = np.array(sorted((span for one in each for span in one[wave]), key=sum)).reshape(-1, 2)
        middle = every.mean(axis=1)
        groups = np.split(every, np.flatnonzero(np.diff(middle) > _REACH_S) + 1) if every.size else []
        out[wave] = [
            (float(np.median(group[:, 0])), float(np.median(group[:, 1])))
            for group in groups
            if 2 * len(group) >= len(each)
        ]
    return out


def compare(reference: Spans, found: Spans) -> tuple[dict[tuple[str, str], Score], dict[tuple[str, str], Any]]:
    """Return counts and differences in ms of every onset and offset."""
    points = [point for wave in WAVES for span in reference[wave] for point in span]
    low, high = min(points), max(points)
    scores, off_ms = {}, {}
    for wave in WAVES:
        for side, edge in enumerate(EDGES):
            wanted = np.sort(np.array([span[side] for span in reference[wave]]))
            # a wave whose middle lies outside the annotated stretch was not looked at by the cardiologists
            given = np.sort(np.array([s[side] for s in found[wave] if low <= (s[0] + s[1]) / 2 <= high]))
            matched = ec57.pairs(wanted, given)
            scores[wave, edge] = Score(len(matched), wanted.size - len(matched), given.size - len(matched))
            off_ms[wave, edge] = np.array([1000 * (given[j] - wanted[i]) for i, j in matched])
    return scores, off_ms


def delineated(encoder: Encoder, samples: NDArray[np.int32], uv_per_lsb: Sequence[float], fs_hz: float) -> Spans:
    """Return the waves that the network sees in a recording, leads pooled."""
    hops = hops_in(fs_hz, samples.shape[1])
    probability = delineation(encoder, HopJob(samples_reader(samples), tuple(uv_per_lsb), fs_hz, 0, hops))
    return {wave: [(on / MODEL_FS_HZ, off / MODEL_FS_HZ) for on, off in spans(probability, wave)] for wave in WAVES}


def look(encoder: Encoder, name: str) -> tuple[list[Found], Found]:
    """Return what the network finds in every single lead, and in all at once."""
    samples, uv_per_lsb, fs_hz = digital("ludb", name)
    leads = wfdb.rdheader(str(records_folder("ludb") / name)).sig_name
    number = fold("ludb", name)
    assert number is not None
    each = [annotated(name, lead) for lead in leads]
    single = [
        _found(encoder, name, number, samples[[i]], uv_per_lsb[i : i + 1], fs_hz, reference)
        for i, reference in enumerate(each)
    ]
    return single, _found(encoder, name, number, samples, uv_per_lsb, fs_hz, common(each))


def _found(
    encoder: Encoder,
    name: str,
    number: int,
    samples: NDArray[np.int32],
    uv_per_lsb: Sequence[float],
    fs_hz: float,
    reference: Spans,
) -> Found:
    scores, off_ms = compare(reference, delineated(encoder, samples, uv_per_lsb, fs_hz))
    at_s = read_samples(encoder, samples, uv_per_lsb, fs_hz, Rules()).beats.at_s
    return Found(name, number, scores, off_ms, _qrs(reference["QRS"], at_s))


def _qrs(reference: Sequence[Span], at_s: NDArray[np.float64]) -> Score:
    """Score R peaks against the middles of annotated complexes, within the annotated stretch."""
    wanted = np.array([(on + off) / 2 for on, off in reference])
    given = at_s[(at_s >= wanted[0] - _REACH_S) & (at_s <= wanted[-1] + _REACH_S)] if wanted.size else at_s[:0]
    matched = ec57.pairs(wanted, given)
    return Score(len(matched), wanted.size - len(matched), given.size - len(matched))


def measure(models: Sequence[Encoder], names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of every fold and of all."""
    single: list[list[Found]] = []
    pooled: list[Found] = []
    for name in names:
        number = fold("ludb", name)
        assert number is not None
        alone, together = look(models[number], name)
        single.append(alone)
        pooled.append(together)
    leads = wfdb.rdheader(str(records_folder("ludb") / names[0])).sig_name
    by_lead = {lead: _total(one[i].qrs for one in single) for i, lead in enumerate(leads)}
    best = max(by_lead, key=lambda lead: by_lead[lead].f1)
    return {
        "records": len(names),
        "single": _summary([one for alone in single for one in alone]),
        "pooled": _summary(pooled),
        "folds": {
            number: {
                "single": _summary([one for alone in single for one in alone if one.fold == number]),
                "pooled": _summary([one for one in pooled if one.fold == number]),
            }
            for number in sorted({one.fold for one in pooled})
        },
        "qrs_by_r_peaks": {
            "single": {lead: figures(score) for lead, score in by_lead.items()},
            "best_single": best,
            "pooled": figures(_total(one.qrs for one in pooled)),
        },
    }


def _total(scores: Iterable[Score]) -> Score:
    return sum(scores, Score(0, 0, 0))


def _summary(found: Sequence[Found]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for wave in WAVES:
        for edge in EDGES:
            by_record: dict[str, Score] = {}
            for one in found:
                by_record[one.record] = by_record.get(one.record, Score(0, 0, 0)) + one.scores[wave, edge]
            off = np.concatenate([one.off_ms[wave, edge] for one in found])
            out[f"{wave} {edge}"] = figures(_total(by_record.values())) | {
                "f1_interval": intervals(by_record)["f1"],
                "mean_ms": round(float(off.mean()), 1) if off.size else None,
                "sd_ms": round(float(off.std()), 1) if off.size else None,
            }
    return out


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown tables."""
    lines = [
        f"{found['records']} records of LUDB, each read by the network of a fold that has not seen it; points within "
        "150 ms. In brackets the 95 % interval over patients; mean ± standard deviation of found − annotated in ms.",
        "",
        "| point | single lead F1 | mean ± σ | 12 leads at once F1 | mean ± σ |",
        "| --- | --- | --- | --- | --- |",
    ]
    for point, one in found["single"].items():
        cells = [cell for form in (one, found["pooled"][point]) for cell in (_f1(form), _off(form))]
        lines.append(f"| {point} | {' | '.join(cells)} |")
    lines += [
        "",
        "| fold | " + " | ".join(f"{wave} on / off F1, σ of both" for wave in WAVES) + " |",
        "|" + " --- |" * 4,
    ]
    for number, forms in found["folds"].items():
        cells = []
        for wave in WAVES:
            on, off = (forms["single"][f"{wave} {edge}"] for edge in EDGES)
            cells.append(f"{on['f1']} / {off['f1']}, {on['sd_ms']} / {off['sd_ms']} ms")
        lines.append(f"| {number}, single lead | {' | '.join(cells)} |")
    qrs = found["qrs_by_r_peaks"]
    best = qrs["single"][qrs["best_single"]]
    lines += [
        "",
        f"QRS by R peaks, Se / PPV: best single lead {qrs['best_single']} {best['se']} / {best['ppv']}, 12 leads at "
        f"once {qrs['pooled']['se']} / {qrs['pooled']['ppv']}; every lead: "
        + ", ".join(f"{lead} {one['f1']}" for lead, one in qrs["single"].items())
        + " (F1).",
    ]
    return "\n".join(lines)


def _f1(one: Mapping[str, Any]) -> str:
    ends = one["f1_interval"]
    return f"{one['f1']}" + ("" if ends is None else f" ({ends[0]}–{ends[1]})")


def _off(one: Mapping[str, Any]) -> str:
    return "–" if one["sd_ms"] is None else f"{one['mean_ms']:+.1f} ± {one['sd_ms']}"
