"""What storing costs: chunks a second, CPU per chunk, wear, size of a day. `python bench/store.py [--state DIR]`.

Three runs on the disk of DIR (default: a temporary folder): 50 wearers sending a chunk a second in real time, one
device replayed at 200 chunks a second, and as many chunks as go through. Signal: a random walk at 250 Hz that
compresses about as badly as 1 µV ECG.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from edge.chunk import Chunk, Delivery
from edge.clock import SystemClock
from edge.intake import Intake, IntakeLimits
from edge.store.database import PAGE_SIZE, open_readonly
from edge.store.waveform import read
from edge.store.writer import Writer

FS_HZ = 250.0


def chunk(wearer: int, seq: int, t0_ns: int) -> Chunk:
    rng = np.random.default_rng(wearer * 1_000_003 + seq)
    samples = np.cumsum(rng.normal(0, 40, (1, 250)), axis=1).astype(np.int32)
    return Chunk(
        wearer=f"w{wearer}",
        device="strap",
        leads=("I",),
        fs_hz=FS_HZ,
        boot=1,
        seq=seq,
        oldest=0,
        device_time_ns=seq * 10**9,
        utc_ns=t0_ns + seq * 10**9,
        samples=samples,
        uv_per_lsb=(1.0,),
    )


def written_bytes() -> int:
    """Return what this process has sent to disks so far (Linux)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def used_bytes(reader: Engine) -> int:
    """Return the size of the database's pages in use."""
    with reader.connect() as conn:
        total, free = (conn.exec_driver_sql(f"PRAGMA {p}").scalar_one() for p in ("page_count", "freelist_count"))
    return (int(total) - int(free)) * PAGE_SIZE


async def drive(state: Path, name: str, wearers: int, per_s: float | None, chunks_each: int) -> None:
    with Writer(state) as writer:
        reader = open_readonly(state)
        intake = Intake(writer, reader, SystemClock(), IntakeLimits(), lambda _: "UTC", lambda _: None)
        t0_ns = time.time_ns() - 10**13
        ready = [chunk(w, s, t0_ns) for s in range(chunks_each) for w in range(wearers)]
        latencies: list[float] = []
        usage, io, began_s = resource.getrusage(resource.RUSAGE_SELF), written_bytes(), time.perf_counter()

        async def one(c: Chunk) -> None:
            start_s = time.perf_counter()
            await intake.accept(Delivery(c, time.time_ns(), lambda: None))
            latencies.append(time.perf_counter() - start_s)

        async def ticking() -> None:
            while True:
                await intake.tick()
                await asyncio.sleep(1.0)

        ticker = asyncio.create_task(ticking())
        async with asyncio.TaskGroup() as group:
            for i, c in enumerate(ready):
                group.create_task(one(c))
                if per_s is not None:
                    await asyncio.sleep(max(0.0, began_s + (i + 1) / per_s - time.perf_counter()))
                elif i % 500 == 499:
                    await asyncio.sleep(0)
        wall_s = time.perf_counter() - began_s
        ticker.cancel()
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        n = len(ready)
        p50, p99 = np.percentile(latencies, [50, 99])
        print(
            f"{name:28} {n / wall_s:7.0f} chunks/s  {100 * cpu_s / wall_s:5.1f} % of a core  "
            f"{1e6 * cpu_s / n:5.0f} µs CPU/chunk  commit p50 {1e3 * p50:4.0f} p99 {1e3 * p99:4.0f} ms  "
            f"{writer.counters['commits'] / wall_s:4.0f} commits/s  "
            f"{(written_bytes() - io) / n / 1e3:5.1f} kB to disk/chunk"
        )
        reader.dispose()


async def day(state: Path) -> None:
    """Feed 2 h in 1 s chunks and scale the file to a day; then read it back."""
    with Writer(state) as writer:
        reader = open_readonly(state)
        intake = Intake(writer, reader, SystemClock(), IntakeLimits(), lambda _: "UTC", lambda _: None)
        empty = used_bytes(reader)
        t0_ns = time.time_ns() - 10**13
        for at in range(0, 7200, 600):
            deliveries = [Delivery(chunk(0, s, t0_ns), time.time_ns(), lambda: None) for s in range(at, at + 600)]
            await asyncio.gather(*(intake.accept(d) for d in deliveries))
            await intake.tick()
        await intake.flush(1)
        began_s = time.perf_counter()
        with reader.connect() as conn:
            read(conn, 1, 0, 7200 * 250)
        read_s = time.perf_counter() - began_s
        with reader.connect() as conn:
            coded = conn.exec_driver_sql("SELECT sum(length(data)) FROM block").scalar_one()
        used = used_bytes(reader) - empty
        reader.dispose()
    print(
        f"a day of one 250 Hz lead: {coded * 12 / 1e6:.1f} MB coded ({8 * coded / (7200 * 250):.2f} bit/sample), "
        f"{used * 12 / 1e6:.1f} MB of pages; reads at {7200 / read_s:.0f}x real time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, help="empty folder on the disk to measure")
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.state) as folder:
        runs = [
            ("50 wearers, 1 chunk/s each", 50, 50.0, arguments.seconds),
            ("replay, 200 chunks/s", 1, 200.0, 200 * arguments.seconds),
            ("flat out", 10, None, 1000),
        ]
        for i, (name, wearers, per_s, each) in enumerate(runs):
            asyncio.run(drive(Path(folder) / str(i), name, wearers, per_s, each))
        asyncio.run(day(Path(folder) / "day"))


if __name__ == "__main__":
    main()
