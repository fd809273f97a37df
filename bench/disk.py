"""The disk alone, beside what is measured."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path


class DiskProbe:
    """What the disk alone takes: 4 kB written and synchronised twice a second, beside the daemon's database.

    A stall here is a stall of the machine; alerts are committed before they are told and cannot be faster.
    """

    def __init__(self, folder: Path) -> None:
        self.took_s: list[float] = []
        self._path = folder / "probe"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> DiskProbe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            while not self._stop.wait(0.5):
                file.write(bytes(4096))
                began_s = time.monotonic()
                os.fdatasync(file.fileno())
                self.took_s.append(time.monotonic() - began_s)
