"""The unit as systemd itself judges it, and what the daemon tells systemd."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bluez.bus import PrivateBus, dbus_daemon
from dbus_fast.aio import MessageBus

from edge import sdnotify

UNITS = Path(__file__).resolve().parents[1] / "systemd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (make system)"
)

needs_dbus = pytest.mark.skipif(dbus_daemon() is None, reason="dbus-daemon is not installed (make system)")

SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
JETSON = sorted(path.parent.name.removesuffix(".d") for path in UNITS.glob("*.service.d/jetson.conf"))
CASES = [(name, False) for name in SERVICES] + [(name, True) for name in JETSON]


def installed(folder: Path, *, jetson: bool) -> Path:
    """Lay the units out as on a gateway, with programs that exist here."""
    for unit in UNITS.glob("anyecg*.[st]*[er]"):
        text = re.sub(r"^(ExecStart|ExecReload)=\S+", r"\1=/bin/true", unit.read_text(), flags=re.MULTILINE)
        (folder / unit.name).write_text(text)
    if jetson:
        for drop_in in UNITS.glob("*.service.d"):
            shutil.copytree(drop_in, folder / drop_in.name)
    return folder


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_every_unit_is_here() -> None:
    wanted = {"anyecg", "anyecg-assistant", "anyecg-web", "anyecg-backup", "anyecg-broker"}
    assert set(SERVICES) == {f"{name}.service" for name in wanted}
    assert JETSON == ["anyecg-assistant.service", "anyecg.service"]


@needs_systemd
@pytest.mark.parametrize("jetson", [False, True])
def test_verify_prints_nothing(tmp_path: Path, jetson: bool) -> None:
    folder = installed(tmp_path, jetson=jetson)
    for name in [*SERVICES, "anyecg-backup.timer"]:
        result = analyze(folder, "verify", str(folder / name))
        assert (name, result.returncode, result.stdout, result.stderr) == (name, 0, "", "")


@needs_systemd
def test_verify_would_say_something(tmp_path: Path) -> None:
    unit = installed(tmp_path, jetson=False) / "anyecg.service"
    unit.write_text(unit.read_text().replace("[Install]", "ProtectSytem=strict\n[Install]"))
    assert "ProtectSytem" in analyze(tmp_path, "verify", str(unit)).stderr


@needs_systemd
@pytest.mark.parametrize(("name", "jetson"), CASES)
def test_exposure(tmp_path: Path, name: str, jetson: bool) -> None:
    """2.0 at most, also with what a GPU needs (its device files, memory that is written and executed)."""
    folder = installed(tmp_path, jetson=jetson)
    result = analyze(folder, "security", "--offline=true", "--threshold=20", str(folder / name))
    assert result.returncode == 0, result.stdout[-200:] + result.stderr


def settings(name: str) -> dict[str, str]:
    lines = (UNITS / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")


def test_all_of_ours_are_one_user_with_one_folder() -> None:
    """Else the control socket refuses them."""
    wanted = {"User": "anyecg", "Group": "anyecg", "StateDirectory": "anyecg", "StateDirectoryMode": "0700"}
    for name in SERVICES:
        if name != "anyecg-broker.service":
            assert wanted.items() <= settings(name).items(), name
            assert settings(name)["UMask"] == "0077"


def test_reload_is_what_the_daemon_does_on_sighup() -> None:
    """`tests/test_metrics_reload.py` sends it to a running gateway."""
    assert settings("anyecg.service")["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_only_what_needs_the_network_has_it() -> None:
    closed = {name for name in SERVICES if settings(name).get("PrivateNetwork") == "yes"}
    assert closed == {"anyecg-assistant.service", "anyecg-backup.service"}
    for name in closed:
        assert settings(name)["RestrictAddressFamilies"] == "AF_UNIX"


@needs_dbus
def test_the_bus_policy_lets_its_user_and_nobody_else_call_bluez(tmp_path: Path) -> None:
    """On a real dbus-daemon that denies org.bluez by default, as BlueZ's own policy does."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    policy = (UNITS / "anyecg-dbus.conf").read_text()
    assert 'user="anyecg"' in policy
    said = {}
    for user in (me, "nobody"):
        folder = tmp_path / user
        folder.mkdir()
        (folder / "anyecg.conf").write_text(policy.replace('user="anyecg"', f'user="{user}"'))
        bus = PrivateBus(folder, extra='<policy context="default"><deny send_destination="org.bluez"/></policy>'
                         "<include>anyecg.conf</include>")  # fmt: skip
        bus.start()
        try:
            said[user] = asyncio.run(call_bluez(bus.address))
        finally:
            bus.stop()
    assert "UnknownObject" in said[me] or "UnknownMethod" in said[me]  # it was let through and found nothing
    assert "AccessDenied" in said["nobody"]


async def call_bluez(address: str) -> str:
    """Stand in as org.bluez on a bus and return how a caller is answered."""
    stand_in = await MessageBus(bus_address=address).connect()
    try:
        await stand_in.request_name("org.bluez")
        call = ["dbus-send", f"--bus={address}", "--dest=org.bluez", "--print-reply", "/", "org.bluez.X.Y"]
        caller = await asyncio.create_subprocess_exec(*call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return (await caller.communicate())[1].decode()
    finally:
        stand_in.disconnect()


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
