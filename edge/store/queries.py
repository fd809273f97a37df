"""What readers ask the database: bound parameters, a limit on everything, nothing written.

Times are ns since 1970 UTC, periods [start, end). A period may fall on several recordings of a wearer; every result
says which one it came from.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Row, RowMapping, Select, func, select

from edge.chunk import utc_rate_hz
from edge.encoder.contract import HOP_S
from edge.errors import BadInputError
from edge.store import tables
from edge.store.beats import BEAT_DTYPE, unpack_beats

NS = 1_000_000_000
MINUTE_NS = 60 * NS
MAX_WEARERS = 1_000
MAX_RECORDINGS = 2_000
MAX_FINDINGS = 10_000
MAX_TREND_MINUTES = 100_000
"""Ten weeks of one recording."""
MAX_GAPS = 200_000
MAX_SEGMENTS = 100_000
AFTER_ALL = 2**62
"""A sample after those of any recording: since then there is the newest clock segment."""
_SEGMENT = tuple(tables.clock_segment.c[name] for name in ("index0", "utc_ns", "rate_hz", "drift_ppm"))


@dataclass(frozen=True, slots=True)
class Wearer:
    """A person by pseudonym."""

    id: str
    timezone: str


class ClockSegment(NamedTuple):
    """From sample `index0` on, sample i was taken at `utc_ns` + (i - `index0`) / `rate_hz`."""

    index0: int
    utc_ns: int
    rate_hz: float
    """Samples per second of UTC; the nominal rate where the source measures none."""

    def utc_at(self, sample: int) -> int:
        return self.utc_ns + round((sample - self.index0) * NS / self.rate_hz)

    def sample_at(self, utc_ns: int) -> int:
        """Return the first sample taken at `utc_ns` or later."""
        # `utc_at` rounds to 1 ns: a sample that close to the border counts as lying on it
        return self.index0 + math.ceil((utc_ns - self.utc_ns - 1) * Fraction(self.rate_hz) / NS)


@dataclass(frozen=True, slots=True)
class Recording:
    """One device on one wearer, and where its samples lie in UTC."""

    id: int
    key: str
    wearer: str
    device: str
    leads: tuple[str, ...]
    fs_hz: float
    uv_per_lsb: tuple[float, ...]
    source: str
    start_ns: int
    end_sample: int
    last_received_ns: int
    segments: tuple[ClockSegment, ...]
    """Ascending; the first one also holds for samples before it. Those of a part of the clock if only that was read."""

    def to_utc_ns(self, sample: int) -> int:
        """Return the UTC of a sample index (any index: the mapping continues at both ends)."""
        return self._segment_at(sample).utc_at(sample)

    def sample_spans(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """Return the stored sample spans [first, last) that were taken within [start_ns, end_ns).

        None when the period lies outside the recording or in a jump of its clock; more than one when the clock was
        set back inside it.
        """
        spans: list[tuple[int, int]] = []
        for n, segment in enumerate(self.segments):
            low = 0 if n == 0 else segment.index0
            high = min(self.segments[n + 1].index0 if n + 1 < len(self.segments) else self.end_sample, self.end_sample)
            first = max(segment.sample_at(start_ns), low)
            last = min(segment.sample_at(end_ns), high)
            if first < last:
                if spans and spans[-1][1] == first:
                    spans[-1] = (spans[-1][0], last)
                else:
                    spans.append((first, last))
        return spans

    def utc_spans(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the samples [first, last) in UTC, cut where a clock segment begins."""
        cuts = [first, *(s.index0 for s in self.segments[1:] if first < s.index0 < last), last]
        return [(self.to_utc_ns(a), self._segment_at(a).utc_at(b)) for a, b in pairwise(cuts)]

    def _segment_at(self, sample: int) -> ClockSegment:
        return self.segments[max(bisect_right(self.segments, sample, key=lambda s: s.index0) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Over how much signal a statement about [start_ns, end_ns) is made, in seconds."""

    period_s: float
    recorded_s: float
    """Samples were stored (time covered by two devices counts once)."""
    analysed_s: float
    """Recorded and already read by the encoder."""
    readable_s: float
    """Analysed and clean enough to read; never above `analysed_s`."""


@dataclass(frozen=True, slots=True)
class BeatsInSpan:
    """The beats of one recording within a period."""

    recording: Recording
    beats: NDArray[np.void]
    """`BEAT_DTYPE`, ascending by sample."""


def wearers(conn: Connection) -> list[Wearer]:
    """Return all wearers by id."""
    rows = conn.execute(select(tables.wearer).order_by(tables.wearer.c.id).limit(MAX_WEARERS)).mappings()
    return [Wearer(row["id"], row["timezone"]) for row in rows]


def find_wearer(conn: Connection, wearer_id: str) -> Wearer:
    """Return one wearer.

    Raises:
        BadInputError: there is no such wearer; the message lists those that exist.
    """
    everyone = wearers(conn)
    for wearer in everyone:
        if wearer.id == wearer_id:
            return wearer
    known = ", ".join(w.id for w in everyone[:20]) or "nobody yet: a wearer appears with its first data"
    raise BadInputError(f"there is no wearer {wearer_id!r}; known: {known}")


def find_timezone(conn: Connection, wearer_id: str) -> str | None:
    """Return the IANA time zone of a wearer, None if there is no such wearer."""
    return conn.execute(select(tables.wearer.c.timezone).where(tables.wearer.c.id == wearer_id)).scalar()


def recordings(
    conn: Connection, wearer: str | None = None, *, ecg_only: bool = True, since_sample: int = 0
) -> list[Recording]:
    """Return recordings with their clock, oldest first; those of one wearer if given.

    Those of straps without ECG (no leads, heartbeats only) are left out unless `ecg_only` is False.
    `since_sample` as in `find_recording`.
    """
    statement = select(tables.recording).order_by(tables.recording.c.start_ns, tables.recording.c.id)
    if wearer is not None:
        statement = statement.where(tables.recording.c.wearer == wearer)
    rows = conn.execute(statement.limit(MAX_RECORDINGS)).mappings().all()
    return [_recording(conn, row, since_sample) for row in rows if row["leads"] or not ecg_only]


def find_recording(conn: Connection, recording_id: int, *, since_sample: int = 0) -> Recording:
    """Return one recording.

    Args:
        conn: a connection.
        recording_id: which.
        since_sample: of its clock only what holds from there on is read; `utc_at` knows what was before. A clock grows
            by up to 1,440 segments a day for ever, and what the daemon keeps and does again and again must not.

    Raises:
        BadInputError: there is no such recording.
    """
    statement = select(tables.recording).where(tables.recording.c.id == recording_id)
    row = conn.execute(statement).mappings().first()
    if row is None:
        raise BadInputError(f"there is no recording {recording_id}")
    return _recording(conn, row, since_sample)


def utc_at(conn: Connection, recording: Recording, sample: int) -> int:
    """Return `recording.to_utc_ns(sample)`, also for one before the part of the clock that was read."""
    if sample >= recording.segments[0].index0:
        return recording.to_utc_ns(sample)
    index0 = tables.clock_segment.c.index0
    mine = select(*_SEGMENT).where(tables.clock_segment.c.recording_id == recording.id)
    row = conn.execute(mine.where(index0 <= sample).order_by(index0.desc()).limit(1)).first()
    row = row or conn.execute(mine.order_by(index0).limit(1)).first()
    return recording.to_utc_ns(sample) if row is None else _segment(row, recording.fs_hz).utc_at(sample)


def sample_at(conn: Connection, recording: Recording, utc_ns: int) -> int:
    """Return the sample taken at a UTC, judged by the newest segment of its clock that began before it."""
    clock = tables.clock_segment.c
    mine = select(*_SEGMENT).where(clock.recording_id == recording.id)
    later = conn.execute(mine.where(clock.utc_ns > utc_ns).order_by(clock.index0).limit(1)).first()
    earlier = mine if later is None else mine.where(clock.index0 < later.index0)
    row = conn.execute(earlier.order_by(clock.index0.desc()).limit(1)).first() or later
    segment = recording.segments[0] if row is None else _segment(row, recording.fs_hz)
    sample = segment.index0 + int((utc_ns - segment.utc_ns) * segment.rate_hz // NS)
    if later is not None:
        sample = min(sample, later.index0)
    return min(max(sample, 0), recording.end_sample)


def _recording(conn: Connection, row: RowMapping, since_sample: int = 0) -> Recording:
    table = tables.clock_segment.c
    mine = table.recording_id == row["id"]
    begins = select(func.max(table.index0)).where(mine, table.index0 <= since_sample).scalar_subquery()
    segments = conn.execute(
        select(*_SEGMENT)
        .where(mine, table.index0 >= func.coalesce(begins, 0))
        .order_by(table.index0.desc())
        .limit(MAX_SEGMENTS)
    ).all()
    return Recording(
        id=row["id"],
        key=row["key"],
        wearer=row["wearer"],
        device=row["device"],
        leads=tuple(row["leads"]),
        fs_hz=row["fs_hz"],
        uv_per_lsb=tuple(row["uv_per_lsb"]),
        source=row["source"],
        start_ns=row["start_ns"],
        end_sample=row["end_sample"],
        last_received_ns=row["last_received_ns"],
        segments=tuple(_segment(one, row["fs_hz"]) for one in reversed(segments))
        or (ClockSegment(0, row["start_ns"], row["fs_hz"]),),
    )


def _segment(row: Row[Any], fs_hz: float) -> ClockSegment:
    return ClockSegment(int(row.index0), int(row.utc_ns), utc_rate_hz(fs_hz, row.rate_hz, row.drift_ppm))


def _findings() -> Select[Any]:
    return select(tables.finding, tables.recording.c.wearer, tables.recording.c.device, tables.recording.c.fs_hz).join(
        tables.recording, tables.recording.c.id == tables.finding.c.recording_id
    )


def findings(
    conn: Connection,
    *,
    wearer: str | None = None,
    rules: Sequence[str] = (),
    severities: Sequence[str] = (),
    states: Sequence[str] = ("open", "closed"),
    start_ns: int | None = None,
    end_ns: int | None = None,
    current_only: bool = True,
    newest_first: bool = False,
    limit: int = MAX_FINDINGS,
) -> list[dict[str, Any]]:
    """Return findings that overlap [start_ns, end_ns), by start time.

    Retracted findings are left out unless `states` names them, superseded ones unless `current_only` is False.
    Each row has the columns of `tables.finding` and `wearer`, `device`, `fs_hz`.
    """
    finding = tables.finding.c
    where: list[ColumnElement[bool]] = [finding.state.in_(states)]
    if wearer is not None:
        where.append(tables.recording.c.wearer == wearer)
    if rules:
        where.append(finding.rule.in_(rules))
    if severities:
        where.append(finding.severity.in_(severities))
    if start_ns is not None:
        where.append((finding.end_ns > start_ns) | (finding.start_ns >= start_ns))
    if end_ns is not None:
        where.append(finding.start_ns < end_ns)
    if current_only:
        where.append(finding.superseded_by.is_(None))
    order = finding.start_ns.desc() if newest_first else finding.start_ns.asc()
    statement = _findings().where(*where).order_by(order, finding.id).limit(min(max(limit, 0), MAX_FINDINGS))
    return [dict(row) for row in conn.execute(statement).mappings()]


def find_finding(conn: Connection, finding_id: str) -> dict[str, Any]:
    """Return one finding whatever its state, by its id or an unambiguous beginning of at least 4 characters.

    Raises:
        BadInputError: no finding, or several, begin so.
    """
    table = tables.finding
    if len(finding_id) < 4:
        raise BadInputError(f"event id {finding_id!r} is too short: give at least 4 of its characters")
    statement = _findings().where(table.c.id.startswith(finding_id, autoescape=True)).order_by(table.c.id).limit(5)
    rows = [dict(row) for row in conn.execute(statement).mappings()]
    if not rows:
        raise BadInputError(f"there is no event {finding_id!r}; `anyecg events` lists them")
    if len(rows) > 1:
        raise BadInputError(f"several events begin with {finding_id!r}: {', '.join(row['id'] for row in rows)}")
    return rows[0]


def trends(
    conn: Connection, wearer: str, start_ns: int, end_ns: int, limit: int = MAX_TREND_MINUTES
) -> list[dict[str, Any]]:
    """Return the trend minutes of a wearer that overlap [start_ns, end_ns), by time.

    A minute of a strap without ECG (`pulse_s` of it covered by RR intervals, nothing readable) is left out where ECG
    gives a heart rate for the same time.
    """
    table = tables.trend
    statement = (
        select(table)
        .join(tables.recording, tables.recording.c.id == table.c.recording_id)
        .where(
            tables.recording.c.wearer == wearer,
            table.c.utc_ns > start_ns - MINUTE_NS,
            table.c.utc_ns < end_ns,
        )
        .order_by(table.c.utc_ns, table.c.recording_id)
        .limit(min(max(limit, 0), MAX_TREND_MINUTES))
    )
    rows = [dict(row) for row in conn.execute(statement).mappings()]
    known = [row["utc_ns"] for row in rows if row["hr_bpm"] is not None and not row["pulse_s"]]
    return [row for row in rows if not row["pulse_s"] or not _is_near(known, row["utc_ns"])]


def mean_bpm(minutes: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean heart rate of trend minutes that have one, each weighted by the time it was read over."""
    weights = [row["readable_s"] + row["pulse_s"] for row in minutes]
    rates = [row["hr_bpm"] for row in minutes]
    return float(np.average(rates, weights=weights if sum(weights) > 0 else None))


def _is_near(minutes: Sequence[int], utc_ns: int) -> bool:
    """Whether an ascending list of minutes has one that overlaps the minute at `utc_ns` by half."""
    at = bisect_right(minutes, utc_ns - MINUTE_NS // 2)
    return at < len(minutes) and minutes[at] <= utc_ns + MINUTE_NS // 2


def beats(conn: Connection, recording: Recording, start_sample: int, end_sample: int) -> NDArray[np.void]:
    """Return the beats of a recording with start_sample ≤ sample < end_sample as a `BEAT_DTYPE` array."""
    minute = 60 * recording.fs_hz
    table = tables.beats
    packed = conn.execute(
        select(table.c.data)
        .where(
            table.c.recording_id == recording.id,
            table.c.minute >= int(start_sample // minute),
            table.c.minute <= int(end_sample // minute),
        )
        .order_by(table.c.minute)
        .limit(MAX_TREND_MINUTES)
    ).scalars()
    parts = [unpack_beats(data) for data in packed]
    joined = np.concatenate(parts) if parts else np.empty(0, BEAT_DTYPE)
    inside = (joined["sample"] >= start_sample) & (joined["sample"] < end_sample)
    return joined[inside]


def beats_in_period(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> list[BeatsInSpan]:
    """Return the beats of each of a wearer's recordings in [start_ns, end_ns); recordings without any are left out."""
    found = []
    for recording in recordings(conn, wearer):
        for first, last in recording.sample_spans(start_ns, end_ns):
            inside = beats(conn, recording, first, last)
            if inside.size:
                found.append(BeatsInSpan(recording, inside))
    return found


def gaps(conn: Connection, recording_id: int, start_sample: int, end_sample: int) -> list[tuple[int, int]]:
    """Return the decided holes of a recording, clipped to [start_sample, end_sample)."""
    table = tables.gap
    rows = conn.execute(
        select(table.c.start_sample, table.c.end_sample)
        .where(
            table.c.recording_id == recording_id,
            table.c.start_sample < end_sample,
            table.c.end_sample > start_sample,
        )
        .order_by(table.c.start_sample)
        .limit(MAX_GAPS)
    ).all()
    return [(max(int(a), start_sample), min(int(b), end_sample)) for a, b in rows]


def recorded_spans(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """Return the UTC spans within [start_ns, end_ns) in which any device of the wearer recorded, merged, ascending."""
    spans: list[tuple[int, int]] = []
    for recording in recordings(conn, wearer):
        for first, last in recording.sample_spans(start_ns, end_ns):
            at = first
            for hole_start, hole_end in [*gaps(conn, recording.id, first, last), (last, last)]:
                if hole_start > at:
                    spans.extend(recording.utc_spans(at, hole_start))
                at = max(at, hole_end)
    return merge(spans)


def merge(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the union of spans [a, b) as disjoint ascending spans."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif start < end:
            merged.append((start, end))
    return merged


def coverage(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> Coverage:
    """Return how much of [start_ns, end_ns) was recorded, analysed and readable.

    Recorded time is exact (samples less decided holes). Analysed and readable time come from the trend minutes; a
    minute that the period cuts counts in proportion, and where two devices recorded at once the minute with more
    readable time counts. What other weights or rules have not come to yet in reading a recording anew is not analysed:
    its trend is still that of the reading before, its beats and findings are not all there.
    """
    recorded_s = sum(b - a for a, b in recorded_spans(conn, wearer, start_ns, end_ns)) / NS
    best: dict[int, tuple[float, float]] = {}
    anew = _read_anew_until(conn, wearer)
    for row in trends(conn, wearer, start_ns, end_ns):
        share = overlap_share(row["utc_ns"], start_ns, min(end_ns, anew.get(row["recording_id"], end_ns)))
        slot = round(row["utc_ns"] / MINUTE_NS)
        candidate = (row["readable_s"] * share, row["recorded_s"] * share)
        best[slot] = max(best.get(slot, (0.0, 0.0)), candidate)
    analysed_s = min(sum(recorded for _, recorded in best.values()), recorded_s)
    readable_s = min(sum(readable for readable, _ in best.values()), analysed_s)
    return Coverage(max(end_ns - start_ns, 0) / NS, recorded_s, analysed_s, readable_s)


def _read_anew_until(conn: Connection, wearer: str) -> dict[int, int]:
    """Return up to when those recordings were read anew that are not done, ns UTC by recording."""
    table = tables.cursor
    query = select(table.c.recording_id, table.c.next_k).where(table.c.next_k < table.c.silent_until_k)
    hops = {int(row.recording_id): int(row.next_k) for row in conn.execute(query)}
    if not hops:
        return {}
    return {
        recording.id: recording.to_utc_ns(round(hops[recording.id] * HOP_S * recording.fs_hz))
        for recording in recordings(conn, wearer)
        if recording.id in hops
    }


def overlap_share(minute_ns: int, start_ns: int, end_ns: int) -> float:
    """Return the share (0-1) of the minute that starts at `minute_ns` that lies within [start_ns, end_ns)."""
    return max(min(minute_ns + MINUTE_NS, end_ns) - max(minute_ns, start_ns), 0) / MINUTE_NS


def recorded_range(conn: Connection, wearer: str) -> tuple[int, int] | None:
    """Return the UTC of the wearer's first and last stored sample, None when there are none."""
    found = [r for r in recordings(conn, wearer) if r.end_sample > 0]
    if not found:
        return None
    return min(r.to_utc_ns(0) for r in found), max(r.to_utc_ns(r.end_sample) for r in found)


def analysed_until_ns(conn: Connection, recording: Recording, hop_s: float) -> int | None:
    """Return the UTC up to which a recording has been analysed, None before the first hop."""
    next_k = conn.execute(
        select(tables.cursor.c.next_k).where(tables.cursor.c.recording_id == recording.id)
    ).scalar_one_or_none()
    if not next_k:
        return None
    return recording.to_utc_ns(min(round(next_k * hop_s * recording.fs_hz), recording.end_sample))


def health(conn: Connection) -> dict[str, tuple[Any, int]]:
    """Return the daemon's view of itself: key → (value, when it was written, ns UTC)."""
    rows = conn.execute(select(tables.health).order_by(tables.health.c.key).limit(1_000)).mappings()
    return {row["key"]: (row["value"], row["updated_ns"]) for row in rows}


def backlog(conn: Connection) -> dict[str, int]:
    """Return how many rows wait: `inbox` (chunks not yet in blocks) and `outbox` (alerts not yet with the broker)."""
    return {
        table.name: int(conn.execute(select(func.count()).select_from(table)).scalar_one())
        for table in (tables.inbox, tables.outbox)
    }
