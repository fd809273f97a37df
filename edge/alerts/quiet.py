"""Hours in which a wearer, or who cares for them, sleeps."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from edge.config import Quiet

NS = 1_000_000_000


def quiet_until_ns(quiet: Quiet | None, timezone: str, now_ns: int) -> int | None:
    """Return when the quiet hours end that are in force at `now_ns` (UTC), None outside of them.

    Wall times are those of the zone, clock changes included: hours that a change skips do not happen.
    """
    if quiet is None or quiet.start == quiet.end:
        return None
    zone = ZoneInfo(timezone)
    now = datetime.fromtimestamp(now_ns / NS, UTC).astimezone(zone)
    start, end = (time.fromisoformat(text) for text in (quiet.start, quiet.end))
    for days in (-1, 0):
        day = now.date() + timedelta(days=days)
        begins = datetime.combine(day, start, zone)
        ends = datetime.combine(day if start < end else day + timedelta(days=1), end, zone)
        if begins.astimezone(UTC) <= now.astimezone(UTC) < ends.astimezone(UTC):
            return round(ends.timestamp()) * NS
    return None
