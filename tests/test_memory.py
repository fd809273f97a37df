"""What the daemon holds does not grow with the age of a recording."""

from __future__ import annotations

import asyncio
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_kit import START_NS
from sqlalchemy import Connection, insert, select

from edge.chunk import Chunk, Delivery
from edge.clock import ManualClock
from edge.config import Config
from edge.gateway import Gateway
from edge.importing import CHUNK_S, chunks
from edge.sources.script import load_script
from edge.sources.simulator import simulate
from edge.store import queries, tables
from edge.store.database import open_writable
from edge.store.recordings import create_recording, ensure_wearer

FS_HZ = 130.0
SEGMENTS = [(40, 0), (1000, 8), (5000, 38), (5100, 90), (7000, 60), (90000, 700)]
"""First sample, and its UTC in seconds after `START_NS`; once the clock was set back."""


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[tuple[Connection, int]]:
    """A recording whose clock has several segments, the first of them not at its first sample."""
    engine = open_writable(tmp_path)
    with engine.connect() as conn:
        ensure_wearer(conn, "anna", "UTC", START_NS)
        recording_id = create_recording(
            conn,
            wearer_id="anna",
            device="strap",
            leads=("I",),
            fs_hz=FS_HZ,
            uv_per_lsb=(1.0,),
            source="live",
            start_ns=START_NS,
            received_ns=START_NS,
        )
        rows = [
            {
                "recording_id": recording_id,
                "index0": index0,
                "boot": 1,
                "device_time_ns": index0,
                "utc_ns": START_NS + second * 10**9,
                "utc_source": "sender",
                "rate_hz": FS_HZ + second / 1000,
                "drift_ppm": float(second),
            }
            for index0, second in SEGMENTS
        ]
        conn.execute(insert(tables.clock_segment), rows)
        yield conn, recording_id
    engine.dispose()


@pytest.mark.parametrize("since_sample", [0, 39, 40, 999, 1000, 5050, 89_999, 90_000, queries.AFTER_ALL])
def test_a_part_of_a_clock_tells_the_same_times_as_all_of_it(clock: tuple[Connection, int], since_sample: int) -> None:
    conn, recording_id = clock
    whole = queries.find_recording(conn, recording_id)
    assert [segment.index0 for segment in whole.segments] == [index0 for index0, _ in SEGMENTS]
    part = queries.find_recording(conn, recording_id, since_sample=since_sample)
    in_force = [segment for segment in whole.segments if segment.index0 <= since_sample][-1:]
    later = [segment for segment in whole.segments if segment.index0 > since_sample]
    assert list(part.segments) == in_force + later
    borders = [index0 + step for index0, _ in SEGMENTS for step in (-1, 0, 1)]
    for sample in (0, 20, 70_000, 10**7, *borders):
        assert queries.utc_at(conn, part, sample) == whole.to_utc_ns(sample)


@pytest.mark.parametrize(
    ("second", "sample"),
    [
        (-0.1, 27),  # the first segment holds before it, too
        (0.0, 40),
        (7.9, 1000),  # its rate says 1067, but from 1000 on another segment holds
        (8.0, 1000),
        (60.0, 5100),  # in a jump of the clock
        (89.0, 5100),
        (90.0, 7000 + 30 * FS_HZ),  # by the newest segment that began before
        (100_000.0, 10_000_000),  # its end
    ],
)
def test_a_time_finds_its_sample_by_the_clock_in_the_store(
    clock: tuple[Connection, int], second: float, sample: float
) -> None:
    conn, recording_id = clock
    conn.execute(tables.recording.update().values(end_sample=10_000_000))
    part = queries.find_recording(conn, recording_id, since_sample=queries.AFTER_ALL)
    assert queries.sample_at(conn, part, START_NS + round(second * 1e9)) == pytest.approx(sample, abs=2)


def test_analysis_holds_the_newest_part_of_a_clock_and_writes_the_times_of_all_of_it(tmp_path: Path) -> None:
    record = simulate(load_script("tour"), seed=3, fs_hz=FS_HZ, duration_s=400.0).record
    parts = [restless(chunk) for chunk in chunks(record, "anna", "strap", 7, START_NS)]
    gateway = Gateway(tmp_path, Config(), ManualClock(START_NS))

    async def feed() -> None:
        for at in range(0, len(parts), 4):
            for chunk in parts[at : at + 4]:
                await gateway.intake.accept(Delivery(chunk, START_NS, lambda: None))
            await gateway.analyse_ready()

    try:
        asyncio.run(feed())
        with gateway.reader.connect() as conn:
            (whole,) = queries.recordings(conn)
            trends = conn.execute(select(tables.trend.c.minute, tables.trend.c.utc_ns)).all()
            findings = conn.execute(select(tables.finding.c.start_sample, tables.finding.c.start_ns)).all()
        assert len(whole.segments) == len(parts)
        held = gateway.analyst.track(whole.id).recording.segments
        assert held == whole.segments[-len(held) :]
        assert len(held) <= 4 + 30 / CHUNK_S, "a batch, and the past of its first window"
        assert len(trends) >= 5
        assert len(findings) >= 5
        assert all(utc_ns == whole.to_utc_ns(round(minute * 60 * FS_HZ)) for minute, utc_ns in trends)
        assert all(start_ns == whole.to_utc_ns(sample) for sample, start_ns in findings)
    finally:
        gateway.close()


def restless(chunk: Chunk) -> Chunk:
    """Return a chunk whose stamp is off the grid of the one before, and whose UTC is, too: a clock segment each."""
    off_ns = round((chunk.seq % 2) * 0.75e9 / FS_HZ)
    assert chunk.utc_ns is not None
    return replace(
        chunk, device_time_ns=chunk.device_time_ns + off_ns, utc_ns=chunk.utc_ns + chunk.seq % 5 * 100_000_000
    )


HEAPS = """
import ctypes, sys, threading
from edge.process import share_heap
if sys.argv[1] == "shared":
    share_heap()
inside = threading.Barrier(5)
def take():
    kept = [bytearray(2000 + n) for n in range(200)]
    inside.wait()
threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads: thread.start()
inside.wait()
for thread in threads: thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_threads_share_one_heap() -> None:
    def heaps(how: str) -> int:
        run = subprocess.run([sys.executable, "-c", HEAPS, how], capture_output=True, text=True, check=True)
        return len(re.findall(r"^Arena \d+:", run.stderr, re.MULTILINE))

    assert heaps("shared") == 1 < heaps("apart")
