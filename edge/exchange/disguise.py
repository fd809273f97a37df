"""Who is named and when it was, in what leaves the house: the truth, or nothing that leads back to a person.

A hidden export has no names, no identifiers of ours, no free text and no dates: its first day is 1 January 1985 (EDF+,
clause 2.1.3.3), the time of day stays, and so do all durations. The ECG itself stays: an ECG can be recognised by
whoever has another one of the same person.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

from edge.assistant.localtime import NS, show, to_local

FIRST_DAY = datetime(1985, 1, 1)
HIDDEN_WEARER = "X"


@dataclass(frozen=True, slots=True)
class Disguise:
    """What a name, an instant and a text become."""

    wearer: str
    tz: tzinfo
    shift_ns: int = 0
    hidden: bool = False
    _devices: dict[str, str] = field(default_factory=dict)
    _key: bytes = b""

    def time(self, utc_ns: int) -> int:
        """Return the instant to be written, ns UTC."""
        return utc_ns + self.shift_ns

    def show(self, utc_ns: int) -> str:
        """Return the local time to be written."""
        return show(self.time(utc_ns), self.tz)

    def local(self, utc_ns: int) -> datetime:
        """Return the local time to be written, as a datetime."""
        return to_local(self.time(utc_ns), self.tz)

    def device(self, name: str) -> str:
        """Return the name of a device, or its number."""
        if not self.hidden:
            return name
        return self._devices.setdefault(name, f"device-{len(self._devices) + 1}")

    def event(self, event_id: str) -> str:
        """Return an event's id, or one that cannot be traced: ids are hashes of names."""
        if not self.hidden:
            return event_id
        return hashlib.blake2b(event_id.encode(), key=self._key, digest_size=8).hexdigest()

    def text(self, words: str) -> str:
        """Return free text, or nothing: it may name anybody."""
        return "" if self.hidden else words

    def evidence(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return figures only where hidden, and none that is an instant (`at`, which symptoms once had)."""
        return {k: v for k, v in values.items() if not self.hidden or (isinstance(v, int | float) and k != "at")}


def plain(wearer: str, tz: tzinfo) -> Disguise:
    """Return the truth."""
    return Disguise(wearer, tz)


def hide(tz: tzinfo, first_ns: int, key: bytes) -> Disguise:
    """Return a disguise for an export whose first instant is `first_ns`.

    Args:
        tz: the wearer's zone; its offset at `first_ns` holds throughout, its name is not told.
        first_ns: ns UTC.
        key: random bytes, drawn once per export and kept nowhere.
    """
    local = to_local(first_ns, tz)
    fixed = timezone(local.utcoffset() or timedelta(), "local time")
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=fixed)
    days = FIRST_DAY.replace(tzinfo=UTC) - midnight.replace(tzinfo=UTC)
    return Disguise(HIDDEN_WEARER, fixed, days.days * 86_400 * NS, True, {}, key)
