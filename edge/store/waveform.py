"""The samples of a recording: written once, read as if they had never lain in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, Table, delete, insert, select, update

from edge.chunk import MISSING
from edge.store import codec
from edge.store.tables import block, contact_off, inbox, recording

BLOCK_S = 10


@dataclass(frozen=True, slots=True)
class Waveform:
    """A span of a recording."""

    samples: NDArray[np.int32]
    """[leads, n] digital values, `MISSING` where nothing is stored."""
    contact_off: NDArray[np.bool_]
    """[n] the device said the electrodes were off the body."""


def block_len(fs_hz: float) -> int:
    """Return the samples per block: block b holds [b·len, (b+1)·len)."""
    return round(BLOCK_S * fs_hz)


def read(conn: Connection, recording_id: int, start: int, stop: int) -> Waveform:
    """Return samples [start, stop) from blocks and inbox; what lies outside the recording is `MISSING`.

    All of it comes from one snapshot if `conn` is in a transaction, as SQLAlchemy connections are. Raises
    `StoreError` for a damaged block and `KeyError` for an unknown recording.
    """
    if stop < start:
        raise ValueError(f"stop {stop} before start {start}")
    leads, length = _shape(conn, recording_id)
    samples = np.full((leads, stop - start), MISSING, np.int32)
    off = np.zeros(stop - start, np.bool_)
    blocks = select(block.c.block_no, block.c.data).where(
        block.c.recording_id == recording_id,
        block.c.block_no >= start // length,
        block.c.block_no < -(-stop // length),
    )
    for number, data in conn.execute(blocks):
        _fill(samples, start, codec.decode(data), number * length)
    for row in conn.execute(_inbox_rows(recording_id, start, stop)):
        _fill(samples, start, _inbox_samples(row.data, leads), row.start_sample)
        if row.contact is False:
            off[max(row.start_sample - start, 0) : max(row.start_sample + row.n - start, 0)] = True
    intervals = select(contact_off.c.start_sample, contact_off.c.end_sample).where(
        contact_off.c.recording_id == recording_id,
        contact_off.c.start_sample < stop,
        contact_off.c.end_sample > start,
    )
    for first, end in conn.execute(intervals):
        off[max(first - start, 0) : end - start] = True
    return Waveform(samples, off)


def write(conn: Connection, recording_id: int, start: int, samples: NDArray[np.int32]) -> None:
    """Store int32 [leads, n] from sample `start` on, in blocks; what is stored already stays as it is."""
    leads, length = _shape(conn, recording_id)
    if samples.shape[0] != leads or start < 0:
        raise ValueError(f"{samples.shape[0]} leads from sample {start} do not fit a recording of {leads} leads")
    stop = start + samples.shape[1]
    for number in range(start // length, -(-stop // length)):
        _merge_block(conn, recording_id, number, length, leads, [(start, samples)])


def compact(conn: Connection, recording_id: int, until: int) -> int:
    """Move what the inbox holds below sample `until` into blocks; return how many chunks left the inbox.

    Chunks that reach beyond `until` stay with their rest. Only placed chunks move.
    """
    leads, length = _shape(conn, recording_id)
    by_block: dict[int, list[tuple[int, NDArray[np.int32]]]] = {}
    done: list[int] = []
    for row in conn.execute(_inbox_rows(recording_id, None, until)).all():
        samples = _inbox_samples(row.data, leads)
        start, end = row.start_sample, min(row.start_sample + row.n, until)
        for number in range(start // length, -(-end // length)):
            by_block.setdefault(number, []).append((start, samples[:, : end - start]))
        if row.contact is False:
            add_interval(conn, contact_off, recording_id, start, end)
        if end == start + row.n:
            done.append(row.id)
        else:
            rest = np.ascontiguousarray(samples[:, end - start :])
            trimmed = update(inbox).where(inbox.c.id == row.id)
            conn.execute(trimmed.values(start_sample=end, n=rest.shape[1], data=rest.astype("<i4").tobytes()))
    for number, pieces in sorted(by_block.items()):
        _merge_block(conn, recording_id, number, length, leads, pieces)
    for at in range(0, len(done), 500):
        conn.execute(delete(inbox).where(inbox.c.id.in_(done[at : at + 500])))
    return len(done)


def add_interval(conn: Connection, table: Table, recording_id: int, start: int, end: int) -> None:
    """Add [start, end) to `gap` or `contact_off`, joined with the intervals it touches."""
    touching = (table.c.recording_id == recording_id) & (table.c.start_sample <= end) & (table.c.end_sample >= start)
    rows = conn.execute(select(table.c.start_sample, table.c.end_sample).where(touching)).all()
    if rows:
        start, end = min(start, *(r[0] for r in rows)), max(end, *(r[1] for r in rows))
        conn.execute(delete(table).where(touching))
    conn.execute(insert(table).values(recording_id=recording_id, start_sample=start, end_sample=end))


def _shape(conn: Connection, recording_id: int) -> tuple[int, int]:
    row = conn.execute(select(recording.c.leads, recording.c.fs_hz).where(recording.c.id == recording_id)).first()
    if row is None:
        raise KeyError(f"no recording {recording_id}")
    return len(row.leads), block_len(row.fs_hz)


def _inbox_rows(recording_id: int, start: int | None, stop: int) -> Select[Any]:
    rows = (
        select(inbox.c.id, inbox.c.start_sample, inbox.c.n, inbox.c.contact, inbox.c.data)
        .where(inbox.c.recording_id == recording_id, inbox.c.start_sample < stop)
        .order_by(inbox.c.id)
    )
    return rows if start is None else rows.where(inbox.c.start_sample + inbox.c.n > start)


def _inbox_samples(data: bytes, leads: int) -> NDArray[np.int32]:
    return np.frombuffer(data, "<i4").reshape(leads, -1)


def _fill(into: NDArray[np.int32], into_start: int, samples: NDArray[np.int32], start: int) -> None:
    """Copy what `into` misses from the overlap of the two spans."""
    first = max(into_start, start)
    end = min(into_start + into.shape[1], start + samples.shape[1])
    if first >= end:
        return
    target = into[:, first - into_start : end - into_start]
    np.copyto(target, samples[:, first - start : end - start], where=target == MISSING)


def _merge_block(
    conn: Connection,
    recording_id: int,
    number: int,
    length: int,
    leads: int,
    pieces: list[tuple[int, NDArray[np.int32]]],
) -> None:
    here = (block.c.recording_id == recording_id) & (block.c.block_no == number)
    stored = conn.execute(select(block.c.data).where(here)).scalar()
    samples = np.full((leads, length), MISSING, np.int32) if stored is None else codec.decode(stored).copy()
    for start, piece in pieces:
        _fill(samples, number * length, piece, start)
    data = codec.encode(samples)
    if stored is None:
        conn.execute(insert(block).values(recording_id=recording_id, block_no=number, data=data))
    elif data != stored:
        conn.execute(update(block).where(here).values(data=data))
