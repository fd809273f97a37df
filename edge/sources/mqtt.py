"""Wearables that publish over MQTT: chunks come in, and are acknowledged only once they are safe.

Flow: QoS 1 with manual acknowledgement. The broker sends at most Receive Maximum chunks ahead of our
acknowledgements, so a hand-over that refuses (its queue is full) stops the flow without losing anything; refused
deliveries wait here and are offered again. A broker that knows no Receive Maximum (MQTT 3.1.1) or does not keep to it
(mosquitto 2.0 with what it has left of a session) is held back by TCP: while more than that many wait, nothing is read.
Only where that does not help within `HOLD_S` is the connection dropped; the broker then sends it all again.

Rates are judged by device stamps and a flood by the depth of the queue, so a replay at 60 times real time is no
attack.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.chunk import Delivery
from edge.clock import Clock
from edge.config import Mqtt
from edge.sources.link import Link
from edge.sources.payload import Ack, PayloadError, decode, encode_ack
from edge.sources.topics import CHUNK_FILTER, ack_topic, parse_chunk_topic

OFFER_AGAIN_S = 0.02
HOLD_S = 5.0
"""How long one chunk may hold up the network thread; its pings have to go out in time."""
LOG_INTERVAL_S = 60.0
"""One log line per reason of refusal in this time, with the number it stands for."""
_DO_NOT_SEND_RETAINED = 2
_log = structlog.get_logger(__name__)


class MqttSource:
    """Subscribes to every wearable's chunks and hands them to `offer`.

    offer: takes a delivery or returns False if it cannot now; called on a thread of this source, must not block.
    `Delivery.committed` may be called from any thread: it acknowledges to the broker on the connection that
    delivered the message and on no other.
    """

    def __init__(self, settings: Mqtt, *, gateway: str, offer: Callable[[Delivery], bool], clock: Clock) -> None:
        self._offer = offer
        self._clock = clock
        self._most_waiting = settings.receive_maximum
        self._lock = threading.RLock()  # `offer` may commit at once
        self._room = threading.Condition(self._lock)
        self._is_stopping = False
        self._client: mqtt.Client | None = None
        self._waiting: deque[Delivery] = deque()
        self._acks: dict[tuple[str, str], Ack] = {}
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._logged: dict[str, tuple[float, int]] = {}
        self._subscription: str | None = None
        self._link = Link(settings, self, client_id=f"anyecg-{gateway}-source", persistent=True, manual_ack=True)

    def start(self) -> None:
        """Start connecting; returns at once."""
        self._link.start()

    def stop(self) -> None:
        """Send queued acknowledgements and disconnect; what is not committed comes again at the next start."""
        with self._room:
            self._is_stopping = True
            self._room.notify()
        self._link.stop()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the first connection; False if there is none within `timeout_s`."""
        return self._link.wait_connected(timeout_s)

    def publish_ack(self, wearer: str, device: str, boot: int, seq: int) -> None:
        """Tell a device that everything of `boot` up to `seq` is safe; from any thread.

        Only the latest per device is sent, at most once per turn of the link, with QoS 0 and not retained: the
        acknowledgement is cumulative, so the next one covers a lost one, and a sender that misses the last one sends
        its chunk again and is answered again. A retained one could outlive a database restored from an old backup.
        """
        with self._lock:
            self._acks[wearer, device] = Ack(boot, seq)
        self._link.wake()

    def snapshot(self) -> dict[str, Any]:
        """State and counters for `status`."""
        with self._lock:
            return {
                "state": "refused" if self._subscription else self._link.state,
                "reason": self._subscription or self._link.reason,
                "protocol": self._link.protocol,
                "received": self._counts["received"],
                "decoded": self._counts["decoded"],
                "rejected": dict(self._rejected),
                "redelivered": self._counts["redelivered"],
                "held_back": self._counts["held_back"],
                "waiting": len(self._waiting),
                "acked": self._counts["acked"],
                "stale_acks_suppressed": self._counts["stale_acks_suppressed"],
                "reconnects": max(0, self._link.connections - 1),
            }

    def connected(self, client: mqtt.Client) -> None:
        self._client = client
        client.on_subscribe = self._on_subscribe
        if self._link.protocol == "5":
            client.subscribe(CHUNK_FILTER, options=SubscribeOptions(qos=1, retainHandling=_DO_NOT_SEND_RETAINED))
        else:
            client.subscribe(CHUNK_FILTER, qos=1)

    def received(self, client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
        with self._lock:
            self._counts["received"] += 1
            self._counts["redelivered"] += message.dup
        try:
            wearer, device = parse_chunk_topic(_topic(message))
            chunk = decode(bytes(message.payload), wearer, device)
        except PayloadError as error:
            self._reject(error, _topic(message))
            client.ack(message.mid, message.qos)  # else it would come back for ever
            return
        delivery = Delivery(chunk, self._clock.utc_ns(), partial(self._committed, client, message.mid, message.qos))
        with self._lock:
            self._counts["decoded"] += 1
            if not self._waiting and self._offer(delivery):
                return
            self._counts["held_back"] += 1
            self._waiting.append(delivery)
            self._link.wake()
            has_room = self._room.wait_for(self._has_room, HOLD_S)
        if not has_room:
            client.disconnect()

    def _has_room(self) -> bool:
        return self._is_stopping or len(self._waiting) <= self._most_waiting

    def published(self, mid: int, failure: str | None) -> None:
        """Acknowledgements are QoS 0."""

    def lost(self, client: mqtt.Client) -> None:
        with self._lock:
            self._client = None
            self._waiting.clear()  # the broker sends them again
            self._room.notify()

    def tick(self, client: mqtt.Client) -> float:
        with self._lock:
            while self._waiting and self._offer(self._waiting[0]):
                self._waiting.popleft()
            self._room.notify()
            acks, self._acks = self._acks, {}
            delay_s = OFFER_AGAIN_S if self._waiting else 1.0
        for (wearer, device), ack in acks.items():
            client.publish(ack_topic(wearer, device), encode_ack(ack))
        return delay_s

    def _committed(self, client: mqtt.Client, mid: int, qos: int) -> None:
        with self._lock:
            if client is not self._client:
                self._counts["stale_acks_suppressed"] += 1
                return
            self._counts["acked"] += 1
        client.ack(mid, qos)

    def _on_subscribe(self, client: mqtt.Client, data: Any, mid: int, codes: list[Any], properties: Any) -> None:
        failed = [code.getName() for code in codes if code.is_failure]
        self._subscription = f"subscribing to {CHUNK_FILTER}: {failed[0]}" if failed else None
        if failed:
            _log.error("the broker refuses the subscription", topic=CHUNK_FILTER, reason=failed[0])

    def _reject(self, error: PayloadError, topic: str) -> None:
        """Count a refused message, and log one per reason and minute."""
        now = self._clock.monotonic_s()
        with self._lock:
            self._rejected[error.reason] += 1
            count = self._rejected[error.reason]
            last, logged = self._logged.get(error.reason, (-LOG_INTERVAL_S, 0))
            if now - last < LOG_INTERVAL_S:
                return
            self._logged[error.reason] = (now, count)
        _log.warning(
            "chunk refused", reason=error.reason, topic=topic[:200], error=str(error), since_last=count - logged
        )


def _topic(message: mqtt.MQTTMessage) -> str:
    try:
        return message.topic
    except UnicodeDecodeError:
        return "(not UTF-8)"
