"""Real ECG over emulated Bluetooth into the real daemon at 20 times real time: kept exactly, read as `analyze` does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ble_kit import ADDRESS, FastClock, bluetooth, bus, h10_binding, run, until
from bluez.bus import PrivateBus
from bluez.straps import H10
from gateway_kit import assert_same_as_batch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from sqlalchemy import select

from edge.chunk import MISSING
from edge.control import request
from edge.errors import AnyecgError
from edge.sources.ble.bindings import change_bindings
from edge.sources.record import Record, read_record
from edge.store import queries, tables
from edge.store.database import open_readonly
from edge.store.waveform import read
from export.datasets.polar import convert

__all__ = ["bus"]
SPEED = 20.0
SECONDS = 320
HERE = Path(__file__).parent
LOST = {*range(60, 64), 200, 201, 250}
"""Frames that the radio loses."""


class FastDaemon:
    """The daemon as a process of its own, on a fast clock."""

    def __init__(self, state: Path, clock: FastClock) -> None:
        self.state = state
        (state / "config.toml").write_text(
            '[mqtt]\nurl = "mqtt://127.0.0.1:9"\n[ble]\nqueue_s = 3600\n', encoding="utf-8"
        )
        arguments = [str(state), str(clock.speed), repr(clock._origin_s), str(clock._utc0_ns)]
        with (state / "daemon.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "bluez/fast_daemon.py"), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}", "OMP_NUM_THREADS": "1"},
            )

    async def status(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, (self.state / "daemon.log").read_text()[-3000:]
        try:
            return dict(await asyncio.to_thread(request, self.state, "status"))
        except AnyecgError:
            return None

    async def wait(self, is_true: Any, timeout_s: float, what: str) -> dict[str, Any]:
        deadline_s = time.monotonic() + timeout_s
        while (status := await self.status()) is None or not is_true(status):
            assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}: {status and status['ble']}"
            await asyncio.sleep(0.2)
        return status

    async def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 60)


def microvolts(record: Record, fs_hz: int = 130) -> NDArray[np.int32]:
    """The first lead in µV at the strap's rate."""
    signal_uv = record.samples[0, : round(SECONDS * record.fs_hz)].astype(np.float64) * record.uv_per_lsb[0]
    rate = round(record.fs_hz)
    common = gcd(rate, fs_hz)
    return np.rint(resample_poly(signal_uv, fs_hz // common, rate // common)).astype(np.int32)


@pytest.mark.parametrize("name", ["polar_h10_kbroman/polar_h10.csv", "mitdb/200"])
def test_kept_exactly_and_read_as_analyze_does(bus: PrivateBus, tmp_path: Path, ecg_data: Path, name: str) -> None:
    path = ecg_data / name
    if path.suffix == ".csv":
        if not path.exists():
            pytest.skip(f"no {name} in {ecg_data}")
        path = convert(path, tmp_path)
    samples = microvolts(read_record(path))
    state = tmp_path / "state"
    clock = FastClock(SPEED)
    h10 = H10(ADDRESS, samples, speed=SPEED, drift_ppm=100, loses=LOST.__contains__)

    async def scenario() -> None:
        change_bindings(state, lambda bound: bound.update(strap=h10_binding()))
        async with bluetooth(bus, h10):
            h10.visible = False
            daemon = FastDaemon(state, clock)
            await daemon.wait(lambda status: True, 60, "the daemon")
            h10.power_on()
            h10.visible = True
            await until(lambda: len(h10.sent) > 350, 60, "two thirds of the recording")
            h10.visible = False
            h10.drop()
            await asyncio.sleep(0.5)
            h10.visible = True
            await until(lambda: h10.exhausted, 60, "the end of the recording")

            def is_read(status: dict[str, Any]) -> bool:
                device = status["ble"]["devices"]["strap"]
                told = device["samples"] == sum(n for _, n in h10.sent)
                return bool(told and device["committed"] == device["chunks"] and status["analysis"]["is_idle"])

            status = await daemon.wait(is_read, 90, "everything kept and read")
            assert status["ble"]["devices"]["strap"]["dropped"] == 0
            h10.begin()  # streaming when the end comes
            assert await daemon.stop() == 0
            assert not h10.streaming
            assert h10.connected_by is None

    run(scenario(), 200)
    assert_kept(state, h10, samples, clock)


def assert_kept(state: Path, h10: H10, samples: NDArray[np.int32], clock: FastClock) -> None:
    first, end = h10.sent[0][0], h10.sent[-1][0] + h10.sent[-1][1]
    expected = np.full((1, end - first), MISSING, np.int32)
    for start, n in h10.sent:
        expected[0, start - first : start - first + n] = samples[start : start + n]
    holes = np.flatnonzero(np.diff(np.concatenate(([0], expected[0] == MISSING, [0])).astype(int)))
    assert len(holes) >= 2 * 3
    engine = open_readonly(state)
    with engine.connect() as conn:
        (recording,) = queries.recordings(conn)
        assert recording.end_sample == expected.shape[1]
        assert np.array_equal(read(conn, recording.id, 0, recording.end_sample).samples, expected)
        gap = tables.gap.c
        gaps = conn.execute(select(gap.start_sample, gap.end_sample).order_by(gap.start_sample)).all()
        assert [edge for row in gaps for edge in row] == holes.tolist()
        late_s = [
            (recording.to_utc_ns(i) - clock.utc_of(h10.real_s(first + i))) / 1e9
            for i in range(130 * 60, recording.end_sample, 130)
        ]
        assert max(map(abs, late_s)) < 0.05 * SPEED, "50 ms of this machine's time"
    engine.dispose()
    assert_same_as_batch(state, record_of(expected))


def record_of(samples: NDArray[np.int32]) -> Record:
    return replace(
        Record(
            name="x", leads=("ECG",), fs_hz=130.0, uv_per_lsb=(1.0,), samples=samples, start_utc_ns=None, path=Path("x")
        )
    )


def test_crash_and_restart(bus: PrivateBus, tmp_path: Path) -> None:
    """SIGKILL leaves the strap connected and streaming: the next daemon stops it, starts it, and the record goes on."""
    samples = np.random.default_rng(2).integers(-800, 800, 130 * 300).astype(np.int32)
    state = tmp_path / "state"
    clock = FastClock(SPEED)
    h10 = H10(ADDRESS, samples, speed=SPEED, repeats=True)

    async def scenario() -> None:
        change_bindings(state, lambda bound: bound.update(strap=h10_binding()))
        async with bluetooth(bus, h10):
            daemon = FastDaemon(state, clock)
            await daemon.wait(lambda s: s["ble"]["devices"]["strap"]["committed"] > 20, 60, "chunks")
            await daemon.stop(signal.SIGKILL)
            assert h10.streaming
            assert h10.connected_by is not None
            starts, stops = h10.starts, h10.stops
            daemon = FastDaemon(state, clock)
            await daemon.wait(lambda s: s["ble"]["devices"]["strap"]["committed"] > 20, 60, "chunks")
            assert (h10.starts, h10.stops) == (starts + 1, stops + 1)
            assert await daemon.stop() == 0
            assert not h10.streaming

    run(scenario(), 150)
    engine = open_readonly(state)
    with engine.connect() as conn:
        (recording,) = queries.recordings(conn)
        stored = read(conn, recording.id, 0, recording.end_sample).samples[0]
        assert np.count_nonzero(stored != MISSING) > 40 * 73
        assert conn.execute(select(tables.gap)).all()
    engine.dispose()
