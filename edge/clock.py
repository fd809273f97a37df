"""Wall and monotonic time, injected so that tests own it. Analysis never uses a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from edge.errors import BadInputError


class Clock(Protocol):
    """Where a room gets the time from."""

    def utc_ns(self) -> int:
        """Wall time, ns since 1970-01-01 UTC; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""
        ...


class SystemClock:
    """The machine's own clock."""

    def utc_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to (tests, simulations)."""

    def __init__(self, utc_ns: int = 1_700_000_000_000_000_000) -> None:
        self._utc_ns = utc_ns
        self._monotonic_s = 0.0

    def utc_ns(self) -> int:
        return self._utc_ns

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both times forward by `seconds`."""
        self._utc_ns += round(seconds * 1e9)
        self._monotonic_s += seconds

    def step_wall(self, seconds: float) -> None:
        """Move wall time alone, as an NTP step or a person would."""
        self._utc_ns += round(seconds * 1e9)


def utc_ns_of(start: str) -> int:
    """Return the ISO 8601 time given as `--start` in ns since 1970; without an offset it is UTC.

    Raises:
        BadInputError: it is no such time.
    """
    try:
        when = datetime.fromisoformat(start)
    except ValueError:
        raise BadInputError(f"--start {start!r} is no ISO 8601 time such as 2025-01-14T22:00:00Z") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return round((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6) * 1000
