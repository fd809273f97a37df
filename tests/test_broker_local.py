"""The broker of the demo: the choice, and that each kind carries a message and comes back."""

from __future__ import annotations

import queue
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from broker.embedded import EmbeddedBroker
from broker.errors import BrokerError
from broker.local import Kind, choose, local_broker
from broker.mosquitto import Mosquitto, find_mosquitto

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")


@pytest.mark.parametrize(
    ("has_mosquitto", "has_amqtt", "wanted", "kind", "word"),
    [
        (True, True, None, "mosquitto", "installed"),
        (True, False, None, "mosquitto", "installed"),
        (False, True, None, "amqtt", "not installed"),
        (True, True, "amqtt", "amqtt", "asked for"),
        (True, True, "mosquitto", "mosquitto", "installed"),
    ],
)
def test_choice(has_mosquitto: bool, has_amqtt: bool, wanted: Kind | None, kind: str, word: str) -> None:
    chosen, reason = choose(has_mosquitto=has_mosquitto, has_amqtt=has_amqtt, wanted=wanted)
    assert chosen == kind
    assert word in reason


@pytest.mark.parametrize(
    ("has_mosquitto", "has_amqtt", "wanted"),
    [(False, False, None), (False, True, "mosquitto"), (True, False, "amqtt")],
)
def test_nothing_to_choose_says_what_to_install(has_mosquitto: bool, has_amqtt: bool, wanted: Kind | None) -> None:
    with pytest.raises(BrokerError, match="install"):
        choose(has_mosquitto=has_mosquitto, has_amqtt=has_amqtt, wanted=wanted)


def connect(port: int, protocol: str, **options: object) -> mqtt.Client:
    version = mqtt.MQTTProtocolVersion.MQTTv5 if protocol == "5" else mqtt.MQTTProtocolVersion.MQTTv311
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=version, **options)  # type: ignore[arg-type]
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


@pytest.mark.parametrize("kind", ["amqtt", pytest.param("mosquitto", marks=needs_mosquitto)])
def test_carries_a_message(kind: Kind) -> None:
    with local_broker(wanted=kind) as broker:
        heard: queue.Queue[bytes] = queue.Queue()
        port = int(broker.url.rsplit(":", 1)[1])
        subscriber = connect(port, broker.protocol)
        subscriber.on_message = lambda _client, _data, message: heard.put(message.payload)
        publisher = connect(port, broker.protocol)
        deadline = time.monotonic() + 60
        while heard.empty() and time.monotonic() < deadline:
            subscriber.subscribe("a/b", qos=1)  # does nothing before it is connected
            publisher.publish("a/b", b"hello", qos=1)
            time.sleep(0.05)
        for client in (subscriber, publisher):
            client.disconnect()
            client.loop_stop()
        assert heard.get(timeout=1) == b"hello"


def test_embedded_broker_says_why_it_did_not_start() -> None:
    with EmbeddedBroker() as first, pytest.raises(BrokerError, match=str(first.port)):
        EmbeddedBroker(port=first.port).start()


@needs_mosquitto
def test_mosquitto_keeps_port_and_retained_messages_over_a_restart(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker:
        port = broker.port
        publisher = connect(port, "5")
        publisher.publish("kept", b"1", qos=1, retain=True).wait_for_publish(60)
        publisher.disconnect()
        publisher.loop_stop()
        broker.stop()
        assert broker.pid is None
        broker.start()
        assert broker.port == port
        heard: queue.Queue[bytes] = queue.Queue()
        subscriber = connect(port, "5")
        subscriber.on_message = lambda _client, _data, message: heard.put(message.payload)
        subscriber.subscribe("kept")
        try:
            assert heard.get(timeout=60) == b"1"
        finally:
            subscriber.disconnect()
            subscriber.loop_stop()


@needs_mosquitto
def test_mosquitto_checks_passwords_and_keeps_them_hashed(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", users={"anna": "open sesame"}) as broker:
        assert "open sesame" not in (tmp_path / "broker/passwords").read_text()
        for password in ("wrong", "open sesame"):
            answers: queue.Queue[str] = queue.Queue()  # of one client, which may have tried again
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTProtocolVersion.MQTTv5)
            client.username_pw_set("anna", password)
            client.on_connect = lambda _c, _u, _f, reason, _p, answers=answers: answers.put(str(reason))
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
            answer = answers.get(timeout=60)
            client.disconnect()
            client.loop_stop()
            assert answer == ("Success" if password == "open sesame" else "Not authorized")


@needs_mosquitto
def test_mosquitto_says_why_it_did_not_start(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "a") as first, pytest.raises(BrokerError, match="port"):
        Mosquitto(tmp_path / "b", port=first.port).start()
    with pytest.raises(BrokerError, match="nonsense"):
        Mosquitto(tmp_path / "c", extra="nonsense true").start()
