"""`battery_low`: told once when a level falls, ended once when it is charged, never in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from edge.alerts.battery import Battery

RECORDING: Any = SimpleNamespace(key="r1", wearer="anna", device="strap", fs_hz=130.0, source="live")


def test_opens_and_ends_once() -> None:
    battery = Battery()
    told = []
    for now, percent in enumerate((80, 16, 15, 14, 16, 24, 15, 25, 80, 10)):
        change = battery.report(RECORDING, percent, sample=1000 + now, now_ns=now)
        if change is not None:
            told.append((percent, change.type, change.row["state"], change.row["revision"], change.row["id"]))
    assert [row[:4] for row in told] == [(15, "new", "open", 1), (25, "end", "closed", 2), (10, "new", "open", 1)]
    assert told[0][4] == told[1][4] != told[2][4]


def test_each_device_has_its_own() -> None:
    battery = Battery()
    other: Any = SimpleNamespace(**{**vars(RECORDING), "device": "patch", "key": "r2"})
    assert battery.report(RECORDING, 5, sample=0, now_ns=0) is not None
    assert battery.report(other, 5, sample=0, now_ns=0) is not None
    assert battery.report(RECORDING, 5, sample=9, now_ns=9) is None
