"""Which recording speaks for which part of a period, and where local hours and days begin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from itertools import pairwise

from sqlalchemy import Connection

from edge.assistant.localtime import to_local
from edge.store import queries

NS = queries.NS
HOUR_NS = 3600 * NS
FILLED_GAP_S = 60.0
"""A hole of one device that lasts longer is filled by another device that recorded meanwhile."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples [first, last) of one recording, which alone speak for their time."""

    recording: queries.Recording
    first: int
    last: int
    start_ns: int
    end_ns: int


def pieces(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> list[Piece]:
    """Return what was recorded in [start_ns, end_ns) by time, every instant once.

    Where two devices recorded at once, the one with more readable time in the whole period counts. Pieces end where
    the recording's clock jumps and where it has a hole longer than `FILLED_GAP_S`.
    """
    readable: dict[int, float] = defaultdict(float)
    for row in queries.trends(conn, wearer, start_ns, end_ns):
        readable[row["recording_id"]] += row["readable_s"]
    ranked = sorted(queries.recordings(conn, wearer), key=lambda r: (-readable[r.id], r.id))
    taken: list[Span] = []
    found: list[Piece] = []
    for recording in ranked:
        own: list[Span] = []
        for first, last in recording.sample_spans(start_ns, end_ns):
            for a, b in _between_holes(conn, recording, first, last):
                whole = _piece(recording, a, b)
                own.append((whole.start_ns, whole.end_ns))
                for from_ns, to_ns in free(whole.start_ns, whole.end_ns, taken):
                    spans = recording.sample_spans(from_ns, to_ns)
                    found += [_piece(recording, max(x, a), min(y, b)) for x, y in spans if max(x, a) < min(y, b)]
        taken = queries.merge([*taken, *own])
    return sorted(found, key=lambda piece: (piece.start_ns, piece.first))


def _piece(recording: queries.Recording, first: int, last: int) -> Piece:
    start_ns = recording.to_utc_ns(first)
    return Piece(recording, first, last, start_ns, start_ns + round((last - first) * NS / recording.fs_hz))


def _between_holes(conn: Connection, recording: queries.Recording, first: int, last: int) -> list[Span]:
    """Return [first, last) without long holes, cut where the clock jumps."""
    least = FILLED_GAP_S * recording.fs_hz
    parts: list[Span] = []
    at = first
    for hole_start, hole_end in queries.gaps(conn, recording.id, first, last):
        if hole_end - hole_start > least:
            parts.append((at, hole_start))
            at = hole_end
    parts.append((at, last))
    cut = []
    for a, b in parts:
        borders = [a, *(s.index0 for s in recording.segments[1:] if a < s.index0 < b), b]
        cut += [(x, y) for x, y in pairwise(borders) if x < y]
    return cut


def free(start: int, end: int, taken: Sequence[Span]) -> list[Span]:
    """Return [start, end) without the disjoint ascending spans in `taken`."""
    left, at = [], start
    for a, b in taken:
        if b <= at or a >= end:
            continue
        if a > at:
            left.append((at, a))
        at = max(at, b)
    if at < end:
        left.append((at, end))
    return left


def overlap(start: int, end: int, spans: Sequence[Span]) -> int:
    """Return how much of [start, end) lies in disjoint spans."""
    return sum(max(min(b, end) - max(a, start), 0) for a, b in spans)


def hours(start_ns: int, end_ns: int, tz: tzinfo) -> list[Span]:
    """Return the local clock hours of a period, the first and the last cut by it.

    Where the clocks change, an hour that was skipped is missing and one that occurred twice is there twice.
    """
    spans, at = [], start_ns
    while at < end_ns:
        local = to_local(at, tz)
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        following = min(at + HOUR_NS - round(past.total_seconds() * 1e6) * 1000 - at % 1000, end_ns)
        spans.append((at, following))
        at = following
    return spans


def days(start_ns: int, end_ns: int, tz: tzinfo) -> list[Span]:
    """Return the local calendar days of a period, the first and the last cut by it: of 23 or 25 h at a change."""
    spans: list[Span] = []
    for a, b in hours(start_ns, end_ns, tz):
        same = spans and to_local(spans[-1][0], tz).date() == to_local(a, tz).date()
        if same:
            spans[-1] = (spans[-1][0], b)
        else:
            spans.append((a, b))
    return spans
