"""`anyecg broker` against a real mosquitto with TLS: who gets in, who reads and writes what, and what is refused."""

from __future__ import annotations

import gc
import json
import os
import pwd
import queue
import re
import ssl
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from broker import access
from broker.authority import Authority, now_utc
from broker.check import STAGES, Stage, check
from broker.errors import BrokerError
from broker.mosquitto import find_mosquitto, free_port
from broker.setup import Bridge, BrokerFolder, Setup, hash_password, render
from broker.sizing import choose_sizing
from edge.cli import register
from edge.cli.app import app
from edge.config import Mqtt
from edge.errors import BadInputError
from edge.sources.sender import Run, Sender, SendError
from tests.mosquitto_kit import free_ports, mosquitto, needs_mosquitto

WAIT_S = 60.0
ME = pwd.getpwuid(os.geteuid()).pw_name


def anyecg(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def setup_for(**values: Any) -> Setup:
    ports = dict(zip(("port", "tls_port", "certificate_port"), free_ports(3), strict=True))
    return Setup(**({"gateway": "home", "names": ("localhost",), "owner": ME} | ports | values))


@dataclass
class Running:
    """A broker that `anyecg broker init` set up, running as `anyecg broker run` runs it."""

    home: BrokerFolder
    setup: Setup
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.home.folder / "log").read_text(errors="replace")

    def settings(self, user: str, **changes: Any) -> Mqtt:
        """What a user's configuration says about this broker."""
        folder = self.home.client(user)
        if (folder / "client.crt").exists():
            proof = {"cert_file": folder / "client.crt", "key_file": folder / "client.key"}
            return Mqtt(
                **{
                    "url": f"mqtts://localhost:{self.setup.certificate_port}",
                    "ca_file": folder / "ca.crt",
                    **proof,
                    **changes,
                }
            )
        values = {
            "url": f"mqtts://localhost:{self.setup.tls_port}",
            "username": user,
            "password_file": folder / "password",
            "ca_file": folder / "ca.crt",
        }
        return Mqtt(**(values | changes))

    def reload(self) -> None:
        """Have it read its files again, and return when it has."""
        before = self.log.count("Reloading config.")
        assert self.home.reload()
        until(lambda: self.log.count("Reloading config.") > before)


@contextmanager
def running(folder: Path, setup: Setup | None = None) -> Iterator[Running]:
    program = find_mosquitto()
    if program is None:
        pytest.skip("mosquitto is not installed (make system)")
    home, setup = BrokerFolder(folder), setup or setup_for()
    home.init(setup)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(home.config)], stdout=log, stderr=log)
    try:
        found = Running(home, setup, process)
        until(lambda: " running\n" in found.log, lambda: found.log)
        yield found
    finally:
        process.terminate()
        process.wait(WAIT_S)


def until(is_true: Any, say: Any = lambda: "") -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline_s, say()
        time.sleep(0.02)


class Client:
    """A paho client that notes what the broker says; `heard` is bounded by a message of its own."""

    def __init__(self, settings: Mqtt) -> None:
        self.answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
        client.username_pw_set(settings.username, settings.password())
        if settings.tls:
            client.tls_set_context(settings.tls_context())
        client.on_connect = lambda c, d, f, code, p: self.answers.put(("connect", str(code)))
        client.on_disconnect = lambda c, d, f, code, p: self.answers.put(("closed", str(code)))
        client.on_publish = lambda c, d, mid, code, p: self.answers.put(("publish", str(code)))
        client.on_subscribe = lambda c, d, mid, codes, p: self.answers.put(("subscribe", str(codes[0])))
        client.on_message = lambda c, d, m: self.messages.put((m.topic, bytes(m.payload)))
        self.client = client
        client.connect(settings.host, settings.port)
        client.loop_start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def answer(self) -> tuple[str, str]:
        return self.answers.get(timeout=WAIT_S)

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> str:
        self.client.publish(topic, payload, qos=1, retain=retain)
        kind, code = self.answer()
        assert kind == "publish"
        return code

    def subscribe(self, topic: str) -> None:
        self.client.subscribe(topic, qos=1)
        assert self.answer()[0] == "subscribe"

    def heard(self, marker: str) -> list[tuple[str, bytes]]:
        """Return what came before a message on `marker`, which this client may write and read."""
        self.publish(marker, b"end")
        found = []
        while (message := self.messages.get(timeout=WAIT_S)) != (marker, b"end"):
            found.append(message)
        return found


@contextmanager
def client(settings: Mqtt) -> Iterator[Client]:
    with Client(settings) as one:
        assert one.answer() == ("connect", "Success")
        yield one


def refusal(settings: Mqtt) -> str:
    """Return how a broker refuses a connection; fails if it does not."""
    one, said = None, ""
    with warnings.catch_warnings():  # paho leaves the socket of a failed handshake to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            one = Client(settings)
        except OSError as error:
            said = str(error)
        gc.collect()
    if one is None:
        return said
    with one:
        kind, code = one.answer()
        assert (kind, code) != ("connect", "Success")
        return code


# -- who reads and writes what -------------------------------------------------------------------------------------


@needs_mosquitto
@pytest.mark.parametrize("by_certificate", [False, True])
def test_a_device_has_its_own_topic_and_its_own_ack_and_nothing_else(tmp_path: Path, by_certificate: bool) -> None:
    with running(tmp_path / "broker") as broker:
        for name in ("anna/patch", "anna/strap", "ben/patch"):
            broker.home.add(name, "device", (), by_certificate=by_certificate, days=10)
        broker.reload()
        with client(broker.settings("gateway")) as gateway, client(broker.settings("anna/patch")) as anna:
            gateway.subscribe("ecg/v1/+/+/chunk")
            anna.subscribe("#")
            assert anna.publish("ecg/v1/anna/patch/chunk", b"mine") == "Success"
            for foreign in (
                "ecg/v1/ben/patch/chunk",
                "ecg/v1/anna/strap/chunk",
                "ecg/v1/anna/patch/ack",
                "anyecg/v1/home/anna/events",
                "anyecg/v1/home/anna/cmd/ack",
                "homeassistant/device/x/config",
            ):
                assert anna.publish(foreign, b"forged") == "Not authorized", foreign
            gateway.subscribe("anyecg/check/gateway")
            assert gateway.heard("anyecg/check/gateway") == [("ecg/v1/anna/patch/chunk", b"mine")]
            for topic in ("ecg/v1/anna/patch/ack", "ecg/v1/ben/patch/ack", "ecg/v1/anna/strap/ack"):
                assert gateway.publish(topic, b"{}") == "Success"
            gateway.publish("anyecg/v1/home/anna/state", b"private", retain=True)
            assert anna.heard("anyecg/check/anna/patch") == [("ecg/v1/anna/patch/ack", b"{}")]


@needs_mosquitto
def test_a_subscriber_reads_its_wearers_and_a_hub_everybody(tmp_path: Path) -> None:
    with running(tmp_path / "broker") as broker:
        broker.home.add("carer", "subscriber", ("anna",), by_certificate=False, days=10)
        broker.home.add("ha", "hub", (), by_certificate=False, days=10)
        broker.reload()
        told = ["anyecg/v1/home/status", "anyecg/v1/home/anna/state", "anyecg/v1/home/ben/state"]
        with (
            client(broker.settings("gateway")) as gateway,
            client(broker.settings("carer")) as carer,
            client(broker.settings("ha")) as hub,
        ):
            carer.subscribe("#")
            hub.subscribe("#")
            for topic in (*told, "homeassistant/device/home/config", "ecg/v1/anna/patch/ack"):
                assert gateway.publish(topic, b"1") == "Success"
            assert [topic for topic, _ in carer.heard("anyecg/check/carer")] == told[:2]
            assert [topic for topic, _ in hub.heard("anyecg/check/ha")] == [*told, "homeassistant/device/home/config"]
            gateway.subscribe("anyecg/v1/home/+/cmd/#")
            assert carer.publish("anyecg/v1/home/anna/cmd/snooze", b"mine") == "Success"
            assert carer.publish("anyecg/v1/home/ben/cmd/snooze", b"his") == "Not authorized"
            assert carer.publish("anyecg/v1/home/anna/events", b"forged") == "Not authorized"
            assert carer.publish("ecg/v1/anna/patch/chunk", b"forged") == "Not authorized"
            assert gateway.messages.get(timeout=WAIT_S) == ("anyecg/v1/home/anna/cmd/snooze", b"mine")
            assert gateway.publish("ecg/v1/anna/patch/chunk", b"forged") == "Not authorized"


# -- who gets in ---------------------------------------------------------------------------------------------------


@needs_mosquitto
def test_expired_foreign_and_revoked_certificates_are_refused(tmp_path: Path) -> None:
    with running(tmp_path / "broker") as broker:
        home = broker.home
        home.add("anna/patch", "device", (), by_certificate=True, days=10)
        broker.reload()
        good = broker.settings("anna/patch")
        with client(good):
            pass

        authority = Authority.load(home.folder / "tls/ca.crt", home.folder / "tls/ca.key")
        expired = authority.issue_client("anna/patch", now_utc() - timedelta(days=20), days=10)
        foreign = Authority.create("home", now_utc()).issue_client("anna/patch", now_utc())
        server = authority.issue_server(["anna/patch"], now_utc())  # signed by the right one, for another purpose
        for name, issued in (("expired", expired), ("foreign", foreign), ("server", server)):
            for suffix, content in (("crt", issued.certificate), ("key", issued.key)):
                path = tmp_path / f"{name}.{suffix}"
                path.write_bytes(content)
                path.chmod(0o600)
            files = {"cert_file": tmp_path / f"{name}.crt", "key_file": tmp_path / f"{name}.key"}
            assert refusal(broker.settings("anna/patch", **files)), name
        assert refusal(broker.settings("anna/patch", cert_file=None, key_file=None))

        kept = {f"{kind}_file": tmp_path / f"revoked.{kind}" for kind in ("cert", "key")}
        for kind, suffix in (("cert", "crt"), ("key", "key")):
            kept[f"{kind}_file"].write_bytes((home.client("anna/patch") / f"client.{suffix}").read_bytes())
            kept[f"{kind}_file"].chmod(0o600)
        home.rotate("anna/patch")
        broker.reload()
        assert refusal(broker.settings("anna/patch", **kept))
        with client(broker.settings("anna/patch")):
            pass
        gone = broker.settings("anna/patch", **kept, ca_file=home.folder / "tls/ca.crt")
        home.remove("anna/patch")
        broker.reload()
        assert refusal(gone)
        assert not home.client("anna/patch").exists()


@needs_mosquitto
def test_a_removed_certificate_does_nothing_even_on_the_connection_it_still_has(tmp_path: Path) -> None:
    with running(tmp_path / "broker") as broker:
        broker.home.add("anna/patch", "device", (), by_certificate=True, days=10)
        broker.reload()
        with client(broker.settings("anna/patch")) as anna:
            assert "Success" in (code := anna.publish("ecg/v1/anna/patch/chunk")) or "No matching" in code
            broker.home.remove("anna/patch")
            broker.reload()
            anna.client.publish("ecg/v1/anna/patch/chunk", b"x", qos=1)
            kind, code = anna.answer()
            assert kind == "closed" or code == "Not authorized"


@needs_mosquitto
def test_passwords_are_checked_rotated_and_forgotten(tmp_path: Path) -> None:
    with running(tmp_path / "broker") as broker:
        broker.home.add("anna/patch", "device", (), by_certificate=False, days=10)
        broker.reload()
        old = tmp_path / "old"
        old.write_bytes((broker.home.client("anna/patch") / "password").read_bytes())
        old.chmod(0o600)
        with client(broker.settings("anna/patch")):
            pass
        assert refusal(broker.settings("anna/patch", username="ben/patch")) == "Not authorized"
        assert refusal(broker.settings("anna/patch", username=None)) == "Not authorized"
        broker.home.rotate("anna/patch")
        broker.reload()
        assert refusal(broker.settings("anna/patch", password_file=old)) == "Not authorized"
        with client(broker.settings("anna/patch")):
            pass
        settings = broker.settings("anna/patch", password_file=old, ca_file=broker.home.folder / "tls/ca.crt")
        broker.home.remove("anna/patch")
        broker.reload()
        assert refusal(settings) == "Not authorized"


@needs_mosquitto
def test_a_user_with_a_certificate_has_no_password_to_guess_and_the_reverse(tmp_path: Path) -> None:
    with running(tmp_path / "broker") as broker:
        broker.home.add("anna/patch", "device", (), by_certificate=True, days=10)
        broker.home.add("ben/patch", "device", (), by_certificate=False, days=10)
        broker.reload()
        password = {"username": "anna/patch", "password_file": broker.home.client("ben/patch") / "password"}
        assert refusal(broker.settings("ben/patch", **password)) == "Not authorized"
        at_certificates = f"mqtts://localhost:{broker.setup.certificate_port}"
        assert refusal(broker.settings("ben/patch", url=at_certificates))


@needs_mosquitto
def test_our_own_clients_refuse_a_broker_that_is_not_ours(tmp_path: Path) -> None:
    """The other direction: an expired, a foreign and a misnamed server certificate."""
    with running(tmp_path / "broker") as broker:
        good = broker.settings("gateway")
        other = tmp_path / "other.crt"
        other.write_bytes(Authority.create("other", now_utc()).pem())
        assert "self-signed" in refusal(good.model_copy(update={"ca_file": other})).replace(
            "self signed", "self-signed"
        )
        assert [stage.state for stage in check(good, timeout_s=WAIT_S)].count("ok") == len(STAGES)
        found = check(good.model_copy(update={"ca_file": other}), timeout_s=WAIT_S)
        failed = [stage for stage in found if stage.state == "failed"]
        assert [stage.name for stage in failed] == ["tls"]
        assert "ca.crt" in failed[0].fix

        authority = Authority.load(broker.home.folder / "tls/ca.crt", broker.home.folder / "tls/ca.key")
        cases = {
            "expired": authority.issue_server(["localhost"], now_utc() - timedelta(days=900)),
            "mismatch": authority.issue_server(["elsewhere.lan"], now_utc()),
        }
        for word, issued in cases.items():
            (broker.home.folder / "tls/server.crt").write_bytes(issued.certificate)
            (broker.home.folder / "tls/server.key").write_bytes(issued.key)
            broker.reload()
            assert word in refusal(good)
            (fault,) = [stage for stage in check(good, timeout_s=WAIT_S) if stage.state == "failed"]
            assert (fault.name, word in fault.said) == ("tls", True)
        broker.home.renew()
        broker.reload()
        with client(good):
            pass


@needs_mosquitto
def test_a_wearable_sends_over_tls_with_its_certificate_and_one_with_a_foreign_name_does_not(tmp_path: Path) -> None:
    with running(tmp_path / "broker") as broker:
        broker.home.add("anna/patch", "device", (), by_certificate=True, days=10)
        broker.reload()
        settings = broker.settings("anna/patch")
        samples = np.arange(130, dtype=np.int32)[None]
        with client(broker.settings("gateway")) as gateway:
            gateway.subscribe("ecg/v1/+/+/chunk")
            mine = Run("anna", "patch", ("II",), 130.0, (1.0,), boot=5)
            with Sender(settings, mine, patience_s=WAIT_S) as sender:
                sender.send(0, samples)
                topic, _ = gateway.messages.get(timeout=WAIT_S)
                assert topic == "ecg/v1/anna/patch/chunk"
                gateway.publish("ecg/v1/anna/patch/ack", b'{"boot": 5, "seq": 0}')
                sender.finish()
            his = Run("ben", "patch", ("II",), 130.0, (1.0,))
            with Sender(settings, his, patience_s=WAIT_S) as sender:
                sender.send(0, samples)
                with pytest.raises(SendError, match="Not authorized"):
                    sender.finish()


# -- what a day's outage needs -------------------------------------------------------------------------------------


@needs_mosquitto
def test_what_mosquitto_would_drop_is_kept_for_a_gateway_that_is_away(tmp_path: Path) -> None:
    """More messages than mosquitto's own 1000 wait for a session that is away, and survive the broker's restart."""
    count = 1500
    with running(tmp_path / "broker") as broker:
        broker.home.add("anna/patch", "device", (), by_certificate=False, days=10)
        broker.reload()
        settings = broker.settings("gateway")
        away = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "g", protocol=mqtt.MQTTv311, clean_session=False)
        granted: queue.Queue[Any] = queue.Queue()
        away.username_pw_set(settings.username, settings.password())
        away.tls_set_context(settings.tls_context())
        away.on_connect = lambda *_: away.subscribe("ecg/v1/+/+/chunk", qos=1)
        away.on_subscribe = lambda *_: granted.put(1)
        away.connect(settings.host, settings.port)
        away.loop_start()
        granted.get(timeout=WAIT_S)
        away.disconnect()
        away.loop_stop()
        with client(broker.settings("anna/patch")) as anna:
            for number in range(count):
                anna.client.publish("ecg/v1/anna/patch/chunk", number.to_bytes(4, "big"), qos=1)
            assert {anna.answer()[1] for _ in range(count)} == {"Success"}
        broker.process.terminate()
        broker.process.wait(WAIT_S)
        program = find_mosquitto()
        assert program is not None
        with (broker.home.folder / "log").open("ab") as log:
            broker.process = subprocess.Popen([program, "-c", str(broker.home.config)], stdout=log, stderr=log)
        until(lambda: broker.log.count(" running\n") == 2, lambda: broker.log)
        got: queue.Queue[int] = queue.Queue()
        back = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "g", protocol=mqtt.MQTTv311, clean_session=False)
        back.username_pw_set(settings.username, settings.password())
        back.tls_set_context(settings.tls_context())
        back.on_message = lambda c, d, m: got.put(int.from_bytes(m.payload, "big"))
        back.connect(settings.host, settings.port)
        back.loop_start()
        try:
            assert [got.get(timeout=WAIT_S) for _ in range(count)] == list(range(count))
        finally:
            back.disconnect()
            back.loop_stop()
            broker.process.terminate()
            broker.process.wait(WAIT_S)


def test_sizes_follow_the_wearers_and_say_why() -> None:
    one, five, many = choose_sizing(1), choose_sizing(5), choose_sizing(500)
    assert one.max_queued_messages >= 86_400
    assert five.max_queued_messages == 5 * one.max_queued_messages
    assert (one.autosave_interval, five.autosave_interval, many.autosave_interval) == (60, 300, 1_800)
    assert not one.autosave_on_changes
    assert "60 s for 1 wearer:" in one.save_reason
    assert "17 min" in one.queue_reason
    every = choose_sizing(1, "every-message")
    assert (every.autosave_on_changes, every.autosave_interval) == (True, 1)
    assert "disk write" in every.save_reason


# -- the bridge ----------------------------------------------------------------------------------------------------


def test_the_bridge_is_off_unless_asked_for(tmp_path: Path) -> None:
    setup = setup_for()
    assert not [line for line in render(setup, tmp_path).splitlines() if line.startswith(("connection", "address"))]
    on = render(setup.model_copy(update={"bridge": Bridge(url="mqtt://hub")}), tmp_path)
    assert "\naddress hub:1883\n" in on


@needs_mosquitto
def test_the_bridge_carries_alerts_out_and_commands_in_and_never_the_signal(tmp_path: Path) -> None:
    with mosquitto(passwords={"bridge": "s3cret", "carer": "pw"}) as hub:
        setup = setup_for(bridge=Bridge(url=hub.url, username="bridge", password="s3cret"))
        secret = tmp_path / "pw"
        secret.write_text("pw\n")
        secret.chmod(0o600)
        carer = Mqtt(url=hub.url, username="carer", password_file=secret)
        with client(carer) as outside, running(tmp_path / "broker", setup) as broker:
            broker.home.add("anna/patch", "device", (), by_certificate=False, days=10)
            broker.reload()
            outside.subscribe("#")
            with client(broker.settings("gateway")) as gateway, client(broker.settings("anna/patch")) as anna:
                gateway.publish("anyecg/v1/home/anna/state", b"first", retain=True)
                assert outside.messages.get(timeout=WAIT_S) == ("anyecg/v1/home/anna/state", b"first")
                anna.publish("ecg/v1/anna/patch/chunk", b"signal")
                gateway.publish("ecg/v1/anna/patch/ack", b"{}")
                gateway.publish("anyecg/v1/home/anna/events", b"told")
                assert outside.messages.get(timeout=WAIT_S) == ("anyecg/v1/home/anna/events", b"told")
                gateway.subscribe("anyecg/v1/home/+/cmd/#")
                outside.publish("anyecg/v1/home/anna/cmd/ack", b"seen")
                assert gateway.messages.get(timeout=WAIT_S) == ("anyecg/v1/home/anna/cmd/ack", b"seen")


# -- broker check --------------------------------------------------------------------------------------------------


def states(stages: list[Stage]) -> dict[str, str]:
    return {stage.name: stage.state for stage in stages}


ALL_OK = dict.fromkeys(STAGES, "ok")


@needs_mosquitto
def test_check_finds_each_fault_at_its_stage(tmp_path: Path) -> None:
    with running(tmp_path / "broker") as broker:
        broker.home.add("anna/patch", "device", (), by_certificate=True, days=10)
        broker.reload()
        good = broker.settings("gateway")
        device = broker.settings("anna/patch")
        own = access.may_read("gateway", "gateway", "home")
        assert states(check(good, may_read=own, timeout_s=WAIT_S)) == ALL_OK
        assert states(check(device, may_read=["ecg/v1/anna/patch/ack"], timeout_s=WAIT_S)) == ALL_OK

        def failure(settings: Mqtt) -> str:
            stages = check(settings, timeout_s=WAIT_S)
            failed = [index for index, stage in enumerate(stages) if stage.state == "failed"]
            assert len(failed) == 1
            assert stages[failed[0]].fix
            assert all(stage.state == "skipped" for stage in stages[failed[0] + 1 :])
            return stages[failed[0]].name

        assert failure(good.model_copy(update={"url": "mqtts://no-such-host.invalid"})) == "name"
        assert failure(good.model_copy(update={"url": f"mqtts://localhost:{free_port()}"})) == "tcp"
        assert failure(good.model_copy(update={"url": f"mqtts://localhost:{broker.setup.port}"})) == "tls"
        assert failure(good.model_copy(update={"username": "nobody"})) == "credentials"
        wrong = broker.settings("anna/patch", cert_file=None, key_file=None)
        assert failure(wrong) == "credentials"

        with (broker.home.folder / "acl").open("w") as rules:
            rules.write("pattern readwrite #\n")
        broker.reload()
        assert failure(good) == "acl"
        (broker.home.folder / "acl").write_text("user gateway\ntopic read ecg/#\n")
        broker.reload()
        assert failure(good) == "publish"


@needs_mosquitto
def test_check_sees_what_a_user_should_not_receive(tmp_path: Path) -> None:
    with running(tmp_path / "broker") as broker:
        with client(broker.settings("gateway")) as gateway:
            gateway.publish("anyecg/v1/home/ben/state", b"private", retain=True)
        broker.home.add("carer", "subscriber", ("anna",), by_certificate=False, days=10)
        broker.reload()
        meant = access.may_read("carer", "subscriber", "home", ["anna"])
        assert states(check(broker.settings("carer"), may_read=meant, timeout_s=WAIT_S)) == ALL_OK
        rules = broker.home.folder / "acl"
        rules.write_text(rules.read_text().replace("user carer\n", "user carer\ntopic read anyecg/v1/home/ben/#\n"))
        broker.reload()
        found = check(broker.settings("carer"), may_read=meant, timeout_s=WAIT_S)[-1]
        assert (found.state, "anyecg/v1/home/ben/state" in found.said) == ("failed", True)


@needs_mosquitto
def test_check_knows_a_broker_that_lets_everybody_in_and_one_that_denies_nothing() -> None:
    with mosquitto() as open_to_all:
        stages = check(Mqtt(url=open_to_all.url), timeout_s=WAIT_S)
        assert (stages[-1].name, stages[-1].state) == ("acl", "failed")
        assert "everybody" in stages[-1].said


# -- the commands --------------------------------------------------------------------------------------------------


@needs_mosquitto
def test_the_commands_from_init_to_check(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    ports = [str(port) for port in free_ports(3)]
    made = anyecg(
        "broker", "init", "--folder", str(folder), "--owner", ME, "--wearers", "5", "--json",
        *(x for pair in zip(("--port", "--tls-port", "--certificate-port"), ports, strict=True) for x in pair),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    assert "5 wearers" in document["save"]["reason"]
    assert document["queue"]["max_queued_messages"] >= 5 * 86_400
    again = anyecg("broker", "init", "--folder", str(folder))
    assert (again.returncode, "already" in again.stderr) == (2, True)
    with subprocess.Popen(
        [sys.executable, "-m", "edge", "broker", "run", "--folder", str(folder)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            while " running" not in process.stderr.readline():
                assert process.poll() is None
            added = anyecg("broker", "user", "add", "anna/patch", "--role", "device", "--folder", str(folder), "--json")
            assert json.loads(added.stdout)["broker"] == "the running broker knows"
            listed = json.loads(anyecg("broker", "user", "list", "--folder", str(folder), "--json").stdout)
            assert [(user["name"], user["by"]) for user in listed] == [
                ("gateway", "password"),
                ("anna/patch", "password"),
            ]
            state = tmp_path / "state"
            state.mkdir(mode=0o700)
            (state / "config.toml").write_text(
                f'[mqtt]\nurl = "mqtts://localhost:{ports[1]}"\nusername = "gateway"\n'
                f'password_file = "{folder}/clients/gateway/password"\nca_file = "{folder}/tls/ca.crt"\n'
            )
            checked = anyecg("broker", "check", "--state", str(state), "--json")
            assert checked.returncode == 0, checked.stdout + checked.stderr
            assert {stage["stage"]: stage["state"] for stage in json.loads(checked.stdout)["stages"]} == ALL_OK
            removed = anyecg("broker", "user", "remove", "anna/patch", "--folder", str(folder))
            assert "let in no more" in removed.stdout
        finally:
            process.terminate()
    failed = anyecg("broker", "check", "--state", str(state))
    assert (failed.returncode, "fails at tcp" in failed.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["user", "add", "anna", "--role", "device"], "<wearer>/<device>"),
        (["user", "add", "Anna/patch", "--role", "device"], "a-z"),
        (["user", "add", "a/+", "--role", "device"], "a-z"),
        (["user", "add", "x\nuser y", "--role", "hub"], "a-z"),
        (["user", "add", "carer", "--role", "subscriber"], "--wearer"),
        (["user", "add", "carer", "--role", "subscriber", "--wearer", "#"], "a-z"),
        (["user", "add", "ha", "--role", "hub", "--wearer", "anna"], "--wearer"),
        (["user", "add", "gateway2", "--role", "gateway"], "choose from"),
        (["user", "add", "gateway", "--role", "hub"], "already"),
        (["user", "remove", "gateway"], "rotate"),
        (["user", "remove", "nobody"], "there are: gateway"),
        (["init", "--name", "a b"], "host name"),
        (["init", "--listen", "everywhere"], "0.0.0.0"),
        (["init", "--gateway", "Home"], "--gateway"),
        (["init", "--bridge", "http://x"], "mqtts://"),
        (["init", "--bridge", "mqtt://user:pw@x"], "mqtts://"),
        (["init", "--save", "never"], "timed"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(tmp_path: Path, arguments: list[str], says: str) -> None:
    folder = tmp_path / "broker"
    if arguments[0] == "user":
        BrokerFolder(folder).init(setup_for())
    before = contents(tmp_path)
    register.all_commands()
    result = CliRunner().invoke(app, ["broker", *arguments, "--folder", str(folder)])
    assert isinstance(result.exception, BadInputError), result.output
    assert says in str(result.exception)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- what lies on disk ---------------------------------------------------------------------------------------------


def test_secrets_are_private_and_kept_hashed(tmp_path: Path) -> None:
    home = BrokerFolder(tmp_path / "broker")
    home.init(setup_for())
    home.add("anna/patch", "device", (), by_certificate=True, days=10)
    password = (home.client("gateway") / "password").read_text().strip()
    public = {"ca.crt", "server.crt"}
    for path in home.folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o007 == 0 or path.name in public, path
        if path.is_file() and path.name not in ("password", *public):
            assert mode == 0o600, path
            assert password not in path.read_text(), path
    assert len(password) == 32
    with pytest.raises(BrokerError, match="not the key"):
        Authority.load(home.folder / "tls/server.crt", home.folder / "tls/ca.key")
    (home.folder / "tls/ca.key").unlink()
    with pytest.raises(BrokerError, match="bring the key back"):
        home.add("ben/patch", "device", (), by_certificate=True, days=10)
    home.add("ben/strap", "device", (), by_certificate=False, days=10)  # passwords need no authority


def test_certificates_say_what_they_are_for_and_end_in_time(tmp_path: Path) -> None:
    home = BrokerFolder(tmp_path / "broker")
    home.init(setup_for(names=("gateway.lan", "192.0.2.7")))
    home.add("anna/patch", "device", (), by_certificate=True, days=825)
    authority, server, user = (
        x509.load_pem_x509_certificate((home.folder / name).read_bytes())
        for name in ("tls/ca.crt", "tls/server.crt", "clients/anna/patch/client.crt")
    )
    for certificate, days in ((authority, 3650), (server, 825), (user, 825)):
        left = certificate.not_valid_after_utc - now_utc()
        assert timedelta(days=days - 1) < left <= timedelta(days=days)
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    purpose = x509.ExtendedKeyUsage
    assert list(server.extensions.get_extension_for_class(purpose).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert list(user.extensions.get_extension_for_class(purpose).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"gateway.lan", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
    assert "192.0.2.7" in {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    revoked = x509.load_pem_x509_crl((home.folder / "tls/revoked.pem").read_bytes())
    assert revoked.next_update_utc == authority.not_valid_after_utc
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home.folder / "tls/server.crt", home.folder / "tls/server.key")


@needs_mosquitto
def test_our_password_hash_is_mosquittos(tmp_path: Path) -> None:
    """What `mosquitto_passwd` writes for a known salt and count is what we compute."""
    line = tmp_path / "one"
    line.write_text("anna:open sesame\n")
    line.chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-U", str(line)], check=True, capture_output=True)
    kind, count, salt, made = line.read_text().strip().removeprefix("anna:$").split("$")
    assert kind == "7"
    import base64
    import hashlib

    again = hashlib.pbkdf2_hmac("sha512", b"open sesame", base64.b64decode(salt), int(count))
    assert base64.b64encode(again).decode() == made
    assert re.fullmatch(r"\$7\$10000\$[A-Za-z0-9+/=]{16}\$[A-Za-z0-9+/=]{88}", hash_password("x"))


def test_a_damaged_setup_is_said_and_not_overwritten(tmp_path: Path) -> None:
    home = BrokerFolder(tmp_path / "broker")
    with pytest.raises(BrokerError, match="broker init"):
        home.load()
    home.init(setup_for())
    path = home.folder / "setup.json"
    path.write_text(path.read_text().replace('"users"', '"usrs"'))
    with pytest.raises(BrokerError, match=r"damaged.*usrs"):
        home.add("ha", "hub", (), by_certificate=False, days=10)
    with pytest.raises(BadInputError, match="already"):
        home.init(setup_for())


def test_access_is_pure_and_sorted_by_role() -> None:
    rules = access.render("home", [("carer", "subscriber", ("anna",))], banned=["old/strap"])
    assert "pattern write ecg/v1/%u/chunk" in rules
    assert "user old/strap\ntopic deny #" in rules
    assert "topic read anyecg/v1/home/anna/#" in rules
