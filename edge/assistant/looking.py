"""Tools that go to the signal: strips, what looks alike, and the language model reading clips through soft tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.assistant.candidates import LEAST_S, Embeddings
from edge.assistant.find import SHAPES, beat_times, event, findings
from edge.assistant.labels import ANY, BEAT_LABELS, EVENT_LABELS
from edge.assistant.localtime import NS
from edge.assistant.period import Period
from edge.assistant.plan import SPAN
from edge.assistant.result import MAX_CITATIONS, MAX_ITEMS, Fact, Result, Scope, span
from edge.assistant.scan import Budget, scan
from edge.chunk import MISSING
from edge.report.similar import HOP_NS, embeddings, nearest
from edge.store import queries, waveform

STRIP_S = 10
CLIP_S = 60
ALIKE_DAYS = 7
"""What looks like the marks is searched for in the last days of a longer period: 2.5 s each time."""
SHOWN_PLACES = 8


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
        result.missing = scope.blind
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
    eyes, label, period = scope.eyes, result.step.args["label"], result.period
    if eyes is None:
        result.missing = scope.blind
        return

    def seconds(utc_ns: int) -> float:
        return (utc_ns - period.start_ns) / NS

    def utc_ns(at_s: float) -> int:
        return period.start_ns + round(at_s * NS)

    def blocks() -> Iterator[Embeddings]:
        first_ns = max(period.start_ns, period.end_ns - ALIKE_DAYS * 86_400 * NS)
        for at_ns, vectors in embeddings(scope.conn, scope.wearer, first_ns, period.end_ns):
            yield (at_ns - period.start_ns) / NS, vectors

    def read(start_s: float, end_s: float) -> tuple[list[tuple[float, float]], float]:
        spans, read_s = [], 0.0
        for clip in clips_of(scope, utc_ns(start_s), utc_ns(end_s)):
            length_s = clip.signal_mv.shape[1] / clip.fs_hz
            if length_s < LEAST_S:  # what a gap left over
                continue
            read_s += float(np.isfinite(clip.signal_mv).any(axis=0).sum()) / clip.fs_hz
            at_s = seconds(clip.start_ns)
            for a, b in eyes.localize(clip.signal_mv, clip.fs_hz, clip.leads, label):
                if 0 <= a < b <= length_s + 1:
                    spans.append((at_s + a, at_s + b))
        return spans, read_s

    marks = [(max(seconds(a), 0.0), seconds(min(b, period.end_ns))) for a, b in _engine_spans(scope, label, period)]
    budget = Budget(scope.reading_s, scope.clock)
    done = scan(seconds(period.end_ns), [(a, b) for a, b in marks if a < b], blocks, read, budget=budget)
    result.source = "model"
    result.facts |= {
        "count": Fact("count", len(done.model)),
        "read": Fact("duration_s", done.read_s),
        "left": Fact("duration_s", done.left_s),
        "whole": Fact("text", "all" if done.whole else "part"),
        "engine": Fact("count", len(done.looked_at)),
        "agreed": Fact("count", len(done.agreed)),
        "model_only": Fact("count", len(done.model_only)),
        "engine_only": Fact("count", len(done.engine_only)),
    }
    marked = [one for one in done.found if one.model]
    result.items = [
        {
            "start": Fact("utc", utc_ns(one.start_s)),
            "end": Fact("utc", utc_ns(one.end_s)),
            "duration": Fact("duration_s", one.end_s - one.start_s),
            "engine": Fact("text", "agrees" if one.engine else "did not find it"),
        }
        for one in marked[:MAX_ITEMS]
    ]
    result.citations = [span(utc_ns(one.start_s), utc_ns(one.end_s)) for one in marked[:MAX_CITATIONS]]


def _engine_spans(scope: Scope, label: str, period: Period) -> list[tuple[int, int]]:
    """Return what the rhythm engine found of a label, beats with half a second on both sides."""
    if label in BEAT_LABELS or label in SHAPES:
        return [(at - NS // 2, at + NS // 2) for at in beat_times(scope, label, period)]
    rule = "unreadable" if label == "noise" else label
    if rule not in EVENT_LABELS:
        return []
    return [(row["start_ns"], row["end_ns"]) for row in findings(scope, rule, period)]


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
