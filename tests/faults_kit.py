"""A small disk of one's own, and a daemon in this process: what faults are injected into."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import Daemon, Wearable, cut, wait_for

from broker.mosquitto import Mosquitto
from edge.clock import Clock
from edge.config import load
from edge.daemon import Daemon as InProcess
from edge.sources.record import Record, read_record

BACK_S = 10.0
"""How soon everything is as it should be once the fault is over and the gateway runs."""
BUSY_S = 120.0
"""How long anything else may take on a busy machine."""


class SmallDisk:
    """An ext4 of a few MB in a file, mounted: making it takes root."""

    def __init__(self, mb: int, folder: Path) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        self._image = folder / "disk.ext4"
        self._image.touch()
        with self._image.open("r+b") as file:
            file.truncate(mb * 2**20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", str(self._image)], check=True)
        self._mount()

    def turn_read_only(self) -> None:
        """Let the file system give up as it does after a write that failed (`errors=remount-ro`)."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.path)], check=True)

    def repair(self) -> None:
        """Check the file system and mount it again; nobody may use it meanwhile."""
        self.close()
        done = subprocess.run(["e2fsck", "-f", "-y", str(self._image)], capture_output=True, check=False)
        assert done.returncode <= 1, done.stdout  # 1: errors corrected
        self._mount()

    def fill(self) -> None:
        """Write until nothing more goes."""
        with (self.path / "filler").open("ab", buffering=0) as file:
            for size in (65536, 512):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def empty(self) -> None:
        (self.path / "filler").unlink()

    def close(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)

    def _mount(self) -> None:
        done = subprocess.run(["mount", "-o", "loop", str(self._image), str(self.path)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting a small disk needs root and a loop device: {done.stderr}")


@pytest.fixture
def record(ecg_data: Path) -> Record:
    """A minute of mitdb 200."""
    return cut(read_record(ecg_data / "mitdb/200"), 60)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(64, tmp_path)
    yield disk
    disk.close()


@pytest.fixture
def broker(mosquitto_path: str, tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as broker:
        yield broker


def configure(state: Path, text: str) -> None:
    """Append to a daemon's configuration."""
    path = state / "config.toml"
    path.write_text(path.read_text() + text)


def started(daemon: Daemon) -> Daemon:
    """Start a daemon and wait until it answers."""
    daemon.start()
    daemon.wait_ready()
    return daemon


def back(wearable: Wearable) -> None:
    """Everything sent is acknowledged within `BACK_S`."""
    began_s = time.monotonic()
    wearable.result(BUSY_S)
    assert time.monotonic() - began_s <= BACK_S


def committed_to(wearable: Wearable, seconds: float, record: Record) -> None:
    """Wait until so much signal is acknowledged."""
    wait_for(lambda: wearable.told_committed() >= seconds * record.fs_hz, BUSY_S, f"{seconds} s of signal")


def in_this_process(state: Path, scenario: Callable[[InProcess], Awaitable[Any]], clock: Clock | None = None) -> None:
    """Run a daemon on `state` in this thread while `scenario` plays, then stop it."""

    async def play() -> None:
        daemon = InProcess(state, load(state), clock)
        running = asyncio.create_task(daemon.run())
        try:
            await scenario(daemon)
        finally:
            daemon._stop.set()
            await running

    asyncio.run(play())


async def until(is_true: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait on the event loop."""
    try:
        async with asyncio.timeout(timeout_s):
            while not is_true():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s} s for {what}") from None
