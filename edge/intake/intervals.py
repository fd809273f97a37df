"""RR intervals of devices without ECG into beats and trends: exact within a run, placed by UTC between runs.

They are kept as a recording without leads on a grid of 1/1024 s: beats, minutes with a heart rate and, where nothing
was heard, gaps; no samples. Nothing in it counts as recorded or readable ECG, and analysis leaves it alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from edge.encoder.contract import BEAT_CLASSES, MORPHOLOGIES
from edge.intervals import TICKS_HZ, Intervals
from edge.store import tables
from edge.store.beats import BEAT_DTYPE
from edge.store.database import StoreError
from edge.store.recordings import create_recording, ensure_wearer
from edge.store.waveform import add_interval
from edge.store.writer import Writer, WriterBusyError

MINUTE = 60 * TICKS_HZ
UTC_STEP_NS = 250_000_000
"""A run whose UTC has moved by this against the grid gets a new clock segment."""
NEAR_TICKS = TICKS_HZ // 4
"""A run that begins this close to the end of the last one goes on from there."""
SILENT_TICKS = 15 * TICKS_HZ
"""Reports of a heart rate without intervals are this close together, or there is a gap."""
LONGEST_TICKS = 5 * TICKS_HZ
"""What lies further apart than this is no interval between heartbeats."""
MEAN_OF = 5
"""Successive intervals behind the lowest and highest rate of a minute, as in the trends of ECG."""
RETRY_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Place:
    """Where a device's heartbeats have come to; mirrors the database."""

    recording_id: int
    end: int
    index0: int
    utc_ns: int
    run: int | None = None
    rates: dict[int, list[int]] = field(default_factory=dict)
    """Minute → heart rates as the device reported them."""

    def tick_at(self, utc_ns: int) -> int:
        return self.index0 + round((utc_ns - self.utc_ns) * TICKS_HZ / 1e9)

    def utc_at(self, tick: int) -> int:
        return self.utc_ns + round((tick - self.index0) * 1e9 / TICKS_HZ)


class IntervalIntake:
    """Keeps `Intervals`. `accept` belongs to the event loop; the places belong to the writer's thread."""

    def __init__(self, writer: Writer, timezone: Callable[[str], str]) -> None:
        """`timezone` gives the IANA zone of a wearer seen for the first time."""
        self.counters: Counter[str] = Counter(interval_jobs=0, interval_retries=0)
        self._writer = writer
        self._timezone = timezone
        self._places: dict[tuple[str, str], _Place] = {}
        self._generation = -1

    async def accept(self, intervals: Intervals) -> tuple[int, int]:
        """Keep them and return (recording, its end in ticks) after the commit; waits while the store refuses.

        Raises `AnyecgError` if the writer was closed.
        """
        timezone = self._timezone(intervals.wearer)

        def job(conn: Connection) -> tuple[int, int]:
            if self._generation != self._writer.generation:
                self._generation = self._writer.generation
                self._places.clear()
            try:
                return self._keep(conn, intervals, timezone)
            except BaseException:
                self._places.clear()
                raise

        while True:
            try:
                kept = await asyncio.wrap_future(self._writer.submit(job))
                self.counters["interval_jobs"] += 1
                return kept
            except (WriterBusyError, StoreError) as error:
                self.counters["interval_retries"] += 1
                log.warning("store refuses, trying again", error=str(error), every_s=RETRY_S)
                await asyncio.sleep(RETRY_S)

    def _keep(self, conn: Connection, intervals: Intervals, timezone: str) -> tuple[int, int]:
        place = self._place(conn, intervals, timezone)
        start = self._advance(conn, place, intervals)
        positions = start + np.concatenate(([0], np.cumsum(intervals.rr_ticks))).astype(np.int64)
        if place.run == intervals.run or not intervals.rr_ticks:
            positions = positions[1:]  # the first one is there
        if intervals.rr_ticks:
            place.run = intervals.run
            place.end = int(positions[-1])
        _add_beats(conn, place.recording_id, positions)
        last_minute = place.end // MINUTE
        place.rates.setdefault(last_minute, []).extend(intervals.hr_bpm)
        for minute in sorted({*(int(p) // MINUTE for p in positions), last_minute}):
            _write_trend(conn, place, minute)
        for minute in [m for m in place.rates if m < last_minute]:
            del place.rates[minute]
        row = update(tables.recording).where(tables.recording.c.id == place.recording_id)
        conn.execute(row.values(end_sample=place.end, last_received_ns=intervals.received_ns))
        return place.recording_id, place.end

    def _place(self, conn: Connection, intervals: Intervals, timezone: str) -> _Place:
        key = (intervals.wearer, intervals.device)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _load(conn, *key) or _create(conn, intervals, timezone)
        return place

    def _advance(self, conn: Connection, place: _Place, intervals: Intervals) -> int:
        """Return the tick where the first interval begins; what lies between is a gap, or has only heart rates."""
        begin_utc_ns = intervals.utc_ns - round(sum(intervals.rr_ticks) * 1e9 / TICKS_HZ)
        if place.run == intervals.run and intervals.rr_ticks:
            if abs(begin_utc_ns - place.utc_at(place.end)) > UTC_STEP_NS:
                _add_segment(conn, place, place.end, intervals.run, begin_utc_ns)
            return place.end
        start = place.tick_at(begin_utc_ns)
        if start - place.end < NEAR_TICKS:
            start = place.end
        elif intervals.rr_ticks or not intervals.hr_bpm or start - place.end > SILENT_TICKS:
            add_interval(conn, tables.gap, place.recording_id, place.end, start)
        if abs(begin_utc_ns - place.utc_at(start)) > UTC_STEP_NS:
            _add_segment(conn, place, start, intervals.run, begin_utc_ns)
        place.end = start
        return start


def _load(conn: Connection, wearer: str, device: str) -> _Place | None:
    recording, segment = tables.recording, tables.clock_segment
    mine = (recording.c.wearer == wearer) & (recording.c.device == device) & (recording.c.source == "live")
    for row in conn.execute(select(recording).where(mine)):
        if not row.leads:
            ours = select(segment).where(segment.c.recording_id == row.id)
            newest = conn.execute(ours.order_by(segment.c.index0.desc()).limit(1)).one()
            return _Place(row.id, row.end_sample, newest.index0, newest.utc_ns)
    return None


def _create(conn: Connection, intervals: Intervals, timezone: str) -> _Place:
    start_ns = intervals.utc_ns - round(sum(intervals.rr_ticks) * 1e9 / TICKS_HZ)
    ensure_wearer(conn, intervals.wearer, timezone, intervals.received_ns)
    recording_id = create_recording(
        conn,
        wearer_id=intervals.wearer,
        device=intervals.device,
        leads=(),
        fs_hz=TICKS_HZ,
        uv_per_lsb=(),
        source="live",
        start_ns=start_ns,
        received_ns=intervals.received_ns,
    )
    place = _Place(recording_id, 0, 0, start_ns)
    _add_segment(conn, place, 0, intervals.run, start_ns)
    return place


def _add_segment(conn: Connection, place: _Place, index0: int, run: int, utc_ns: int) -> None:
    place.index0, place.utc_ns = index0, utc_ns
    row: dict[str, Any] = {"recording_id": place.recording_id, "index0": index0, "boot": run, "utc_ns": utc_ns}
    row |= {"device_time_ns": round(index0 * 1e9 / TICKS_HZ), "utc_source": "arrival"}
    changed = {name: row[name] for name in ("boot", "utc_ns")}
    conn.execute(
        upsert(tables.clock_segment).values(row).on_conflict_do_update(["recording_id", "index0"], set_=changed)
    )


def _add_beats(conn: Connection, recording_id: int, positions: NDArray[np.int64]) -> None:
    for minute in np.unique(positions // MINUTE):
        rows = _beats(conn, recording_id, int(minute))
        new = np.zeros(int(np.count_nonzero(positions // MINUTE == minute)), BEAT_DTYPE)
        new["sample"] = positions[positions // MINUTE == minute]
        new["type"], new["morphology"] = BEAT_CLASSES.index("Q"), MORPHOLOGIES.index("other")
        row: dict[str, Any] = {"recording_id": recording_id, "minute": int(minute)}
        row["data"] = np.concatenate((rows, new[~np.isin(new["sample"], rows["sample"])])).tobytes()
        conn.execute(
            upsert(tables.beats)
            .values(row)
            .on_conflict_do_update(["recording_id", "minute"], set_={"data": row["data"]})
        )


def _beats(conn: Connection, recording_id: int, minute: int) -> NDArray[np.void]:
    beats = tables.beats.c
    data = conn.execute(select(beats.data).where(beats.recording_id == recording_id, beats.minute == minute)).scalar()
    return np.frombuffer(data or b"", BEAT_DTYPE)


def _write_trend(conn: Connection, place: _Place, minute: int) -> None:
    """Measure a minute again from its beats; from the rates that the device reported where there are none."""
    before, beats = (_beats(conn, place.recording_id, m)["sample"] for m in (minute - 1, minute))
    gap = tables.gap.c
    inside = (gap.recording_id == place.recording_id) & (gap.end_sample > (minute - 1) * MINUTE)
    inside &= gap.start_sample < (minute + 1) * MINUTE
    gaps = [(row.start_sample, row.end_sample) for row in conn.execute(select(tables.gap).where(inside))]
    ticks = _intervals([*before[-1:].tolist(), *beats.tolist()], gaps)
    rates = place.rates.get(minute, [])
    row: dict[str, Any] = {
        "recording_id": place.recording_id,
        "minute": minute,
        "utc_ns": place.utc_at(minute * MINUTE),
    }
    row |= {"beats": dict.fromkeys(BEAT_CLASSES, 0) | {"Q": len(beats)}, "rhythm": ""}
    row |= {"readable_s": 0.0, "recorded_s": 0.0, "af_s": 0.0}
    if len(ticks) >= MEAN_OF:
        means = np.convolve(ticks, np.full(MEAN_OF, 1 / MEAN_OF), "valid") / TICKS_HZ
        row |= {"hr_bpm": 60 * TICKS_HZ / float(np.mean(ticks)), "pulse_s": min(sum(ticks) / TICKS_HZ, 60.0)}
        row |= {"hr_min_bpm": min(60 / float(means.max()), row["hr_bpm"])}
        row |= {"hr_max_bpm": max(60 / float(means.min()), row["hr_bpm"])}
    elif rates:
        row |= {"hr_bpm": float(np.mean(rates)), "hr_min_bpm": float(min(rates)), "hr_max_bpm": float(max(rates))}
        row["pulse_s"] = float(min(len(rates), 60))
    else:
        row |= {"hr_bpm": None, "hr_min_bpm": None, "hr_max_bpm": None, "pulse_s": 0.0}
    conn.execute(upsert(tables.trend).values(row).on_conflict_do_update(["recording_id", "minute"], set_=row))


def _intervals(beats: Sequence[int], gaps: Sequence[tuple[int, int]]) -> list[int]:
    """Return the intervals between successive beats with no gap in between."""
    return [
        b - a
        for a, b in pairwise(beats)
        if b - a <= LONGEST_TICKS and not any(start < b and end > a for start, end in gaps)
    ]
