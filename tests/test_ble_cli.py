"""`anyecg devices` as a person types it, on the emulated BlueZ."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ble_kit import ADDRESS, BluetoothThread, FastClock, bus
from bluez.bus import PrivateBus
from bluez.straps import H10, Movesense, RrStrap
from test_ble_daemon import FastDaemon
from test_ble_decoders import PROFILE
from typer.testing import CliRunner

from edge.cli import register
from edge.cli.app import app
from edge.control import is_served
from edge.errors import AnyecgError, BadInputError
from edge.sources.ble.bindings import read_bindings, read_profiles

__all__ = ["bus"]
SIGNAL = np.random.default_rng(3).integers(-900, 900, 130 * 60).astype(np.int32)
MOVESENSE, RR = "0C:8C:DC:00:00:02", "AA:BB:CC:00:00:03"
register.all_commands()


def call(state: Path, *arguments: str) -> Any:
    """Run a command and return what its --json says."""
    result = CliRunner().invoke(app, ["devices", *arguments, "--state", str(state), "--json"])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def shown(state: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["devices", *arguments, "--state", str(state)])
    assert result.exception is None
    return result.stdout


def test_scan_add_test_list_remove(bus: PrivateBus, tmp_path: Path) -> None:
    state = tmp_path / "state"
    straps = (H10(ADDRESS, SIGNAL, repeats=True), Movesense(MOVESENSE, SIGNAL, repeats=True), RrStrap(RR, [0.8] * 60))
    straps[0].rssi = -40
    with BluetoothThread(bus, *straps):
        found = call(state, "scan", "--seconds", "3")
        assert found[0]["address"] == ADDRESS
        assert {row["address"]: row["kind"] for row in found} == {
            ADDRESS: "polar",
            MOVESENSE: "movesense",
            RR: "heart_rate",
        }
        assert found[0]["offers"] == ["ECG", "RR", "motion"]
        added = call(state, "add", "chest", "--wearer", "anna", "--address", ADDRESS.lower())
        assert (added["kind"], added["name"], added["gateway"]) == ("polar", "Polar H10 12345678", "not running")
        call(state, "add", "patch", "--wearer", "ben", "--address", MOVESENSE, "--kind", "movesense", "--fs", "128")
        call(state, "add", "hrm", "--wearer", "ben", "--address", RR, "--kind", "heart_rate")
        with pytest.raises(BadInputError, match="already bound as chest"):
            call(state, "add", "other", "--wearer", "ben", "--address", ADDRESS, "--kind", "polar")
        for device, minimum in (("chest", 73), (MOVESENSE, 64), ("hrm", 0)):
            row = call(state, "test", device, "--seconds", "6")
            assert row["works"]
            assert row["samples"] >= minimum
            assert row["state"] == "streaming"
        assert not straps[0].streaming
        assert not straps[1].streaming
        assert row["hr_bpm"] == 75
        assert "anna" in shown(state, "list")
        assert f"{ADDRESS}" in (heard := shown(state, "scan", "--seconds", "3"))
        assert "-40 dBm" in heard
        assert "ECG, RR" in heard
        assert "streaming" in shown(state, "test", "patch", "--seconds", "6")
        assert {row["device"]: row["state"] for row in call(state, "list")}["chest"] == "unknown"
        assert call(state, "remove", ADDRESS)["device"] == "chest"
        assert sorted(read_bindings(state)) == ["hrm", "patch"]


def test_with_a_running_gateway(bus: PrivateBus, tmp_path: Path) -> None:
    """What is added streams at once; test and list ask the gateway; what is removed stops."""
    state = tmp_path / "state"
    state.mkdir()
    h10 = H10(ADDRESS, SIGNAL, repeats=True)
    with BluetoothThread(bus, h10):
        daemon = FastDaemon(state, FastClock(1.0))
        wait_until(lambda: is_served(state))
        call(state, "add", "chest", "--wearer", "anna", "--address", ADDRESS, "--kind", "polar")
        wait_until(lambda: call(state, "list")[0]["samples"] > 0)
        row = call(state, "test", "chest", "--seconds", "6")
        assert row["works"]
        assert (row["loss"], row["battery"]) == (0, 80)
        print(listed := shown(state, "list"))
        assert "streaming" in listed
        call(state, "remove", "chest")
        wait_until(lambda: not h10.streaming)
        assert call(state, "list") == []
        daemon.process.terminate()
        assert daemon.process.wait(60) == 0


def test_errors_say_what_to_do(bus: PrivateBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    with pytest.raises(BadInputError, match="no device 'x' is bound"):
        call(state, "test", "x")
    with pytest.raises(BadInputError, match="must match"):
        call(state, "add", "X Y", "--wearer", "anna", "--address", ADDRESS)
    with pytest.raises(BadInputError, match="address"):
        call(state, "add", "x", "--wearer", "anna", "--address", "12:34", "--kind", "polar")
    with pytest.raises(BadInputError, match="none of polar, movesense"):
        call(state, "add", "x", "--wearer", "anna", "--address", ADDRESS, "--kind", "acme")
    with pytest.raises(BadInputError, match="--fs is for Movesense"):
        call(state, "add", "x", "--wearer", "anna", "--address", ADDRESS, "--kind", "polar", "--fs", "128")
    with pytest.raises(AnyecgError, match="BlueZ does not run"):
        call(state, "scan", "--seconds", "1")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nothing")
    with pytest.raises(AnyecgError, match="system D-Bus does not answer"):
        call(state, "scan", "--seconds", "1")


def test_profile_is_kept(tmp_path: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "acme.toml"
    path.write_text(PROFILE)
    call(state, "add", "patch", "--wearer", "anna", "--address", ADDRESS, "--profile", str(path))
    path.unlink()
    assert read_bindings(state)["patch"].kind == "acme"
    assert read_profiles(state)["acme"].fs_hz == 250
    (state / "devices.toml").write_text("[devices.patch]\nwearer = 3\n")
    with pytest.raises(BadInputError, match=r"devices\.toml"):
        read_bindings(state)


def wait_until(is_true: Any, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
