"""The wearables of the soak: each plays an hour of simulated ECG over and over, and sends it as honestly as it can.

What the network does to them differs: one has a good link, one loses chunks, one sends them twice and out of order, one
gives some up for good (gaps), one restarts now and then.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.config import Mqtt
from edge.sources.faults import Faults
from edge.sources.record import Record
from edge.sources.replay import replay_stream
from edge.sources.script import parse_script
from edge.sources.sender import Sender
from edge.sources.simulator import simulate

FS_HZ = 250.0
LOOP_S = 3600
CHUNK_S = 5
CHUNK = round(CHUNK_S * FS_HZ)
DEVICE = "patch"
RESTARTS = 24
"""Times that the last wearable starts anew in the whole run."""
PATIENCE_S = 600.0
LINKS = (
    {},
    {"lose": 0.01},
    {"duplicate": 0.02, "shuffle": 4},
    {"give_up": 0.002},
    {},
)
"""What the network does, wearer by wearer (`edge.sources.faults`)."""


def an_hour(index: int) -> Record:
    """Return an hour in the life of wearer `index`: mostly sinus rhythm, with whatever is told at once."""
    rng = np.random.default_rng(index)
    episodes = [
        {"kind": "vt", "seconds": 12, "hr_bpm": 190},
        {"kind": "bigeminy", "seconds": 40},
        {"kind": "af", "seconds": 120},
        {"kind": "pause", "seconds": 16, "pause_s": 4},
        {"kind": "asystole", "seconds": 10},
        {"kind": "noise", "seconds": 60},
    ]
    segments = []
    for i in rng.permutation(len(episodes)):
        segments += [{"kind": "sinus", "seconds": 550, "hr_bpm": round(rng.uniform(55, 85))}, episodes[i]]
    segments.append({"kind": "sinus", "seconds": 300, "hr_bpm": 60})
    return simulate(parse_script(segments, f"w{index}", "soak"), seed=index, fs_hz=FS_HZ, duration_s=LOOP_S).record


@dataclass(eq=False)
class Wearable(threading.Thread):
    """Sends `hours` at `speed` times real time and waits until all of it is acknowledged."""

    index: int
    url: str
    hours: float
    speed: float
    start_utc_ns: int
    record: Record = field(init=False)
    sent: int = 0
    """Samples that had their turn."""
    given_up: int = 0
    """Chunks that it dropped on purpose."""
    boots: int = 0
    error: BaseException | None = None
    done_s: float | None = None
    sender: Sender | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True, name=f"wearable-{self.index}")
        self.record = an_hour(self.index)
        self.samples = round(self.hours * 3600 / CHUNK_S) * CHUNK
        self.restarts = RESTARTS if self.index == len(LINKS) - 1 else 0
        self.faults = Faults(seed=self.index, **LINKS[self.index % len(LINKS)])

    @property
    def wearer(self) -> str:
        return f"w{self.index}"

    def expected(self, start: int, stop: int) -> NDArray[np.int32]:
        """Return the samples [leads, stop - start] that it had to send."""
        return np.take(self.record.samples, np.arange(start, stop), axis=1, mode="wrap")

    @property
    def behind_s(self) -> float:
        """Signal that should be acknowledged by now and is not, in seconds of the wearer's time."""
        unacknowledged = 0 if self.sender is None else self.sender.snapshot()["unacknowledged"]
        due = min((time.monotonic() - self.began_s) * self.speed, self.samples / FS_HZ)
        return max(0.0, due - self.sent / FS_HZ) + unacknowledged * CHUNK_S

    def begin(self, began_s: float) -> None:
        """Start at the given monotonic time."""
        self.began_s = began_s
        self.start()

    def run(self) -> None:
        try:
            per_boot = -(-self.samples // (self.restarts + 1) // CHUNK) * CHUNK
            for first in range(0, self.samples, per_boot):
                self._boot(first, min(first + per_boot, self.samples))
            self.done_s = time.monotonic()
        except BaseException as error:
            self.error = error

    def _boot(self, first: int, stop: int) -> None:
        """Everything from one start of the device to the next."""
        stream = replay_stream(self.record, wearer=self.wearer, device=DEVICE, start_utc_ns=self.start_utc_ns)
        stream = replace(stream, boot=1000 * (self.index + 1) + self.boots)
        self.boots += 1
        with Sender(Mqtt(url=self.url), stream, patience_s=PATIENCE_S, faults=self.faults) as self.sender:
            for start in range(first, stop, CHUNK):
                time.sleep(max(0.0, self.began_s + (start + CHUNK) / FS_HZ / self.speed - time.monotonic()))
                self.sender.send(start, self.expected(start, start + CHUNK))
                self.sent = start + CHUNK
            self.sender.finish()
            self.given_up += self.sender.snapshot()["given_up"]


def whole(wearable: Wearable) -> Record:
    """Return everything a wearable sent, as one record."""
    return replace(wearable.record, samples=wearable.expected(0, wearable.samples), path=Path(wearable.wearer))
