"""Localisation questions ("where is the PVC?") answered from the encoder's beats: what the assistant is measured by.

A question file is a list of `db, record, start_sample, end_sample, label, spans` (seconds from `start_sample`); the
span of a beat runs from the beat before it to the beat after it, clipped to the clip, overlaps merged, to 0.1 s.
Scored as the anyECG paper does: intersection over union of the time covered; where nothing is to be found, finding
nothing is 1. Signals come from `$ECG_DATA/<db>/<record>`, all leads.

Two ways of reading: the clip alone, which is what a language model would be shown, and the clip within its recording,
which is what the gateway has. Names of leads help to tell the bundle branches apart (`edge.rhythm.conduction`), so the
recording is also read without them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edge.assistant.questions import NEEDED
from edge.assistant.questions import load_questions as load
from edge.encoder.session import Encoder
from edge.rhythm.events import Beat
from edge.rhythm.rules import Rules
from export.datasets.reader import digital, lead_names
from export.evaluate.reading import fold, read_samples, score

LABELS = {"PVC": ("type", "V"), "SVPB": ("type", "S"), "LBBB": ("morphology", "LBBB"), "RBBB": ("morphology", "RBBB")}
"""Label of a question → which attribute of a beat must have which value."""

Spans = list[tuple[float, float]]


def load_questions(path: Path) -> list[dict[str, Any]]:
    """Read a question file with its answers. Raises `BadInputError` if it is none."""
    return load(path, LABELS, (*NEEDED, "spans"))


def spans_of(beats: Sequence[Beat], label: str, first: int, end: int, fs_hz: float) -> Spans:
    """Return where a label lies within samples [first, end), in seconds from `first`.

    `beats` are those of the recording or of the clip, ascending. A beat at the edge reaches to the edge.
    """
    attribute, value = LABELS[label]
    spans: Spans = []
    for n, beat in enumerate(beats):
        if not first <= beat.sample < end or getattr(beat, attribute) != value:
            continue
        before = beats[n - 1].sample if n > 0 else first
        after = beats[n + 1].sample if n + 1 < len(beats) else end
        start_s = round((max(before, first) - first) / fs_hz, 1)
        end_s = round((min(after, end) - first) / fs_hz, 1)
        if spans and start_s <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end_s))
        else:
            spans.append((start_s, end_s))
    return spans


def iou(reference: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> float:
    """Return the intersection over union of two sets of intervals; 1 if both are empty."""
    if not reference and not found:
        return 1.0
    edges = sorted({edge for span in (*reference, *found) for edge in span})
    both = either = 0.0
    for start, end in pairwise(edges):
        middle = (start + end) / 2
        in_reference = any(a <= middle < b for a, b in reference)
        in_found = any(a <= middle < b for a, b in found)
        both += (end - start) * (in_reference and in_found)
        either += (end - start) * (in_reference or in_found)
    return both / either if either else 0.0


def answer(encoder: Encoder, questions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Answer every question both ways and return mean IoU per label, with the controls."""
    by_record: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for one in questions:
        by_record[one["db"], one["record"]].append(one)
    scores: dict[str, list[tuple[str, bool, float]]] = defaultdict(list)
    for (db, record), asked in by_record.items():
        samples, uv_per_lsb, fs_hz = digital(db, record)
        leads = lead_names(db, record)
        hops = list(score(encoder, samples, uv_per_lsb, fs_hz))
        whole = fold(hops, samples.shape[1], fs_hz, Rules(), leads).marks
        unnamed = fold(hops, samples.shape[1], fs_hz, Rules()).marks
        for one in asked:
            first, end, label = one["start_sample"], one["end_sample"], one["label"]
            clip = read_samples(encoder, samples[:, first:end], uv_per_lsb, fs_hz, Rules(), leads).marks
            length_s = round((end - first) / fs_hz, 1)
            answers = {
                "within its recording": spans_of(whole, label, first, end, fs_hz),
                "the same, leads without names": spans_of(unnamed, label, first, end, fs_hz),
                "clip alone": spans_of(clip, label, 0, end - first, fs_hz),
                "control: whole clip": [(0.0, length_s)],
                "control: nothing": [],
            }
            for way, spans in answers.items():
                scores[way].append((label, bool(one["spans"]), iou(one["spans"], spans)))
    return {"questions": len(questions), "iou": {way: _means(told) for way, told in scores.items()}}


def _means(told: Sequence[tuple[str, bool, float]]) -> dict[str, dict[str, float | None]]:
    def mean(values: Sequence[float]) -> float | None:
        return round(100 * float(np.mean(values)), 1) if values else None

    out = {}
    for name in LABELS:
        of_label = [(positive, score) for label, positive, score in told if label == name]
        out[name] = {
            "all": mean([score for _, score in of_label]),
            "positives": mean([score for positive, score in of_label if positive]),
            "negatives": mean([score for positive, score in of_label if not positive]),
        }
    macro: dict[str, float | None] = {}
    for part in ("all", "positives", "negatives"):
        known = [score for one in out.values() if (score := one[part]) is not None]
        macro[part] = round(float(np.mean(known)), 1) if known else None
    return out | {"macro": macro}


def table(found: Mapping[str, Any]) -> str:
    """Return mean IoU in per cent as a Markdown table."""
    names = (*LABELS, "macro")
    lines = [
        f"{found['questions']} questions on DS2, all leads; mean interval IoU in per cent, all / positives only.",
        "",
        f"| answered from | {' | '.join(names)} |",
        f"|{' --- |' * (len(names) + 1)}",
    ]
    for way, means in found["iou"].items():
        cells = " | ".join(f"{_show(means[name]['all'])} / {_show(means[name]['positives'])}" for name in names)
        lines.append(f"| {way} | {cells} |")
    return "\n".join(lines)


def _show(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
