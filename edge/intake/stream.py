"""The chunks of one device on one wearer: order, duplicates, holes. Runs as jobs on the writer's thread."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from edge.chunk import LEAD_NAMES, MISSING, Chunk
from edge.intake.outcome import IntakeLimits, Outcome
from edge.intake.sequence import Sequence
from edge.intake.timeline import EARLIEST_UTC_NS, Insertion, Piece, Timeline
from edge.store import tables
from edge.store.recordings import create_recording, ensure_wearer
from edge.store.waveform import block_len, compact

MAX_BOOTS = 16
"""Boots of a device whose stragglers are recognised."""
DAY_NS = 86400 * 10**9

_INSERT_CHUNK = insert(tables.inbox)
_UPDATE_RECORDING = update(tables.recording).where(tables.recording.c.id == bindparam("id_"))
_UPDATE_SENDER = update(tables.sender).where(
    tables.sender.c.wearer == bindparam("wearer_"),
    tables.sender.c.device == bindparam("device_"),
    tables.sender.c.boot == bindparam("boot_"),
)

Config = tuple[tuple[str, ...], float, tuple[float, ...]]
"""Leads, rate and scale: what makes a recording another one."""


@dataclass(slots=True)
class _Boot:
    ordinal: int
    sequence: Sequence
    tail: int
    """The highest sequence number whose place is decided."""


@dataclass(slots=True)
class _Waiting:
    piece: Piece
    timeline: Timeline


class Stream:
    """Mirrors what the database says about one device on one wearer."""

    def __init__(self, conn: Connection, wearer: str, device: str, source: str, limits: IntakeLimits) -> None:
        """Load it; an unknown device gives an empty stream."""
        self.wearer = wearer
        self.device = device
        self.arrived_s = 0.0
        """Monotonic time of the last chunk."""
        self._source = source
        self._limits = limits
        self._boots: dict[int, _Boot] = {}
        self._current: int | None = None
        self._timelines: dict[Config, Timeline] = {}
        self._pending: list[_Waiting] = []
        self._load(conn)

    @property
    def waits(self) -> bool:
        """Whether chunks wait behind a hole."""
        return bool(self._pending)

    def store(self, conn: Connection, chunk: Chunk, received_ns: int, timezone: str, outcome: Outcome) -> None:
        """Keep a chunk that is consistent in itself, and decide what it lets be decided."""
        boot = self._boots.get(chunk.boot)
        if boot is not None and chunk.seq in boot.sequence:
            self._count_duplicate(conn, chunk, outcome)
            boot.sequence.give_up(chunk.oldest)
        else:
            timeline = self._timeline(conn, chunk, received_ns, timezone, outcome)
            if timeline is None:
                return
            if boot is None:
                boot = self._new_boot(conn, chunk, received_ns, outcome)
            outcome.counts["hole_abandoned"] += boot.sequence.add(chunk.seq)
            boot.sequence.give_up(chunk.oldest)
            piece = Piece(
                boot=chunk.boot,
                seq=chunk.seq,
                n=chunk.n,
                device_time_ns=chunk.device_time_ns,
                utc_ns=_plausible(chunk.utc_ns, received_ns, outcome),
                received_ns=received_ns,
                row_id=None,
                clock=chunk.clock,
            )
            if chunk.boot == self._current and chunk.seq > boot.tail:
                bisect.insort(self._pending, _Waiting(piece, timeline), key=lambda waiting: waiting.piece.seq)
                start = self._decide(conn, outcome, piece)
                self._keep(conn, timeline, piece, start, chunk.samples, chunk.contact)
                outcome.counts["stored"] += 1
            else:
                self._store_late(conn, chunk, boot, timeline, piece, outcome)
            self._save_recording(conn, timeline, received_ns)
        if chunk.boot == self._current:
            self._decide(conn, outcome)
        self._save_sender(conn, chunk.boot, boot, received_ns)
        self._tell_frontier(outcome)

    def decide_all(self, conn: Connection, outcome: Outcome) -> None:
        """Stop waiting: every hole is a gap."""
        self._decide(conn, outcome, force=True)

    def compact(self, conn: Connection, *, whole: bool) -> None:
        """Move what is decided into blocks: full blocks only, or the last, partial one too."""
        for timeline in self._timelines.values():
            length = block_len(timeline.fs_hz)
            until = timeline.end if whole else timeline.end // length * length
            if until > timeline.compacted or timeline.late:
                compact(conn, timeline.id, max(until, timeline.compacted))
                timeline.compacted = max(until, timeline.compacted)
                timeline.late = False

    def recordings(self) -> list[int]:
        """Return the ids of its recordings."""
        return [timeline.id for timeline in self._timelines.values()]

    def _load(self, conn: Connection) -> None:
        sender, recording, inbox = tables.sender, tables.recording, tables.inbox
        mine = (recording.c.wearer == self.wearer) & (recording.c.device == self.device)
        by_id: dict[int, Timeline] = {}
        for row in conn.execute(select(recording).where(mine, recording.c.source == self._source)):
            timeline = Timeline(row.id, row.fs_hz, row.end_sample, self._limits)
            by_id[row.id] = self._timelines[(tuple(row.leads), row.fs_hz, tuple(row.uv_per_lsb))] = timeline
        for timeline in by_id.values():
            timeline.load(conn)
        columns = (inbox.c.recording_id, inbox.c.id, inbox.c.boot, inbox.c.seq, inbox.c.n)
        stamps = (inbox.c.device_time_ns, inbox.c.utc_ns, inbox.c.received_ns)
        undecided = select(*columns, *stamps).where(inbox.c.recording_id.in_(by_id), inbox.c.start_sample.is_(None))
        for row in conn.execute(undecided.order_by(inbox.c.seq)):
            piece = Piece(row.boot, row.seq, row.n, row.device_time_ns, row.utc_ns, row.received_ns, row.id)
            self._pending.append(_Waiting(piece, by_id[row.recording_id]))
        first = self._pending[0].piece.seq if self._pending else None
        senders = select(sender).where(sender.c.wearer == self.wearer, sender.c.device == self.device)
        for row in conn.execute(senders.order_by(sender.c.ordinal)):
            sequence = Sequence(row.next_seq, [(first, end) for first, end in row.ahead])
            self._boots[row.boot] = _Boot(row.ordinal, sequence, sequence.newest_below(None))
            self._current = row.boot
        if self._current is not None:
            boot = self._boots[self._current]
            boot.tail = boot.sequence.newest_below(first)

    def _timeline(
        self, conn: Connection, chunk: Chunk, received_ns: int, timezone: str, outcome: Outcome
    ) -> Timeline | None:
        config = (chunk.leads, float(chunk.fs_hz), tuple(float(uv) for uv in chunk.uv_per_lsb))
        timeline = self._timelines.get(config)
        outcome.counts["unknown_lead"] += any(lead not in LEAD_NAMES for lead in chunk.leads)
        if timeline is None:
            if len(self._timelines) >= self._limits.max_recordings:
                outcome.counts["too_many_recordings"] += 1
                return None
            outcome.counts["new_recording"] += 1
            ensure_wearer(conn, self.wearer, timezone, received_ns)
            recording_id = create_recording(
                conn,
                wearer_id=self.wearer,
                device=self.device,
                leads=chunk.leads,
                fs_hz=chunk.fs_hz,
                uv_per_lsb=chunk.uv_per_lsb,
                source=self._source,
                start_ns=received_ns,
                received_ns=received_ns,
            )
            timeline = self._timelines[config] = Timeline(recording_id, float(chunk.fs_hz), 0, self._limits)
        return timeline

    def _new_boot(self, conn: Connection, chunk: Chunk, received_ns: int, outcome: Outcome) -> _Boot:
        self._decide(conn, outcome, force=True)
        ordinal = 1 + max((boot.ordinal for boot in self._boots.values()), default=-1)
        outcome.counts["new_boot"] += ordinal > 0
        boot = self._boots[chunk.boot] = _Boot(ordinal, Sequence(chunk.oldest), -1)
        self._current = chunk.boot
        sender = tables.sender
        conn.execute(
            insert(sender).values(
                wearer=self.wearer,
                device=self.device,
                boot=chunk.boot,
                ordinal=ordinal,
                next_seq=chunk.oldest,
                ahead=[],
                updated_ns=received_ns,
            )
        )
        for number in [number for number, known in self._boots.items() if known.ordinal <= ordinal - MAX_BOOTS]:
            del self._boots[number]
            mine = (sender.c.wearer == self.wearer) & (sender.c.device == self.device)
            conn.execute(delete(sender).where(mine, sender.c.boot == number))
        return boot

    def _decide(
        self, conn: Connection, outcome: Outcome, new: Piece | None = None, *, force: bool = False
    ) -> int | None:
        """Place what no longer has to wait; return where `new`, which has no inbox row yet, went."""
        if not self._pending or self._current is None:
            return None
        boot = self._boots[self._current]
        placed = None
        while self._pending:
            head, timeline = self._pending[0].piece, self._pending[0].timeline
            hole = boot.sequence.missing(boot.tail + 1, head.seq)
            if hole and not (force or self._passed(head) or len(self._pending) > self._limits.max_pending):
                break
            self._pending.pop(0)
            start = timeline.append(conn, head, hole, head.seq == boot.tail + 1, outcome)
            boot.tail = head.seq
            outcome.horizon(timeline.id, timeline.end)
            if head is new:
                placed = start
            else:
                conn.execute(update(tables.inbox).where(tables.inbox.c.id == head.row_id).values(start_sample=start))
                self._save_end(conn, timeline)
        return placed

    def _passed(self, head: Piece) -> bool:
        """Whether data newer than the hole before `head` by the watermark has arrived, in device stamps."""
        newest_ns = max(
            waiting.piece.device_time_ns + waiting.piece.n / waiting.timeline.fs_hz * 1e9 for waiting in self._pending
        )
        return newest_ns - head.device_time_ns >= self._limits.watermark_s * 1e9

    def _store_late(
        self, conn: Connection, chunk: Chunk, boot: _Boot, timeline: Timeline, piece: Piece, outcome: Outcome
    ) -> None:
        """Fill a gap with a chunk whose hole was decided, or that an earlier boot left behind."""
        room = timeline.find_room(conn, piece)
        free = sum(end - first for first, end in room.spans) if room is not None else 0
        fills_hole = piece.seq < boot.tail
        if room is not None and (free if fills_hole else 2 * free >= piece.n):
            timeline.insert(conn, piece, room)
            first, samples = _cut(chunk.samples, room)
            self._keep(conn, timeline, piece, first, samples, chunk.contact)
            outcome.counts["late"] += 1
            outcome.counts["overlap"] += free < piece.n
            outcome.horizon(timeline.id, timeline.end, first)
        elif fills_hole and room is not None and room.start < timeline.end:
            outcome.counts["overlap"] += 1
        else:  # nothing says where it belongs, but it goes on where its boot had come to: after all there is
            start = timeline.append(conn, piece, 0, False, outcome)
            self._keep(conn, timeline, piece, start, chunk.samples, chunk.contact)
            outcome.counts["stored"] += 1
            outcome.horizon(timeline.id, timeline.end)
        boot.tail = max(boot.tail, piece.seq)

    def _count_duplicate(self, conn: Connection, chunk: Chunk, outcome: Outcome) -> None:
        outcome.counts["duplicate"] += 1
        inbox = tables.inbox
        stored = conn.execute(
            select(inbox.c.n, inbox.c.device_time_ns, inbox.c.data).where(
                inbox.c.recording_id.in_(self.recordings()), inbox.c.boot == chunk.boot, inbox.c.seq == chunk.seq
            )
        ).first()
        if stored is not None and stored.n == chunk.n:  # a row of another length was cut to fit
            same = stored.device_time_ns == chunk.device_time_ns and stored.data == _bytes(chunk.samples)
            outcome.counts["conflict"] += not same

    def _keep(
        self,
        conn: Connection,
        timeline: Timeline,
        piece: Piece,
        start: int | None,
        samples: NDArray[np.int32],
        contact: bool | None,
    ) -> None:
        row = {
            "recording_id": timeline.id,
            "boot": piece.boot,
            "seq": piece.seq,
            "start_sample": start,
            "n": samples.shape[1],
            "device_time_ns": piece.device_time_ns,
            "utc_ns": piece.utc_ns,
            "received_ns": piece.received_ns,
            "contact": contact,
            "data": _bytes(samples),
        }
        result = conn.execute(_INSERT_CHUNK, row)
        assert result.inserted_primary_key is not None
        piece.row_id = int(result.inserted_primary_key[0])

    def _save_end(self, conn: Connection, timeline: Timeline) -> None:
        row = update(tables.recording).where(tables.recording.c.id == timeline.id)
        conn.execute(row.values(end_sample=timeline.end))

    def _save_recording(self, conn: Connection, timeline: Timeline, received_ns: int) -> None:
        row = {"id_": timeline.id, "end_sample": timeline.end, "last_received_ns": received_ns}
        conn.execute(_UPDATE_RECORDING, row)

    def _save_sender(self, conn: Connection, number: int, boot: _Boot, received_ns: int) -> None:
        row = {
            "wearer_": self.wearer,
            "device_": self.device,
            "boot_": number,
            "next_seq": boot.sequence.next_seq,
            "ahead": boot.sequence.ahead,
            "updated_ns": received_ns,
        }
        conn.execute(_UPDATE_SENDER, row)

    def _tell_frontier(self, outcome: Outcome) -> None:
        if self._current is not None:
            next_seq = self._boots[self._current].sequence.next_seq
            if next_seq > 0:
                outcome.frontiers[(self.wearer, self.device)] = (self._current, next_seq - 1)


def _plausible(utc_ns: int | None, received_ns: int, outcome: Outcome) -> int | None:
    if utc_ns is None or EARLIEST_UTC_NS <= utc_ns <= received_ns + DAY_NS:
        return utc_ns
    outcome.counts["utc_implausible"] += 1
    return None


def _cut(samples: NDArray[np.int32], room: Insertion) -> tuple[int, NDArray[np.int32]]:
    """Return (first sample, samples) from the first free sample to the last, `MISSING` where others are."""
    free = np.full_like(samples, MISSING)
    for first, end in room.spans:
        free[:, first - room.start : end - room.start] = samples[:, first - room.start : end - room.start]
    first, end = room.spans[0][0], room.spans[-1][1]
    return first, free[:, first - room.start : end - room.start]


def _bytes(samples: NDArray[np.int32]) -> bytes:
    return samples.astype("<i4", order="C").tobytes()
