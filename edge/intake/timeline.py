"""Where a chunk lies in its recording: by sequence and device stamp within a boot, by UTC between boots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, delete, insert, select, update

from edge.chunk import ClockReading, utc_rate_hz
from edge.intake.outcome import IntakeLimits, Outcome
from edge.store import tables
from edge.store.recordings import free_key
from edge.store.waveform import add_interval

CONTIGUOUS_SAMPLES = 1.5
"""A stamp this close to where the previous chunk ended continues it; the grid is not stretched."""
ANCHOR_SAMPLES = 0.5
"""A contiguous stamp further off than this is written down as a new anchor of the clock."""
UTC_STEP_S = 1.0
EARLIEST_UTC_NS = 946_684_800 * 10**9
MAX_RESERVE_S = 3600.0
"""Most room kept before the first chunk of a recording for earlier ones that the sender still holds."""
RATE_WINDOW_S = 60.0
RATE_TOLERANCE = 0.05
ON_GRID_SAMPLES = 0.05


@dataclass(slots=True)
class Piece:
    """A chunk without its samples."""

    boot: int
    seq: int
    n: int
    device_time_ns: int
    utc_ns: int | None
    """The sender's, if plausible."""
    received_ns: int
    row_id: int | None
    """Of its inbox row, once it has one."""
    clock: ClockReading | None = None


@dataclass(slots=True)
class Segment:
    """A row of `clock_segment`."""

    index0: int
    boot: int
    device_time_ns: int
    utc_ns: int
    utc_source: str
    stamp_ns: int | None = None
    rate_hz: float | None = None
    drift_ppm: float | None = None

    def utc_at(self, sample: float, fs_hz: float) -> int:
        """Return the UTC of a sample of the recording, whose nominal rate is `fs_hz`."""
        return self.utc_ns + round((sample - self.index0) * 1e9 / utc_rate_hz(fs_hz, self.rate_hz, self.drift_ppm))


@dataclass(frozen=True, slots=True)
class Insertion:
    """Where late samples go: the chunk would start at `start`, and only `spans` of the recording are free."""

    start: int
    spans: tuple[tuple[int, int], ...]


class Timeline:
    """One recording as intake knows it; mirrors the database and belongs to the writer's thread."""

    def __init__(self, recording_id: int, fs_hz: float, end: int, limits: IntakeLimits) -> None:
        self.id = recording_id
        self.fs_hz = fs_hz
        self.end = end
        """Exclusive end of what is decided."""
        self.segment: Segment | None = None
        """The newest one."""
        self.compacted = 0
        """Blocks below this sample are written."""
        self.late = False
        """Late samples wait in the inbox."""
        self._limits = limits
        self._rate: tuple[int, int] | None = None

    def load(self, conn: Connection) -> None:
        """Read the newest clock segment."""
        rows = select(tables.clock_segment).where(tables.clock_segment.c.recording_id == self.id)
        row = conn.execute(rows.order_by(tables.clock_segment.c.index0.desc()).limit(1)).first()
        if row is not None:
            self.segment = _segment(row)

    def append(self, conn: Connection, piece: Piece, earlier: int, follows: bool, outcome: Outcome) -> int:
        """Decide that `piece` comes next, after a gap if stamps say so; return its first sample.

        earlier  chunks before it that the sender still holds (matters for a recording's first chunk only)
        follows  it has the sequence number after the last one placed
        """
        utc_ns, source = (piece.utc_ns, "sender") if piece.utc_ns is not None else (self._arrival_utc(piece), "arrival")
        segment = self.segment
        if segment is None:
            start = min(earlier * piece.n, int(MAX_RESERVE_S * self.fs_hz))
            self._begin(conn, utc_ns - self._ns(start))
            anchor = True
        elif segment.boot == piece.boot:
            start, anchor, utc_ns, source = self._continue(segment, piece, follows, outcome)
        else:
            ahead = self._ahead_by_utc(segment, utc_ns)
            outcome.counts["utc_backwards"] += ahead < -CONTIGUOUS_SAMPLES
            start = self.end + (0 if abs(ahead) <= CONTIGUOUS_SAMPLES else max(1, self._capped(ahead, outcome)))
            anchor = True
        if segment is None or segment.boot != piece.boot:
            self._rate = None
        if anchor:
            measured = asdict(piece.clock) if piece.clock is not None else {}
            self._add_segment(conn, Segment(start, piece.boot, piece.device_time_ns, utc_ns, source, **measured))
        if start > self.end:
            add_interval(conn, tables.gap, self.id, self.end, start)
            outcome.counts["gap"] += 1
        self.end = start + piece.n
        return start

    def find_room(self, conn: Connection, piece: Piece) -> Insertion | None:
        """Return where in decided gaps a late `piece` belongs by its stamp; None if its boot has no segment here."""
        segments = tables.clock_segment
        mine = select(segments).where(segments.c.recording_id == self.id, segments.c.boot == piece.boot)
        stamp = segments.c.device_time_ns
        below = conn.execute(mine.where(stamp <= piece.device_time_ns).order_by(stamp.desc()).limit(1)).first()
        above = conn.execute(mine.where(stamp > piece.device_time_ns).order_by(stamp).limit(1)).first()
        best: tuple[tuple[int, int, int], Insertion] | None = None
        for row in (below, above):
            if row is None:
                continue
            exact = row.index0 + (piece.device_time_ns - row.device_time_ns) * self.fs_hz / 1e9
            nearest = round(exact)
            on_grid = abs(exact - nearest) <= ON_GRID_SAMPLES
            for shift in (0,) if on_grid else (0, -1, 1):
                start = nearest + shift
                spans, edges = self._free(conn, start, start + piece.n)
                score = (sum(end - first for first, end in spans), edges, -abs(shift))
                if best is None or score > best[0]:
                    best = score, Insertion(start, spans)
        return None if best is None else best[1]

    def insert(self, conn: Connection, piece: Piece, at: Insertion) -> None:
        """Take `at` out of the gaps and mark the recording as changed there."""
        for first, end in at.spans:
            here = (tables.gap.c.recording_id == self.id) & (tables.gap.c.start_sample <= first)
            row = conn.execute(select(tables.gap).where(here).order_by(tables.gap.c.start_sample.desc()).limit(1)).one()
            conn.execute(delete(tables.gap).where(here & (tables.gap.c.start_sample == row.start_sample)))
            for rest_first, rest_end in ((row.start_sample, first), (end, row.end_sample)):
                if rest_first < rest_end:
                    new = insert(tables.gap).values(recording_id=self.id, start_sample=rest_first, end_sample=rest_end)
                    conn.execute(new)
        changed_from, changed_until = at.spans[0][0], at.spans[-1][1]
        columns = tables.recording.c
        from_column, until_column = columns.changed_from_sample, columns.changed_until_sample
        conn.execute(
            update(tables.recording)
            .where(columns.id == self.id)
            .values(
                changed_from_sample=case((from_column < changed_from, from_column), else_=changed_from),
                changed_until_sample=case((until_column > changed_until, until_column), else_=changed_until),
                late_insertions=columns.late_insertions + 1,
            )
        )
        self.late = True
        if at.spans == ((at.start, at.start + piece.n),):
            self._extend_first_segment(conn, piece, at.start)

    def _continue(self, segment: Segment, piece: Piece, follows: bool, outcome: Outcome) -> tuple[int, bool, int, str]:
        """Place a chunk of the boot placed last: (start, whether a new anchor is due, its UTC, the UTC's source)."""
        elapsed_ns = piece.device_time_ns - segment.device_time_ns
        off = elapsed_ns * self.fs_hz / 1e9 - (self.end - segment.index0)
        self._judge_rate(piece, off, follows, outcome)
        start, anchor = self.end, False
        expected_ns = segment.utc_at(segment.index0 + elapsed_ns * self.fs_hz / 1e9, self.fs_hz)
        if abs(off) <= CONTIGUOUS_SAMPLES:
            anchor = abs(off) > ANCHOR_SAMPLES
        elif 0 < off <= self._limits.max_gap_s * self.fs_hz:
            start = self.end + round(off)
        else:
            outcome.counts["stamp_jump"] += 1
            anchor = True
            if piece.utc_ns is not None and segment.utc_source == "sender":
                ahead = self._ahead_by_utc(segment, piece.utc_ns)
                start = self.end + (self._capped(ahead, outcome) if ahead > CONTIGUOUS_SAMPLES else 0)
            expected_ns = segment.utc_at(start, self.fs_hz)
        if piece.utc_ns is not None:
            if segment.utc_source != "sender" or abs(piece.utc_ns - expected_ns) > UTC_STEP_S * 1e9:
                outcome.counts["utc_jump"] += 1
                anchor = True
            return start, anchor, piece.utc_ns, "sender"
        if segment.utc_source == "arrival" and expected_ns > self._arrival_utc(piece) + UTC_STEP_S * 1e9:
            outcome.counts["utc_jump"] += 1  # nothing arrives before it was taken: the first chunk had been delayed
            return start, True, self._arrival_utc(piece), "arrival"
        return start, anchor, expected_ns, segment.utc_source

    def _ahead_by_utc(self, segment: Segment, utc_ns: int) -> float:
        """Return how many samples after the end of the recording `utc_ns` is."""
        return (utc_ns - segment.utc_at(self.end, self.fs_hz)) * self.fs_hz / 1e9

    def _capped(self, ahead: float, outcome: Outcome) -> int:
        """Return a gap's length in samples: a clock that was years off must not make years of gap."""
        longest = self._limits.max_gap_s * self.fs_hz
        outcome.counts["gap_capped"] += ahead > longest
        return round(min(ahead, longest))

    def _judge_rate(self, piece: Piece, off: float, follows: bool, outcome: Outcome) -> None:
        """Compare device stamps with the number of samples over runs of a minute without missing chunks or pauses."""
        if self._rate is None or not follows or abs(off) > max(2 * piece.n, self.fs_hz):
            self._rate = (piece.device_time_ns, piece.n)
            return
        since_ns, samples = self._rate
        if samples >= RATE_WINDOW_S * self.fs_hz:
            elapsed = (piece.device_time_ns - since_ns) * self.fs_hz / 1e9
            outcome.counts["rate_mismatch"] += abs(elapsed / samples - 1) > RATE_TOLERANCE
            self._rate = (piece.device_time_ns, piece.n)
        else:
            self._rate = (since_ns, samples + piece.n)

    def _begin(self, conn: Connection, start_ns: int) -> None:
        """Fix the identity of the recording: only now is its first sample known."""
        columns = tables.recording.c
        row = conn.execute(select(tables.recording).where(columns.id == self.id)).one()
        if row.start_ns != start_ns:
            key, start_ns = free_key(conn, row.wearer, row.device, start_ns, row.leads, row.fs_hz)
            conn.execute(update(tables.recording).where(columns.id == self.id).values(key=key, start_ns=start_ns))

    def _add_segment(self, conn: Connection, segment: Segment) -> None:
        self.segment = segment
        conn.execute(insert(tables.clock_segment).values(recording_id=self.id, **asdict(segment)))

    def _extend_first_segment(self, conn: Connection, piece: Piece, start: int) -> None:
        """Move the first anchor of a boot down to a late chunk before it, as if the chunk had come in time."""
        rows = tables.clock_segment
        mine = (rows.c.recording_id == self.id) & (rows.c.boot == piece.boot)
        row = conn.execute(select(rows).where(mine).order_by(rows.c.index0).limit(1)).first()
        if row is None or start >= row.index0:
            return
        utc_ns = piece.utc_ns if row.utc_source == "sender" else None
        moved = Segment(
            start,
            piece.boot,
            piece.device_time_ns,
            row.utc_ns - (row.device_time_ns - piece.device_time_ns) if utc_ns is None else utc_ns,
            row.utc_source,
            rate_hz=row.rate_hz,
            drift_ppm=row.drift_ppm,
        )
        conn.execute(delete(rows).where(mine & (rows.c.index0 == row.index0)))
        newest = self.segment
        self._add_segment(conn, moved)
        if newest is not None and newest.index0 != row.index0:
            self.segment = newest

    def _free(self, conn: Connection, start: int, end: int) -> tuple[tuple[tuple[int, int], ...], int]:
        """Return the spans of [start, end) that lie in gaps, and how many gap edges they reach."""
        gaps = tables.gap.c
        inside = (gaps.recording_id == self.id) & (gaps.start_sample < end) & (gaps.end_sample > start)
        rows = conn.execute(select(gaps.start_sample, gaps.end_sample).where(inside).order_by(gaps.start_sample)).all()
        spans = tuple((max(first, start), min(stop, end)) for first, stop in rows)
        return spans, sum((first >= start) + (stop <= end) for first, stop in rows)

    def _arrival_utc(self, piece: Piece) -> int:
        return piece.received_ns - self._ns(piece.n)

    def _ns(self, samples: int) -> int:
        return round(samples * 1e9 / self.fs_hz)


def _segment(row: Row[Any]) -> Segment:
    found = dict(row._mapping)
    del found["recording_id"]
    return Segment(**found)
