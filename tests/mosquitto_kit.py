"""A real mosquitto on a free loopback port, for tests.

with mosquitto() as broker:
    client.connect(broker.host, broker.port)
    broker.kill()       # SIGKILL, port and folder stay
    broker.start()
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.mosquitto import Mosquitto, find_mosquitto

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed (make system)")


class Broker(Mosquitto):
    host = "127.0.0.1"


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
