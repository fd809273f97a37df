"""What is done to the gateway during the soak, every minute or so, and how long it takes to catch up afterwards."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.soak_wearers import CHUNK_S, Wearable
from broker.mosquitto import Mosquitto
from edge.control import request
from edge.errors import AnyecgError
from edge.store.database import FILE_NAME

READY_S = 60.0
CAUGHT_UP_S = 4 * CHUNK_S
"""No wearable has more than so much of its signal unacknowledged, in its own seconds."""
GIVE_UP_S = 180.0


@dataclass
class Gateway:
    """The daemon as a process of its own, its broker and its disk."""

    state: Path
    broker: Mosquitto
    process: subprocess.Popen[bytes] = field(init=False)
    exit_codes: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        command = [sys.executable, "-m", "bench.soak_daemon", str(self.state)]
        with self.state.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        deadline_s = time.monotonic() + READY_S
        while self.status() is None:
            if time.monotonic() > deadline_s or self.process.poll() is not None:
                raise AnyecgError(f"the daemon does not start: {self.state.with_suffix('.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def status(self) -> dict[str, Any] | None:
        try:
            return dict(request(self.state, "status", timeout_s=20))
        except AnyecgError:
            return None

    def ensure(self) -> None:
        """Start it again if it has ended by itself, as systemd would."""
        code = self.process.poll()
        if code is not None:
            self.exit_codes.append(code)
            self.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def rss_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and what came of it."""

    name: str
    at_h: float
    """Simulated hours since the beginning."""
    took_s: float
    back_s: float | None
    """Real seconds from its end until every wearable had caught up; None: not within `GIVE_UP_S`."""
    said: str
    """What the gateway said about its storage meanwhile."""


class Faults:
    """Injects them in a random order, each kind once before any comes again; kills only in the first half."""

    def __init__(self, gateway: Gateway, wearables: Sequence[Wearable], subscriber: Any, disk: Any, seed: int) -> None:
        self._gateway, self._wearables, self._subscriber, self._disk = gateway, wearables, subscriber, disk
        self._random = random.Random(seed)
        self._left: list[str] = []
        self.done: list[Fault] = []
        self.kinds: dict[str, Callable[[float], str]] = {
            "daemon killed": self._kill,
            "broker restarted": self._restart_broker,
            "broker away for an hour": self._lose_broker,
            "database locked": self._lock,
            "clock an hour ahead": self._clock,
            "subscriber away": self._lose_subscriber,
        }
        if disk is not None:
            self.kinds["disk full"] = self._fill

    def inject(self, at_h: float, hold_s: float, may_kill: bool) -> None:
        """Do the next one, hold it for `hold_s`, and wait until everything has caught up."""
        name = self._next()
        if name == "daemon killed" and not may_kill:
            name = self._next()
        began_s = time.monotonic()
        said = self.kinds[name](hold_s)
        over_s = time.monotonic()
        self.done.append(Fault(name, at_h, over_s - began_s, self._back(over_s), said))

    def _next(self) -> str:
        if not self._left:
            self._left = self._random.sample(list(self.kinds), len(self.kinds))
        return self._left.pop(0)

    def _back(self, over_s: float) -> float | None:
        while time.monotonic() - over_s < GIVE_UP_S:
            self._gateway.ensure()
            if max(wearable.behind_s for wearable in self._wearables) <= CAUGHT_UP_S + 2 * self._wearables[0].speed:
                return time.monotonic() - over_s
            time.sleep(0.2)
        return None

    def _storage(self) -> str:
        status = self._gateway.status()
        return "" if status is None else f"{status['storage']['state']}: {status['storage']['reason']}".rstrip(": ")

    def _kill(self, _hold_s: float) -> str:
        self._gateway.kill()
        self._gateway.start()
        return ""

    def _restart_broker(self, _hold_s: float) -> str:
        self._gateway.broker.stop()
        self._gateway.broker.start()
        return ""

    def _lose_broker(self, _hold_s: float) -> str:
        self._gateway.broker.stop()
        time.sleep(3600 / self._wearables[0].speed)
        self._gateway.broker.start()
        return ""

    def _lock(self, hold_s: float) -> str:
        other = sqlite3.connect(self._gateway.state / FILE_NAME, isolation_level=None, timeout=10)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(hold_s)
        said = self._storage()
        other.execute("ROLLBACK")
        other.close()
        return said

    def _fill(self, hold_s: float) -> str:
        said = ""
        for _ in range(max(round(hold_s), 1)):
            self._disk.fill()
            time.sleep(1)
            self._gateway.ensure()
            said = self._storage() or said
        self._disk.empty()
        return said

    def _clock(self, hold_s: float) -> str:
        self._gateway.process.send_signal(signal.SIGUSR1)
        time.sleep(hold_s)
        said = self._storage()
        self._gateway.process.send_signal(signal.SIGUSR2)
        return said

    def _lose_subscriber(self, hold_s: float) -> str:
        self._subscriber.leave()
        time.sleep(hold_s)
        self._subscriber.come_back()
        return ""
