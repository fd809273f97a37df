"""One connection to the broker, from CONNECT to its end; a new connection is a new `Connection`.

A paho client keeps unconfirmed messages and sends them again by itself. Here the outbox does that, so a client is
used once: its message ids can never be taken for those of another connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.alerts.commands import Received, Reply
from edge.config import Mqtt
from edge.store.outbox import Message

Protocol = Literal["5", "3.1.1"]
CONNECT_TIMEOUT_S = 10.0

REFUSALS = frozenset({"Bad user name or password", "Not authorized", "Bad authentication method", "Banned"})
"""CONNACK reasons that only a person can cure."""
NOBODY = "No matching subscribers"
"""PUBACK reason of a message that was taken, but that nobody is subscribed to."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker let us in."""

    receive_maximum: int
    """Unconfirmed messages the broker takes at once."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker answered, and would not have us."""

    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection ended, or never came about."""

    reason: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The broker answered a PUBLISH."""

    mid: int
    failure: str | None
    """Reason it was not taken, None if it was."""
    heard: bool | None = None
    """Whether anybody is subscribed to it; None: the broker does not say (MQTT 3.1.1)."""


Happening = Connected | Refused | Closed | Confirmed | Received


class Connection:
    """Opens at once; what happens to it is reported from paho's thread until `close`."""

    def __init__(
        self,
        settings: Mqtt,
        *,
        client_id: str,
        protocol: Protocol,
        will: Message,
        report: Callable[[Connection, Happening], None],
    ) -> None:
        """Start connecting.

        Raises `BadInputError` for an unusable password file, `OSError` if the broker cannot be reached.
        """
        self.protocol = protocol
        self._report = report
        self._is_v5 = protocol == "5"
        version = MQTTProtocolVersion.MQTTv5 if self._is_v5 else MQTTProtocolVersion.MQTTv311
        options: dict[str, Any] = {} if self._is_v5 else {"clean_session": True}
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False, **options
        )
        client.max_inflight_messages = 0  # the publisher bounds them
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.username_pw_set(settings.username, settings.password())
        if settings.tls:
            client.tls_set_context(settings.tls_context())
        client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        self._client = client
        client.connect(settings.host, settings.port, keepalive=settings.keepalive_s, **self._clean_start())
        client.loop_start()

    def publish(self, message: Message, *, now_ns: int) -> int:
        """Send a message with QoS 1 and what is left of its life; return the message id that confirms it."""
        properties = None
        if self._is_v5 and message.expires_ns is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, -(-(message.expires_ns - now_ns) // 1_000_000_000))
        info = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain, properties=properties)
        return info.mid

    def reply(self, reply: Reply) -> None:
        """Send an answer with QoS 1; nobody waits for its confirmation."""
        properties = None
        if self._is_v5 and reply.correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = reply.correlation
        self._client.publish(reply.topic, reply.payload, qos=1, properties=properties)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Take messages of these topic filters with QoS 1, as `Received`."""
        self._client.subscribe([(topic, 1) for topic in topics])

    def close(self) -> None:
        """End the connection without a will; nothing is reported afterwards."""
        self._report = _ignore
        client = self._client
        client.disconnect()
        client.loop_stop()
        # Paho closes its two wake-up sockets only when it is freed, which callbacks into this object would put off.
        client.on_connect = client.on_connect_fail = client.on_disconnect = client.on_publish = None
        client.on_message = None

    def _clean_start(self) -> dict[str, Any]:
        return {"clean_start": True} if self._is_v5 else {}

    def _on_connect(
        self, client: mqtt.Client, data: Any, flags: mqtt.ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._report(self, Refused(code.getName()))
        else:
            self._report(self, Connected(int(getattr(properties, "ReceiveMaximum", 65_535))))

    def _on_connect_fail(self, client: mqtt.Client, data: Any) -> None:
        self._report(self, Closed("cannot be reached"))

    def _on_disconnect(
        self,
        client: mqtt.Client,
        data: Any,
        flags: mqtt.DisconnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._report(self, Closed(code.getName()))

    def _on_publish(
        self, client: mqtt.Client, data: Any, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        heard = code.getName() != NOBODY if self._is_v5 else None
        self._report(self, Confirmed(mid, code.getName() if code.is_failure else None, heard))

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        properties = message.properties
        received = Received(
            topic=message.topic,
            payload=bytes(message.payload),
            retain=message.retain,
            response_topic=getattr(properties, "ResponseTopic", None),
            correlation=getattr(properties, "CorrelationData", None),
        )
        self._report(self, received)


def _ignore(connection: Connection, happening: Happening) -> None:
    """Nobody listens any more."""
