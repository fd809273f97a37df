"""What the Bluetooth tests share: a private bus with emulated straps, and a source whose chunks are kept in a list."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from bluez.bus import PrivateBus, dbus_daemon
from bluez.emulation import Bluez, Peripheral
from numpy.typing import NDArray

from edge.chunk import Chunk, Delivery
from edge.config import Ble
from edge.intervals import Intervals
from edge.metrics_ble import ble_metrics
from edge.sources.ble.bindings import Binding, change_bindings
from edge.sources.ble.keeper import Keeper
from edge.sources.ble.source import BleSource

UTC0_NS = 1_790_000_000_000_000_000
ADDRESS = "A0:9E:1A:00:00:01"


class SimClock:
    """Host time as a simulation sets it; UTC and monotonic agree."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def utc_ns(self) -> int:
        return UTC0_NS + round(self.now_s * 1e9)


class FastClock:
    """The machine's clocks, `speed` times as fast."""

    def __init__(self, speed: float = 1.0, origin_s: float | None = None, utc0_ns: int | None = None) -> None:
        self.speed = speed
        self._origin_s = time.monotonic() if origin_s is None else origin_s
        self._utc0_ns = time.time_ns() if utc0_ns is None else utc0_ns

    def monotonic_s(self) -> float:
        return (time.monotonic() - self._origin_s) * self.speed

    def utc_ns(self) -> int:
        return self.utc_of(time.monotonic())

    def utc_of(self, real_s: float) -> int:
        """Return this clock's UTC at a moment of the machine's monotonic clock."""
        return self._utc0_ns + round((real_s - self._origin_s) * self.speed * 1e9)


class Store:
    """Takes chunks as intake does; `refuses` makes it a disk that cannot keep up."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.intervals: list[Intervals] = []
        self.refuses = False
        self.commits = True
        self._uncommitted: list[Delivery] = []

    def offer(self, delivery: Delivery) -> bool:
        if self.refuses:
            return False
        self.chunks.append(delivery.chunk)
        if self.commits:
            delivery.committed()
        else:
            self._uncommitted.append(delivery)
        return True

    def offer_intervals(self, intervals: Intervals) -> bool:
        if not self.refuses:
            self.intervals.append(intervals)
        return not self.refuses

    def samples(self) -> NDArray[np.int32]:
        return np.concatenate([chunk.samples for chunk in self.chunks], axis=1)


@contextlib.asynccontextmanager
async def bluetooth(bus: PrivateBus, *peripherals: Peripheral) -> AsyncIterator[Bluez]:
    """An adapter with devices around it."""
    bluez = Bluez()
    for peripheral in peripherals:
        bluez.add(peripheral)
    await bluez.start(bus.address)
    try:
        yield bluez
    finally:
        await bluez.stop()


@contextlib.asynccontextmanager
async def source(
    folder: Path, store: Store, clock: FastClock | None = None, settings: Ble | None = None, **bindings: Binding
) -> AsyncIterator[BleSource]:
    """A running source over a state folder with these devices bound."""
    change_bindings(folder, lambda bound: bound.update(bindings))
    running = BleSource(
        folder,
        settings or Ble(),
        offer=store.offer,
        offer_intervals=store.offer_intervals,
        clock=clock or FastClock(),
    )
    running.start()
    try:
        yield running
    finally:
        await running.stop()


def keeper(running: BleSource, device: str = "strap") -> Keeper:
    return running._keepers[device][0]


def metric(running: BleSource, name: str, **labels: str) -> float:
    """Return the value that Prometheus would be told."""
    for family in ble_metrics(running.snapshot()["devices"]):
        for sample in family.samples:
            if sample.name == f"anyecg_ble_{name}" and labels.items() <= sample.labels.items():
                return float(sample.value)
    raise AssertionError(f"no metric {name} with {labels}")


def assert_told(running: BleSource, state: str, reason: str = "") -> None:
    """The strap is in this state, which is an event with its reason and a metric, too."""
    link = keeper(running).link
    assert link.state == state
    assert reason in link.reason
    assert link.events[-1].state == state
    assert metric(running, "state", device="strap", state=state) == 1
    assert metric(running, "state_entered_total", device="strap", state=state) >= 1
    assert metric(running, "state_seconds_total", device="strap", state=state) >= 0


async def until(is_true: Callable[[], object], timeout_s: float = 60.0, what: str = "it") -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}"
        await asyncio.sleep(0.01)


def h10_binding(address: str = ADDRESS, wearer: str = "anna", **options: object) -> Binding:
    return Binding.model_validate({"wearer": wearer, "address": address, "kind": "polar", "motion": False, **options})


def run(scenario: Awaitable[None], timeout_s: float = 120.0) -> None:
    """Run an async test."""

    async def bounded() -> None:
        async with asyncio.timeout(timeout_s):
            await scenario

    asyncio.run(bounded())


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PrivateBus]:  # type: ignore[misc]
    """A private system bus, or a skip."""
    if dbus_daemon() is None:
        pytest.skip("dbus-daemon is not installed: sudo make system")
    with PrivateBus(tmp_path) as private:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", private.address)
        yield private  # type: ignore[misc]


class BluetoothThread:
    """The emulation on a thread of its own, for tests of what runs its own event loop."""

    def __init__(self, bus: PrivateBus, *peripherals: Peripheral) -> None:
        self._bus, self._peripherals = bus, peripherals
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> BluetoothThread:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        async def serve() -> None:
            async with bluetooth(self._bus, *self._peripherals):
                self._ready.set()
                await self._stop.wait()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve())
        self._loop.close()
