"""Kept before acknowledged: what was acknowledged is there after SIGKILL, once, and nothing else is harmed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from intake_kit import Gateway, Sender, wave

from edge.chunk import MISSING, Chunk, Delivery

CHUNKS = 600
N = 40
ROUNDS = 6


def signal_and_chunks():  # type: ignore[no-untyped-def]
    x = wave(CHUNKS * N)
    return x, Sender().cut(x, [N] * CHUNKS)


def delivery(gateway: Gateway, chunk: Chunk) -> Delivery:
    """Write the number of `chunk` to stdout the moment it is acknowledged."""

    def committed() -> None:
        os.write(1, f"{chunk.seq}\n".encode())

    return Delivery(chunk, gateway.clock.utc_ns(), committed)


def child(state: Path, first: int, seed: int) -> None:
    """Send from chunk `first` on, out of order within windows of 12, reporting what is acknowledged."""
    _, chunks = signal_and_chunks()
    order = random.Random(seed)
    with Gateway(state) as gateway:

        async def send() -> None:
            for at in range(first, CHUNKS, 12):
                window = chunks[at : at + 12]
                order.shuffle(window)
                await asyncio.gather(*(gateway.intake.accept(delivery(gateway, chunk)) for chunk in window))
                await gateway.intake.tick()

        asyncio.run(send())


def test_nothing_acknowledged_is_lost_to_sigkill(tmp_path: Path) -> None:
    x, _ = signal_and_chunks()
    rng = random.Random(3)
    acknowledged: set[int] = set()
    killed = 0
    for seed in range(ROUNDS + 1):
        first = next((seq for seq in range(CHUNKS) if seq not in acknowledged), CHUNKS)
        process = subprocess.Popen(
            [sys.executable, __file__, str(tmp_path), str(first), str(seed)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        if seed < ROUNDS:
            for _ in range(rng.randint(0, 60)):
                line = process.stdout.readline()
                if line.endswith(b"\n"):
                    acknowledged.add(int(line))
            process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines(keepends=True)
        acknowledged |= {int(line) for line in rest if line.endswith(b"\n")}
        process.stdout.close()
        killed += process.wait(60) == -signal.SIGKILL
        if acknowledged:
            with Gateway(tmp_path) as gateway:
                gateway.tick()
                gateway.quiet()  # holes are gaps now, and what comes for them is late
                stored = gateway.samples()
                for seq in acknowledged:
                    there = stored[:, seq * N : (seq + 1) * N]
                    assert np.array_equal(there, x[:, seq * N : (seq + 1) * N]), f"chunk {seq} was acknowledged"
    assert killed >= ROUNDS // 2
    assert acknowledged == set(range(CHUNKS))
    with Gateway(tmp_path) as gateway:
        assert np.array_equal(gateway.samples(), x)
        assert gateway.final().gaps == []
        assert gateway.intake.frontier("anna", "strap") == (1, CHUNKS - 1)
        assert MISSING not in gateway.samples()


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
