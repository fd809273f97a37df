"""The front of intake: runs on the event loop, hands jobs to the writer, tells what was committed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import Connection, Engine, select

from edge.chunk import FS_RANGE_HZ, MAX_LEADS, Chunk, Delivery
from edge.clock import Clock
from edge.errors import AnyecgError
from edge.intake.outcome import OUTCOMES, IntakeLimits, Outcome, Stored
from edge.intake.stream import Stream
from edge.store.database import StoreError
from edge.store.tables import inbox, recording, sender
from edge.store.writer import Writer, WriterBusyError

BUSY_RETRY_S = 0.1
STORE_RETRY_S = 1.0
COMPLAIN_S = 60.0
"""The same refusal of the store is logged once in so long: hundreds of chunks may be waiting."""
FORGET_S = 3600.0
"""A stream this long quiet is dropped from memory; the database keeps it."""

log = structlog.get_logger(__name__)

Job = Callable[[Connection, Outcome], None]


class Intake:
    """Takes deliveries in any order; see the package's table for what becomes of them.

    Everything but `_streams` belongs to the thread of the event loop; `_streams` belongs to the writer's.
    """

    def __init__(
        self,
        writer: Writer,
        engine_ro: Engine,
        clock: Clock,
        limits: IntakeLimits,
        timezone: Callable[[str], str],
        on_stored: Callable[[Stored], None],
        source: str = "live",
    ) -> None:
        """`timezone` gives the IANA zone of a wearer seen for the first time; `on_stored` must not block."""
        self.counters: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._writer = writer
        self._reader = engine_ro
        self._clock = clock
        self._limits = limits
        self._timezone = timezone
        self._on_stored = on_stored
        self._source = source
        self._slots = asyncio.Semaphore(limits.in_flight)
        self._frontiers: dict[tuple[str, str], tuple[int, int]] = {}
        self._streams: dict[tuple[str, str], Stream] = {}
        self._generation = -1
        self._refused: tuple[str, float] | None = None

    async def accept(self, delivery: Delivery) -> None:
        """Keep a chunk and return after the commit, or wait while too many are in flight or the disk is full.

        Calls `delivery.committed` in either case: kept or, with a counted reason, refused. Raises `AnyecgError` without
        calling it if the writer was closed.
        """
        chunk = delivery.chunk
        refusal = _refusal(chunk, self._limits)
        if refusal is not None:
            self.counters[refusal] += 1
            delivery.committed()
            return
        self.counters["waited"] += self._slots.locked()
        async with self._slots:
            timezone = self._timezone(chunk.wearer)
            now_s = self._clock.monotonic_s()
            try:
                await self._run(partial(self._store, chunk, delivery.received_ns, timezone, now_s))
            except AnyecgError:
                raise
            except Exception:
                self.counters["failed"] += 1
                log.exception("chunk not stored", wearer=chunk.wearer, device=chunk.device, seq=chunk.seq)
        delivery.committed()

    def frontier(self, wearer: str, device: str) -> tuple[int, int] | None:
        """Return (boot, seq): every chunk of the device's newest boot up to seq is committed or given up."""
        if (wearer, device) not in self._frontiers:
            mine = select(sender).where(sender.c.wearer == wearer, sender.c.device == device)
            with self._reader.connect() as conn:
                row = conn.execute(mine.order_by(sender.c.ordinal.desc()).limit(1)).first()
            if row is None or row.next_seq == 0:
                return None
            self._frontiers[(wearer, device)] = (row.boot, row.next_seq - 1)
        return self._frontiers[(wearer, device)]

    def forget(self) -> None:
        """Ask the database again how far devices are acknowledged: who wears them has changed."""
        self._frontiers.clear()

    async def tick(self) -> None:
        """About once a second: decide holes nobody fills any more, move what is decided into blocks."""
        await self._run(partial(self._tick, self._clock.monotonic_s()))

    async def flush(self, recording_id: int) -> None:
        """End of a stream: decide every hole of the recording's device, write its last block."""
        await self._run(partial(self._flush, recording_id))

    async def _run(self, job: Job) -> None:
        """Run `job` on the writer until the store takes it, then tell what it did. Raises what the job raises."""

        def run(conn: Connection) -> Outcome:
            outcome = Outcome()
            if self._generation != self._writer.generation:
                self._generation = self._writer.generation
                self._streams.clear()
                self._recover(conn)
            try:
                job(conn, outcome)
            except BaseException:
                self._streams.clear()
                self._generation = -1
                raise
            return outcome

        while True:
            try:
                future = asyncio.wrap_future(self._writer.submit(run))
                outcome = await asyncio.shield(future)
                break
            except WriterBusyError:
                self.counters["store_retry"] += 1
                await asyncio.sleep(BUSY_RETRY_S)
            except StoreError as error:
                self.counters["store_retry"] += 1
                self._complain(str(error))
                await asyncio.sleep(STORE_RETRY_S)
        self.counters.update(outcome.counts)
        self._frontiers.update(outcome.frontiers)
        for stored in outcome.stored.values():
            self._on_stored(stored)

    def _complain(self, refusal: str) -> None:
        now_s = self._clock.monotonic_s()
        if self._refused is None or self._refused[0] != refusal or now_s - self._refused[1] >= COMPLAIN_S:
            self._refused = (refusal, now_s)
            log.warning("store refuses, trying again", error=refusal, every_s=STORE_RETRY_S)

    def _store(
        self, chunk: Chunk, received_ns: int, timezone: str, now_s: float, conn: Connection, outcome: Outcome
    ) -> None:
        key = (chunk.wearer, chunk.device)
        stream = self._streams.get(key)
        if stream is None:
            if len(self._streams) >= self._limits.max_devices:
                outcome.counts["too_many_devices"] += 1
                return
            stream = self._open(conn, *key)
        stream.arrived_s = now_s
        stream.store(conn, chunk, received_ns, timezone, outcome)

    def _tick(self, now_s: float, conn: Connection, outcome: Outcome) -> None:
        for key, stream in list(self._streams.items()):
            quiet_s = now_s - stream.arrived_s
            if stream.waits and quiet_s >= self._limits.watermark_s:
                stream.decide_all(conn, outcome)
            stream.compact(conn, whole=quiet_s >= self._limits.idle_compact_s)
            if quiet_s >= FORGET_S:
                del self._streams[key]

    def _flush(self, recording_id: int, conn: Connection, outcome: Outcome) -> None:
        row = conn.execute(select(recording.c.wearer, recording.c.device).where(recording.c.id == recording_id)).one()
        stream = self._streams.get((row.wearer, row.device)) or self._open(conn, row.wearer, row.device)
        stream.decide_all(conn, outcome)
        stream.compact(conn, whole=True)

    def _recover(self, conn: Connection) -> None:
        """Take up the devices that left something in the inbox."""
        left = select(recording.c.wearer, recording.c.device).where(
            recording.c.id.in_(select(inbox.c.recording_id)), recording.c.source == self._source
        )
        for wearer, device in conn.execute(left.distinct()).all():
            self._open(conn, wearer, device)

    def _open(self, conn: Connection, wearer: str, device: str) -> Stream:
        stream = Stream(conn, wearer, device, self._source, self._limits)
        stream.arrived_s = self._clock.monotonic_s()
        self._streams[(wearer, device)] = stream
        return stream


def _refusal(chunk: Chunk, limits: IntakeLimits) -> str | None:
    """Return the counter of what is wrong with a chunk in itself."""
    sound = (
        chunk.samples.ndim == 2
        and 1 <= len(chunk.leads) <= MAX_LEADS
        and chunk.samples.shape[0] == len(chunk.leads) == len(chunk.uv_per_lsb)
        and chunk.n > 0
        and FS_RANGE_HZ[0] <= chunk.fs_hz <= FS_RANGE_HZ[1]
        and 0 <= chunk.oldest <= chunk.seq < 2**62
        and 0 <= chunk.boot < 2**63
        and abs(chunk.device_time_ns) < 2**62
        and (chunk.utc_ns is None or abs(chunk.utc_ns) < 2**62)
        and all(0 < uv < float("inf") for uv in chunk.uv_per_lsb)
    )
    if not sound:
        return "malformed"
    return "oversize" if chunk.n > limits.max_chunk_s * chunk.fs_hz else None
