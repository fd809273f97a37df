"""Chunks from a real mosquitto: acknowledged when safe, only where they came from, and never lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from mosquitto_kit import Broker, mosquitto, needs_mosquitto, subscriptions
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.embedded import EmbeddedBroker
from edge.chunk import Chunk, Delivery
from edge.clock import SystemClock
from edge.config import Mqtt
from edge.sources import link
from edge.sources.mqtt import MqttSource
from edge.sources.payload import encode
from edge.sources.topics import ack_topic, chunk_topic

pytestmark = needs_mosquitto

CHUNK = Chunk("anna", "patch", ("II",), 250.0, 1, 0, 0, 0, None, np.arange(250, dtype=np.int32)[None], (1.0,))


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Hold:
    """Takes deliveries and keeps them; refuses while `full`."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.subscribed: list[int] = []
        self.full = False

    def __call__(self, delivery: Delivery) -> bool:
        if not self.full:
            self.deliveries.append(delivery)
        return not self.full

    @property
    def seqs(self) -> list[int]:
        return [delivery.chunk.seq for delivery in self.deliveries]


@contextmanager
def source(url: str, **settings: Any) -> Iterator[tuple[MqttSource, Hold]]:
    hold = Hold()
    subject = MqttSource(Mqtt(url=url, **settings), gateway="test", offer=hold, clock=SystemClock())
    hold.subscribed = subscriptions(subject)
    subject.start()
    try:
        assert until(lambda: bool(hold.subscribed))
        yield subject, hold
    finally:
        subject.stop()


@contextmanager
def publisher(broker: Broker, *topics: str) -> Iterator[tuple[Callable[..., None], list[paho.MQTTMessage]]]:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    got: list[paho.MQTTMessage] = []
    subscribed: list[int] = []
    client.on_message = lambda c, data, message: got.append(message)
    client.on_subscribe = lambda c, data, mid, *_: subscribed.append(mid)
    client.connect(broker.host, broker.port)
    client.loop_start()
    for topic in topics:
        client.subscribe(topic, qos=1)
    assert until(lambda: len(subscribed) == len(topics))

    def publish(payload: bytes | int, topic: str = chunk_topic("anna", "patch")) -> None:
        data = encode(replace(CHUNK, seq=payload)) if isinstance(payload, int) else payload
        client.publish(topic, data, qos=1).wait_for_publish(60)

    try:
        yield publish, got
    finally:
        client.disconnect()
        client.loop_stop()


def test_what_is_not_committed_comes_again_after_a_restart() -> None:
    with mosquitto() as broker, publisher(broker) as (publish, _):
        with source(broker.url) as (subject, hold):
            for seq in range(4):
                publish(seq)
            assert until(lambda: hold.seqs == [0, 1, 2, 3])
            hold.deliveries[1].committed()
            hold.deliveries[3].committed()
        publish(4)  # while the gateway is away
        with source(broker.url) as (subject, hold):
            assert until(lambda: len(hold.seqs) >= 3)
            time.sleep(0.3)
            assert sorted(hold.seqs) == [0, 2, 4]
            assert subject.snapshot()["redelivered"] in (2, 3)  # 4 may have been on its way to the leaving connection


def _broker_forgets(broker: Broker) -> None:
    """A broker without persistence that restarts counts message ids from 1 again."""
    broker.kill()
    broker.start()


def test_a_late_commit_does_not_confirm_a_reused_message_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "BACKOFF_S", 0.1)
    with mosquitto() as broker:
        with source(broker.url) as (subject, hold):
            with publisher(broker) as (publish, _):
                publish(0)
                assert until(lambda: hold.seqs == [0])
            _broker_forgets(broker)
            assert until(lambda: len(hold.subscribed) == 2)
            assert subject.snapshot()["reconnects"] == 1
            with publisher(broker) as (publish, _):
                publish(1)
                assert until(lambda: hold.seqs == [0, 1])
            hold.deliveries[0].committed()
            assert subject.snapshot()["stale_acks_suppressed"] == 1
            assert subject.snapshot()["acked"] == 0
        with source(broker.url) as (_, hold):
            assert until(lambda: hold.seqs == [1]), "the uncommitted chunk was confirmed by the old one's commit"


def test_the_naive_way_loses_that_message() -> None:
    """Why the test above can fail: paho's own `ack` does not look at the connection."""
    with mosquitto() as broker:
        subscribed: list[int] = []

        def client() -> tuple[paho.Client, list[paho.MQTTMessage]]:
            got: list[paho.MQTTMessage] = []
            subscribed.clear()
            naive = paho.Client(CallbackAPIVersion.VERSION2, "naive", protocol=paho.MQTTv5, manual_ack=True)
            naive.reconnect_delay_set(1, 1)
            naive.on_message = lambda c, data, message: got.append(message)
            naive.on_connect = lambda c, *_: c.subscribe("ecg/v1/+/+/chunk", qos=1)
            naive.on_subscribe = lambda c, data, mid, *_: subscribed.append(mid)
            properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 1000
            naive.connect(broker.host, broker.port, clean_start=False, properties=properties)
            naive.loop_start()
            assert until(lambda: len(subscribed) == 1)
            return naive, got

        naive, got = client()
        with publisher(broker) as (publish, _):
            publish(0)
        assert until(lambda: len(got) == 1)
        _broker_forgets(broker)
        assert until(lambda: len(subscribed) == 2)
        with publisher(broker) as (publish, _):
            publish(1)
        assert until(lambda: len(got) == 2)
        assert got[0].mid == got[1].mid
        naive.ack(got[0].mid, 1)  # commits chunk 0; chunk 1 is not safe yet
        time.sleep(0.2)
        naive.disconnect()
        naive.loop_stop()
        naive, got = client()
        time.sleep(0.5)
        assert got == [], "the broker did not take the old acknowledgement for the new message: nothing to prove"
        naive.disconnect()
        naive.loop_stop()


def test_receive_maximum_holds_the_broker_back() -> None:
    with (
        mosquitto() as broker,
        source(broker.url, receive_maximum=5) as (subject, hold),
        publisher(broker) as (publish, _),
    ):
        for seq in range(40):
            publish(seq)
        assert until(lambda: len(hold.seqs) == 5)
        time.sleep(0.5)
        assert hold.seqs == [0, 1, 2, 3, 4]
        done = 0
        while done < 40:
            assert until(lambda: len(hold.deliveries) > done), hold.seqs  # noqa: B023
            hold.deliveries[done].committed()
            done += 1
        assert hold.seqs == list(range(40))
        assert subject.snapshot()["acked"] == 40


def test_a_full_hand_over_delays_and_loses_nothing() -> None:
    with (
        mosquitto() as broker,
        source(broker.url, receive_maximum=10) as (subject, hold),
        publisher(broker) as (publish, _),
    ):
        hold.full = True
        for seq in range(30):
            publish(seq)
        assert until(lambda: subject.snapshot()["waiting"] == 10)
        time.sleep(0.2)
        assert subject.snapshot()["received"] == 10
        hold.full = False
        done = 0
        while done < 30:
            assert until(lambda: len(hold.deliveries) > done), hold.seqs  # noqa: B023
            hold.deliveries[done].committed()
            done += 1
        assert hold.seqs == list(range(30))
        assert subject.snapshot()["waiting"] == 0


def test_a_broker_that_keeps_to_no_receive_maximum_is_held_back_by_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """QoS 0 knows none: more comes than may wait, and the connection stays and loses nothing."""
    monkeypatch.setattr("edge.sources.mqtt.HOLD_S", 60.0)
    with mosquitto() as broker, source(broker.url, receive_maximum=5) as (subject, hold):
        hold.full = True
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.connect(broker.host, broker.port)
        client.loop_start()
        for seq in range(30):
            client.publish(chunk_topic("anna", "patch"), encode(replace(CHUNK, seq=seq)), qos=0)
        assert until(lambda: subject.snapshot()["waiting"] > 5)
        time.sleep(0.5)
        assert subject.snapshot()["waiting"] == 6
        hold.full = False
        assert until(lambda: hold.seqs == list(range(30)))
        assert subject.snapshot()["reconnects"] == 0
        hold.full = True  # and stopping meanwhile is not held up
        for seq in range(30):
            client.publish(chunk_topic("anna", "patch"), encode(replace(CHUNK, seq=seq)), qos=0)
        assert until(lambda: subject.snapshot()["waiting"] > 5)
        client.disconnect()
        client.loop_stop()
        began_s = time.monotonic()
        subject.stop()
        assert time.monotonic() - began_s < 30


def test_commits_from_another_thread_and_a_dying_broker() -> None:
    """Every chunk whose acknowledgement the broker has not seen comes again; none is confirmed by a stranger's."""
    with mosquitto() as broker, source(broker.url) as (subject, hold):
        stop = threading.Event()

        def commit() -> None:
            done = 0
            while not stop.is_set():
                while done < len(hold.deliveries):
                    hold.deliveries[done].committed()
                    done += 1
                stop.wait(0.005)

        worker = threading.Thread(target=commit)
        worker.start()
        try:
            with publisher(broker) as (publish, _):
                for seq in range(50):
                    publish(seq)
            broker.stop()
            broker.start()
            assert until(lambda: subject.snapshot()["reconnects"] >= 1)
            with publisher(broker) as (publish, _):
                for seq in range(50, 100):
                    publish(seq)
            assert until(lambda: set(hold.seqs) == set(range(100)))
        finally:
            stop.set()
            worker.join()


def test_undecodable_payloads_are_counted_and_do_not_come_back() -> None:
    with mosquitto() as broker, publisher(broker) as (publish, _):
        with source(broker.url) as (subject, hold):
            publish(b"\xff\x00")
            publish(b"")
            publish(encode(CHUNK) + b"x")
            publish(encode(CHUNK), "ecg/v1/Anna/patch/chunk")
            publish(b'{"v": 7}')
            publish(b"{" + b" " * 300_000)
            publish(1)
            assert until(lambda: hold.seqs == [1])
            assert subject.snapshot()["rejected"] == {"syntax": 3, "topic": 1, "version": 1, "too_large": 1}
            hold.deliveries[0].committed()
        with source(broker.url) as (subject, hold):
            time.sleep(0.5)
            assert subject.snapshot()["received"] == 0


def test_end_to_end_acknowledgements_are_coalesced_per_device() -> None:
    with (
        mosquitto() as broker,
        source(broker.url) as (subject, _),
        publisher(broker, "ecg/v1/+/+/ack") as (_, got),
    ):
        for seq in range(1000):
            subject.publish_ack("anna", "patch", 9, seq)
            subject.publish_ack("bert", "strap", 8, seq)

        def last(wearer: str, device: str) -> Any:
            payloads = [m.payload for m in list(got) if m.topic == ack_topic(wearer, device)]
            return json.loads(payloads[-1]) if payloads else None

        assert until(lambda: last("anna", "patch") == {"boot": 9, "seq": 999})
        assert until(lambda: last("bert", "strap") == {"boot": 8, "seq": 999})
        assert len(got) < 1000
        assert not any(m.retain for m in got)


def test_bad_credentials_are_an_error_state_not_a_silent_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "REFUSED_RETRY_S", 600.0)
    secret = tmp_path / "password"
    secret.write_text("wrong\n")
    secret.chmod(0o600)
    with mosquitto(passwords={"gateway": "right"}) as broker:
        settings = Mqtt(url=broker.url, username="gateway", password_file=secret)
        subject = MqttSource(settings, gateway="test", offer=Hold(), clock=SystemClock())
        subject.start()
        try:
            assert until(lambda: subject.snapshot()["state"] == "refused")
            assert subject.snapshot()["reason"] == "Not authorized"
            assert not subject.wait_connected(1.5)
            assert broker.log.count("not authorised") == 1
            assert "wrong" not in json.dumps(subject.snapshot())
        finally:
            subject.stop()
        secret.write_text("right\n")
        with source(broker.url, username="gateway", password_file=secret) as (subject, _):
            assert subject.snapshot()["state"] == "connected"


def test_no_broker_is_a_state_with_a_reason() -> None:
    subject = MqttSource(Mqtt(url="mqtt://127.0.0.1:1"), gateway="test", offer=Hold(), clock=SystemClock())
    subject.start()
    assert until(lambda: "refused" in str(subject.snapshot()["reason"]))
    assert subject.snapshot()["state"] == "down"
    subject.stop()
    assert subject.snapshot()["state"] == "stopped"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1() -> None:
    with EmbeddedBroker() as broker, source(broker.url) as (subject, hold):
        assert subject.snapshot()["protocol"] == "3.1.1"
        client = paho.Client(CallbackAPIVersion.VERSION2)
        host, port = broker.url.removeprefix("mqtt://").split(":")
        client.connect(host, int(port))
        client.loop_start()
        client.publish(chunk_topic("anna", "patch"), encode(CHUNK), qos=1).wait_for_publish(60)
        assert until(lambda: hold.seqs == [0])
        hold.deliveries[0].committed()
        client.disconnect()
        client.loop_stop()


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho leaves that socket to the collector
def test_tls_checks_whom_it_talks_to(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path, "broker")
    stranger, _ = _certificate(tmp_path, "stranger")
    with mosquitto(f"certfile {certificate}\nkeyfile {key}") as broker:
        url = broker.url.replace("mqtt://", "mqtts://")
        with source(url, ca_file=certificate) as (subject, _):
            assert subject.snapshot()["state"] == "connected"
        subject = MqttSource(Mqtt(url=url, ca_file=stranger), gateway="t", offer=Hold(), clock=SystemClock())
        subject.start()
        try:
            assert until(lambda: subject.snapshot()["state"] == "refused")
            assert "certificate verify failed" in str(subject.snapshot()["reason"])
        finally:
            subject.stop()
