"""Senders, deliveries and what the store holds in the end."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from edge.chunk import MISSING, Chunk, Delivery
from edge.clock import ManualClock
from edge.intake import Intake, IntakeLimits, Stored
from edge.store import tables, waveform
from edge.store.database import FILE_NAME, open_readonly
from edge.store.writer import Writer

FS_HZ = 100.0
START_NS = 1_700_000_000_000_000_000


@cache
def _empty_database() -> Path:
    """Return a migrated database file: copying it is quicker than migrating a new one per example."""
    folder = Path(tempfile.mkdtemp(prefix="anyecg-test-"))
    atexit.register(shutil.rmtree, folder)
    Writer(folder).close()
    return folder / FILE_NAME


def wave(n: int, leads: int = 1, seed: int = 7) -> NDArray[np.int32]:
    """Return a random walk [leads, n]."""
    return np.cumsum(np.random.default_rng(seed).integers(-9, 10, (leads, n)), axis=1).astype(np.int32)


@dataclass
class Sender:
    """A wearable with a perfect clock: cuts its signal into chunks, at whatever rate and from whatever moment."""

    boot: int = 1
    fs_hz: float = FS_HZ
    start_ns: int = START_NS
    device_start_ns: int = 5_000_000_000
    has_utc: bool = True
    leads: tuple[str, ...] = ("I",)
    wearer: str = "anna"
    device: str = "strap"
    seq: int = 0
    at: int = 0

    def take(
        self, samples: NDArray[np.int32], /, contact: bool | None = None, oldest: int = 0, **changes: Any
    ) -> Chunk:
        """Return the next chunk; `skip` first to lose signal."""
        offset_ns = round(self.at * 1e9 / self.fs_hz)
        fields: dict[str, Any] = {
            "wearer": self.wearer,
            "device": self.device,
            "leads": self.leads,
            "fs_hz": self.fs_hz,
            "boot": self.boot,
            "seq": self.seq,
            "oldest": oldest,
            "device_time_ns": self.device_start_ns + offset_ns,
            "utc_ns": self.start_ns + offset_ns if self.has_utc else None,
            "samples": np.ascontiguousarray(samples),
            "uv_per_lsb": (1.0,) * len(self.leads),
            "contact": contact,
        }
        self.seq += 1
        self.at += samples.shape[1]
        return Chunk(**(fields | changes))

    def cut(self, samples: NDArray[np.int32], lengths: Iterable[int]) -> list[Chunk]:
        """Return `samples` in chunks of the given lengths."""
        chunks, at = [], 0
        for n in lengths:
            chunks.append(self.take(samples[:, at : at + n]))
            at += n
        return chunks


@dataclass
class Final:
    """Everything intake decides, of one recording."""

    samples: list[list[int]]
    gaps: list[tuple[int, int]]
    segments: list[tuple[int, int, int, int, str]]
    contact_off: list[int]
    end: int
    start_ns: int
    key: str


@dataclass
class Gateway:
    """Intake over a real database."""

    state: Path
    limits: IntakeLimits = field(default_factory=IntakeLimits)
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_NS + 3600 * 10**9))
    on_stored: Callable[[Stored], None] | None = None

    def __post_init__(self) -> None:
        self.stored: list[Stored] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.open()

    def open(self) -> None:
        """Start, or start again."""
        if not (self.state / FILE_NAME).exists():
            shutil.copy(_empty_database(), self.state / FILE_NAME)
        self.writer = Writer(self.state, spacing_s=0.0)
        self.reader = open_readonly(self.state)
        self.intake = Intake(
            self.writer,
            self.reader,
            self.clock,
            self.limits,
            timezone=lambda _: "Europe/Berlin",
            on_stored=self.on_stored or self.stored.append,
        )

    def close(self) -> None:
        """Stop without telling intake, as a kill would."""
        self.writer.close()
        self.reader.dispose()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def delivery(self, chunk: Chunk) -> Delivery:
        return Delivery(chunk, self.clock.utc_ns(), lambda: self.acknowledged.append((chunk.boot, chunk.seq)))

    def send(self, *chunks: Chunk) -> None:
        """Deliver one after the other, all in flight at once."""

        async def all_of_them() -> None:
            await asyncio.gather(*(self.intake.accept(self.delivery(chunk)) for chunk in chunks))

        asyncio.run(all_of_them())

    def tick(self) -> None:
        asyncio.run(self.intake.tick())

    def quiet(self, seconds: float = 11.0) -> None:
        """Let time pass without data."""
        self.clock.advance(seconds)
        self.tick()

    def count(self, *names: str) -> dict[str, int]:
        """Return the named counters, or all that are not zero."""
        found = {name: n for name, n in self.intake.counters.items() if n or name in names}
        return {name: found[name] for name in names} if names else found

    def rows(self, table: Any) -> Sequence[Any]:
        with self.reader.connect() as conn:
            return conn.execute(select(table)).all()

    def final(self, recording_id: int = 1) -> Final:
        """Return what is decided of a recording."""
        with self.reader.connect() as conn:
            row = conn.execute(select(tables.recording).where(tables.recording.c.id == recording_id)).one()
            span = waveform.read(conn, recording_id, 0, row.end_sample)
            gap, segment = tables.gap.c, tables.clock_segment.c
            gaps = select(gap.start_sample, gap.end_sample).where(gap.recording_id == recording_id)
            segments = select(
                segment.index0, segment.boot, segment.device_time_ns, segment.utc_ns, segment.utc_source
            ).where(segment.recording_id == recording_id)
            return Final(
                samples=span.samples.tolist(),
                gaps=[(r[0], r[1]) for r in conn.execute(gaps.order_by(gap.start_sample))],
                segments=[(r[0], r[1], r[2], r[3], r[4]) for r in conn.execute(segments.order_by(segment.index0))],
                contact_off=np.flatnonzero(span.contact_off).tolist(),
                end=row.end_sample,
                start_ns=row.start_ns,
                key=row.key,
            )

    def samples(self, recording_id: int = 1) -> NDArray[np.int32]:
        return np.array(self.final(recording_id).samples, np.int32)


def missing(n: int) -> list[int]:
    """Return a lead of `n` samples nobody recorded."""
    return [MISSING] * n
