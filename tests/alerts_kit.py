"""A subscriber, a store with an outbox and ready-made findings, for the tests of alerts."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from mosquitto_kit import end
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from sqlalchemy import Connection, Engine, create_engine, insert
from sqlalchemy.dialects.sqlite import insert as upsert

from edge.alerts.policy import Teller
from edge.config import Config, Gateway, Mqtt
from edge.rhythm.events import finding_id
from edge.store import outbox, tables
from edge.store.database import open_readonly
from edge.store.findings import Change
from edge.store.outbox import Message
from edge.store.writer import Writer

START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Recording:
    key: str = "0123456789abcdef"
    wearer: str = "anna"
    device: str = "strap"
    fs_hz: float = 250.0
    source: str = "live"


def change(kind: str = "new", **values: Any) -> Change:
    """A finding of 250 Hz that began at `START_NS` and took 4 s to see."""
    row = {
        "id": finding_id(Recording().key, "vt", 1000),
        "recording_id": 1,
        "rule": "vt",
        "severity": "urgent",
        "state": {"new": "open", "update": "open", "end": "closed", "retracted": "retracted"}[kind],
        "revision": 1,
        "opened_sample": 1000,
        "start_sample": 1000,
        "end_sample": 2500,
        "detected_sample": 2000,
        "start_ns": START_NS,
        "end_ns": START_NS + 6_000_000_000,
        "evidence": {"beats": 12, "hr_bpm": 161.4},
        "superseded_by": None,
        "analysis_id": 1,
    }
    return Change(kind, row | values)  # type: ignore[arg-type]


@contextmanager
def findings_store(recording: Recording | None = None, timezone: str = "UTC") -> Iterator[Connection]:
    """A database in memory with one wearer and one recording, in a transaction."""
    recording = recording or Recording()
    engine = create_engine("sqlite://")
    tables.metadata.create_all(engine)
    with engine.begin() as conn:
        conn.execute(insert(tables.wearer).values(id=recording.wearer, timezone=timezone, created_ns=0))
        add_recording(conn, recording)
        version = dict.fromkeys(("encoder", "weights_sha256", "rules_hash", "code_version", "provider"), "")
        conn.execute(insert(tables.analysis).values(**version, created_ns=0))
        yield conn
    engine.dispose()


def add_recording(conn: Connection, recording: Recording) -> None:
    conn.execute(
        insert(tables.recording).values(
            key=recording.key,
            wearer=recording.wearer,
            device=recording.device,
            leads=["I"],
            fs_hz=recording.fs_hz,
            uv_per_lsb=[1.0],
            source=recording.source,
            start_ns=START_NS - 4_000_000_000,
            end_sample=1_000_000,
            last_received_ns=START_NS,
        )
    )


def tell(
    conn: Connection, teller: Teller, what: Change, now_ns: int, recording: Recording | None = None
) -> list[dict[str, Any]]:
    """Write a finding as it now stands, and return the events that came of it."""
    row = {name: value for name, value in what.row.items() if name in tables.finding.c}
    row = {"opened_k": 0, "told_k": 0} | row
    conn.execute(upsert(tables.finding).values(row).on_conflict_do_update(index_elements=["id"], set_=row))
    return [json.loads(m.payload) for m in teller.messages(conn, recording or Recording(), [what], now_ns)]


def settings(url: str, **mqtt_values: Any) -> Config:
    return Config(gateway=Gateway(id="cellar"), mqtt=Mqtt(url=url, **mqtt_values))


def numbered(number: int, *, topic: str = "anyecg/v1/cellar/anna/events", expires_ns: int | None = None) -> Message:
    return Message(topic, f'{{"number":{number}}}', False, expires_ns, 0)


@contextmanager
def store(state: Path) -> Iterator[tuple[Writer, Engine]]:
    with Writer(state) as writer:
        reader = open_readonly(state)
        try:
            yield writer, reader
        finally:
            reader.dispose()


def put(writer: Writer, *messages: Message) -> None:
    writer.submit(lambda conn: outbox.add(conn, messages, now_ns=0)).result(60)


def waiting(reader: Engine) -> int:
    with reader.connect() as conn:
        return outbox.count(conn)


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait for a condition; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


class Subscriber:
    """Keeps every message of a topic filter, in order of arrival; its session survives the broker being away."""

    def __init__(self, port: int, topics: str = "anyecg/#", *, name: str = "ear", protocol: str = "5") -> None:
        self.messages: list[mqtt.MQTTMessage] = []
        self._topics = topics
        self._subscribed = threading.Event()
        is_v5 = protocol == "5"
        version = MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311
        options: dict[str, Any] = {} if is_v5 else {"clean_session": True}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=version, **options)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = lambda _client, _data, message: self.messages.append(message)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topics, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(60)

    def payloads(self, ending: str = "") -> list[str]:
        return [message.payload.decode() for message in self.messages if message.topic.endswith(ending)]

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._client)


class Proxy:
    """A TCP relay to a loopback port that can cut every connection at any byte."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((near, far), (far, near)):
                self._sockets.add(source)
                thread = threading.Thread(target=self._relay, args=(source, sink))
                self._threads.append(thread)
                thread.start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)
        self._sockets.discard(source)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
