"""A dbus-daemon of our own, system bus to whoever is told its address."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/>
    <allow send_type="method_call"/><allow send_type="signal"/>
    <allow send_type="method_return"/><allow send_type="error"/>
    <allow receive_type="method_call"/><allow receive_type="signal"/>
    <allow receive_type="method_return"/><allow receive_type="error"/>
  </policy>
  {extra}
  <limit name="max_match_rules_per_connection">4096</limit>
</busconfig>
"""


def dbus_daemon() -> str | None:
    """Return the path of dbus-daemon, None where it is not installed."""
    return shutil.which("dbus-daemon")


class PrivateBus:
    """Starts and stops a dbus-daemon; its address stays the same over a restart."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        """extra: more of the configuration, XML."""
        self._extra = extra
        self._socket = folder / "bus.sock"
        self._config = folder / "bus.conf"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix:path={self._socket}"

    def start(self) -> None:
        self._config.write_text(CONFIG.format(socket=self._socket, extra=self._extra))
        self._socket.unlink(missing_ok=True)
        path = dbus_daemon()
        assert path is not None
        self._process = subprocess.Popen(
            [path, f"--config-file={self._config}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.address},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "dbus-daemon did not start"

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> PrivateBus:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
