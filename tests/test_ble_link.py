"""Unmodified bleak on the emulated BlueZ: straps are found, kept, started and stopped through everything that fails."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import numpy as np
import pytest
from ble_kit import (
    ADDRESS,
    FastClock,
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
from bluez.straps import H10, Described, Er1, Movesense
from numpy.typing import NDArray

from edge.config import Ble
from edge.sources.ble.bindings import PROFILE_FOLDER, Binding

__all__ = ["bus"]
SPEED = 20.0
SIGNAL = np.random.default_rng(1).integers(-3000, 3000, 130 * 600).astype(np.int32)


def strap(**options: object) -> H10:
    return H10(ADDRESS, SIGNAL, speed=SPEED, repeats=True, **options)  # type: ignore[arg-type]


def states(running: object) -> list[str]:
    """Which states there were, but for a machine that was too busy for the fast clock."""
    events = keeper(running).link.events  # type: ignore[arg-type]
    return [state for state, _ in itertools.groupby(event.state for event in events if event.state != "behind")]


def steps(store: Store) -> NDArray[np.float64]:
    """How far each chunk's stamp is from where the one before it ended, in samples."""
    begins = np.array([chunk.device_time_ns for chunk in store.chunks]) * 130 / 1e9
    return np.diff(begins) - [chunk.n for chunk in store.chunks[:-1]]


def assert_stored_what_was_sent(store: Store, h10: H10) -> None:
    """Every sample that was notified, in order, and the stamps say where."""
    sent = np.concatenate([SIGNAL[np.arange(first, first + n) % len(SIGNAL)] for first, n in h10.sent])
    assert np.array_equal(store.samples()[0], sent)


def test_stream_and_stop(bus: PrivateBus, tmp_path: Path) -> None:
    async def scenario() -> None:
        h10, store = strap(), Store()
        async with bluetooth(bus, h10):
            async with source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding(motion=True)) as running:
                await until(lambda: len(store.chunks) >= 20, what="chunks")
                await until(lambda: keeper(running).session.activity_mg is not None, what="motion")
                status = running.snapshot()["devices"]["strap"]
                assert (status["battery"], status["contact"], status["loss"]) == (80, True, 0)
                assert status["gravity_mg"] == [20, -30, 990]
                assert states(running)[-4:] == ["searching", "connecting", "starting", "streaming"]
            assert not h10.streaming
            assert not h10.motion
            assert h10.connected_by is None
        assert_stored_what_was_sent(store, h10)
        assert len({chunk.boot for chunk in store.chunks}) == 1
        assert [chunk.seq for chunk in store.chunks] == list(range(len(store.chunks)))
        off = np.abs(steps(store))
        assert (off < 0.76).all()
        assert np.count_nonzero(off < 1e-6) >= 0.8 * len(off)

    run(scenario())


def test_acquire_notify(bus: PrivateBus, tmp_path: Path) -> None:
    async def scenario() -> None:
        h10, store = strap(), Store()
        settings = Ble(acquire_notify=True)
        async with bluetooth(bus, h10):
            async with source(tmp_path / "state", store, FastClock(SPEED), settings, strap=h10_binding()):
                await until(lambda: len(store.chunks) >= 20, what="chunks")
                assert h10.characteristic(h10.data_uuid()).sockets
            assert not h10.streaming
        assert_stored_what_was_sent(store, h10)

    run(scenario())


def test_failures_on_the_way(bus: PrivateBus, tmp_path: Path) -> None:
    """BlueZ's own retry, a refused connection, a firmware that refuses: each is seen, and then it streams."""

    async def scenario() -> None:
        h10, store = strap(), Store()
        h10.connect_errors = ["le-connection-abort-by-local", "br-connection-canceled"]
        h10.refuses = 13
        async with bluetooth(bus, h10), source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding()) as s:
            await until(lambda: keeper(s).link.state == "refused", 60, "refused")
            assert_told(s, "refused", "device in charger")
            assert metric(s, "links_total", device="strap", kind="refusals") == 1
            await until(lambda: len(store.chunks) >= 5, 60, "chunks")
            assert "failed" in states(s)
            assert "refused" in states(s)
            reasons = {event.state: event.reason for event in keeper(s).link.events}
            assert "device in charger" in reasons["refused"]
            assert "br-connection-canceled" in reasons["failed"]

    run(scenario())


def test_out_of_range_and_back(bus: PrivateBus, tmp_path: Path) -> None:
    """The strap's clock goes on, so the gap is exact. (How soon it is back: `bench ble`.)"""

    async def scenario() -> None:
        h10, store = strap(), Store()
        async with bluetooth(bus, h10), source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding()) as s:
            for _ in range(2):
                have = len(store.chunks)
                await until(lambda have=have: len(store.chunks) >= have + 10, what="chunks")
                h10.visible = False
                h10.drop()
                await until(lambda: keeper(s).link.state == "out_of_range", what="out_of_range")
                await asyncio.sleep(0.3)
                have = len(store.chunks)
                h10.visible = True
                await until(lambda have=have: len(store.chunks) > have, 60, "samples after the strap came back")
            assert keeper(s).counters["losses"] == 2
            assert keeper(s).first_samples_s is not None
        assert_stored_what_was_sent(store, h10)
        assert len({chunk.boot for chunk in store.chunks}) == 1
        assert_gaps_are_exact(store, h10)

    run(scenario())


def assert_gaps_are_exact(store: Store, h10: H10) -> None:
    """The index a stamp says is the index the strap sent, to the sample, relative to the first one."""
    first_ns, first = store.chunks[0].device_time_ns, h10.sent[0][0]
    expected = {start for start, _ in h10.sent}
    for chunk in store.chunks:
        index = first + (chunk.device_time_ns - first_ns) * 130 / 1e9
        assert abs(index - round(index)) < 0.76 or round(index) in expected
        nearest = min(expected, key=lambda start, i=index: abs(start - i))
        assert abs(nearest - index) < 1.5


def test_clock_restart_is_a_new_boot(bus: PrivateBus, tmp_path: Path) -> None:
    """A strap that was shut down begins at 2019 again: same recording, new boot, the gap by UTC."""

    async def scenario() -> None:
        h10, store = strap(), Store()
        clock = FastClock(SPEED)
        async with bluetooth(bus, h10), source(tmp_path / "state", store, clock, strap=h10_binding()) as s:
            await until(lambda: len(store.chunks) >= 40, what="chunks")
            h10.visible = False
            h10.drop()
            await asyncio.sleep(0.5)
            h10.power_on()
            h10.visible = True
            have = len(store.chunks)
            await until(lambda: len(store.chunks) >= have + 10, what="chunks")
            assert keeper(s).session.placer.counters["clock_restarts"] == 1
        boots = [chunk.boot for chunk in store.chunks]
        assert len(set(boots)) == 2
        assert store.chunks[-1].utc_ns is not None
        assert store.chunks[0].utc_ns is not None
        assert store.chunks[-1].utc_ns > store.chunks[0].utc_ns

    run(scenario())


def test_adapter_off_and_on(bus: PrivateBus, tmp_path: Path) -> None:
    async def scenario() -> None:
        h10, store = strap(), Store()
        kept = source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding())
        async with bluetooth(bus, h10) as bluez, kept as s:
            await until(lambda: len(store.chunks) >= 5, what="chunks")
            bluez.power(False)
            await until(lambda: keeper(s).link.state == "no_bluetooth", what="no_bluetooth")
            assert_told(s, "no_bluetooth", "power")
            have = len(store.chunks)
            bluez.power(True)
            await until(lambda: len(store.chunks) > have, 60, "samples after the adapter came back")

    run(scenario())


def test_dbus_restart(bus: PrivateBus, tmp_path: Path) -> None:
    async def scenario() -> None:
        h10, store = strap(), Store()
        async with source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding()) as s:
            async with bluetooth(bus, h10):
                await until(lambda: len(store.chunks) >= 5, what="chunks")
                bus.stop()
                await until(lambda: keeper(s).link.state == "no_bluetooth", 60, "no_bluetooth")
                assert_told(s, "no_bluetooth", "D-Bus")
                bus.start()
            have = len(store.chunks)
            async with bluetooth(bus, h10):
                await until(lambda: len(store.chunks) > have, 60, "samples after the bus came back")

    run(scenario())


def test_bluetoothd_crashes(bus: PrivateBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says goodbye to nobody; bleak goes on believing in the connection, the gateway does not."""
    monkeypatch.setattr("edge.sources.ble.keeper.SILENT_S", 1.0)
    monkeypatch.setattr("edge.sources.ble.keeper.STOP_TIMEOUT_S", 1.0)

    async def scenario() -> None:
        h10, store = strap(), Store()
        async with source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding()) as s:
            async with bluetooth(bus, h10):
                await until(lambda: len(store.chunks) >= 5, what="chunks")
            await until(lambda: keeper(s).link.state == "no_bluetooth", 60, "no_bluetooth")
            assert_told(s, "no_bluetooth", "BlueZ does not run")
            have = len(store.chunks)
            async with bluetooth(bus, h10):
                await until(lambda: len(store.chunks) > have, 60, "samples after BlueZ came back")
            h10.streaming = False

    run(scenario())


def test_crashed_gateway_left_it_streaming(bus: PrivateBus, tmp_path: Path) -> None:
    """Connected and streaming, so not advertising: it is found all the same, stopped, and started."""

    async def scenario() -> None:
        h10, store = strap(), Store()
        async with bluetooth(bus, h10) as bluez:
            bluez._known.add(h10.path)
            h10.connected_by = ":1.99"
            h10.begin()
            async with source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding()):
                await until(lambda: len(store.chunks) >= 5, what="chunks")
                assert (h10.stops, h10.starts) == (1, 2)
            assert not h10.streaming

    run(scenario())


def test_off_the_body(bus: PrivateBus, tmp_path: Path) -> None:
    async def scenario() -> None:
        h10, store = strap(), Store()
        async with bluetooth(bus, h10), source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding()) as s:
            await until(lambda: keeper(s).link.state == "streaming", what="streaming")
            h10.contact = False
            await until(lambda: keeper(s).link.state == "off_body", what="off_body")
            assert_told(s, "off_body", "electrodes")
            await until(lambda: store.chunks[-1].contact is False, what="a chunk that says so")
            h10.contact = True
            await until(lambda: keeper(s).link.state == "streaming", what="streaming")
            assert store.chunks[0].contact in (None, True)

    run(scenario())


def test_slow_disk_drops_the_oldest_and_counts(bus: PrivateBus, tmp_path: Path) -> None:
    """Never a lag beyond the queue; what was dropped is a gap of exactly its length."""

    async def scenario() -> None:
        h10, store = strap(), Store()
        settings = Ble(queue_s=20)
        kept = source(tmp_path / "state", store, FastClock(SPEED), settings, strap=h10_binding())
        async with bluetooth(bus, h10), kept as s:
            await until(lambda: len(store.chunks) >= 10, what="chunks")
            store.refuses = True
            outlet = keeper(s).session.outlet
            await until(lambda: outlet.counters["dropped"] >= 20, 60, "drops")
            assert outlet.waiting_s <= 21
            await until(lambda: "the oldest are dropped" in keeper(s).link.reason, what="behind")
            assert_told(s, "behind", "20 s the oldest are dropped")
            assert metric(s, "samples_total", device="strap", kind="dropped_samples") >= 20 * 73
            store.refuses = False
            have = len(store.chunks)
            await until(lambda: len(store.chunks) >= have + 20, what="chunks after the disk came back")
            await until(lambda: keeper(s).link.state == "streaming", what="streaming")
            assert outlet.counters["dropped_samples"] == outlet.counters["dropped"] * 73
        seqs = [chunk.seq for chunk in store.chunks]
        assert seqs == list(range(len(seqs)))
        off = steps(store)
        assert np.count_nonzero(off > 0.76) == 1
        assert round(float(off.max())) == outlet.counters["dropped_samples"]

    run(scenario())


def test_several_straps(bus: PrivateBus, tmp_path: Path) -> None:
    async def scenario() -> None:
        addresses = [f"A0:9E:1A:00:00:{i:02X}" for i in range(1, 9)]
        straps = [H10(a, SIGNAL, speed=SPEED, repeats=True) for a in addresses]
        store = Store()
        bindings = {f"strap{i}": h10_binding(a, f"w{i}") for i, a in enumerate(addresses)}
        async with bluetooth(bus, *straps), source(tmp_path / "state", store, FastClock(SPEED), **bindings) as s:
            await until(lambda: len({chunk.device for chunk in store.chunks}) == 8, 60, "all straps")
            assert {k.link.state for k, _ in s._keepers.values()} <= {"streaming", "starting", "connecting", "behind"}
        assert not any(h10.streaming for h10 in straps)

    run(scenario())


def test_movesense_in_two_parts(bus: PrivateBus, tmp_path: Path) -> None:
    """Stamps of whole milliseconds on the first sample; losses are seen by them alone."""

    async def scenario() -> None:
        sensor = Movesense(ADDRESS, SIGNAL, speed=4.0, repeats=True, loses={40, 41, 90}.__contains__)
        store = Store()
        binding = Binding(wearer="anna", address=ADDRESS, kind="movesense", fs_hz=128)
        async with bluetooth(bus, sensor), source(tmp_path / "state", store, FastClock(4.0), strap=binding) as s:
            await until(lambda: len(sensor.sent) > 200, 60, "frames")
            assert keeper(s).session.placer.counters["lost_samples"] == 3 * 16
            assert not keeper(s).session.bad
        assert not sensor.streaming
        sent = np.concatenate([SIGNAL[np.arange(first, first + n) % len(SIGNAL)] for first, n in sensor.sent])
        assert np.array_equal(store.samples()[0], sent)
        assert store.chunks[0].uv_per_lsb == (0.381469726563,)

    run(scenario())


def test_silent_strap_is_started_again(bus: PrivateBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sources.ble.keeper.SILENT_S", 1.0)

    async def scenario() -> None:
        h10, store = strap(), Store()
        async with bluetooth(bus, h10), source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding()) as s:
            await until(lambda: len(store.chunks) >= 5, what="chunks")
            h10.streaming = False  # its firmware has hung up in silence
            have = len(store.chunks)
            await until(lambda: len(store.chunks) > have + 2, 60, "samples again")
            assert keeper(s).counters["silences"] >= 1
            assert any("nothing came" in event.reason for event in keeper(s).link.events)

    run(scenario())


def test_small_mtu_and_bad_frames(bus: PrivateBus, tmp_path: Path) -> None:
    """Frames of another length are read; what cannot be read is counted and harms nothing."""

    async def scenario() -> None:
        h10, store = strap(), Store()
        h10.mtu, h10.frame_samples = 100, 29
        async with bluetooth(bus, h10), source(tmp_path / "state", store, FastClock(SPEED), strap=h10_binding()) as s:
            await until(lambda: len(store.chunks) >= 5, what="chunks")
            for bad in (b"", b"\0", b"\0" * 9 + b"\x80" + b"\0" * 6, b"\0" * 12):
                h10.notify(h10.data_uuid(), bad)
            have = len(store.chunks)
            await until(lambda: len(store.chunks) >= have + 5, what="chunks")
            assert keeper(s).session.bad == {"short": 2, "frame_type": 1, "length": 1}
        assert_stored_what_was_sent(store, h10)

    run(scenario())


def test_described_device(bus: PrivateBus, tmp_path: Path) -> None:
    """A device nobody wrote code for: TOML says how to start it, read it and stop it."""

    async def scenario() -> None:
        patch, store = Described(ADDRESS, SIGNAL, speed=4.0, repeats=True, loses={20, 21}.__contains__), Store()
        state = tmp_path / "state"
        (state / PROFILE_FOLDER).mkdir(parents=True)
        (state / PROFILE_FOLDER / "acme.toml").write_text(Described.PROFILE)
        binding = Binding(wearer="anna", address=ADDRESS, kind="acme")
        async with bluetooth(bus, patch), source(state, store, FastClock(4.0), strap=binding) as s:
            await until(lambda: len(patch.sent) > 60, 60, "frames")
            assert keeper(s).session.placer.counters["lost_samples"] == 2 * 25
        assert not patch.streaming
        sent = np.concatenate([SIGNAL[np.arange(first, first + n) % len(SIGNAL)] for first, n in patch.sent])
        assert np.array_equal(store.samples()[0], sent)
        assert (store.chunks[0].fs_hz, store.chunks[0].leads) == (250, ("II",))

    run(scenario())


def test_viatom_is_polled(bus: PrivateBus, tmp_path: Path) -> None:
    async def scenario() -> None:
        er1, store = Er1(ADDRESS), Store()
        binding = Binding(wearer="anna", address=ADDRESS, kind="viatom")
        async with bluetooth(bus, er1), source(tmp_path / "state", store, FastClock(1.0), strap=binding) as s:
            await until(lambda: len(store.chunks) >= 4, 60, "chunks")
            assert keeper(s).session.battery == 64
        polls = er1.polls
        await asyncio.sleep(0.7)
        assert er1.polls == polls
        samples = store.samples()[0]
        assert np.array_equal(samples, np.arange(len(samples)))

    run(scenario())
