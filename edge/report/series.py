"""The beats of a period as one series, corrected by people, with the RR intervals that can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from edge.report.pieces import Piece, Span
from edge.store import marks, queries, tables

NS = queries.NS
LONGEST_RR_S = 20.0
"""Two beats farther apart are no interval: asystole is an episode of its own."""
DOUBTFUL = 1.5
"""In a minute with unreadable seconds an interval this many times the median of its neighbours may hide a beat."""


@dataclass(frozen=True, slots=True)
class Series:
    """[n] each, ascending in time."""

    utc_ns: NDArray[np.int64]
    kind: NDArray[np.uint8]
    """Index of `BEAT_CLASSES`."""
    interval_s: NDArray[np.float64]
    """RR interval that ends at the beat; NaN where a beat may be missing between."""
    recording: NDArray[np.int64]
    sample: NDArray[np.int64]

    def between(self, start_ns: int, end_ns: int) -> slice:
        """Return which beats lie in [start_ns, end_ns)."""
        low, high = np.searchsorted(self.utc_ns, (start_ns, end_ns))
        return slice(int(low), int(high))


def read_series(
    conn: Connection,
    pieces: Sequence[Piece],
    unreadable: Mapping[int, Sequence[Span]],
    doubtful_minutes: set[tuple[int, int]],
) -> Series:
    """Return the beats of the pieces.

    Args:
        conn: the database.
        pieces: what speaks for each part of the period, by time.
        unreadable: recording → sample spans in which nothing can be read.
        doubtful_minutes: (recording, minute) of those not wholly readable.
    """
    parts = [(piece, marks.corrected_beats(conn, piece.recording, piece.first, piece.last)) for piece in pieces]
    if not any(beats.size for _, beats in parts):
        nothing = np.empty(0, np.int64)
        return Series(nothing, np.empty(0, np.uint8), np.empty(0), nothing, nothing)
    utc, intervals = [], []
    before: tuple[int, int] | None = None
    holes = {
        piece.recording.id: _holes(conn, piece.recording.id, unreadable.get(piece.recording.id, ()))
        for piece, _ in parts
    }
    for piece, beats in parts:
        sample, fs_hz = beats["sample"].astype(np.int64), piece.recording.fs_hz
        utc.append(piece.start_ns + np.rint((sample - piece.first) * (NS / fs_hz)).astype(np.int64))
        joined = before is not None and before[0] == piece.recording.id
        previous = before[1] if before is not None and joined else 0
        ends = np.concatenate(([previous], sample))
        interval = np.diff(ends) / fs_hz
        if not joined and interval.size:
            interval[0] = np.nan
        interval[_crosses(holes[piece.recording.id], ends)] = np.nan
        interval[(interval > LONGEST_RR_S) | (interval <= 0)] = np.nan
        doubtful = np.array([(piece.recording.id, m) in doubtful_minutes for m in _minutes(sample, fs_hz)], bool)
        with np.errstate(invalid="ignore"):
            interval[doubtful & (interval > DOUBTFUL * _usual(interval))] = np.nan
        intervals.append(interval)
        if sample.size:
            before = (piece.recording.id, int(sample[-1]))
    return Series(
        utc_ns=np.concatenate(utc),
        kind=np.concatenate([beats["type"] for _, beats in parts]).astype(np.uint8),
        interval_s=np.concatenate(intervals),
        recording=np.concatenate([np.full(beats.size, piece.recording.id, np.int64) for piece, beats in parts]),
        sample=np.concatenate([beats["sample"] for _, beats in parts]).astype(np.int64),
    )


def _minutes(sample: NDArray[np.int64], fs_hz: float) -> list[int]:
    return [int(m) for m in sample // (60 * fs_hz)]


def _usual(interval_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of the five intervals around each, unknown ones left out as the overall median."""
    known = interval_s[np.isfinite(interval_s)]
    if not known.size:
        return np.full(interval_s.size, np.inf)
    filled = np.where(np.isfinite(interval_s), interval_s, np.median(known))
    padded = np.pad(filled, 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1))


def _holes(conn: Connection, recording_id: int, unreadable: Sequence[Span]) -> list[Span]:
    spans = list(unreadable)
    for table in (tables.gap, tables.contact_off):
        rows = conn.execute(
            select(table.c.start_sample, table.c.end_sample).where(table.c.recording_id == recording_id)
        )
        spans += [(int(a), int(b)) for a, b in rows]
    return queries.merge(spans)


def _crosses(holes: Sequence[Span], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a hole lies between each two neighbours of `ends`."""
    if not holes:
        return np.zeros(ends.size - 1, bool)
    starts, stops = np.array(holes, np.int64).T
    following = np.searchsorted(stops, ends[:-1], side="right")
    inside = following < starts.size
    return np.asarray(inside & (starts[np.minimum(following, starts.size - 1)] < ends[1:]))
