"""What the rhythm engine says of a label, in seconds of the recording: laid beside the model's reading, never in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from edge.analyze import Analysis
from edge.assistant.wording import Span, merge
from edge.rhythm.events import Beat

BEATS = {
    "PVC": ("type", "V"),
    "SVPB": ("type", "S"),
    "LBBB": ("morphology", "LBBB"),
    "RBBB": ("morphology", "RBBB"),
    "paced": ("morphology", "paced"),
}
"""Label → which attribute of a beat must have which value."""
RULES = {"AF": "af", "VT": "vt", "bigeminy": "bigeminy", "pause": "pause"}
"""Label → rule of the findings."""


def engine_spans(analysis: Analysis, label: str) -> list[Span]:
    """Return the engine's spans of a label, in order, merged, to 0.1 s."""
    fs_hz, end = analysis.record.fs_hz, analysis.record.n
    if label in BEATS:
        return beat_spans(analysis.beats, label, 0, end, fs_hz)
    if label == "noise":
        edges = [*analysis.signals, (end, "")]
        found = [(a, b) for (a, state), (b, _) in pairwise(edges) if state == "unreadable"]
    else:
        found = [(f.start_sample, f.end_sample) for f in analysis.findings if f.rule == RULES[label]]
    return merge([(round(a / fs_hz, 1), round(b / fs_hz, 1)) for a, b in found])


def beat_spans(beats: Sequence[Beat], label: str, first: int, end: int, fs_hz: float) -> list[Span]:
    """Return where a label lies within samples [first, end), in seconds from `first`: previous beat to next beat.

    `beats` are those of the recording or of the clip, ascending. A beat at the edge reaches to the edge.
    """
    attribute, value = BEATS[label]
    spans: list[Span] = []
    for n, beat in enumerate(beats):
        if not first <= beat.sample < end or getattr(beat, attribute) != value:
            continue
        before = beats[n - 1].sample if n > 0 else first
        after = beats[n + 1].sample if n + 1 < len(beats) else end
        spans.append((round((max(before, first) - first) / fs_hz, 1), round((min(after, end) - first) / fs_hz, 1)))
    return merge(spans)
