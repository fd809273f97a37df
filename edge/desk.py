"""The desk where news leaves the house and people's words come in: store, alerts and publisher put together.

Whatever changes a finding here (a link that fell silent, an acknowledgement, a symptom) is written and told in one
transaction, as analysis does with what it finds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from edge.alerts import people
from edge.alerts.commands import Commands, Handler, Received, as_mark
from edge.alerts.home_assistant import Announcer
from edge.alerts.policy import Recorded, a_test_document, event_message, held_count
from edge.alerts.publisher import Publisher
from edge.alerts.state import Board
from edge.alerts.system import Found, absence_news, system_news
from edge.alerts.topics import commands_filter, dump, state_topic
from edge.alerts.unalerted import silenced
from edge.assistant.client import asked
from edge.config import Config
from edge.errors import AnyecgError, BadInputError
from edge.gateway import Gateway
from edge.store import marks, outbox, queries
from edge.store.findings import Change

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_UNTOLD = 1000
"""News of links and batteries that wait for a database that refuses; the oldest go first."""
RELEASE_S = 5.0
"""How often it is looked whether quiet hours, a snooze or a cooldown are over."""
TEST_S = 10.0
"""How long a test event may take to the broker."""


class Desk:
    """Owns the publisher. Lives on the daemon's event loop."""

    def __init__(self, gateway: Gateway, board: Board) -> None:
        config = self._config = gateway.config
        self._gateway, self._board, self._clock = gateway, board, gateway.clock
        self._loop = asyncio.get_running_loop()
        self._announcer = Announcer(config)
        self.publisher = Publisher(
            config,
            gateway.clock,
            gateway.reader,
            gateway.writer.submit,
            subscribe=[commands_filter(config.gateway.id), *self._announcer.birth_topics],
            on_message=self._heard,
        )
        handlers: dict[str, Handler] = {name: partial(self._command, name) for name in ("ack", "snooze", "mark")}
        handlers["ask"] = partial(asked, gateway.state)
        self.commands = Commands(config.gateway.id, handlers, self.publisher.reply)
        self.states: dict[str, dict[str, Any]] = {}
        """The newest state of each wearer."""
        self._snoozes: dict[str, list[marks.Mark]] = {}
        self._untold: list[tuple[Recorded, Change]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, config: Config) -> None:
        """Go by another configuration from now on; gateway id and broker stay those of the start."""
        self._config = config

    async def open(self) -> None:
        """Tell of the time no gateway was running, and start publishing."""
        try:
            await self.write(partial(absence_news, self._config.alerts.gateway_down_s))
        except AnyecgError as error:
            log.warning("absence not told", error=str(error))
        self._announce(None)
        self.publisher.start()

    def show(self, states: Sequence[tuple[str, str]]) -> None:
        """Publish states (topic, payload) of wearers."""
        for topic, payload in states:
            self.publisher.retain(topic, payload)
            document = json.loads(payload)
            is_new = document["wearer"] not in self.states
            self.states[document["wearer"]] = document
            if is_new:
                self._announce(document["wearer"])

    def forget(self, wearer: str) -> None:
        """Take back whatever is retained about a wearer."""
        self.publisher.forget(wearer)
        for topic, _ in self._announcer.messages(wearer):
            self.publisher.retain(topic, "")
        self.states.pop(wearer, None)
        self._snoozes.pop(wearer, None)

    async def tell(self, news: Sequence[tuple[Recorded, Change]]) -> None:
        """Write and tell what the gateway itself has found; what the database refuses is tried again next time."""
        self._untold += news
        if not self._untold:
            return
        now = list(self._untold)
        try:
            await self.write(partial(system_news, now))
        except AnyecgError as error:
            log.warning("not told yet", findings=len(now), error=str(error))
            del self._untold[:-MAX_UNTOLD]
            return
        del self._untold[: len(now)]

    async def write(self, find: Callable[[Connection, int], Found[T]]) -> T:
        """Run `find` in the writer's transaction, tell what it changed, and show it."""
        now_ns, teller = self._clock.utc_ns(), self._gateway.teller

        def job(conn: Connection) -> tuple[Found[T], int]:
            found = find(conn, now_ns)
            messages = [m for recording, change in found[1] for m in teller.messages(conn, recording, [change], now_ns)]
            return found, outbox.add(conn, messages, now_ns=now_ns)

        (result, changes), dropped = await asyncio.wrap_future(self._gateway.writer.submit(job))
        self._gateway.dropped_messages += dropped
        for recording, change in changes:
            self._board.changed(recording, [change])
        self.publisher.notify()
        return result

    async def release(self) -> None:
        """Tell what was held as soon as nothing holds it, for ever."""
        while True:
            await asyncio.sleep(RELEASE_S)
            if not await asyncio.to_thread(self._is_anything_held):
                continue
            try:
                self._gateway.dropped_messages += await asyncio.wrap_future(self._gateway.writer.submit(self._let_go))
            except AnyecgError as error:
                log.warning("held events not told yet", error=str(error))
            self.publisher.notify()

    def _let_go(self, conn: Connection) -> int:
        now_ns = self._clock.utc_ns()
        return outbox.add(conn, self._gateway.teller.release(conn, now_ns), now_ns=now_ns)

    def _is_anything_held(self) -> bool:
        with self._gateway.reader.connect() as conn:
            return held_count(conn) > 0

    # --- what people say --------------------------------------------------------------------------------------

    async def mark(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do the control command `mark`."""
        return await self._mark(request)

    async def test(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send an event marked as a test through outbox and broker; say whether it arrived and anybody listens."""
        now_ns, began_s = self._clock.utc_ns(), self._clock.monotonic_s()
        with self._gateway.reader.connect() as conn:
            wearer = queries.find_wearer(conn, str(request.get("wearer"))).id
        message = event_message(a_test_document(self._config, wearer, now_ns), self._config, now_ns)

        def job(conn: Connection) -> int:
            outbox.add(conn, [message], now_ns=now_ns)
            return outbox.newest(conn)

        row_id = await asyncio.wrap_future(self._gateway.writer.submit(job))
        self.publisher.notify()
        while (took_s := self._clock.monotonic_s() - began_s) < TEST_S:
            if not await asyncio.to_thread(self._is_waiting, row_id):
                status = self.publisher.status
                heard = None if status.protocol.startswith("3") else message.topic not in status.unheard
                return {"topic": message.topic, "heard": heard, "took_s": round(took_s, 2)}
            await asyncio.sleep(0.02)
        status = self.publisher.status
        why = status.held.get(message.topic) or status.reason
        raise AnyecgError(f"the broker has not taken the test event within {TEST_S:g} s ({why}); it stays queued")

    def silenced(self, wearer: str) -> list[dict[str, Any]]:
        """Return what people have silenced for a wearer, for the state."""
        if wearer not in self._snoozes:
            self._read_snoozes(wearer)
        with self._gateway.reader.connect() as conn:
            timezone = queries.find_timezone(conn, wearer) or self._config.timezone(wearer)
        rules, now_ns = self._gateway.rules_of(wearer), self._clock.utc_ns()
        return silenced(self._config, wearer, timezone, rules, self._snoozes[wearer], now_ns)

    async def _mark(self, request: dict[str, Any], only: str | None = None) -> dict[str, Any]:
        """Write a mark and tell what it changes; `only`: the wearer whose events it may concern."""

        def find(conn: Connection, now_ns: int) -> Found[dict[str, Any]]:
            if only is not None and request.get("event") is not None:
                event = str(request["event"])
                if queries.find_finding(conn, event)["wearer"] != only:
                    raise BadInputError(f"there is no event {event!r}; `anyecg events` lists them")
            word = people.perform(conn, request, now_ns)
            return word.mark, word.changes

        mark = await self.write(find)
        if mark["kind"] == "snooze":
            self._read_snoozes(mark["wearer"])
            self._board.refresh(mark["wearer"])
        return mark

    def _read_snoozes(self, wearer: str) -> None:
        with self._gateway.reader.connect() as conn:
            self._snoozes[wearer] = marks.snoozes(conn, wearer, self._clock.utc_ns())

    def _is_waiting(self, row_id: int) -> bool:
        with self._gateway.reader.connect() as conn:
            return outbox.is_waiting(conn, row_id)

    # --- messages for the gateway -----------------------------------------------------------------------------

    async def _command(self, name: str, wearer: str, request: dict[str, Any]) -> Any:
        return await self._mark(as_mark(name, wearer, request), only=wearer)

    def _heard(self, message: Received) -> None:
        self._loop.call_soon_threadsafe(self._received, message)

    def _received(self, message: Received) -> None:
        if self._announcer.is_birth(message):
            for wearer in (None, *self.states):
                self._announce(wearer)
            return
        task = self._loop.create_task(self.commands.take(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _announce(self, wearer: str | None) -> None:
        """Tell Home Assistant of a wearer, or of the gateway, and show the state again after it."""
        messages = self._announcer.messages(wearer)
        for topic, payload in messages:
            self.publisher.retain(topic, payload)
        if messages and wearer in self.states:
            self.publisher.retain(state_topic(self._config.gateway.id, wearer), dump(self.states[wearer]))
