"""A mosquitto process of our own: on loopback, in a folder of its own, stopped and started at will."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from broker.errors import BrokerError

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
MAX_QUEUED_MESSAGES = 100_000
"""Per offline session. mosquitto's own 1000 drops after 17 minutes of one chunk a second; this is a day of it."""


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto program, None where it is not installed."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One mosquitto; port, folder and configuration stay the same over `stop`, `kill` and `start`.

    `users` maps names to passwords (empty: anyone on loopback may connect); `extra` is appended to the
    configuration as it is, `acl` becomes an ACL file. The folder keeps configuration, log and persistence.
    """

    protocol = "5"
    kind = "mosquitto"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        users: Mapping[str, str] | None = None,
        acl: str = "",
        extra: str = "",
    ) -> None:
        self.folder = folder
        self.port = port if port is not None else free_port()
        self.users = dict(users or {})
        self.acl = acl
        self.extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> str:
        """What mosquitto has logged so far."""
        path = self.folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it and return once it accepts connections; `BrokerError` says why it did not."""
        program = find_mosquitto()
        if program is None:
            raise BrokerError("mosquitto is not installed (Debian: apt install mosquitto)")
        config = self._write_config()
        said_before = len(self.log)
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if " running\n" in self.log[said_before:]:  # not a port probe: another broker may hold the port
                return
            time.sleep(0.01)
        self.stop()
        raise BrokerError(f"mosquitto did not start on port {self.port}: {self.log[-500:].strip()}")

    def stop(self) -> None:
        """Stop it as a shutdown would: sessions and retained messages are saved."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it as a power cut would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _write_config(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"user {getpass.getuser()}",  # started as root it would change user and lose its own folder
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_interval 60",
            f"max_queued_messages {MAX_QUEUED_MESSAGES}",
            "set_tcp_nodelay true",
            f"allow_anonymous {'false' if self.users else 'true'}",
        ]
        if self.users:
            lines.append(f"password_file {self._write_passwords()}")
        if self.acl:
            (self.folder / "acl").write_text(self.acl)
            lines.append(f"acl_file {self.folder / 'acl'}")
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join([*lines, self.extra]) + "\n")
        return config

    def _write_passwords(self) -> Path:
        path = self.folder / "passwords"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}:{password}\n" for name, password in self.users.items()))
        try:
            subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            path.unlink()
            raise BrokerError(f"mosquitto_passwd could not hash the passwords: {error}") from error
        return path
