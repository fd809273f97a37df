"""A connection to the broker that comes back: one fresh paho client per connection, jittered back-off between them.

A client that is used once cannot confuse two connections: a message id of the old one means nothing to the new.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from typing import Any, Literal, Protocol

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.config import Mqtt
from edge.errors import BadInputError

State = Literal["down", "connected", "refused", "stopped"]

BACKOFF_S = 0.5
BACKOFF_MAX_S = 8.0
"""A broker of the same home: back within 10 s of its return, however long it was away."""
REFUSED_RETRY_S = 5.0
"""A refusal needs a person; the broker is asked again at this pace in case one came."""
CONNECT_TIMEOUT_S = 10.0
CONNACK_TIMEOUT_S = 5.0
MAX_PACKET_BYTES = 1 << 20
"""Larger messages are not even sent to us (MQTT 5)."""

REFUSALS = frozenset(
    {
        "Bad user name or password",
        "Not authorized",
        "Bad authentication method",
        "Banned",
        "Client identifier not valid",
    }
)
_UNSUPPORTED = "Unsupported protocol version"
_SILENT = "the broker does not answer CONNECT"
"""amqtt's way of refusing MQTT 5 with properties: it waits for more bytes."""
_log = structlog.get_logger(__name__)
_random = random.SystemRandom()


class LinkUser(Protocol):
    """What a link calls. `connected` and `received` run on paho's thread, `lost` and `tick` on the link's."""

    def connected(self, client: mqtt.Client) -> None:
        """The broker let us in: subscribe."""
        ...

    def received(self, client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
        """A message came."""
        ...

    def published(self, mid: int, failure: str | None) -> None:
        """The broker answered a QoS 1 message, with the reason if it refused."""
        ...

    def lost(self, client: mqtt.Client) -> None:
        """The connection ended; this client will not be used again."""
        ...

    def tick(self, client: mqtt.Client) -> float:
        """Called when woken and after as many seconds as it returned last."""
        ...


class Link:
    """Keeps `user` connected from `start` to `stop`."""

    def __init__(
        self,
        settings: Mqtt,
        user: LinkUser,
        *,
        client_id: str,
        persistent: bool = False,
        manual_ack: bool = False,
    ) -> None:
        """persistent: the broker keeps the session (subscriptions, unacknowledged messages) while we are away."""
        self.state: State = "down"
        self.reason: str | None = None
        """Why it is down or refused, as the broker or the system put it."""
        self.connections = 0
        self.receive_maximum = 20
        """QoS 1 messages the broker takes before it has answered the first; MQTT 3.1.1 does not say, 20 is usual."""
        self.protocol: Literal["5", "3.1.1"] = "3.1.1" if settings.protocol == "3.1.1" else "5"
        self._settings = settings
        self._user = user
        self._client_id = client_id
        self._persistent = persistent
        self._manual_ack = manual_ack
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._stop = threading.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"link-{client_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send what is queued, disconnect and join; the broker keeps a persistent session."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.state = "stopped"

    def wake(self) -> None:
        """Have `tick` called soon."""
        self._wake.set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the broker has let us in; False if it has not, e.g. because it refuses."""
        return self._up.wait(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            before = self.connections
            try:
                self._connection()
            except (BadInputError, ssl.SSLCertVerificationError) as error:
                self._refused(str(error))
            except OSError as error:
                self._down(str(error))
            except Exception as error:
                _log.exception("mqtt link failed", client_id=self._client_id)
                self._down(f"{type(error).__name__}: {error}")
            failures = 0 if self.connections > before else failures + 1
            if self.reason in (_UNSUPPORTED, _SILENT) and self._settings.protocol == "auto":
                self.protocol = "3.1.1" if self.protocol == "5" else "5"
                _log.warning("trying another MQTT version", protocol=self.protocol)
                if failures < 2:
                    continue
            ceiling = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(failures, 10))
            self._stop.wait(REFUSED_RETRY_S if self.state == "refused" else _random.uniform(ceiling / 2, ceiling))

    def _connection(self) -> None:
        """One connection, from CONNECT to its end."""
        self._ended.clear()
        client = self._new_client()
        client.connect(self._settings.host, self._settings.port, keepalive=self._settings.keepalive_s, **self._start())
        client.loop_start()
        try:
            delay_s = 1.0
            opened_s = time.monotonic()
            while not self._stop.is_set() and not self._ended.is_set():
                self._wake.wait(min(delay_s, 1.0))
                self._wake.clear()
                if self._up.is_set():
                    delay_s = self._user.tick(client)
                elif time.monotonic() - opened_s > CONNACK_TIMEOUT_S:
                    self._down(_SILENT)
                    break
                if client._thread is None and not self._ended.is_set():  # it dies of a packet it cannot read
                    self._down("the broker sent something unreadable")
                    break
        finally:
            if self._stop.is_set() and self._up.is_set():
                self._user.tick(client)
            client.disconnect()
            client.loop_stop()
            self._up.clear()
            self._user.lost(client)

    def _new_client(self) -> mqtt.Client:
        is_v5 = self.protocol == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            clean_session=None if is_v5 else not self._persistent,
            protocol=MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311,
            manual_ack=self._manual_ack,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages = 0  # the user of the link honours `receive_maximum`
        client.username_pw_set(self._settings.username, self._settings.password())
        if self._settings.tls:
            client.tls_set_context(self._settings.tls_context())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = lambda c, data, message: self._user.received(c, message)
        client.on_publish = lambda c, data, mid, code, properties: self._user.published(
            mid, code.getName() if code.is_failure else None
        )
        return client

    def _start(self) -> dict[str, Any]:
        if self.protocol != "5":
            return {}
        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = self._settings.receive_maximum
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        if self._persistent:
            properties.SessionExpiryInterval = self._settings.session_expiry_s
        return {"clean_start": not self._persistent, "properties": properties}

    def _on_connect(
        self, client: mqtt.Client, data: Any, flags: mqtt.ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            name = code.getName()
            if name in REFUSALS:
                self._refused(name)
            else:
                self._down(name)
            return
        self.receive_maximum = int(getattr(properties, "ReceiveMaximum", 20))
        self.connections += 1
        self.state, self.reason = "connected", None
        self._user.connected(client)
        self._up.set()
        self._wake.set()

    def _on_disconnect(
        self,
        client: mqtt.Client,
        data: Any,
        flags: mqtt.DisconnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self.state == "connected":
            self._down(code.getName())
        self._ended.set()
        self._wake.set()

    def _refused(self, reason: str) -> None:
        fix = "check mqtt.username, mqtt.password_file, mqtt.ca_file and the broker's access list"
        _log.error("connection refused", client_id=self._client_id, reason=reason, retry_s=REFUSED_RETRY_S, fix=fix)
        self.state, self.reason = "refused", reason

    def _down(self, reason: str) -> None:
        if not self._stop.is_set():
            _log.warning("mqtt connection down", client_id=self._client_id, reason=reason)
        self.state, self.reason = "down", reason
