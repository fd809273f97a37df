"""The live stream: samples as they are committed, beats as they are read, states, events; one per open page.

A stream is server-sent events: `wave` (new samples, after `HISTORY_S` of the past), `beats`, `states` (of every
wearer), `people` (wearers and devices, when they change), `events` (what is new or changed since the last one).
A slow reader is not waited for: what it missed comes in its next `wave`, at most `MAX_WAVE_S` of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from edge import control
from edge.alerts.words import NAMES
from edge.errors import AnyecgError, BadInputError
from edge.store import queries, tables, waveform
from edge.web import wire
from edge.web.reader import Reader

POLL_S = 0.05
"""How often the database is asked whether anything was committed."""
NEWS_S = 0.5
STATES_S = 1.0
HISTORY_S = 12.0
MAX_WAVE_S = 20.0
HEARTBEAT_S = 5.0
MAX_STREAMS = 32
MAX_LEADS = 3
MAX_EVENTS = 200


class Hub:
    """What all streams share: one look at commits, states and events, however many pages are open."""

    def __init__(self, state: Path, reader: Reader) -> None:
        self._state = state
        self._reader = reader
        self._version = -2
        self._committed = asyncio.Event()
        self._news_s = 0.0
        self._states_s = -STATES_S
        self._asking: asyncio.Task[None] | None = None
        self.streams = 0
        self.people: list[dict[str, Any]] = []
        self.people_version = 0
        self.states: dict[str, Any] = {}
        self.daemon: str = "unknown"
        """running, off, unknown, or what troubles it."""
        self.trouble: str | None = None
        """Why the database cannot be read."""
        self.events: dict[str, tuple[int, dict[str, Any]]] = {}
        self.events_version = 0

    async def run(self) -> None:
        """Watch while somebody looks, for ever."""
        while True:
            await asyncio.sleep(POLL_S if self.streams else 0.2)
            if not self.streams:
                continue
            version = self._reader.version()
            now_s = time.monotonic()
            if version != self._version:
                self._version = version
                self._committed.set()
                self._committed = asyncio.Event()
            if now_s - self._news_s >= NEWS_S:
                self._news_s = now_s
                await self.look()
            if now_s - self._states_s >= STATES_S and (self._asking is None or self._asking.done()):
                self._states_s = now_s
                self._asking = asyncio.create_task(self._ask_states())

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next commit."""
        event = self._committed
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            pass

    async def _ask_states(self) -> None:
        try:
            self.states = await asyncio.to_thread(control.request, self._state, "state", timeout_s=2.0)
            self.daemon = "running"
        except AnyecgError as error:
            self.states = {}
            self.daemon = "off" if isinstance(error, control.NotRunningError) else str(error)

    async def look(self) -> None:
        """Take in wearers and events as they stand now."""
        try:
            people, events = await self._reader.read(lambda conn: (read_people(conn), _recent_events(conn)))
            self.trouble = None
        except AnyecgError as error:
            people, events, self.trouble = [], [], str(error)
        if people != self.people:
            self.people, self.people_version = people, self.people_version + 1
        for row in events:
            known = self.events.get(row["id"])
            if known is None or known[1]["revision"] != row["revision"] or known[1]["state"] != row["state"]:
                self.events_version += 1
                self.events[row["id"]] = (self.events_version, row)
        while len(self.events) > 4 * MAX_EVENTS:
            del self.events[next(iter(self.events))]


class Stream:
    """What one page is shown."""

    def __init__(self, hub: Hub, reader: Reader, recording_id: int | None, leads: list[int]) -> None:
        self._hub = hub
        self._reader = reader
        self._recording_id = recording_id
        self._leads = leads[:MAX_LEADS]
        self._next = -1
        self._beats_from = 0

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield server-sent events until the page is closed."""
        people = events = -1
        states_s = sent_s = 0.0
        self._hub.streams += 1
        try:
            await self._hub.look()  # what is old is told as such
            yield b"retry: 1000\n\n"
            while True:
                out: list[bytes] = []
                if people != self._hub.people_version and self._hub.people_version:
                    people = self._hub.people_version
                    out.append(wire.event("people", self._hub.people))
                if events != self._hub.events_version:
                    fresh = [row for version, row in self._hub.events.values() if version > events]
                    out.append(wire.event("events", {"first": events < 0, "events": fresh}))
                    events = self._hub.events_version
                now_s = time.monotonic()
                if now_s - states_s >= STATES_S:
                    states_s = now_s
                    state = {
                        "daemon": self._hub.trouble or self._hub.daemon,
                        "states": self._hub.states,
                        "now_ms": time.time() * 1000,
                    }
                    out.append(wire.event("states", state))
                if self._recording_id is not None:
                    try:
                        out += await self._reader.read(self._fresh)
                    except AnyecgError as error:
                        out.append(wire.event("trouble", {"error": str(error)}))
                        self._recording_id = None
                if out:
                    sent_s = now_s
                    yield b"".join(out)
                elif now_s - sent_s > HEARTBEAT_S:
                    sent_s = now_s
                    yield b": still here\n\n"
                await self._hub.wait(0.25)
        finally:
            self._hub.streams -= 1

    def _fresh(self, conn: Connection) -> list[bytes]:
        assert self._recording_id is not None
        recording = queries.find_recording(conn, self._recording_id)
        rows = self._leads or [0]
        if not all(0 <= row < len(recording.leads) for row in rows):
            raise BadInputError(f"this recording has {len(recording.leads)} leads")
        end, out = recording.end_sample, []
        longest = round(MAX_WAVE_S * recording.fs_hz)
        if self._next < 0:
            self._next = self._beats_from = max(0, end - round(HISTORY_S * recording.fs_hz))
        if end > self._next:
            first = max(self._next, end - longest)
            out.append(
                wire.event("wave", wire.wave(recording, first, waveform.read(conn, recording.id, first, end), rows))
            )
            self._next = end
        found = queries.beats(conn, recording, max(self._beats_from, end - longest), end)
        if found.size:
            self._beats_from = int(found["sample"][-1]) + 1
            out.append(wire.event("beats", {"recording": recording.id, **wire.beats(found)}))
        return out


def read_people(conn: Connection) -> list[dict[str, Any]]:
    """Return wearers with their zone, the span of their recordings, and each device's newest recording."""
    people = []
    for wearer in queries.wearers(conn):
        found = [r for r in queries.recordings(conn, wearer.id, ecg_only=False) if r.end_sample > 0]
        newest = {(r.source == "live", r.device): r for r in found if r.leads}
        devices = sorted(newest.values(), key=lambda r: (r.source == "live", r.last_received_ns), reverse=True)
        people.append(
            {
                "id": wearer.id,
                "timezone": wearer.timezone,
                "first_ms": min((wire.ms(r.to_utc_ns(0)) for r in found), default=None),
                "last_ms": max((wire.ms(r.to_utc_ns(r.end_sample)) // 60_000 * 60_000 for r in found), default=None),
                "devices": [
                    {"recording": r.id, "device": r.device, "source": r.source, "leads": r.leads, "fs_hz": r.fs_hz}
                    for r in devices[:20]
                ],
            }
        )
    return people


def event_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `queries.findings` as the page lists it."""
    return {
        "id": row["id"],
        "wearer": row["wearer"],
        "rule": row["rule"],
        "name": NAMES.get(row["rule"], row["rule"]),
        "severity": row["severity"],
        "state": row["state"],
        "revision": row.get("revision", 0),
        "start_ms": wire.ms(row["start_ns"]),
        "end_ms": wire.ms(row["end_ns"]),
    }


def _recent_events(conn: Connection) -> list[dict[str, Any]]:
    """Return open events and those of recordings that are being received, newest last."""
    newest = conn.execute(
        select(tables.recording.c.last_received_ns).order_by(tables.recording.c.last_received_ns.desc())
    )
    last_ns = newest.scalar()
    if last_ns is None:
        return []
    rows = {row["id"]: row for row in queries.findings(conn, states=("open",), newest_first=True, limit=MAX_EVENTS)}
    rows |= {row["id"]: row for row in queries.findings(conn, newest_first=True, limit=MAX_EVENTS)}
    return [event_row(row) for row in sorted(rows.values(), key=lambda row: row["start_ns"])]
