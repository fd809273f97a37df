"""The whole way on one machine: broker, wearable, daemon, a subscriber that sees the alerts, one question answered."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from broker.local import LocalBroker
from edge.clock import SystemClock
from edge.config import Mqtt
from edge.control import request
from edge.encoder.contract import BEAT_CLASSES
from edge.errors import AnyecgError
from edge.sources import replay, simulator
from edge.sources.data_folder import data_folder
from edge.sources.pace import Block, send_blocks
from edge.sources.record import Record, read_record
from edge.sources.script import load_script
from edge.sources.sender import Sender
from edge.store import queries
from edge.store.database import open_readonly

WEARER = "demo"
DEVICE = "patch"
QUESTION = "How many episodes of ventricular tachycardia were there in the last hour?"
SEND_S = 40.0
"""A long recording is played in about so many seconds, a short one ten times as fast as it was."""
START_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Wearable:
    """What the demo's wearable sends."""

    title: str
    record: Record
    blocks: Callable[[], Iterator[Block]]


def choose_wearable(path: Path | None) -> Wearable:
    """Return the given record, else mitdb/200 of the data folder, else the simulated wearable."""
    data = data_folder()
    if path is None and (data / "mitdb/200.dat").exists():
        path = data / "mitdb/200"
    if path is not None:
        record = read_record(path)
        return Wearable(f"record {record.name}", record, lambda: replay.blocks(record, 1.0))
    simulation = simulator.simulate(load_script("tour"), seed=1)
    return Wearable(
        "simulated wearable (no recordings here)", simulation.record, lambda: simulator.blocks(simulation, 1.0)
    )


def send(wearable: Wearable, broker: LocalBroker, progress: Callable[[int], None]) -> int:
    """Send the whole recording and wait until the gateway has committed it; return the samples sent (all leads)."""
    clock = SystemClock()
    record = wearable.record
    speed = max(10.0, record.duration_s / SEND_S)
    start_ns = replay.start_for_end_at(record, clock.utc_ns(), speed)
    stream = replay.replay_stream(record, wearer=WEARER, device=DEVICE, start_utc_ns=start_ns)
    with Sender(Mqtt(url=broker.url, protocol="5" if broker.protocol == "5" else "3.1.1"), stream) as sender:
        send_blocks(
            wearable.blocks(),
            sender,
            fs_hz=record.fs_hz,
            speed=speed,
            clock=clock,
            sleep=time.sleep,
            progress=progress,
        )
        sender.finish()
        return int(sender.snapshot()["samples"])


def ask(state: Path, question: str) -> dict[str, Any]:
    """Ask in a process of its own, as a person would; return what `anyecg ask --json` printed."""
    command = [sys.executable, "-m", "edge", "ask", question, "--wearer", WEARER, "--state", str(state), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise AnyecgError(f"anyecg ask ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def found_events(state: Path) -> list[dict[str, Any]]:
    """Return what the gateway keeps about the demo's wearer, by time."""
    reader = open_readonly(state)
    try:
        with reader.connect() as conn:
            rows = queries.findings(conn, wearer=WEARER)
    finally:
        reader.dispose()
    return [
        {
            "id": row["id"],
            "rule": row["rule"],
            "severity": row["severity"],
            "start_s": round(row["start_sample"] / row["fs_hz"], 2),
            "end_s": round(row["end_sample"] / row["fs_hz"], 2),
        }
        for row in rows
    ]


@dataclass(slots=True)
class Subscriber:
    """Listens to the gateway's events as Home Assistant or a phone would; keeps the highest revision of each id."""

    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    received: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    on_event: Callable[[dict[str, Any]], None] = lambda event: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, topic: str, payload: bytes | bytearray) -> None:
        """Note one message."""
        document = json.loads(payload)
        with self._lock:
            if topic.endswith("/state"):
                self.state = document
                return
            self.received += 1
            known = self.events.get(document["id"])
            if known is not None and known["revision"] >= document["revision"]:
                return
            self.events[document["id"]] = document
        self.on_event(document)


@contextmanager
def subscribed(url: str, protocol: str, subscriber: Subscriber) -> Iterator[None]:
    """Connect `subscriber` to the broker for the time of the context."""
    address = urlsplit(url)
    version = mqtt.MQTTv5 if protocol == "5" else mqtt.MQTTv311
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="anyecg-demo-subscriber", protocol=version)
    ready = threading.Event()

    def on_connect(client: mqtt.Client, *_: Any) -> None:
        client.subscribe([("anyecg/v1/+/+/events", 1), ("anyecg/v1/+/+/state", 1)])

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: subscriber.take(message.topic, message.payload)
    client.connect(address.hostname or "127.0.0.1", address.port or 1883)
    client.loop_start()
    try:
        if not ready.wait(10):
            raise AnyecgError(f"no answer from the broker at {url}")
        yield
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def daemon(state: Path, broker: LocalBroker) -> Iterator[subprocess.Popen[bytes]]:
    """Run `anyecg run` on `state` until the end of the context; its log is `state`/daemon.log."""
    state.mkdir(parents=True, exist_ok=True)
    config = f'[gateway]\nid = "demo"\n\n[mqtt]\nurl = "{broker.url}"\nprotocol = "{broker.protocol}"\n'
    (state / "config.toml").write_text(config)
    with (state / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "--state", str(state)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _await(lambda: _status(state, process) is not None, START_TIMEOUT_S, f"the daemon; see {state}/daemon.log")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def settle(state: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait until everything stored is read and everything to be told is told; return the daemon's status."""
    status: dict[str, Any] = {}

    def is_quiet() -> bool:
        nonlocal status
        status = _status(state, process) or status
        return bool(status) and status["analysis"]["is_idle"] and status["queues"]["outbox"] == 0

    _await(is_quiet, SETTLE_TIMEOUT_S, "the analysis to catch up")
    return status


def received_all(state: Path, subscriber: Subscriber) -> None:
    """Wait until the subscriber has the last word on every event that was told."""
    told = {event["id"] for event in found_events(state) if event["severity"] != "info"}
    _await(lambda: told <= set(subscriber.events), 10.0, "the last alerts")


def beat_classes(state: Path) -> dict[str, int]:
    """Return how many beats of each AAMI class the gateway keeps about the demo's wearer."""
    reader = open_readonly(state)
    try:
        with reader.connect() as conn:
            found = [
                queries.beats(conn, recording, 0, recording.end_sample)["type"]
                for recording in queries.recordings(conn, WEARER)
            ]
    finally:
        reader.dispose()
    counts = np.bincount(np.concatenate(found), minlength=len(BEAT_CLASSES)) if found else [0] * len(BEAT_CLASSES)
    return {name: int(count) for name, count in zip(BEAT_CLASSES, counts, strict=True)}


def _status(state: Path, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    if process.poll() is not None:
        tail = (state / "daemon.log").read_text(errors="replace")[-2000:]
        raise AnyecgError(f"the daemon ended with code {process.returncode}:\n{tail}")
    try:
        status: dict[str, Any] = request(state, "status")
    except AnyecgError:
        return None
    return status


def _await(is_done: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline_s:
            raise AnyecgError(f"gave up waiting {timeout_s:.0f} s for {what}")
        time.sleep(0.2)
