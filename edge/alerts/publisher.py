"""Brings the outbox and the retained states to the broker, in a thread of its own.

Rows go out in the order of their ids, at most `WINDOW` unconfirmed, and are deleted only after the broker confirmed
them. Whatever breaks in between is sent again from the oldest row left: at least once, in order, with the same id and
revision, so that a subscriber that keeps the highest revision of each id sees each once.

| trouble | what happens |
|---|---|
| broker away | rows stay; retry with jittered back-off up to a minute, for ever |
| credentials refused | rows stay; `status` says what to check; a try every `refused_s`, reading the password anew |
| a PUBLISH is refused (not authorised, quota, …) | the row stays; its topic waits, others go on; `status` names it |
| a row passes its expiry undelivered | it is deleted and counted, never sent late |
| database busy or full | confirmed rows stay until it takes the deletion; they are not sent again meanwhile |
| MQTT 3.1.1 broker | no expiry in the broker, refused PUBLISHes look like taken ones; `status` says so |

States are not queued: only the newest of each topic is kept in memory and sent when the connection allows.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

import structlog
from sqlalchemy import Connection as Database
from sqlalchemy import Engine

from edge import __version__
from edge.alerts.backoff import Backoff
from edge.alerts.commands import Received, Reply
from edge.alerts.connection import (
    CONNECT_TIMEOUT_S,
    REFUSALS,
    Closed,
    Confirmed,
    Connected,
    Connection,
    Happening,
    Protocol,
    Refused,
)
from edge.alerts.topics import SCHEMA, dump, iso, status_topic
from edge.clock import Clock
from edge.config import Config
from edge.errors import AnyecgError
from edge.store import outbox
from edge.store.outbox import Message, Row

log = structlog.get_logger(__name__)

WINDOW = 20
"""Unconfirmed messages at once, or fewer if the broker wants fewer."""
READ_ROWS = 200
FALLBACK_S = 3.0
"""How long MQTT 5 waits for an answer before 3.1.1 is tried: amqtt says nothing to a CONNECT 5 that has a will."""
BACK_S = 8.0
"""Longest wait for a broker that was away: alerts go on within 10 s of its return."""
STEADY_S = 10.0
"""A connection that lasted so long was a good one: the next failure starts with a short wait."""
MAX_REPLIES = 100
"""Answers to commands that wait for the connection; the oldest goes first."""
MAX_UNHEARD = 100
STOP_S = 2.0
"""How long a graceful stop waits for the broker to confirm the last message."""

Link = Literal["starting", "connected", "refused", "unreachable", "stopped"]
Submit = Callable[[Callable[[Database], None]], "Future[None]"]


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """How it stands, for `anyecg status`."""

    link: Link = "starting"
    reason: str = "not connected yet"
    protocol: str = ""
    """MQTT version in use, and what it lacks."""
    since_ns: int = 0
    confirmed: int = 0
    """Outbox rows the broker has taken since the start."""
    states: int = 0
    """Retained states the broker has taken."""
    refused: int = 0
    """PUBLISHes the broker answered with a failure."""
    expired: int = 0
    connections: int = 0
    in_flight: int = 0
    held: dict[str, str] = field(default_factory=dict)
    """Topic → why the broker does not take it."""
    unheard: tuple[str, ...] = ()
    """Topics of events that the broker took last with nobody subscribed to them."""
    received: int = 0
    """Messages for the gateway: commands, Home Assistant's birth."""


@dataclass(frozen=True, slots=True)
class _Sent:
    topic: str
    row_id: int | None
    """None: a retained state."""


@dataclass(frozen=True, slots=True)
class _Hold:
    """A topic the broker refused: left alone until `until_s`, then on trial with one message at a time."""

    until_s: float
    attempt: int
    reason: str
    on_trial: bool = False


class Publisher:
    """Owns the gateway's outgoing connection; `notify` and `retain` may be called from any thread."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        reader: Engine,
        submit: Submit,
        *,
        backoff: Backoff = Backoff(longest_s=BACK_S),  # noqa: B008 (frozen)
        refused_s: float = 5.0,
        subscribe: Sequence[str] = (),
        on_message: Callable[[Received], None] = lambda message: None,
    ) -> None:
        """Make a publisher that does nothing before `start`.

        Args:
            config: whole configuration.
            clock: decides expiry.
            reader: gives connections that read the outbox.
            submit: runs a job in the writer's transaction.
            backoff: how long it waits before it connects again.
            refused_s: the same when the broker refuses the credentials.
            subscribe: topic filters of messages for the gateway.
            on_message: called with each of them, on the publisher's thread.
        """
        self._subscribe = list(subscribe)
        self._on_message = on_message
        self._replies: deque[Reply] = deque(maxlen=MAX_REPLIES)
        self._unheard: OrderedDict[str, None] = OrderedDict()
        self._config = config
        self._clock = clock
        self._reader = reader
        self._submit = submit
        self._backoff = backoff
        self._refused_s = refused_s
        self._status = PublisherStatus()
        self._inbox: queue.SimpleQueue[tuple[Connection, Happening] | None] = queue.SimpleQueue()
        self._notified = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

        self._states: dict[str, str] = {}
        self._dirty: OrderedDict[str, None] = OrderedDict()
        self._states_lock = threading.Lock()

        self._in_flight: dict[int, _Sent] = {}
        self._rows: deque[Row] = deque()
        self._after_id = 0
        self._more = True
        self._held: dict[str, _Hold] = {}
        self._settled: set[int] = set()
        """Confirmed or expired rows that are still in the database."""
        self._removing: tuple[frozenset[int], Future[None]] | None = None

    def start(self) -> None:
        """Start publishing."""
        self._thread.start()

    def stop(self) -> None:
        """Say that the gateway is going, disconnect and end; rows that wait stay in the outbox."""
        self._stopping.set()
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def notify(self) -> None:
        """Say that rows were committed."""
        if not self._notified.is_set():
            self._notified.set()
            self._inbox.put(None)

    def retain(self, topic: str, payload: str) -> None:
        """Make `payload` the retained message of `topic`, as soon as possible; a newer one replaces it."""
        with self._states_lock:
            self._states[topic] = payload
            self._dirty[topic] = None
        self.notify()

    def forget(self, wearer: str) -> None:
        """Take back every retained message about a wearer."""
        with self._states_lock:
            topics = [topic for topic in self._states if wearer in topic.split("/")]
        for topic in topics:
            self.retain(topic, "")

    def reply(self, reply: Reply) -> None:
        """Send an answer once; it is lost if the connection is."""
        self._replies.append(reply)
        self.notify()

    @property
    def status(self) -> PublisherStatus:
        return replace(
            self._status,
            in_flight=len(self._in_flight),
            held={t: h.reason for t, h in list(self._held.items())},
            unheard=tuple(self._unheard),
        )

    # --- connecting -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                connection, receive_maximum = self._connect()
            except _NotConnectedError as failure:
                wait_s = self._refused_s if failure.link == "refused" else self._backoff.wait_s(attempt)
                attempt += 1
                self._say(failure.link, failure.reason)
                self._stopping.wait(wait_s)
                continue
            try:
                why = self._serve(connection, min(WINDOW, receive_maximum))
            except Exception:
                log.exception("publisher failed; it connects again")
                why = "internal error, see the log"
            finally:
                connection.close()
            attempt = 0 if time.monotonic() - began_s > STEADY_S else attempt + 1
            if not self._stopping.is_set():
                self._say("unreachable", why)
                self._stopping.wait(self._backoff.wait_s(attempt))
        self._say("stopped", "the gateway is stopping")

    def _connect(self) -> tuple[Connection, int]:
        """Return a connection the broker accepted and how many unconfirmed messages it takes."""
        wanted = self._config.mqtt.protocol
        versions: list[Protocol] = ["5", "3.1.1"] if wanted == "auto" else [wanted]
        why = ""
        for version in versions:
            answer, connection = self._try(version, CONNECT_TIMEOUT_S if version == versions[-1] else FALLBACK_S)
            if isinstance(answer, Connected):
                lacking = "" if version == "5" else ": no message expiry, no reasons for refusals"
                chosen = " (the broker does not speak 5)" if lacking and wanted == "auto" else ""
                self._status = replace(
                    self._status, protocol=f"{version}{chosen}{lacking}", connections=self._status.connections + 1
                )
                self._say("connected", f"MQTT {version} to {self._config.mqtt.url}")
                return connection, answer.receive_maximum
            connection.close()
            why = answer.reason
            if isinstance(answer, Refused) and why in REFUSALS:
                raise _NotConnectedError(
                    "refused", f"the broker refused the gateway ({why}): check mqtt.username and "
                    "mqtt.password_file, and the broker's user list",
                )  # fmt: skip
        raise _NotConnectedError("unreachable", f"{self._config.mqtt.url}: {why}")

    def _try(self, version: Protocol, timeout_s: float) -> tuple[Connected | Refused | Closed, Connection]:
        gateway = self._config.gateway.id
        try:
            connection = Connection(
                self._config.mqtt,
                client_id=f"anyecg-{gateway}-alerts",
                protocol=version,
                will=self._status_message("offline", "connection lost"),
                report=lambda source, happening: self._inbox.put((source, happening)),
            )
        except (OSError, ValueError, AnyecgError) as error:  # ValueError: a host name that cannot be one
            raise _NotConnectedError("unreachable", f"{self._config.mqtt.url}: {error}") from None
        deadline_s = time.monotonic() + timeout_s
        while not self._stopping.is_set():
            happening = self._next(connection, deadline_s - time.monotonic())
            if isinstance(happening, Connected | Refused | Closed):
                return happening, connection
            if time.monotonic() > deadline_s:
                break
        return Closed(f"no answer to CONNECT with MQTT {version}"), connection

    def _next(self, connection: Connection, wait_s: float) -> Happening | None:
        """Return what happens to `connection` within `wait_s`; None if nothing did, or on a call to wake up."""
        try:
            item = self._inbox.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            return None
        return item[1] if item is not None and item[0] is connection else None

    # --- delivering -------------------------------------------------------------------------------------------

    def _serve(self, connection: Connection, window: int) -> str:
        """Deliver until the connection ends or the gateway stops; return why it ended."""
        self._in_flight.clear()
        self._held.clear()
        self._notified.clear()
        self._rewind()
        self._replies.clear()
        if self._subscribe:
            connection.subscribe(self._subscribe)
        online = self._status_message("online", "")
        with self._states_lock:
            self._states[online.topic] = online.payload
            self._dirty = OrderedDict.fromkeys([online.topic, *self._states])
        while not self._stopping.is_set():
            self._settle()
            while self._replies:
                connection.reply(self._replies.popleft())
            self._send_states(connection, window)
            self._send_rows(connection, window)
            why = self._handle(connection, self._wait_s())
            if why is not None:
                return why
        self._say_goodbye(connection)
        return "stopped"

    def _handle(self, connection: Connection, wait_s: float) -> str | None:
        """Wait for something to happen and take it in, with all that happened meanwhile; return why we were cut off."""
        happening = self._next(connection, wait_s)
        while True:
            if isinstance(happening, Closed):
                return f"connection lost: {happening.reason}"
            if isinstance(happening, Confirmed):
                self._confirm(happening)
            if isinstance(happening, Received):
                self._status = replace(self._status, received=self._status.received + 1)
                self._on_message(happening)
            if self._notified.is_set():
                self._notified.clear()
                self._more = True
            if self._inbox.empty():
                return None
            happening = self._next(connection, 0)

    def _confirm(self, answer: Confirmed) -> None:
        sent = self._in_flight.pop(answer.mid, None)
        if sent is None:
            return
        hold = self._held.get(sent.topic)
        if answer.failure is not None:
            self._status = replace(self._status, refused=self._status.refused + 1)
            if hold is None or hold.on_trial:
                attempt = 0 if hold is None else hold.attempt + 1
                until_s = time.monotonic() + self._backoff.wait_s(attempt + 3)
                self._held[sent.topic] = _Hold(until_s, attempt, answer.failure)
                if hold is None:
                    log.warning("the broker refuses a topic", topic=sent.topic, reason=answer.failure)
            return
        if hold is not None and hold.on_trial:
            del self._held[sent.topic]
            self._rewind()
        if sent.row_id is None:
            self._status = replace(self._status, states=self._status.states + 1)
        else:
            self._settled.add(sent.row_id)
            self._status = replace(self._status, confirmed=self._status.confirmed + 1)
            self._unheard.pop(sent.topic, None)
            if answer.heard is False:
                self._unheard[sent.topic] = None
                if len(self._unheard) > MAX_UNHEARD:
                    self._unheard.popitem(last=False)

    def _send_states(self, connection: Connection, window: int) -> None:
        busy = {sent.topic for sent in self._in_flight.values() if sent.row_id is None} | self._blocked()
        with self._states_lock:
            due = [topic for topic in self._dirty if topic not in busy][: max(0, window - len(self._in_flight))]
            messages = [Message(topic, self._states[topic], True, None, 0) for topic in due]
            for topic in due:
                del self._dirty[topic]
        for message in messages:
            self._send(connection, message, None)

    def _send_rows(self, connection: Connection, window: int) -> None:
        blocked = self._blocked()
        while len(self._in_flight) < window:
            if not self._rows and not self._read_rows(blocked):
                return
            row = self._rows.popleft()
            if row.message.topic in blocked:
                continue  # read again after its trial
            if row.message.expires_ns is not None and row.message.expires_ns <= self._clock.utc_ns():
                self._settled.add(row.id)
                self._status = replace(self._status, expired=self._status.expired + 1)
                continue
            self._send(connection, row.message, row.id)
            if row.message.topic in self._held:
                blocked.add(row.message.topic)

    def _send(self, connection: Connection, message: Message, row_id: int | None) -> None:
        mid = connection.publish(message, now_ns=self._clock.utc_ns())
        self._in_flight[mid] = _Sent(message.topic, row_id)

    def _read_rows(self, blocked: Collection[str]) -> bool:
        """Fill the buffer with the next rows; False if there are none."""
        while self._more:
            with self._reader.connect() as conn:
                rows = outbox.pending(conn, READ_ROWS, after_id=self._after_id, except_topics=blocked)
            self._more = len(rows) == READ_ROWS
            if rows:
                self._after_id = rows[-1].id
            known = self._settled | {sent.row_id for sent in self._in_flight.values()}
            if self._removing is not None:
                known |= self._removing[0]
            self._rows.extend(row for row in rows if row.id not in known)
            if self._rows:
                return True
        return False

    def _blocked(self) -> set[str]:
        """Return the topics that must wait; one whose wait is over is put on trial, from its oldest row."""
        now_s = time.monotonic()
        for topic, hold in self._held.items():
            if not hold.on_trial and hold.until_s <= now_s:
                self._held[topic] = replace(hold, on_trial=True)
                self._rewind()
                with self._states_lock:
                    if topic in self._states:
                        self._dirty[topic] = None
        busy = {sent.topic for sent in self._in_flight.values()}
        return {topic for topic, hold in self._held.items() if not hold.on_trial or topic in busy}

    def _rewind(self) -> None:
        self._rows.clear()
        self._after_id = 0
        self._more = True

    def _settle(self) -> None:
        """Delete settled rows, one deletion at a time."""
        if self._removing is not None:
            ids, future = self._removing
            if not future.done():
                return
            self._removing = None
            error = future.exception()
            if error is not None:
                self._settled |= ids
                log.warning("delivered messages could not be deleted yet", error=str(error))
                return
        if not self._settled:
            return
        ids = frozenset(self._settled)
        try:
            future = self._submit(lambda conn: outbox.remove(conn, ids))
        except AnyecgError as error:
            log.warning("delivered messages could not be deleted yet", error=str(error))
            return
        self._settled.clear()
        self._removing = (ids, future)
        future.add_done_callback(lambda _: self._inbox.put(None))

    def _wait_s(self) -> float:
        """Return how long nothing but a happening can bring work."""
        now_s = time.monotonic()
        holds = [max(0.01, hold.until_s - now_s) for hold in self._held.values() if not hold.on_trial]
        return min([1.0 if self._settled else 30.0, *holds])

    def _say_goodbye(self, connection: Connection) -> None:
        self._send(connection, self._status_message("offline", "stopped"), None)
        deadline_s = time.monotonic() + STOP_S
        while self._in_flight and time.monotonic() < deadline_s:
            if self._handle(connection, deadline_s - time.monotonic()) is not None:
                break
            self._settle()
        while (self._settled or self._removing) and time.monotonic() < deadline_s:
            self._settle()
            time.sleep(0.01)

    def _status_message(self, status: str, reason: str) -> Message:
        now_ns = self._clock.utc_ns()
        gateway = self._config.gateway.id
        document = {
            "schema": SCHEMA,
            "gateway": gateway,
            "status": status,
            "reason": reason,
            "since": iso(now_ns),
            "version": __version__,
        }
        return Message(status_topic(gateway), dump(document), True, None, now_ns)

    def _say(self, link: Link, reason: str) -> None:
        if (link, reason) != (self._status.link, self._status.reason):
            (log.info if link in ("connected", "stopped") else log.warning)("broker", link=link, reason=reason)
            self._status = replace(self._status, link=link, reason=reason, since_ns=self._clock.utc_ns())


class _NotConnectedError(Exception):
    def __init__(self, link: Literal["refused", "unreachable"], reason: str) -> None:
        super().__init__(reason)
        self.link: Literal["refused", "unreachable"] = link
        self.reason = reason
