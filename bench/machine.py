"""What the figures were measured on, in one line: without it no figure means anything."""

from __future__ import annotations

import os
import platform
import sqlite3
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and what else it was doing when the measurement began."""

    processor: str
    cores: int
    memory_gb: float
    python: str
    onnxruntime: str
    sqlite: str
    load: tuple[float, float, float]
    """Load average of 1, 5 and 15 minutes at the start: what other processes took."""

    @property
    def line(self) -> str:
        load = " ".join(f"{x:.1f}" for x in self.load)
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gb:.0f} GB, Python {self.python}, "
            f"onnxruntime {self.onnxruntime}, SQLite {self.sqlite}, load before {load}"
        )


def this_machine() -> Machine:
    """Look at the machine now."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        python=platform.python_version(),
        onnxruntime=_onnxruntime(),
        sqlite=sqlite3.sqlite_version,
        load=os.getloadavg(),
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _onnxruntime() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "missing"
