"""The broker of the demo and of tests: mosquitto where it is installed, else amqtt in this process."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from broker.embedded import EmbeddedBroker
from broker.errors import BrokerError
from broker.mosquitto import Mosquitto, find_mosquitto

Kind = Literal["mosquitto", "amqtt"]


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """A broker that runs on loopback, and why it is this one."""

    url: str
    kind: Kind
    protocol: str
    """"5" or "3.1.1"."""
    reason: str


def choose(*, has_mosquitto: bool, has_amqtt: bool, wanted: Kind | None = None) -> tuple[Kind, str]:
    """Return (broker, reason); `BrokerError` if the wanted one, or every one, is missing."""
    if wanted == "amqtt":
        if has_amqtt:
            return "amqtt", "asked for: MQTT 3.1.1 only, no message expiry, nothing kept over a restart"
        raise BrokerError("amqtt was asked for and is not installed: pip install amqtt")
    if has_mosquitto:
        return "mosquitto", "mosquitto is installed: MQTT 5 with message expiry and persistence"
    if wanted == "mosquitto":
        raise BrokerError("mosquitto was asked for and is not installed: apt install mosquitto")
    if has_amqtt:
        return "amqtt", "mosquitto is not installed: amqtt in MQTT 3.1.1 mode, without message expiry or persistence"
    raise BrokerError("no MQTT broker: install mosquitto (apt install mosquitto) or amqtt (pip install amqtt)")


@contextmanager
def local_broker(folder: Path | None = None, *, wanted: Kind | None = None) -> Iterator[LocalBroker]:
    """Run a broker on a free loopback port; `folder` (a temporary one by default) keeps mosquitto's files."""
    kind, reason = choose(
        has_mosquitto=find_mosquitto() is not None,
        has_amqtt=importlib.util.find_spec("amqtt") is not None,
        wanted=wanted,
    )
    with TemporaryDirectory(prefix="anyecg-broker-") as scratch:
        broker = Mosquitto(folder or Path(scratch)) if kind == "mosquitto" else EmbeddedBroker()
        with broker:
            yield LocalBroker(broker.url, kind, broker.protocol, reason)
