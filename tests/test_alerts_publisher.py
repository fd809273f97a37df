"""The publisher against real brokers: order, outages, refusals, last will, expiry, redelivery after a kill."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alerts_kit import Proxy, Subscriber, numbered, put, settings, store, until, waiting
from sqlalchemy import Engine

from broker.embedded import EmbeddedBroker
from broker.mosquitto import Mosquitto, find_mosquitto, free_port
from edge.alerts.backoff import Backoff
from edge.alerts.connection import Connection
from edge.alerts.publisher import Publisher
from edge.clock import ManualClock, SystemClock
from edge.config import Config
from edge.store.outbox import Message
from edge.store.writer import Writer

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed (make system)")

QUICK = Backoff(first_s=0.05, longest_s=0.2)
TOPIC = "anyecg/v1/cellar/anna/events"


@contextmanager
def publishing(config: Config, writer: Writer, reader: Engine, **options: Any) -> Iterator[Publisher]:
    publisher = Publisher(
        config,
        options.pop("clock", SystemClock()),
        reader,
        options.pop("submit", writer.submit),
        backoff=QUICK,
        **options,
    )
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop()


def numbers(subscriber: Subscriber) -> list[int]:
    return [json.loads(payload)["number"] for payload in subscriber.payloads("/events")]


def assert_hears(subscriber: Subscriber, expected: list[int]) -> None:
    """The broker confirms a message to the publisher and hands it on as it likes: wait for the subscriber."""
    until(lambda: len(numbers(subscriber)) >= len(expected))
    assert numbers(subscriber) == expected


def test_rows_arrive_in_order_once_and_are_deleted(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, store(tmp_path) as (writer, reader):
        put(writer, *(numbered(n) for n in range(500)))
        with Subscriber(broker.port) as ear, publishing(settings(broker.url), writer, reader) as publisher:
            until(lambda: waiting(reader) == 0)
            assert_hears(ear, list(range(500)))
            assert publisher.status.confirmed == 500
            assert publisher.status.link == "connected"


def test_a_committed_row_is_on_its_way_in_milliseconds(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path / "broker") as broker,
        store(tmp_path) as (writer, reader),
        Subscriber(broker.port) as ear,
        publishing(settings(broker.url), writer, reader) as publisher,
    ):
        until(lambda: publisher.status.link == "connected")
        waits_s = []
        for number in range(20):
            put(writer, numbered(number))
            began_s = time.monotonic()
            publisher.notify()
            until(lambda: len(numbers(ear)) == number + 1)  # noqa: B023 (called at once)
            waits_s.append(time.monotonic() - began_s)
        assert sorted(waits_s)[10] < 0.1


def test_broker_away_and_back(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path / "broker") as broker,
        store(tmp_path) as (writer, reader),
        publishing(settings(broker.url), writer, reader) as publisher,
    ):
        with Subscriber(broker.port) as ear:
            put(writer, numbered(0))
            publisher.notify()
            until(lambda: numbers(ear) == [0])
        until(lambda: waiting(reader) == 0)
        broker.kill()
        until(lambda: publisher.status.link == "unreachable")
        put(writer, *(numbered(n) for n in range(1, 200)))
        publisher.notify()
        assert waiting(reader) == 199
        broker.start()
        until(lambda: waiting(reader) == 0)
        assert publisher.status.confirmed == 200


def test_whatever_is_cut_a_subscriber_that_drops_repeats_sees_each_once_in_order(tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Mosquitto(tmp_path / "broker") as broker, Proxy(broker.port) as proxy, store(tmp_path) as (writer, reader):
        put(writer, *(numbered(n) for n in range(2000)))
        url = f"mqtt://127.0.0.1:{proxy.port}"
        with Subscriber(broker.port) as ear, publishing(settings(url), writer, reader) as publisher:
            until(lambda: publisher.status.link == "connected")
            for _ in range(20):
                time.sleep(chance.uniform(0, 0.1))
                proxy.cut()
            until(lambda: waiting(reader) == 0)
            until(lambda: 1999 in numbers(ear))
            until(lambda: publisher.status.connections > 1)
            assert list(dict.fromkeys(numbers(ear))) == list(range(2000))


def test_killed_between_confirmation_and_deletion(tmp_path: Path) -> None:
    """SIGKILL while the broker has the rows and the outbox still has them: they come again, unchanged."""
    with Mosquitto(tmp_path / "broker") as broker:
        with store(tmp_path) as (writer, _):
            put(writer, *(numbered(n) for n in range(5)))
        script = textwrap.dedent(
            f"""
            import sys, time
            from concurrent.futures import Future
            from pathlib import Path
            from alerts_kit import settings, store
            from edge.alerts.publisher import Publisher
            from edge.clock import SystemClock

            with store(Path({str(tmp_path)!r})) as (writer, reader):
                publisher = Publisher(settings({broker.url!r}), SystemClock(), reader, lambda job: Future())
                publisher.start()
                while publisher.status.confirmed < 5:
                    time.sleep(0.01)
                print("confirmed", flush=True)
                time.sleep(60)
            """
        )
        with Subscriber(broker.port) as ear:
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
            with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as victim:
                assert victim.stdout is not None
                assert any(line == b"confirmed\n" for line in victim.stdout)
                victim.send_signal(signal.SIGKILL)
            until(lambda: any("connection lost" in said for said in ear.payloads("/status")))
            with store(tmp_path) as (writer, reader):
                assert waiting(reader) == 5
                with publishing(settings(broker.url), writer, reader):
                    until(lambda: waiting(reader) == 0)
            assert_hears(ear, [0, 1, 2, 3, 4] * 2)
            assert len(set(ear.payloads("/events"))) == 5


def test_rows_are_not_sent_again_while_their_deletion_waits(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, store(tmp_path) as (writer, reader):
        put(writer, numbered(0))
        stuck: list[tuple[Callable[..., None], Future[None]]] = []

        def slow(job: Callable[..., None]) -> Future[None]:
            stuck.append((job, Future()))
            return stuck[-1][1]

        with Subscriber(broker.port) as ear, publishing(settings(broker.url), writer, reader, submit=slow) as publisher:
            until(lambda: len(stuck) == 1)
            for number in range(1, 10):
                put(writer, numbered(number))
                publisher.notify()
            until(lambda: publisher.status.confirmed == 10)
            stuck[0][1].set_exception(OSError("disk full"))
            until(lambda: len(stuck) == 2)
            job, future = stuck[1]
            writer.submit(job).result(10)
            future.set_result(None)
            until(lambda: waiting(reader) == 0)
            assert_hears(ear, list(range(10)))


def test_last_will_and_goodbye(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, store(tmp_path) as (writer, reader):
        with Subscriber(broker.port) as ear:
            with publishing(settings(broker.url), writer, reader):
                until(lambda: ear.payloads("/status"))
                assert json.loads(ear.payloads("/status")[-1])["status"] == "online"
            until(lambda: len(ear.payloads("/status")) == 2)
            assert json.loads(ear.payloads("/status")[-1])["reason"] == "stopped"
        with Subscriber(broker.port) as late:
            until(lambda: late.messages)
            assert late.messages[0].retain
            assert json.loads(late.payloads("/status")[0])["status"] == "offline"


def test_states_are_retained_and_only_the_newest_is_sent(tmp_path: Path) -> None:
    topic = "anyecg/v1/cellar/anna/state"
    broker = Mosquitto(tmp_path / "broker")
    with store(tmp_path) as (writer, reader), publishing(settings(broker.url), writer, reader) as publisher:
        for number in range(1000):
            publisher.retain(topic, str(number))
        with broker, Subscriber(broker.port) as ear:
            until(lambda: ear.payloads("/state"))
            assert ear.payloads("/state") == ["999"]
            publisher.retain(topic, "1000")
            until(lambda: len(ear.payloads("/state")) == 2)
            broker.kill()
            until(lambda: publisher.status.link != "connected")
            (tmp_path / "broker/mosquitto.db").unlink(missing_ok=True)
            broker.start()
            with Subscriber(broker.port, name="second") as second:
                until(lambda: second.payloads("/state"))
                assert second.payloads("/state")[-1] == "1000"


def test_expiry_travels_with_the_message_and_ends_it(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, store(tmp_path) as (writer, reader):
        clock = ManualClock()
        second = 1_000_000_000
        put(
            writer,
            numbered(0, expires_ns=clock.utc_ns() - second),
            numbered(1, expires_ns=clock.utc_ns() + 100 * second),
            numbered(2),
        )
        with Subscriber(broker.port) as ear, publishing(settings(broker.url), writer, reader, clock=clock) as publisher:
            until(lambda: waiting(reader) == 0)
            assert_hears(ear, [1, 2])
            assert publisher.status.expired == 1
            events = [message for message in ear.messages if message.topic == TOPIC]
            assert 98 <= events[0].properties.MessageExpiryInterval <= 100  # type: ignore[union-attr]
            assert not hasattr(events[1].properties, "MessageExpiryInterval")


def test_refused_credentials_are_an_operators_matter(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    secret.chmod(0o600)
    with Mosquitto(tmp_path / "broker", users={"gateway": "right"}) as broker, store(tmp_path) as (writer, reader):
        config = settings(broker.url, username="gateway", password_file=secret)
        put(writer, numbered(0))
        with publishing(config, writer, reader, refused_s=0.1) as publisher:
            until(lambda: publisher.status.link == "refused")
            assert "mqtt.password_file" in publisher.status.reason
            assert "wrong" not in publisher.status.reason
            assert waiting(reader) == 1
            secret.write_text("right\n")
            until(lambda: waiting(reader) == 0)
            assert publisher.status.link == "connected"


def test_a_refused_topic_waits_and_the_others_go_on(tmp_path: Path) -> None:
    acl = "topic read #\ntopic write anyecg/v1/cellar/status\ntopic write anyecg/v1/cellar/bert/#\n"
    with Mosquitto(tmp_path / "broker", acl=acl) as broker, store(tmp_path) as (writer, reader):
        mine, other = "anyecg/v1/cellar/anna/events", "anyecg/v1/cellar/bert/events"
        put(writer, *(numbered(n, topic=mine if n % 2 else other) for n in range(60)))
        with Subscriber(broker.port) as ear, publishing(settings(broker.url), writer, reader) as publisher:
            until(lambda: publisher.status.confirmed == 30)
            until(lambda: waiting(reader) == 30)
            assert publisher.status.held == {mine: "Not authorized"}
            assert publisher.status.refused > 0
            (tmp_path / "broker/acl").write_text(acl + "topic write anyecg/v1/cellar/anna/#\n")
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGHUP)
            until(lambda: waiting(reader) == 0)
            assert publisher.status.held == {}
            assert publisher.status.confirmed == 60
            assert_hears(ear, [*range(0, 60, 2), *range(1, 60, 2)])


def test_unreachable_broker_says_so(tmp_path: Path) -> None:
    port = free_port()
    with store(tmp_path) as (writer, reader), publishing(settings(f"mqtt://127.0.0.1:{port}"), writer, reader) as it:
        until(lambda: it.status.link == "unreachable")
        assert str(port) in it.status.reason


def test_falls_back_to_mqtt_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.alerts.publisher.FALLBACK_S", 0.5)
    with EmbeddedBroker() as broker, store(tmp_path) as (writer, reader):
        put(writer, *(numbered(n, expires_ns=2**62) for n in range(50)))
        with Subscriber(broker.port, protocol="3.1.1") as ear, publishing(settings(broker.url), writer, reader) as it:
            until(lambda: waiting(reader) == 0)
            assert_hears(ear, list(range(50)))
            assert it.status.protocol.startswith("3.1.1 (the broker does not speak 5)")


def test_no_fallback_when_5_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.alerts.publisher.CONNECT_TIMEOUT_S", 0.5)
    with (
        EmbeddedBroker() as broker,
        store(tmp_path) as (writer, reader),
        publishing(settings(broker.url, protocol="5"), writer, reader) as publisher,
    ):
        until(lambda: publisher.status.link == "unreachable" and "MQTT 5" in publisher.status.reason)
        assert publisher.status.connections == 0


def test_closed_connection_is_freed_at_once() -> None:
    with EmbeddedBroker() as broker:
        connection = Connection(
            settings(broker.url).mqtt,
            client_id="c",
            protocol="3.1.1",
            will=Message("t", "gone", retain=False, expires_ns=None, created_ns=0),
            report=lambda *_: None,
        )
        paho = weakref.ref(connection._client)
        gc.disable()
        try:
            connection.close()
            del connection
            assert paho() is None
        finally:
            gc.enable()


def test_backoff_grows_to_its_limit_with_jitter() -> None:
    backoff = Backoff(first_s=0.5, longest_s=60)
    for attempt, top_s in [(0, 0.5), (3, 4.0), (7, 60.0), (10_000, 60.0)]:
        waits_s = [backoff.wait_s(attempt) for _ in range(200)]
        assert 0.1 * top_s <= min(waits_s) < 0.4 * top_s
        assert 0.7 * top_s < max(waits_s) <= top_s


def test_status_does_not_wait_for_the_publisher(tmp_path: Path) -> None:
    """`notify` and `retain` before the broker is there cost nothing and are not lost."""
    broker = Mosquitto(tmp_path / "broker")
    with store(tmp_path) as (writer, reader), publishing(settings(broker.url), writer, reader) as publisher:
        until(lambda: publisher.status.link == "unreachable")
        put(writer, numbered(0))
        for _ in range(10_000):
            publisher.notify()
        with broker, Subscriber(broker.port) as ear:
            until(lambda: numbers(ear) == [0])
            put(writer, numbered(1))
            publisher.notify()
            until(lambda: numbers(ear) == [0, 1])
