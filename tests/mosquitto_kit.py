"""A real mosquitto on a free loopback port, for tests.

with mosquitto() as broker:
    client.connect("127.0.0.1", broker.port)
    broker.kill()       # SIGKILL, port and folder stay
    broker.start()
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
START_S = 10.0

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (make system)")


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One mosquitto process; it can be stopped, killed and started again on the same port and folder."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_port()
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start (again) and wait until it accepts connections."""
        assert MOSQUITTO is not None
        assert self._process is None, "already running"
        lines = [f"listener {self.port} {self.host}", f"persistence_location {self.folder}/", self._config]
        if os.geteuid() == 0:
            lines.insert(0, "user root")
        path = self.folder / "mosquitto.conf"
        path.write_text("\n".join(lines) + "\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(path)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.kill()
        raise RuntimeError(f"mosquitto did not start:\n{self.log()}")

    def stop(self) -> None:
        """SIGTERM: it writes its persistence file."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def _end(self, sig: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sig)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def mosquitto(
    config: str = "",
    *,
    anonymous: bool = True,
    passwords: Mapping[str, str] | None = None,
    persistence: bool = False,
    folder: Path | None = None,
) -> Iterator[Broker]:
    """Run mosquitto until the block ends; skips the test where it is not installed.

    config: extra lines of mosquitto.conf. passwords: user → password; nobody else may connect then.
    persistence: keep sessions and queues over `stop` and `start` (written on SIGTERM, not on SIGKILL).
    """
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (make system)")
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as temporary:
        place = folder or Path(temporary)
        lines = [config, f"persistence {str(persistence).lower()}"]
        if passwords:
            file = place / "passwords"
            file.write_text("".join(f"{user}:{password}\n" for user, password in passwords.items()))
            file.chmod(0o600)
            subprocess.run(["mosquitto_passwd", "-U", str(file)], check=True)
            lines.append(f"password_file {file}")
        lines.append(f"allow_anonymous {str(anonymous and not passwords).lower()}")
        broker = Broker(place, "\n".join(lines))
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()
