"""Tools that go to the signal: strips, what looks alike, and the language model reading clips through soft tokens.

Over hours the model does not read everything: clips of at most `CLIP_S` are taken around what the rhythm engine found
and around what looks like it, in order of time, and what is read is put together in absolute times. Where model and
engine disagree both are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.assistant.find import beat_times, event, findings
from edge.assistant.labels import ANY, BEAT_LABELS, EVENT_LABELS
from edge.assistant.localtime import NS
from edge.assistant.period import Period
from edge.assistant.plan import SPAN
from edge.assistant.result import MAX_CITATIONS, MAX_ITEMS, Fact, Result, Scope, span
from edge.chunk import MISSING
from edge.report.similar import HOP_NS, nearest
from edge.store import queries, waveform

STRIP_S = 10
CLIP_S = 60
LEAST_S = 1.0
MAX_CLIPS = 30
"""Clips read for one question: half an hour of signal."""
MARGIN_S = 5
SHOWN_PLACES = 8
NO_EYES = "the language model that is installed cannot look at signal"


@dataclass(frozen=True, slots=True)
class Clip:
    """At most `CLIP_S` of one recording."""

    start_ns: int
    signal_mv: NDArray[np.float32]
    """[leads, n], NaN where nothing was recorded."""
    fs_hz: float
    leads: tuple[str, ...]


def strip(result: Result, scope: Scope) -> None:
    """Where a strip of the event, or of the middle of the period, lies; who asks draws it from there."""
    at = _place(result, scope)
    if at is None:
        return
    start_ns, seconds = at
    result.facts |= {"start": Fact("utc", start_ns), "seconds": Fact("duration_s", float(seconds))}
    result.citations = [*result.citations, span(start_ns, start_ns + round(seconds * NS))]


def describe(result: Result, scope: Scope) -> None:
    """What the model sees in the event, or in the middle of the period."""
    at = _place(result, scope)
    if at is None:
        return
    start_ns, seconds = at
    result.citations = [*result.citations, span(start_ns, start_ns + round(seconds * NS))]
    result.facts |= {"start": Fact("utc", start_ns), "seconds": Fact("duration_s", float(seconds))}
    if scope.eyes is None:
        result.missing = NO_EYES
        return
    clips = clips_of(scope, start_ns, start_ns + round(seconds * NS))
    if not clips:
        result.missing = "nothing was recorded there"
        return
    result.source = "model"
    result.facts["seen"] = Fact("text", scope.eyes.describe(clips[0].signal_mv, clips[0].fs_hz, clips[0].leads))


def _place(result: Result, scope: Scope) -> tuple[int, int] | None:
    """Return (start, seconds) of what is to be shown; None, with a count of nothing, where there is no such event."""
    label, which = result.step.args["label"], result.step.args["which"]
    if which == SPAN:
        long = result.period.end_ns - result.period.start_ns
        if long <= 3600 * NS:
            middle = result.period.start_ns + long // 2
        else:
            spans = queries.recorded_spans(scope.conn, scope.wearer, result.period.start_ns, result.period.end_ns)
            middle = spans[-1][1] - STRIP_S * NS if spans else result.period.start_ns + long // 2
        return middle - STRIP_S * NS // 2, STRIP_S
    found = event(scope, which, label, result.period)
    result.facts["count"] = Fact("count", 0 if found is None else 1)
    if found is None:
        return None
    result.facts |= {
        "rule": Fact("text", found["rule"]),
        "onset": Fact("utc", found["start_ns"]),
        "duration": Fact("duration_s", (found["end_ns"] - found["start_ns"]) / NS),
    }
    if found["id"]:
        result.citations = [{"event": found["id"]}]
    seconds = min(max(STRIP_S, round((found["end_ns"] - found["start_ns"]) / NS) + 4), CLIP_S)
    return found["start_ns"] - (2 if seconds > STRIP_S else 5) * NS, seconds


def clips_of(scope: Scope, start_ns: int, end_ns: int) -> list[Clip]:
    """Return what was recorded in [start_ns, end_ns), cut into clips of at most `CLIP_S`."""
    clips = []
    for recording in queries.recordings(scope.conn, scope.wearer):
        for first, last in recording.sample_spans(start_ns, end_ns):
            length = round(CLIP_S * recording.fs_hz)
            for at in range(first, last, length):
                samples = waveform.read(scope.conn, recording.id, at, min(at + length, last)).samples
                signal = np.where(samples == MISSING, np.nan, samples).astype(np.float32)
                signal *= np.array(recording.uv_per_lsb, np.float32)[:, None] / 1000
                if np.isfinite(signal).any():
                    clips.append(Clip(recording.to_utc_ns(at), signal, recording.fs_hz, recording.leads))
    return sorted(clips, key=lambda clip: clip.start_ns)


def localize(result: Result, scope: Scope) -> None:
    """Spans in which the model sees a label, over hours, beside what the rhythm engine found there."""
    label = result.step.args["label"]
    if scope.eyes is None:
        result.missing = NO_EYES
        return
    engine = _engine_spans(scope, label, result.period)
    windows, everything = _windows(result, scope, engine)
    seen: list[tuple[int, int]] = []
    read_s = 0.0
    for start_ns, end_ns in windows:
        for clip in clips_of(scope, start_ns, end_ns):
            if clip.signal_mv.shape[1] < LEAST_S * clip.fs_hz:  # what a gap left over; the model reads from 1 s on
                continue
            read_s += clip.signal_mv.shape[1] / clip.fs_hz
            for a, b in scope.eyes.localize(clip.signal_mv, clip.fs_hz, clip.leads, label):
                if 0 <= a < b <= clip.signal_mv.shape[1] / clip.fs_hz + 1:
                    seen.append((clip.start_ns + round(a * NS), clip.start_ns + round(b * NS)))
    merged = queries.merge(seen)
    theirs = [s for s in queries.merge(engine) if _touches(s, windows)]
    agreed = [s for s in theirs if _touches(s, merged)]
    result.source = "model"
    result.facts |= {
        "count": Fact("count", len(merged)),
        "read": Fact("duration_s", read_s),
        "whole": Fact("text", "all" if everything else "part"),
        "engine": Fact("count", len(theirs)),
        "agreed": Fact("count", len(agreed)),
        "model_only": Fact("count", sum(not _touches(s, theirs) for s in merged)),
        "engine_only": Fact("count", len(theirs) - len(agreed)),
    }
    result.items = [
        {
            "start": Fact("utc", a),
            "end": Fact("utc", b),
            "duration": Fact("duration_s", (b - a) / NS),
            "engine": Fact("text", "agrees" if _touches((a, b), engine) else "did not find it"),
        }
        for a, b in merged[:MAX_ITEMS]
    ]
    result.citations = [span(a, b) for a, b in merged[:MAX_CITATIONS]]


def _engine_spans(scope: Scope, label: str, period: Period) -> list[tuple[int, int]]:
    """Return what the rhythm engine found of a label, beats with half a second on both sides."""
    if label in BEAT_LABELS:
        return [(at - NS // 2, at + NS // 2) for at in beat_times(scope, label, period)]
    rule = "unreadable" if label == "noise" else label
    if rule not in EVENT_LABELS:
        return []
    return [(row["start_ns"], row["end_ns"]) for row in findings(scope, rule, period)]


def _windows(result: Result, scope: Scope, engine: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], bool]:
    """Return the spans the model reads, and whether they are the whole period."""
    period = result.period
    if period.end_ns - period.start_ns <= MAX_CLIPS * CLIP_S * NS:
        return [(period.start_ns, period.end_ns)], True
    around = [(a - MARGIN_S * NS, min(b, a + CLIP_S * NS) + MARGIN_S * NS) for a, b in engine]
    for row in findings(scope, result.step.args["label"], period)[:3] if _has_events(result) else []:
        around += [(at, at + HOP_NS + 2 * MARGIN_S * NS) for at, _ in _alike(scope, row, period)]
    clipped = [(max(a, period.start_ns), min(b, period.end_ns)) for a, b in around]
    return queries.merge(clipped)[:MAX_CLIPS], False


def _has_events(result: Result) -> bool:
    label = result.step.args["label"]
    return label in EVENT_LABELS and label != ANY


def _touches(one: tuple[int, int], others: list[tuple[int, int]]) -> bool:
    return any(one[0] < b and a < one[1] for a, b in others)


def similar(result: Result, scope: Scope) -> None:
    """The places in the period that look most like the event, by the distance of embeddings."""
    found = event(scope, result.step.args["which"], result.step.args["label"], result.period)
    result.facts["count"] = Fact("count", 0 if found is None else 1)
    if found is None:
        return
    result.facts |= {"rule": Fact("text", found["rule"]), "onset": Fact("utc", found["start_ns"])}
    places = _alike(scope, found, result.period)
    if not places:
        result.missing = "there are no embeddings to compare"
        return
    result.facts["places"] = Fact("count", len(places))
    for at_ns, score in places:
        there = findings(scope, ANY, Period("", at_ns, at_ns + HOP_NS))
        shortest = min(there, key=lambda row: row["end_ns"] - row["start_ns"], default=None)
        rules = "no event" if shortest is None else shortest["rule"]
        result.items.append(
            {"start": Fact("utc", at_ns), "likeness": Fact("share", score), "event": Fact("text", rules)}
        )
    result.citations = [{"event": found["id"]}] if found["id"] else []
    result.citations += [span(at_ns, at_ns + HOP_NS) for at_ns, _ in places]


def _alike(scope: Scope, row: dict[str, Any], period: Period) -> tuple[tuple[int, float], ...]:
    for recording in queries.recordings(scope.conn, scope.wearer):
        spans = recording.sample_spans(row["start_ns"], max(row["end_ns"], row["start_ns"] + NS))
        if spans:
            around = (period.start_ns, period.end_ns)
            return nearest(scope.conn, recording, spans[0], around, SHOWN_PLACES).places
    return ()
