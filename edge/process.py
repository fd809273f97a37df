"""What this process uses."""

from __future__ import annotations

import re
from pathlib import Path


def rss_mb() -> float:
    """Return the resident memory now, in MiB."""
    return _field_mb("VmRSS")


def peak_rss_mb() -> float:
    """Return the most resident memory since the program started, in MiB (unlike getrusage, not its parent's)."""
    return _field_mb("VmHWM")


def _field_mb(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
