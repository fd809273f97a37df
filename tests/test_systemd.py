"""The unit as systemd itself judges it, and what the daemon tells systemd."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import sdnotify

UNITS = Path(__file__).resolve().parents[1] / "systemd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (make system)"
)


def installed(folder: Path, *, jetson: bool) -> Path:
    """Lay the unit out as on a gateway, with a program that exists here."""
    unit = folder / "anyecg.service"
    text = (UNITS / "anyecg.service").read_text()
    text, replaced = re.subn(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    assert replaced == 1
    unit.write_text(text)
    if jetson:
        shutil.copytree(UNITS / "anyecg.service.d", folder / "anyecg.service.d")
    return unit


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


@needs_systemd
@pytest.mark.parametrize("jetson", [False, True])
def test_verify_prints_nothing(tmp_path: Path, jetson: bool) -> None:
    unit = installed(tmp_path, jetson=jetson)
    result = analyze(tmp_path, "verify", str(unit))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
def test_verify_would_say_something(tmp_path: Path) -> None:
    unit = installed(tmp_path, jetson=False)
    unit.write_text(unit.read_text().replace("[Install]", "ProtectSytem=strict\n[Install]"))
    assert "ProtectSytem" in analyze(tmp_path, "verify", str(unit)).stderr


@needs_systemd
@pytest.mark.parametrize(("jetson", "limit"), [(False, 20), (True, 30)])
def test_exposure(tmp_path: Path, jetson: bool, limit: int) -> None:
    unit = installed(tmp_path, jetson=jetson)
    result = analyze(tmp_path, "security", "--offline=true", f"--threshold={limit}", str(unit))
    assert result.returncode == 0, result.stdout[-200:] + result.stderr


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_what_systemd_is_told(listener: socket.socket) -> None:
    assert sdnotify.ready("two\nlines")
    assert sdnotify.watchdog()
    assert sdnotify.status("3 wearers")
    assert sdnotify.stopping()
    assert [listener.recv(1000) for _ in range(4)] == [
        b"READY=1\nSTATUS=two lines",
        b"WATCHDOG=1",
        b"STATUS=3 wearers",
        b"STOPPING=1",
    ]


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0anyecg-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@anyecg-test-{os.getpid()}")
        assert sdnotify.stopping()
        assert sock.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/nonexistent/socket"])
def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not sdnotify.ready("x")


@pytest.mark.parametrize(
    ("limit_us", "pid", "expected"),
    [
        ("30000000", None, 15.0),
        ("30000000", "own", 15.0),
        ("30000000", "1", None),
        (None, None, None),
        ("x", None, None),
    ],
)
def test_watchdog_interval(
    monkeypatch: pytest.MonkeyPatch, limit_us: str | None, pid: str | None, expected: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", limit_us), ("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert sdnotify.watchdog_interval_s() == expected
