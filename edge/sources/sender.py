"""The sending half of an honest wearable: it keeps every chunk until the gateway says it is committed.

docs/wearable.md describes the protocol this implements. Replay and simulator send through it.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray

from edge.chunk import MISSING, Chunk
from edge.clock import Clock, SystemClock
from edge.config import Mqtt
from edge.errors import AnyecgError
from edge.sources.faults import Faults
from edge.sources.link import Link
from edge.sources.payload import PayloadError, check, decode_ack, encode
from edge.sources.stream import Stream
from edge.sources.topics import ack_topic, chunk_topic

WINDOW_CHUNKS = 256
RESEND_S = 5.0
RESEND_MAX_S = 60.0


class SendError(AnyecgError):
    """Samples could not be delivered."""


@dataclass(frozen=True, slots=True)
class Run(Stream):
    """One start of a sender: its stream from sample 0 on."""

    utc_ns: int | None = None
    """UTC at sample 0, None for a device that does not know the time."""
    device_time_ns: int = 0
    """Device clock at sample 0."""
    boot: int = field(default_factory=lambda: secrets.randbits(63))


class Sender:
    """Sends the chunks of one stream and knows which of them are safe.

    At most `window` chunks are unacknowledged: `send` waits while there are that many. What is not acknowledged is
    sent again after a reconnect, and after `resend_s` without progress (doubling up to a minute). Without any
    progress for `patience_s`, `send` and `finish` raise SendError.
    """

    def __init__(
        self,
        settings: Mqtt,
        stream: Run,
        *,
        window: int = WINDOW_CHUNKS,
        resend_s: float = RESEND_S,
        patience_s: float = 60.0,
        faults: Faults | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.stream = stream
        self._window = window
        self._resend_s = resend_s
        self._patience_s = patience_s
        self._faults = faults
        self._clock = clock or SystemClock()
        self._seq = 0
        self._held: dict[int, Chunk] = {}
        self._outbox: deque[int] = deque()
        self._in_flight = 0
        self._refusal: str | None = None
        self._progress = threading.Condition(threading.RLock())
        self._progress_s = self._tried_s = self._clock.monotonic_s()
        self._wait_s = resend_s
        self._sent = 0
        self._samples = 0
        self._resent = 0
        self._given_up = 0
        self._name = f"{stream.wearer}/{stream.device}"
        self._link = Link(settings, self, client_id=f"{stream.wearer}-{stream.device}-{secrets.token_hex(4)}")

    def __enter__(self) -> Sender:
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def send(self, start: int, samples: NDArray[np.int32], contact: bool | None = None) -> None:
        """Send samples [leads, n] whose first has index `start`; waits while the window is full.

        Nothing is sent for samples that are all MISSING: a hole in the stamps says the same. Raises PayloadError for
        samples no chunk can hold and SendError if the gateway acknowledges nothing for too long.
        """
        if (samples == MISSING).all():
            return
        stream = self.stream
        offset_ns = stream.offset_ns(start)
        chunk = stream.chunk(
            samples,
            boot=stream.boot,
            seq=self._seq,
            device_time_ns=stream.device_time_ns + offset_ns,
            utc_ns=None if stream.utc_ns is None else stream.utc_ns + offset_ns,
            contact=contact,
        )
        check(chunk)
        self._seq += 1
        if self._faults is not None and self._faults.gives_up():
            self._given_up += 1
            return
        with self._progress:
            self._wait(lambda: len(self._held) < self._window)
            if not self._held:
                self._moved()
            self._held[chunk.seq] = chunk
            self._samples += samples.size
            self._outbox.extend([chunk.seq] if self._faults is None else self._faults.transmissions(chunk.seq))
        self._link.wake()

    def finish(self) -> None:
        """Wait until everything is committed at the gateway; raises SendError if that stops making progress."""
        with self._progress:
            if self._faults is not None:
                self._outbox.extend(self._faults.flush())
            self._link.wake()
            self._wait(lambda: not self._held)

    def snapshot(self) -> dict[str, Any]:
        """Counters: chunks made, transmitted, sent again, given up, unacknowledged; samples over all leads."""
        with self._progress:
            return {
                "chunks": self._seq,
                "transmitted": self._sent,
                "resent": self._resent,
                "given_up": self._given_up,
                "unacknowledged": len(self._held),
                "samples": self._samples,
                "state": self._link.state,
                "reconnects": max(0, self._link.connections - 1),
            }

    def connected(self, client: mqtt.Client) -> None:
        client.subscribe(ack_topic(self.stream.wearer, self.stream.device), qos=1)
        with self._progress:
            self._in_flight = 0
            if self._link.connections > 1:
                self._send_again()

    def received(self, client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
        try:
            ack = decode_ack(bytes(message.payload))
        except PayloadError:
            return  # not for us: somebody else may write there
        if ack.boot != self.stream.boot:
            return
        with self._progress:
            safe = [seq for seq in self._held if seq <= ack.seq]
            for seq in safe:
                del self._held[seq]
            if safe:
                self._moved()
                first = min(self._held, default=0)
                if first > ack.seq + 1 and first not in self._outbox:
                    self._outbox.append(first)  # says, by its `oldest`, that what lies between was given up
                    self._resent += 1
        self._link.wake()

    def published(self, mid: int, failure: str | None) -> None:
        with self._progress:
            self._in_flight = max(0, self._in_flight - 1)
            if failure is not None:
                self._refusal = failure
                self._progress.notify_all()
        self._link.wake()

    def lost(self, client: mqtt.Client) -> None:
        """What was in flight is sent again when the next connection stands."""

    def tick(self, client: mqtt.Client) -> float:
        with self._progress:
            quiet_s = self._clock.monotonic_s() - max(self._progress_s, self._tried_s)
            if self._held and quiet_s > self._wait_s and not self._outbox:
                self._wait_s = min(2 * self._wait_s, max(self._resend_s, RESEND_MAX_S))
                self._send_again()
            chunks = self._due()
        for chunk in chunks:  # not under our lock: paho holds one of its own while it calls `published`
            client.publish(chunk_topic(chunk.wearer, chunk.device), encode(chunk), qos=1)
        return min(1.0, self._wait_s / 4)

    def _due(self) -> list[Chunk]:
        """Take from the outbox what the broker will take now."""
        due: list[Chunk] = []
        oldest = min(self._held, default=0)
        while self._outbox and self._in_flight < self._link.receive_maximum:
            chunk = self._held.get(self._outbox.popleft())
            if chunk is not None:
                due.append(replace(chunk, oldest=oldest))
                self._in_flight += 1
        self._sent += len(due)
        return due

    def _send_again(self) -> None:
        self._outbox.clear()
        self._outbox.extend(self._held)
        self._resent += len(self._held)
        self._tried_s = self._clock.monotonic_s()

    def _moved(self) -> None:
        self._progress_s = self._clock.monotonic_s()
        self._wait_s = self._resend_s
        self._progress.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        while True:
            if self._refusal is not None:
                raise SendError(f"the broker refuses chunks of {self._name}: {self._refusal}")
            if self._link.state == "refused":
                raise SendError(f"the broker refuses the connection: {self._link.reason}")
            if condition():
                return
            if self._clock.monotonic_s() - self._progress_s > self._patience_s:
                raise SendError(self._complaint())
            self._progress.wait(0.1)

    def _complaint(self) -> str:
        if self._link.state != "connected":
            return f"no connection to the broker for {self._patience_s:g} s: {self._link.reason}; is it running?"
        return (
            f"{len(self._held)} chunks are not acknowledged and none was for {self._patience_s:g} s; is a gateway "
            "(anyecg run) listening at this broker?"
        )
