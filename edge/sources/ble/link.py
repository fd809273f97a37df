"""The states of a link, and why a device is away, as far as a radio can tell.

| state | meaning |
|---|---|
| `searching` | not heard, and nothing is known of why: asleep, out of range, or connected to another phone |
| `asleep` | not heard; it was off the body when the link ended: straps sleep until they are worn |
| `out_of_range` | not heard, or not reached; the link broke while it was worn, or it is heard only faintly |
| `busy` | heard clearly, but connections fail: most often another phone or watch is connected to it |
| `no_bluetooth` | no adapter, adapter off, BlueZ or D-Bus away |
| `connecting`, `starting` | on the way |
| `streaming` | data come |
| `behind` | data come late, or faster than the store takes them: soon the oldest that wait are dropped |
| `low_battery` | data come; the battery is at 15 % or less |
| `off_body` | connected, the device says that its electrodes are off the body |
| `refused` | the firmware did not start the stream |
| `failed` | a connection failed or was lost, tried again after a jittered wait |
| `stopped` | not kept any more |
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edge.alerts.battery import LOW_PERCENT

State = Literal[
    "searching",
    "asleep",
    "out_of_range",
    "busy",
    "no_bluetooth",
    "connecting",
    "starting",
    "streaming",
    "behind",
    "low_battery",
    "off_body",
    "refused",
    "failed",
    "stopped",
]
AWAY: tuple[State, ...] = ("searching", "asleep", "out_of_range", "busy", "no_bluetooth", "refused", "failed")
"""No data come, and this is why."""
FAINT_DBM = -88
"""Heard no better than this, a device that cannot be connected to is too far away."""
BUSY_AFTER = 3
"""Failed connections in a row to a device that is heard."""
MAX_EVENTS = 64


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A change of state."""

    at_ns: int
    state: State
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {"at_ns": self.at_ns, "state": self.state, "reason": self.reason}


class Link:
    """State, history and times of one device's link."""

    def __init__(self, utc_ns: Callable[[], int], on_change: Callable[[LinkEvent], None]) -> None:
        self.state: State = "searching"
        self.reason = ""
        self.events: deque[LinkEvent] = deque(maxlen=MAX_EVENTS)
        self._utc_ns = utc_ns
        self._on_change = on_change
        self.away: tuple[State, str] | None = None
        """Why data did not come the last time they did not."""
        self._entered: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._since_s = time.monotonic()

    def enter(self, state: State, reason: str) -> None:
        """Note the state; only a change of it is an event."""
        changed = state != self.state or not self.events
        if changed:
            now_s = time.monotonic()
            self._seconds[self.state] += now_s - self._since_s
            self._since_s = now_s
            self._entered[state] += 1
        self.state, self.reason = state, reason
        if state in AWAY:
            self.away = (state, reason)
        if changed:
            event = LinkEvent(self._utc_ns(), state, reason)
            self.events.append(event)
            self._on_change(event)

    def snapshot(self) -> dict[str, Any]:
        """State, the newest events, and how often and for how many seconds each state was."""
        now = time.monotonic() - self._since_s
        seconds = {**self._seconds, self.state: self._seconds.get(self.state, 0.0) + now}
        return {
            "state": self.state,
            "reason": self.reason,
            "entered": dict(self._entered),
            "seconds_in": {state: round(value, 1) for state, value in seconds.items()},
            "events": [event.as_json() for event in list(self.events)[-8:]],
        }


def why_away(*, contact: bool | None, battery: int | None) -> tuple[State, str]:
    """Return why a device whose link has ended is probably not heard, from what it said last."""
    empty = "" if battery is None or battery > LOW_PERCENT else f"; its battery was at {battery} %"
    if contact is False:
        return "asleep", f"off the body when the link ended: it sleeps until it is worn{empty}"
    if contact is True:
        return "out_of_range", f"the link broke while it was worn{empty}"
    return "searching", f"not heard: asleep, out of range, or connected to another device{empty}"


def why_unreachable(failures: int, rssi: int | None, reason: str) -> tuple[State, str]:
    """Return what a failed connection to a device that was heard means; `failures` in a row, this one included."""
    if rssi is not None and rssi <= FAINT_DBM:
        return "out_of_range", f"heard at {rssi} dBm only, not reached: {reason}"
    if failures >= BUSY_AFTER:
        return "busy", f"heard, but {failures} connections failed: connected to another device? ({reason})"
    return "failed", reason


def while_streaming(*, contact: bool | None, battery: int | None, behind: str = "") -> tuple[State, str]:
    """Return the state of a link over which data come; `behind`: what does not keep up, if anything."""
    if behind:
        return "behind", behind
    if contact is False:
        return "off_body", "the device says that its electrodes are off the body"
    if battery is not None and battery <= LOW_PERCENT:
        return "low_battery", f"battery at {battery} %: charge or change it"
    return "streaming", ""
