"""`anyecg run`: the process nobody babysits.

One TaskGroup: analysis, housekeeping, the control socket. Chunks come from the MQTT network thread, are committed by
the writer thread and read in one worker thread; the event loop only passes things on. SIGTERM and SIGINT stop it
gracefully: no new chunks, what is queued is committed, the broker keeps the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import select

from edge import __version__, sdnotify
from edge.alerts.battery import Battery
from edge.alerts.state import Board
from edge.chunk import Delivery
from edge.clock import Clock, SystemClock
from edge.config import Config, load
from edge.control import ControlServer
from edge.desk import Desk
from edge.errors import AnyecgError, BadInputError
from edge.gateway import Gateway
from edge.importing import import_record
from edge.intake import Stored
from edge.intake.admission import Admission
from edge.intervals import Intervals
from edge.metrics import Metrics
from edge.process import rss_mb, share_heap
from edge.reanalysis import Reanalysis
from edge.register import Register
from edge.reload import take_over
from edge.rhythm.events import Current
from edge.sources.ble.source import BleSource
from edge.sources.mqtt import MqttSource
from edge.storage import Storage, make_way
from edge.store import marks, outbox, queries, questions, tables
from edge.store.findings import Change
from edge.store.health import write_health

log = structlog.get_logger(__name__)

SWITCH_S = 0.0005
"""How long a thread may hold the interpreter while others wait. The writer lets go of it at every statement of a job
and, with Python's 5 ms, waits behind event loop and analysis each time. Ten statements beside two busy threads took 51
instead of 62 ms on a machine with a load of 15."""
TICK_S = 0.5
HEALTH_S = 5.0
"""How often `status` gets fresh figures and systemd's watchdog a sign of life."""
CLOCK_S = 10.0
"""How long a recording's clock segments are remembered for the picture of its wearer."""
DRAIN_S = 8.0
"""How long a graceful stop waits for commits, and for analysis; systemd gives 30 s in all."""
STUCK_S = 60.0
"""One batch of analysis, or one transaction, may take so long before the watchdog is no longer fed."""


class Daemon:
    """Wires the gateway to its sources, its subscribers and the operator."""

    def __init__(self, state: Path, config: Config, clock: Clock | None = None) -> None:
        share_heap()
        self._state = state
        self._config = config
        self._clock = clock or SystemClock()
        self._loop = asyncio.get_running_loop()
        self._started_s = time.monotonic()
        self._stop = asyncio.Event()
        self._tick_now = asyncio.Event()
        self._heartbeats = 0
        self._admission = Admission(config.intake.queue_chunks)
        self._tasks: set[asyncio.Task[None]] = set()
        make_way(state)
        self._gateway = Gateway(state, config, self._clock)
        self._reanalysis = Reanalysis(self._gateway)
        self._board = Board(config, self._clock, wake=self._wake, silenced=lambda wearer: self._desk.silenced(wearer))
        self._desk = Desk(self._gateway, self._board)
        self._publisher = self._desk.publisher
        self._source = MqttSource(config.mqtt, gateway=config.gateway.id, offer=self._offer, clock=self._clock)
        self._ble = BleSource(
            state, config.ble, offer=self._admit, offer_intervals=self._admit_intervals, clock=self._clock
        )
        self._battery = Battery()
        self._storage = Storage(state, config.retention, self._gateway.writer, self._clock)
        commands = {
            "status": self._status,
            "import": self._import,
            "reanalyze": self._reanalyze,
            "reanalyze_progress": self._reanalyze_progress,
            "mark": self._desk.mark,
            "question": self._question,
            "alerts_test": self._desk.test,
            "state": self._wearer_states,
            "devices": self._reload_devices,
            "wearers": self._wearers,
            "reload": self._reload,
        }
        self._control = ControlServer(state, commands)
        self._register = Register(self._gateway, self._board, self._desk, self._restore_board)
        self._metrics = Metrics(config.metrics.port)
        self._gateway.on_analysed = self._analysed
        self._gateway.analyst.on_changed = self._board.changed
        self._gateway.on_stored = self._stored
        self._recordings: dict[int, tuple[queries.Recording, float]] = {}
        self._contact: dict[tuple[str, str], bool | None] = {}

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        sys.setswitchinterval(SWITCH_S)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        self._restore_board()
        await self._desk.open()
        self._source.start()
        self._ble.start()
        async with self._control, asyncio.TaskGroup() as group:
            workers = [
                group.create_task(self._gateway.analyse(), name="analyse"),
                group.create_task(self._decide(), name="decide"),
                group.create_task(self._tick(), name="tick"),
                group.create_task(self._desk.release(), name="release"),
                group.create_task(self._report(), name="report"),
                group.create_task(self._show_life(), name="life"),
                group.create_task(self._storage.run(), name="storage"),
            ]
            sdnotify.ready(f"listening to {self._config.mqtt.url}, encoder on {self._gateway.encoder.choice.name}")
            log.info(
                "running",
                version=__version__,
                broker=self._config.mqtt.url,
                provider=self._gateway.encoder.choice.name,
                reason=self._gateway.encoder.choice.reason,
                stride=self._gateway.analyst.stride.reason,
            )
            await self._stop.wait()
            sdnotify.stopping()
            log.info("stopping")
            await self._drain()
            for worker in workers:
                worker.cancel()
        await asyncio.to_thread(self._publisher.stop)
        await asyncio.to_thread(self._metrics.close)
        now_ns = self._clock.utc_ns()
        with contextlib.suppress(AnyecgError):
            self._gateway.writer.submit(lambda conn: write_health(conn, {"stopped": now_ns}, now_ns)).result()
        self._gateway.close()
        log.info("stopped")

    async def _drain(self) -> None:
        """Let what was taken be committed and read; the broker keeps what was not."""
        await asyncio.gather(asyncio.to_thread(self._source.stop), self._ble.stop())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_S)
        with contextlib.suppress(TimeoutError):  # what is not read now is read at the next start
            async with asyncio.timeout(DRAIN_S):
                await self._gateway.analyse_ready()
        self._publisher.notify()

    def _offer(self, delivery: Delivery) -> bool:
        """Take a delivery from the network thread unless too many wait."""

        def on_loop(admitted: Delivery) -> None:
            self._loop.call_soon_threadsafe(self._accept, admitted)

        return not self._stop.is_set() and self._admission.offer(delivery, on_loop)

    def _admit(self, delivery: Delivery) -> bool:
        """Take a delivery on the event loop unless too many wait."""
        return self._admission.offer(delivery, self._accept)

    def _accept(self, as_sent: Delivery) -> None:
        delivery, chunk = as_sent, as_sent.chunk
        worn_by = self._register.wearer(chunk.wearer, chunk.device, chunk.utc_ns or delivery.received_ns)
        if worn_by != chunk.wearer:
            delivery = replace(delivery, chunk=replace(chunk, wearer=worn_by))
        task = self._loop.create_task(self._take(delivery, as_sent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, delivery: Delivery, as_sent: Delivery) -> None:
        """Keep a chunk; `as_sent` names the wearer of the topic, who may have given the device to another."""
        chunk = delivery.chunk
        self._contact[chunk.wearer, chunk.device] = chunk.contact
        try:
            await self._gateway.intake.accept(delivery)
        finally:
            self._admission.end(as_sent)
        if self._ble.owns(chunk.wearer, chunk.device):
            return  # nobody there keeps chunks until they are acknowledged
        frontier = self._gateway.intake.frontier(chunk.wearer, chunk.device)
        if frontier is not None:
            self._source.publish_ack(as_sent.chunk.wearer, chunk.device, *frontier)

    def _admit_intervals(self, intervals: Intervals) -> bool:
        """Take heartbeats from a device without ECG unless too much waits; on the event loop."""
        if self._heartbeats >= self._admission.limit:
            return False
        self._heartbeats += 1
        task = self._loop.create_task(self._take_intervals(intervals))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _take_intervals(self, intervals: Intervals) -> None:
        worn_by = self._register.wearer(intervals.wearer, intervals.device, intervals.utc_ns)
        intervals = replace(intervals, wearer=worn_by)
        try:
            recording_id, end_tick = await self._gateway.intervals.accept(intervals)
        finally:
            self._heartbeats -= 1
        self._contact[intervals.wearer, intervals.device] = intervals.contact
        self._stored(Stored(recording_id, end_tick, None))
        current = Current(hr_bpm=intervals.mean_bpm, rhythm="", signal="", quality=None)
        self._board.read(self._recordings[recording_id][0], current)

    def _stored(self, stored: Stored) -> None:
        """Samples are committed and decided: the wearer's picture moves on."""
        newest = max(stored.horizon_sample - 1, 0)
        known = self._recordings.get(stored.recording_id)
        if known is None or time.monotonic() - known[1] > CLOCK_S:
            with self._gateway.reader.connect() as conn:
                recording = queries.find_recording(conn, stored.recording_id, since_sample=newest)
                known = (recording, time.monotonic())
            self._recordings[stored.recording_id] = known
        recording = known[0]
        self._board.heard(
            recording,
            next_sample=stored.horizon_sample,
            last_sample_ns=recording.to_utc_ns(newest),
            contact=self._contact.get((recording.wearer, recording.device)),
        )

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._tick_now.set)

    def _analysed(self) -> None:
        """A batch is committed: subscribers first, then the picture of each wearer."""
        self._publisher.notify()
        for recording, current in self._gateway.analyst.take_currents():
            self._board.read(recording, current)

    async def _decide(self) -> None:
        """Decide holes whose time is up; waits with the store while it refuses, and nobody else does."""
        while True:
            await self._gateway.intake.tick()
            await asyncio.sleep(TICK_S)

    async def _tick(self) -> None:
        """Publish what changed about each wearer."""
        while True:
            update = self._board.tick()
            for recording, change in update.silences:
                change.row["evidence"] |= self._ble.why_away(recording.wearer, recording.device)
            self._desk.show(update.states)
            await self._desk.tell([*update.silences, *self._batteries()])
            self._tick_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._tick_now.wait()

    def _batteries(self) -> list[tuple[queries.Recording, Change]]:
        """Return the batteries that have become low, or full enough again."""
        newest = {(known.wearer, known.device): known for known, _ in self._recordings.values()}
        found = []
        for wearer, device, percent in self._ble.batteries():
            recording = newest.get((wearer, device))
            if recording is None:
                continue
            now_ns = self._clock.utc_ns()
            self._board.battery(wearer, device, percent)
            change = self._battery.report(recording, percent, sample=recording.end_sample, now_ns=now_ns)
            if change is not None:
                found.append((recording, change))
        return found

    async def _report(self) -> None:
        """Leave fresh figures for `status`."""
        while True:
            status = await self._status({})
            self._metrics.update(status)
            now_ns = self._clock.utc_ns()
            try:
                job = self._gateway.writer.submit(lambda conn, s=status, n=now_ns: write_health(conn, s, n))  # type: ignore[misc]
                await asyncio.wrap_future(job)
            except AnyecgError as error:
                log.warning("status_not_written", error=str(error))
            lag_s = self._gateway.analyst.lag_s()
            sdnotify.status(f"{len(self._board.links())} wearers, analysis {lag_s:.0f} s behind")
            await asyncio.sleep(HEALTH_S)

    async def _show_life(self) -> None:
        """Feed the watchdog while real work progresses: neither a batch of analysis nor a transaction hangs."""
        while True:
            if max(self._gateway.analyst.busy_s(), self._gateway.writer.busy_s()) < STUCK_S:
                sdnotify.watchdog()
            await asyncio.sleep(HEALTH_S)

    async def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        gateway = self._gateway
        choice = gateway.encoder.choice
        return {
            "daemon": {
                "pid": os.getpid(),
                "version": __version__,
                "uptime_s": round(time.monotonic() - self._started_s, 1),
                "rss_mb": round(rss_mb(), 1),
            },
            "encoder": {
                "checkpoint": gateway.encoder.card.checkpoint,
                "provider": choice.name,
                "reason": choice.reason,
                "precision": gateway.precision.reason,
                "stride": gateway.analyst.stride.reason,
            },
            "broker": {
                "url": self._config.mqtt.url,
                "source": self._source.snapshot(),
                "publisher": asdict(self._publisher.status),
            },
            "ble": self._ble.snapshot(),
            "intake": {**gateway.intake.counters, **gateway.intervals.counters},
            "writer": {
                **gateway.writer.counters,
                "depth": gateway.writer.depth,
                "trouble": gateway.writer.trouble,
            },
            "storage": self._storage.snapshot(),
            "analysis": {
                **gateway.analyst.counters,
                "lag_s": gateway.analyst.lag_s(),
                "is_idle": gateway.analyst.is_idle,
                "failing": gateway.analyst.failing,
                "last_failure": gateway.analyst.last_failure,
                "dropped_messages": gateway.dropped_messages,
            },
            "queues": {
                "chunks": len(self._admission) + self._heartbeats,
                "chunks_limit": self._admission.limit,
                "chunks_repeated": self._admission.repeated,
                "outbox": await asyncio.to_thread(self._outbox_rows),
            },
            "links": self._board.links(),
        }

    def _outbox_rows(self) -> int:
        with self._gateway.reader.connect() as conn:
            return outbox.count(conn)

    async def _reload_devices(self, _request: dict[str, Any]) -> dict[str, Any]:
        return await self._ble.reload()

    def _hang_up(self) -> None:
        self._hung_up = self._loop.create_task(self._reload_or_say_why(), name="reload")

    async def _reload_or_say_why(self) -> None:
        with contextlib.suppress(AnyecgError):  # it is in the log; what was in force stays
            await self._reload({})

    async def _reload(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Read config.toml again (SIGHUP, `anyecg config reload`): take over what can be, say what cannot."""
        try:
            change = take_over(self._config, await asyncio.to_thread(load, self._state))
        except BadInputError as error:
            log.error("configuration not taken over: what was in force stays", error=str(error))
            raise
        self._config = change.config
        await asyncio.to_thread(self._gateway.configure, change.config)
        self._board.configure(change.config)
        self._desk.configure(change.config)
        self._storage.configure(change.config.retention)
        await self._ble.reload()
        log.info("configuration read again", **change.as_json())
        return change.as_json()

    async def _import(self, request: dict[str, Any]) -> dict[str, Any]:
        return await import_record(self._gateway, **request)

    async def _reanalyze(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._reanalysis.run(**request)

    async def _reanalyze_progress(self, _request: dict[str, Any]) -> dict[str, Any]:
        return self._reanalysis.progress()

    async def _wearers(self, request: dict[str, Any]) -> dict[str, Any]:
        done = await self._register.change(request)
        self._recordings.clear()
        self._contact.clear()
        await self._ble.reload()
        return done

    async def _question(self, request: dict[str, Any]) -> dict[str, Any]:
        now_ns = self._clock.utc_ns()
        return await asyncio.wrap_future(
            self._gateway.writer.submit(lambda conn: questions.keep(conn, request, now_ns))
        )

    async def _wearer_states(self, _request: dict[str, Any]) -> dict[str, Any]:
        return self._desk.states

    def _restore_board(self) -> None:
        """Show each wearer as the last daemon left it, until its device speaks."""
        with self._gateway.reader.connect() as conn:
            for recording in queries.recordings(conn, ecg_only=False, since_sample=queries.AFTER_ALL):
                opened = [
                    dict(row) | {"said": marks.said(conn, row["id"])}
                    for row in conn.execute(
                        select(tables.finding).where(
                            tables.finding.c.recording_id == recording.id,
                            tables.finding.c.state == "open",
                            tables.finding.c.superseded_by.is_(None),
                        )
                    ).mappings()
                ]
                for row in opened:
                    if row["rule"] == "battery_low":
                        self._battery.restore(recording, row)
                self._board.restore(
                    recording,
                    next_sample=recording.end_sample,
                    last_sample_ns=recording.to_utc_ns(max(recording.end_sample - 1, 0)),
                    received_ns=recording.last_received_ns,
                    open_findings=opened,
                )
