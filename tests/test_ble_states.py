"""What becomes of a link is seen as a state, as an event and in figures: asleep, away, busy, empty, off the body."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ble_kit import (
    ADDRESS,
    FastClock,
    SimClock,
    Store,
    assert_told,
    bluetooth,
    bus,
    h10_binding,
    keeper,
    metric,
    run,
    source,
    until,
)
from bluez.bus import PrivateBus
from bluez.emulation import Bluez
from bluez.straps import H10
from sqlalchemy import select
from test_ble_daemon import FastDaemon

from edge.chunk import Delivery
from edge.sources.ble.bindings import change_bindings
from edge.sources.ble.frame import Frame
from edge.sources.ble.keeper import Keeper
from edge.sources.ble.link import FAINT_DBM, why_away, why_unreachable
from edge.sources.ble.session import Session
from edge.sources.stream import Stream
from edge.store import tables
from edge.store.database import open_readonly

__all__ = ["bus"]
SPEED = 20.0
SIGNAL = np.random.default_rng(1).integers(-3000, 3000, 130 * 600).astype(np.int32)


def fall_asleep(h10: H10, _: Bluez) -> None:
    h10.visible = False
    h10.drop()


def refuse_connections(h10: H10, _: Bluez) -> None:
    h10.connect_errors = ["le-connection-refused"] * 100
    h10.drop()


def fade(h10: H10, _: Bluez) -> None:
    h10.rssi = FAINT_DBM - 3
    refuse_connections(h10, _)


def unplug(_: H10, bluez: Bluez) -> None:
    bluez.plug(False)


@pytest.mark.parametrize(
    ("happens", "contact", "state", "reason"),
    [
        (fall_asleep, False, "asleep", "off the body"),
        (fall_asleep, True, "out_of_range", "while it was worn"),
        (refuse_connections, True, "busy", "connected to another device"),
        (fade, True, "out_of_range", "dBm"),
        (unplug, True, "no_bluetooth", ""),
    ],
)
def test_away_and_back(
    bus: PrivateBus, tmp_path: Path, happens: Callable[[H10, Bluez], None], contact: bool, state: str, reason: str
) -> None:
    """State with a reason, an event, time and count of the state; and data again when it is over."""

    async def scenario() -> None:
        h10, store = H10(ADDRESS, SIGNAL, speed=SPEED, repeats=True), Store()
        running = source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding())
        async with bluetooth(bus, h10) as bluez, running as s:
            link = keeper(s).link
            await until(lambda: len(store.chunks) >= 5 and link.state == "streaming", 60, "streaming")
            if not contact:
                h10.contact = False
                await until(lambda: link.state == "off_body", 60, "off_body")
            happens(h10, bluez)
            await until(lambda: link.state == state and reason in link.reason, 60, state)
            assert_told(s, state, reason)
            assert s.why_away("anna", "strap")["link"] == state
            await until(lambda: keeper(s).snapshot()["seconds_in"][state] > 0, 60, "time counted")
            have, h10.connect_errors, h10.contact, h10.visible, h10.rssi = len(store.chunks), [], True, True, -60
            if not bluez.plugged:
                bluez.plug(True)
            await until(lambda: len(store.chunks) > have, 60, "samples when it is over")
            await until(lambda: link.state == "streaming", 60, "streaming")
            figures = keeper(s).snapshot()
            assert figures["entered"][state] >= 1
            assert figures["seconds_in"][state] > 0
            assert figures["entered"]["streaming"] >= 2
            assert sum(figures["seconds_in"].values()) > 0.5

    run(scenario(), 150)


def test_low_battery(bus: PrivateBus, tmp_path: Path) -> None:
    async def scenario() -> None:
        h10, store = H10(ADDRESS, SIGNAL, speed=SPEED, repeats=True), Store()
        h10.battery = 12
        running = source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding())
        async with bluetooth(bus, h10), running as s:
            found: Keeper = keeper(s)
            await until(lambda: found.link.state == "low_battery", 60, "low_battery")
            assert_told(s, "low_battery", "12 %")
            assert metric(s, "battery_percent", device="strap") == 12
            assert len(store.chunks) > 0
            assert (s.batteries(), found.snapshot()["battery"]) == ([("anna", "strap", 12)], 12)

    run(scenario())


def test_data_that_come_late_are_a_state() -> None:
    """By the strap's own clock: a queue that grows anywhere on the way is seen, a stall that is over is not."""

    def offer(delivery: Delivery) -> bool:
        delivery.committed()
        return True

    clock = SimClock()
    stream = Stream("anna", "strap", ("ECG",), 130.0, (1.0,))
    session = Session(
        stream,
        clock,
        stamped=True,
        offer=offer,
        offer_intervals=lambda intervals: True,
        soon=lambda done: done(),
        queue_s=30.0,
    )

    def arrive(number: int, late_s: float = 0.0) -> None:
        last = number * 73 - 1
        clock.now_s = max(clock.now_s, last / 130 + late_s)
        session.on_frame(Frame(np.zeros((1, 73), np.int32), round(last * 1e9 / 130)))

    for number in range(1, 100):
        arrive(number)
    assert session.behind == ""
    arrive(100, late_s=12.0)
    assert "12 s after they were taken" in session.behind
    for number in range(101, 122):  # what had waited
        arrive(number)
    assert session.behind == ""


def test_why() -> None:
    assert why_away(contact=None, battery=None)[0] == "searching"
    assert "at 3 %" in why_away(contact=True, battery=3)[1]
    assert [why_unreachable(n, -60, "x")[0] for n in (1, 2, 3)] == ["failed", "failed", "busy"]


def test_subscribers_are_told_why(bus: PrivateBus, tmp_path: Path) -> None:
    """The strap is taken off and falls asleep: the event of the lost link says so."""
    state = tmp_path / "state"
    h10 = H10(ADDRESS, SIGNAL, speed=SPEED, repeats=True)

    def told() -> list[dict[str, object]]:
        engine = open_readonly(state)
        with engine.connect() as conn:
            payloads = conn.execute(select(tables.outbox.c.payload)).scalars().all()
        engine.dispose()
        return [event for event in map(json.loads, payloads) if event.get("rule") == "link_lost"]

    async def scenario() -> None:
        change_bindings(state, lambda bound: bound.update(strap=h10_binding()))
        async with bluetooth(bus, h10):
            daemon = FastDaemon(state, FastClock(SPEED))
            await daemon.wait(lambda s: s["ble"]["devices"]["strap"]["committed"] > 10, 120, "chunks")
            h10.contact = False
            await daemon.wait(lambda s: s["ble"]["devices"]["strap"]["state"] == "off_body", 60, "off_body")
            fall_asleep(h10, h10.bluez)  # type: ignore[arg-type]
            await daemon.wait(lambda s: s["links"]["anna"]["strap"] == "offline", 60, "a lost link")
            for _ in range(300):
                if told():
                    break
                await asyncio.sleep(0.1)
            await daemon.stop()

    run(scenario(), 300)
    (event,) = told()
    assert event["evidence"]["link"] == "asleep"  # type: ignore[index]
    assert "asleep, not worn" in str(event["text"])
