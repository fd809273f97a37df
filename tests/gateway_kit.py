"""A real daemon on a real broker, to be killed; a wearable that knows what it was told; a subscriber that counts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from mosquitto_kit import end
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy import Connection

from broker.mosquitto import Mosquitto
from edge.analyze import Analyzer
from edge.chunk import MISSING
from edge.clock import SystemClock
from edge.config import Mqtt
from edge.control import request
from edge.encoder.card import Card
from edge.encoder.contract import BEAT_CLASSES
from edge.encoder.scoring import HopJob, score_hops
from edge.encoder.session import Encoder
from edge.encoder.windows import hops_ready
from edge.errors import AnyecgError
from edge.rhythm.events import Finding
from edge.rhythm.rules import Rules
from edge.rhythm.session import RhythmSession
from edge.sources.faults import Faults
from edge.sources.pace import Block, send_blocks
from edge.sources.record import Record
from edge.sources.replay import blocks, replay_stream
from edge.sources.sender import WINDOW_CHUNKS, Sender
from edge.store import queries
from edge.store.database import open_readonly
from edge.store.waveform import read

START_NS = 1_790_000_000_000_000_000
START_TIMEOUT_S = 180.0
SEVERE = ("advisory", "urgent", "critical")
LONG = {"ANYECG_ALERTS__LINK_LOST_S": "1800", "ANYECG_ALERTS__GATEWAY_DOWN_S": "1800"}
"""A test that takes its time has no findings about that."""
END = "anyecg/v1/listener/end/events"


class Daemon:
    """`anyecg run` as a process of its own."""

    def __init__(self, state: Path, url: str, wrap: Sequence[str] = (), config: str = "") -> None:
        self.state = state
        self.wrap = list(wrap)
        self.process: subprocess.Popen[bytes] | None = None
        state.mkdir(parents=True, exist_ok=True)
        (state / "config.toml").write_text(f'[gateway]\nid = "test"\n[mqtt]\nurl = "{url}"\n{config}')

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def start(self) -> None:
        """Start it without waiting."""
        with (self.state / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrap, sys.executable, "-m", "edge", "run", "--state", str(self.state)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**LONG, **os.environ, "OMP_NUM_THREADS": "1", "ANYECG_ALERTS__COOLDOWN_S": "0"},
            )

    def kill(self) -> None:
        """SIGKILL, as the out-of-memory killer or a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def status(self) -> dict[str, Any] | None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"daemon ended: {(self.state / 'daemon.log').read_text()[-3000:]}")
        with contextlib.suppress(AnyecgError):
            return dict(request(self.state, "status"))
        return None

    def wait_ready(self) -> None:
        wait_for(lambda: self.status() is not None, START_TIMEOUT_S, "the daemon")

    def settle(self) -> dict[str, Any]:
        """Wait until everything stored is read and everything to be told is told."""
        status: dict[str, Any] = {}

        def is_quiet() -> bool:
            nonlocal status
            status = self.status() or {}
            return bool(status) and status["analysis"]["is_idle"] and status["queues"]["outbox"] == 0

        wait_for(is_quiet, 180, "analysis and outbox")
        return status


def wait_for(is_true: Any, timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)


class Wearable(threading.Thread):
    """Sends a record at `speed` times real time; fails loudly. With `pause_s` it waits there for `go`."""

    def __init__(
        self,
        url: str,
        record: Record,
        *,
        speed: float,
        chunk_s: float = 1.0,
        faults: Faults | None = None,
        boot: int = 7,
        resend_s: float = 1.0,
        device: str = "patch",
        start_ns: int = START_NS,
        settings: Mqtt | None = None,
        window: int = WINDOW_CHUNKS,
        pause_s: float | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.go, self._is_over = threading.Event(), threading.Event()
        self._pause_s = pause_s
        stream = replace(replay_stream(record, wearer="anna", device=device, start_utc_ns=start_ns), boot=boot)
        self.sender = Sender(
            settings or Mqtt(url=url), stream, window=window, resend_s=resend_s, patience_s=180.0, faults=faults
        )
        self.error: BaseException | None = None
        self._record, self._speed, self._chunk_s = record, speed, chunk_s

    def run(self) -> None:
        try:
            with self.sender:
                send_blocks(
                    self._blocks(),
                    self.sender,
                    fs_hz=self._record.fs_hz,
                    speed=self._speed,
                    clock=SystemClock(),
                    sleep=time.sleep,
                )
                self.sender.finish()
        except BaseException as error:
            self.error = error

    def _blocks(self) -> Iterator[Block]:
        for block in blocks(self._record, self._chunk_s):
            if self._pause_s is not None and block.start >= self._pause_s * self._record.fs_hz:
                self.go.wait()
            if self._is_over.is_set():
                return
            yield block

    def give_up(self) -> None:
        """End, whatever is not sent or acknowledged: the port of its broker may become another's."""
        self._is_over.set()
        self.sender._patience_s = 0.0
        self.join(60)

    def result(self, timeout_s: float = 240.0) -> None:
        """Wait until every chunk is acknowledged end to end."""
        self.join(timeout_s)
        assert not self.is_alive(), f"not acknowledged within {timeout_s} s: {self.sender.snapshot()}"
        if self.error is not None:
            raise self.error

    def told_committed(self) -> int:
        """Samples per lead from the start that the gateway said are committed."""
        snapshot = self.sender.snapshot()
        safe = snapshot["chunks"] - snapshot["unacknowledged"]
        return min(max(safe - 1, 0) * round(self._chunk_s * self._record.fs_hz), self._record.n)


def stored_samples(state: Path, start: int, stop: int) -> NDArray[np.int32]:
    """What the database holds of the only recording."""
    with _only_recording(state) as (conn, recording):
        return read(conn, recording.id, start, stop).samples


def stored_findings(state: Path) -> dict[str, dict[str, Any]]:
    """The current findings of the only recording, by id."""
    with _only_recording(state) as (conn, _):
        return {row["id"]: row for row in queries.findings(conn)}


def stored_beats(state: Path) -> NDArray[np.void]:
    with _only_recording(state) as (conn, recording):
        return queries.beats(conn, recording, 0, recording.end_sample)


def recording_key(state: Path) -> str:
    with _only_recording(state) as (_, recording):
        return recording.key


@contextlib.contextmanager
def _only_recording(state: Path) -> Iterator[tuple[Connection, queries.Recording]]:
    engine = open_readonly(state)
    try:
        with engine.connect() as conn:
            (recording,) = queries.recordings(conn)
            yield conn, recording
    finally:
        engine.dispose()


def batch(record: Record, key: str, hops: int) -> tuple[dict[str, Finding], list[Any]]:
    """What the first `hops` hops of a record say when they are read in one go: the last word per id, and the beats."""
    encoder = Encoder(Card.load())
    reader = Analyzer(encoder, workers=1)
    session = RhythmSession(key, record.fs_hz, record.leads, Rules())
    found: dict[str, Finding] = {}
    beats: list[Any] = []

    def samples(start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        inside = record.samples[:, start:end]
        pad = end - start - inside.shape[1]
        return np.pad(inside, ((0, 0), (0, pad)), constant_values=MISSING), np.zeros(end - start, np.bool_)

    for first in range(0, hops, 240):
        job = HopJob(samples, record.uv_per_lsb, record.fs_hz, first, min(first + 240, hops))
        for hop in score_hops(encoder, [job], stride_hops=reader.stride.hops)[0]:
            result = session.feed(hop)
            beats += result.beats
            found.update((finding.id, finding) for finding in result.findings)
    return found, beats


CONTENT = ("rule", "severity", "state", "opened_sample", "start_sample", "end_sample", "detected_sample", "evidence")


def assert_same_as_batch(state: Path, record: Record, *, same_ids: bool = True) -> None:
    """The database says exactly what a reading of the whole record in one go says."""
    expected, expected_beats = batch(record, recording_key(state), hops_ready(record.fs_hz, record.n))
    found = stored_findings(state)
    if same_ids:
        assert set(found) == set(expected)

    def content(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(json.dumps(row[name], sort_keys=True) for name in CONTENT)

    assert sorted(content(row) for row in found.values()) == sorted(content(asdict(f)) for f in expected.values())
    beats = stored_beats(state)
    assert beats["sample"].tolist() == [beat.sample for beat in expected_beats]
    assert [BEAT_CLASSES[i] for i in beats["type"]] == [beat.type for beat in expected_beats]
    assert beats["confidence"].tolist() == np.float32([beat.confidence for beat in expected_beats]).tolist()


class Listener:
    """A subscriber; keeps every event message in the order of arrival. With `session_s` its session outlives it."""

    def __init__(self, broker: Mosquitto, session_s: int = 0) -> None:
        self.messages: list[dict[str, Any]] = []
        self.expiries: list[int] = []
        """What was left of each message's life, in seconds."""
        self._session_s = session_s
        self._ended = threading.Event()
        self.reconnect(broker)

    def reconnect(self, broker: Mosquitto) -> None:
        ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("anyecg/v1/+/+/events", qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._on_message
        self._client.message_callback_add(END, lambda *_: self._ended.set())
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_s
        self._client.connect("127.0.0.1", broker.port, clean_start=not self._session_s, properties=properties)
        self._client.loop_start()
        assert ready.wait(60)

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.expiries.append(getattr(message.properties, "MessageExpiryInterval", 0))
        self.messages.append(json.loads(message.payload))

    def catch_up(self) -> None:
        """Wait for all that the broker has taken so far: a message of its own comes behind it."""
        self._ended.clear()
        self._client.publish(END, qos=1)
        assert self._ended.wait(60)

    def latest(self) -> dict[str, dict[str, Any]]:
        """The highest revision of each id: what a subscriber that follows the rule sees."""
        kept: dict[str, dict[str, Any]] = {}
        for message in self.messages:
            if message["id"] not in kept or message["revision"] > kept[message["id"]]["revision"]:
                kept[message["id"]] = message
        return kept

    def close(self) -> None:
        end(self._client)


def cut(record: Record, seconds: float, start_s: float = 0.0) -> Record:
    """A stretch of a record."""
    first = round(start_s * record.fs_hz)
    return replace(record, samples=record.samples[:, first : first + round(seconds * record.fs_hz)].copy())
