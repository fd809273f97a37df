"""`anyecg run` whose wall clock jumps when told to: python -m bench.soak_daemon STATE.

SIGUSR1 sets it an hour ahead, SIGUSR2 right again. The machine's own clock belongs to
everybody on it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from edge.cli import logs
from edge.clock import SystemClock
from edge.config import load
from edge.daemon import Daemon

JUMP_NS = 3600 * 10**9


class JumpingClock(SystemClock):
    """The machine's clock, off by an hour at times."""

    offset_ns = 0

    def utc_ns(self) -> int:
        return super().utc_ns() + self.offset_ns


async def serve(state: Path) -> None:
    clock = JumpingClock()
    loop = asyncio.get_running_loop()
    for number, offset_ns in ((signal.SIGUSR1, JUMP_NS), (signal.SIGUSR2, 0)):
        loop.add_signal_handler(number, setattr, clock, "offset_ns", offset_ns)
    await Daemon(state, load(state), clock).run()


if __name__ == "__main__":
    os.umask(0o077)
    logs.configure()
    asyncio.run(serve(Path(sys.argv[1])))
