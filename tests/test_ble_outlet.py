"""What waits between radio and disk: bounded, joined while the disk is slow, dropped by rule, counted; no lag grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ble_kit import UTC0_NS

from edge.chunk import ClockReading, Delivery
from edge.sources.ble.anchor import Anchor
from edge.sources.ble.outlet import LAG_BOUNDS_S, MAX_CHUNK_S, Outlet
from edge.sources.ble.placer import Piece
from edge.sources.stream import Stream

FS_HZ, N = 100.0, 50


class Disk:
    """Takes deliveries and commits them when told to; `takes` False: refuses."""

    def __init__(self) -> None:
        self.takes = True
        self.taken: list[Delivery] = []
        self.soon: deque[Callable[[], None]] = deque()
        self._uncommitted: deque[Delivery] = deque()

    def offer(self, delivery: Delivery) -> bool:
        if self.takes:
            self.taken.append(delivery)
            self._uncommitted.append(delivery)
        return self.takes

    def commit(self) -> None:
        self._uncommitted.popleft().committed()
        while self.soon:
            self.soon.popleft()()


@pytest.fixture
def disk() -> Disk:
    return Disk()


def outlet(disk: Disk, limit_s: float = 30.0) -> Outlet:
    stream = Stream("anna", "strap", ("ECG",), FS_HZ, (1.0,))
    return Outlet(Anchor(stream), disk.offer, disk.soon.append, limit_s)


def piece(number: int, **other: Any) -> Piece:
    at_ns = round(number * N * 1e9 / FS_HZ)
    fields: dict[str, Any] = {
        "index": number * N,
        "samples": np.full((1, N), number, np.int32),
        "epoch": 0,
        "follows": False,
        "device_ns": at_ns,
        "clock": ClockReading(at_ns, None, None),
        "utc_ns": UTC0_NS + at_ns,
        "received_ns": UTC0_NS + at_ns,
        "contact": True,
    }
    return Piece(**(fields | other))


def numbers(delivery: Delivery) -> list[int]:
    """Which pieces a chunk is made of."""
    return [int(v) for v in delivery.chunk.samples[0, ::N]]


def test_a_piece_goes_out_at_once_and_what_comes_meanwhile_is_joined(disk: Disk) -> None:
    out = outlet(disk)
    for number in range(6):
        out.put(piece(number))
    assert [numbers(d) for d in disk.taken] == [[0]]
    disk.commit()
    assert [numbers(d) for d in disk.taken] == [[0], [1, 2, 3, 4, 5]]
    disk.commit()
    assert out.idle
    assert (out.counters["chunks"], out.counters["committed"], sum(out.lags)) == (2, 2, 2)


def test_what_does_not_go_on_is_not_joined(disk: Disk) -> None:
    out = outlet(disk)
    for one in (piece(0), piece(1), piece(3), piece(4, contact=False), piece(5, epoch=1), piece(6, epoch=1)):
        out.put(one)
    while not out.idle:
        disk.commit()
    assert [numbers(d) for d in disk.taken] == [[0], [1], [3], [4], [5, 6]]


def test_a_chunk_is_not_longer_than_it_may_be(disk: Disk) -> None:
    out = outlet(disk, limit_s=200.0)
    for number in range(1 + 4 * round(MAX_CHUNK_S * FS_HZ / N)):
        out.put(piece(number))
    while not out.idle:
        disk.commit()
    assert [d.chunk.n for d in disk.taken] == [N, *4 * [round(MAX_CHUNK_S * FS_HZ)]]


def test_no_lag_grows_beyond_the_queue(disk: Disk) -> None:
    """A disk at a tenth of the pace: what waits stays below the limit, every drop is counted, the rest is in order."""
    out = outlet(disk, limit_s=10.0)
    worst_s = 0.0
    for number in range(1000):
        out.put(piece(number))
        worst_s = max(worst_s, out.waiting_s)
        if number % 100 == 99:
            disk.commit()
    assert worst_s <= 10.0 + MAX_CHUNK_S + N / FS_HZ
    assert out.is_behind
    kept = sum(d.chunk.n for d in disk.taken)
    waits = round(out.waiting_s * FS_HZ) - disk.taken[-1].chunk.n
    assert kept + waits + out.counters["dropped_samples"] == 1000 * N
    assert out.counters["dropped_samples"] == out.counters["dropped"] * N
    while not out.idle:
        disk.commit()
    assert not out.is_behind
    stored = [number for d in disk.taken for number in numbers(d)]
    assert stored == sorted(set(stored))
    assert [d.chunk.seq for d in disk.taken] == list(range(len(disk.taken)))


def test_a_chunk_that_was_refused_is_offered_again_and_never_dropped(disk: Disk) -> None:
    out = outlet(disk, limit_s=2.0)
    disk.takes = False
    for number in range(20):
        out.put(piece(number))
    assert (disk.taken, out.counters["dropped"]) == ([], 15)
    disk.takes = True
    out.pump()
    disk.commit()
    assert numbers(disk.taken[0]) == [0]
    assert numbers(disk.taken[1]) == [16, 17, 18, 19]


def test_what_is_not_kept_at_the_end_is_counted(disk: Disk) -> None:
    out = outlet(disk)
    disk.takes = False
    for number in range(4):
        out.put(piece(number))
    assert out.give_up() == 4 * N / FS_HZ
    assert (out.counters["dropped"], out.counters["dropped_samples"]) == (4, 4 * N)
    assert out.idle
    assert out.give_up() == 0


def test_every_commit_is_counted_by_how_long_it_took(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("edge.sources.ble.outlet.time.perf_counter", lambda: now_s[0])
    out = outlet(disk)
    for number, lag_s in enumerate((0.01, 0.3, 60.0)):
        out.put(piece(number))
        now_s[0] += lag_s
        disk.commit()
    assert out.lags == [1, 0, 0, 1, *[0] * (len(LAG_BOUNDS_S) - 4), 1]
    assert out.lag_sum_s == pytest.approx(60.31)
    assert out.commit_ms() == {"p50": 300.0, "p99": 60000.0, "max": 60000.0}
