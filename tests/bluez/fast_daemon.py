"""`anyecg run` on a clock that is `speed` times as fast: python fast_daemon.py STATE SPEED ORIGIN_S UTC0_NS."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ble_kit import FastClock

from edge.cli import logs
from edge.config import load
from edge.daemon import Daemon


async def serve(state: Path, clock: FastClock) -> None:
    await Daemon(state, load(state), clock).run()


if __name__ == "__main__":
    folder, speed, origin_s, utc0_ns = sys.argv[1:]
    logs.configure()
    asyncio.run(serve(Path(folder), FastClock(float(speed), float(origin_s), int(utc0_ns))))
