"""Is the broker there, is it ours, does it let us in, and does it keep others out: one stage after the other.

The first stage that fails ends the check; its text says what to do. Nothing but `anyecg/check/<user>` and refused
topics is written to.
"""

from __future__ import annotations

import ipaddress
import queue
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from broker.authority import RENEW_DAYS, days_left, now_utc
from edge.config import Mqtt
from edge.errors import BadInputError

State = Literal["ok", "warning", "failed", "skipped"]
STAGES = ("name", "tcp", "tls", "credentials", "publish", "acl")
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage found, and what to do about it."""

    name: str
    state: State
    said: str
    fix: str = ""


class _StageError(Exception):
    """A stage failed: (what, fix)."""

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.said, self.fix = said, fix


def check(settings: Mqtt, *, may_read: Sequence[str] | None = None, timeout_s: float = TIMEOUT_S) -> list[Stage]:
    """Try a broker as `settings` say, stage by stage.

    may_read: topic filters that this user is meant to receive; what else arrives is a leak. None: not looked at.
    """
    stages: list[Stage] = []
    tests: dict[str, Callable[[], tuple[State, str, str]]] = {
        "name": lambda: _name(settings),
        "tcp": lambda: _tcp(settings, timeout_s),
        "tls": lambda: _tls(settings, timeout_s),
        "credentials": lambda: _credentials(settings, timeout_s),
        "publish": lambda: _publish(settings, timeout_s),
        "acl": lambda: _acl(settings, may_read, timeout_s),
    }
    for name in STAGES:
        if stages and stages[-1].state in ("failed", "skipped"):
            stages.append(Stage(name, "skipped", "not tried"))
            continue
        try:
            stages.append(Stage(name, *tests[name]()))
        except _StageError as failure:
            stages.append(Stage(name, "failed", failure.said, failure.fix))
        except BadInputError as error:
            stages.append(Stage(name, "failed", str(error), "correct mqtt.* in config.toml, or the option"))
    return stages


def _name(settings: Mqtt) -> tuple[State, str, str]:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError as error:
        fix = "correct the name in mqtt.url, or use the broker's IP address"
        raise _StageError(f"{settings.host} is not known: {error}", fix) from None
    return "ok", f"{settings.host} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}", ""


def _tcp(settings: Mqtt, timeout_s: float) -> tuple[State, str, str]:
    with _connect(settings, timeout_s):
        return "ok", f"port {settings.port} answers", ""


def _connect(settings: Mqtt, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection((settings.host, settings.port), timeout_s)
    except OSError as error:
        raise _StageError(
            f"{settings.host} port {settings.port}: {error}",
            "start the broker (`anyecg broker run`), correct mqtt.url, or let it listen there (`broker init --listen`)",
        ) from None


def _tls(settings: Mqtt, timeout_s: float) -> tuple[State, str, str]:
    if not settings.tls:
        if _is_loopback(settings.host):
            return "ok", "no TLS, and none needed: it stays on this machine", ""
        return "warning", "no TLS: password and ECG can be read on the way", "use mqtts:// with mqtt.ca_file"
    context = settings.tls_context()
    try:
        with _connect(settings, timeout_s) as plain, context.wrap_socket(plain, server_hostname=settings.host) as tls:
            certificate, version = tls.getpeercert() or {}, tls.version()
    except ssl.SSLCertVerificationError as error:
        raise _StageError(f"the broker's certificate is refused: {error.verify_message}", _tls_fix(error)) from None
    except OSError as error:
        raise _StageError(f"no TLS: {error}", "is this the TLS port (8883 or 8884)?") from None
    left = days_left(certificate, now_utc())
    said = f"{version}, certificate valid for {left:.0f} more days"
    if left < RENEW_DAYS:
        return "warning", said, "renew it: `anyecg broker renew`"
    return "ok", said, ""


def _tls_fix(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
        return "renew it: `anyecg broker renew`, and check this machine's clock"
    if error.verify_code in (62, 64):  # host name, IP address
        return "call the broker by a name its certificate has (`anyecg broker init --name`)"
    return "set mqtt.ca_file to the broker's own ca.crt"


def _credentials(settings: Mqtt, timeout_s: float) -> tuple[State, str, str]:
    with _Probe(settings, timeout_s) as probe:
        if probe.refusal is None:
            who = settings.username or (
                "the holder of the certificate" if settings.cert_file else "nobody in particular"
            )
            return "ok", f"let in as {who} over MQTT {probe.protocol}", ""
        fix = "correct mqtt.username and mqtt.password_file; `anyecg broker user rotate NAME` makes a new password"
        if settings.cert_file is not None:
            fix = "the certificate is expired, revoked or of another authority: `anyecg broker user rotate NAME`"
        raise _StageError(f"the broker refuses: {probe.refusal}", fix)


def _publish(settings: Mqtt, timeout_s: float) -> tuple[State, str, str]:
    topic = f"anyecg/check/{_user(settings)}"
    with _Probe(settings, timeout_s) as probe:
        probe.subscribe(topic)
        refusal = probe.publish(topic, nonce := secrets.token_bytes(16))
        fix = f"the access list must let this user write and read {topic} (`pattern readwrite anyecg/check/%u`)"
        if refusal is not None:
            raise _StageError(f"publishing on {topic} is refused: {refusal}", fix)
        if not any(payload == nonce for _, payload in probe.heard(nonce)):
            raise _StageError(f"what was published on {topic} did not come back", fix)
    return "ok", f"{topic}: sent, confirmed and received", ""


def _acl(settings: Mqtt, may_read: Sequence[str] | None, timeout_s: float) -> tuple[State, str, str]:
    stranger = settings.model_copy(update={"username": None, "cert_file": None, "key_file": None})
    with _Probe(stranger, timeout_s) as probe:
        if probe.refusal is None:
            raise _StageError("the broker lets everybody in", "set allow_anonymous false")
    no_list = "the broker has no access list that denies: set acl_file, or set it up with `anyecg broker init`"
    own = f"anyecg/check/{_user(settings)}"
    with _Probe(settings, timeout_s) as probe:
        unseen = probe.protocol != "5"
        for topic in () if unseen else ("anyecg/check/nobody", "ecg/v1/nobody/nobody/chunk"):
            if probe.publish(topic, b"") is None:
                raise _StageError(f"this user may publish on {topic}, which is not his", no_list)
        if may_read is not None:
            probe.subscribe("#")  # retained messages of others come before what is published after it
            probe.publish(own, nonce := secrets.token_bytes(16))
            mine = [*may_read, own]
            for topic, _ in probe.heard(nonce):
                if not any(mqtt.topic_matches_sub(one, topic) for one in mine):
                    raise _StageError(f"this user receives {topic}, which is not his", no_list)
    if unseen:
        return "warning", "strangers are refused; MQTT 3.1.1 does not say whether a publication was", "use MQTT 5"
    read = ", receives nothing that is others'" if may_read is not None else ""
    return "ok", f"strangers are refused; this user may publish on nobody else's topics{read}", ""


def _user(settings: Mqtt) -> str:
    """Return our name at the broker: that of the settings, else that of the certificate."""
    if settings.username is not None or settings.cert_file is None:
        return settings.username or "anonymous"
    try:
        subject = x509.load_pem_x509_certificate(settings.cert_file.read_bytes()).subject
    except (OSError, ValueError) as error:
        raise BadInputError(f"{settings.cert_file} cannot be read: {error}") from None
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Probe:
    """One connection, tried once; `refusal` says why it did not come about."""

    def __init__(self, settings: Mqtt, timeout_s: float) -> None:
        self.refusal: str | None = None
        self.protocol = "3.1.1" if settings.protocol == "3.1.1" else "5"
        self._timeout_s = timeout_s
        self._answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        version = MQTTProtocolVersion.MQTTv5 if self.protocol == "5" else MQTTProtocolVersion.MQTTv311
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            f"anyecg-check-{secrets.token_hex(4)}",
            protocol=version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = timeout_s
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password())
        if settings.tls:
            client.tls_set_context(settings.tls_context())
        answers, messages = self._answers, self._messages  # not self: a cycle would keep sockets until it is collected
        client.on_connect = lambda c, d, f, code, p: answers.put(("connect", code))
        client.on_disconnect = lambda c, d, f, code, p: answers.put(("closed", code))
        client.on_subscribe = lambda c, d, mid, codes, p: answers.put(("subscribe", codes[0]))
        client.on_publish = lambda c, d, mid, code, p: answers.put(("publish", code))
        client.on_message = lambda c, d, message: messages.put((message.topic, bytes(message.payload)))
        self._client = client
        try:
            client.connect(settings.host, settings.port, keepalive=30)
        except OSError as error:
            self.refusal = str(error)
            return
        client.loop_start()
        self.refusal = self._answer("connect")

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, qos=1)
        if refusal := self._answer("subscribe"):
            raise _StageError(f"subscribing to {topic} is refused: {refusal}", "let the access list grant it")

    def publish(self, topic: str, payload: bytes) -> str | None:
        """Publish and return why the broker did not take it; MQTT 3.1.1 brokers do not say."""
        self._client.publish(topic, payload, qos=1)
        return self._answer("publish")

    def heard(self, last: bytes) -> list[tuple[str, bytes]]:
        """Return what was received up to the message `last`."""
        found: list[tuple[str, bytes]] = []
        try:
            while not found or found[-1][1] != last:
                found.append(self._messages.get(timeout=self._timeout_s))
        except queue.Empty:
            pass
        return found

    def _answer(self, kind: str) -> str | None:
        """Wait for the broker's answer; return its reason if it is a refusal."""
        try:
            said, code = self._answers.get(timeout=self._timeout_s)
        except queue.Empty:
            return f"no answer within {self._timeout_s:g} s"
        if said == "closed":
            return f"it hung up ({code.getName()})"
        if said != kind:
            return f"it answered {said} to {kind}"
        return code.getName() if code.is_failure else None
