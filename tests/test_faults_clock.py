"""The system clock jumps by an hour and back while a wearable sends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from faults_kit import back, broker, in_this_process, record, until
from gateway_kit import Daemon, Listener, Wearable, assert_same_as_batch, stored_samples

from broker.mosquitto import Mosquitto
from edge.clock import SystemClock
from edge.daemon import Daemon as InProcess
from edge.sources.record import Record

__all__ = ["broker", "record"]


class _Shifted(SystemClock):
    offset_ns = 0

    def utc_ns(self) -> int:
        return super().utc_ns() + self.offset_ns


def test_clock_off_by_an_hour(broker: Mosquitto, record: Record, tmp_path: Path) -> None:
    clock = _Shifted()
    alerts = "[alerts]\nstale_s = 600\nlink_lost_s = 600\n"  # of a clock, not of a busy machine
    state = Daemon(tmp_path / "state", broker.url, config=alerts).state
    listener = Listener(broker)

    async def scenario(daemon: InProcess) -> None:
        wearable = Wearable(broker.url, record, speed=20)
        wearable.start()
        for offset_h, at_s in ((1, 15), (-1, 35)):
            await until(lambda at_s=at_s: wearable.told_committed() >= at_s * record.fs_hz, 60, f"{at_s} s")
            clock.offset_ns = offset_h * 3600 * 10**9
            await daemon._storage.look()
        await asyncio.to_thread(back, wearable)
        await until(lambda: daemon._gateway.analyst.is_idle, 60, "analysis")
        assert daemon._storage._hold_until_s > clock.monotonic_s() + 80_000
        assert set(daemon._board.links()["anna"].values()) == {"online"}

    in_this_process(state, scenario, clock)
    listener.close()
    assert not {m["rule"] for m in listener.messages} & {"link_lost", "recording_stopped"}
    assert np.array_equal(stored_samples(state, 0, record.n), record.samples)
    assert_same_as_batch(state, record)
