"""The whole way on one machine: broker, wearable, daemon, a subscriber that sees the alerts, one question answered."""

from __future__ import annotations

import json
import os
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

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.control import request
from edge.errors import AnyecgError

WEARER = "demo"
DEVICE = "patch"
QUESTION = "How many runs of ventricular tachycardia were there, and was there any atrial fibrillation?"
START_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 60.0


def data_folder() -> Path:
    """Return where recordings lie: `$ECG_DATA`, else `~/.cache/anyecg/data`."""
    return Path(os.environ.get("ECG_DATA", Path.home() / ".cache/anyecg/data"))


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
def daemon(state: Path, url: str, protocol: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `anyecg run` on `state` until the end of the context; its log is `state`/daemon.log."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "config.toml").write_text(f'[gateway]\nid = "demo"\n\n[mqtt]\nurl = "{url}"\nprotocol = "{protocol}"\n')
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
        return bool(status) and status["analysis"]["lag_s"] == 0 and status["queues"]["outbox"] == 0

    _await(is_quiet, SETTLE_TIMEOUT_S, "the analysis to catch up")
    return status


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
