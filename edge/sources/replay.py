"""A recording sent as a wearable would have sent it."""

from __future__ import annotations

from collections.abc import Iterator

from edge.chunk import FS_RANGE_HZ
from edge.errors import BadInputError
from edge.sources.pace import Block
from edge.sources.payload import MAX_CHUNK_S, MAX_NS
from edge.sources.record import Record
from edge.sources.sender import Run


def replay_stream(record: Record, *, wearer: str, device: str, start_utc_ns: int) -> Run:
    """The stream `record` makes when it is worn from `start_utc_ns` on; its device clock is UTC.

    Raises BadInputError for a start before 1970 or beyond 2116.
    """
    if not 0 <= start_utc_ns <= MAX_NS - round(record.duration_s * 1e9):
        raise BadInputError("the start time must lie between 1970 and 2116")
    return Run(
        wearer=wearer,
        device=device,
        leads=record.leads,
        fs_hz=record.fs_hz,
        uv_per_lsb=record.uv_per_lsb,
        utc_ns=start_utc_ns,
        device_time_ns=start_utc_ns,
    )


def start_for_end_at(record: Record, now_utc_ns: int, speed: float) -> int:
    """Start (UTC, ns) that makes the record's last sample "now" at the moment the replay has sent it."""
    seconds = 0.0 if speed == 0 else record.duration_s / speed
    return now_utc_ns + round((seconds - record.duration_s) * 1e9)


def blocks(record: Record, chunk_s: float) -> Iterator[Block]:
    """Cut a record into chunks of `chunk_s` seconds (rounded to samples, the last one shorter)."""
    if not 1 / FS_RANGE_HZ[1] <= chunk_s <= MAX_CHUNK_S:
        raise BadInputError(f"chunks of {chunk_s:g} s are impossible: at most {MAX_CHUNK_S:g} s")
    step = max(1, min(round(chunk_s * record.fs_hz), int(MAX_CHUNK_S * record.fs_hz)))
    for start in range(0, record.n, step):
        yield Block(start, record.samples[:, start : start + step])
