"""A real mosquitto on a free loopback port, for tests.

with mosquitto() as broker:
    client.connect(broker.host, broker.port)
    broker.kill()       # SIGKILL, port and folder stay
    broker.start()
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from broker.mosquitto import Mosquitto, find_mosquitto
from edge.sources.mqtt import MqttSource

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed (make system)")


class Broker(Mosquitto):
    host = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return loopback TCP ports that nobody listens on, each another one: all are held while they are chosen."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def end(client: mqtt.Client) -> None:
    """Disconnect and close every socket now: one whose callbacks know its owner would leave that to the collector."""
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()


def subscriptions(source: MqttSource) -> list[int]:
    """Return a list that grows when the broker has confirmed the subscription of a source that is yet to start."""
    confirmed: list[int] = []
    real = source._on_subscribe

    def note(client: Any, data: Any, mid: int, codes: list[Any], properties: Any) -> None:
        real(client, data, mid, codes, properties)
        confirmed.append(mid)

    source._on_subscribe = note  # type: ignore[method-assign]
    return confirmed


@contextmanager
def mosquitto(config: str = "", *, passwords: Mapping[str, str] | None = None) -> Iterator[Broker]:
    """Run mosquitto until the block ends; skips the test where it is not installed.

    config: extra lines of mosquitto.conf. passwords: user → password; nobody else may connect then.
    Sessions and queues are kept over `stop` and `start` and lost by `kill`.
    """
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed (make system)")
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as folder:
        broker = Broker(Path(folder), users=passwords, extra=config)
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()
