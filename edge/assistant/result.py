"""What a tool found: figures as numbers and as they are spoken, with citations and what they rest on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import time, timedelta
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from edge.assistant.localtime import NS, iso_utc, show_duration, spoken, to_local
from edge.assistant.period import Period
from edge.assistant.plan import Step
from edge.assistant.scan import READING_S
from edge.clock import Clock, SystemClock
from edge.store import queries

MAX_CITATIONS = 50
MAX_ITEMS = 50
NO_EYES = "the language model that is installed cannot look at signal"
BEAT_MARGIN_NS = 2 * NS
"""A cited beat is shown with this much around it."""

Kind = Literal["count", "duration_s", "utc", "bpm", "share", "ms", "change_bpm", "change_count", "change_ms", "text"]
Citation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure, as a number and as it is spoken."""

    kind: Kind
    value: Any
    """ns UTC, seconds, bpm, share 0-1, a whole number or a word."""

    def as_json(self) -> Any:
        if self.kind == "utc":
            return iso_utc(self.value)
        return round(self.value, 6) if isinstance(self.value, float) else self.value

    def spoken(self, tz: ZoneInfo) -> str:
        """Return the figure as text; every digit of an answer comes from here."""
        if self.kind == "utc":
            return spoken(self.value, tz)
        if self.kind == "duration_s":
            return show_duration(self.value)
        if self.kind == "bpm":
            return f"{self.value:.0f} bpm"
        if self.kind == "share":
            percent = 100 * self.value
            return (
                f"{percent:.0f} %" if percent >= 99.95 else f"{percent:.1f} %" if percent >= 1 else f"{percent:.2g} %"
            )
        if self.kind == "ms":
            return f"{self.value:.0f} ms"
        if self.kind.startswith("change"):
            unit = {"change_bpm": " bpm", "change_ms": " ms"}.get(self.kind, "")
            return f"{self.value:+,.0f}{unit}"
        return f"{self.value:,}" if self.kind == "count" else str(self.value)


@dataclass(slots=True)
class Result:
    """What one step found."""

    step: Step
    period: Period
    coverage: queries.Coverage
    facts: dict[str, Fact] = field(default_factory=dict)
    items: list[dict[str, Fact]] = field(default_factory=list)
    """Rows of a list, a trend or a summary, at most `MAX_ITEMS`."""
    citations: list[Citation] = field(default_factory=list)
    """{"event": id} or {"span": [start, end]} in UTC; at most `MAX_CITATIONS`."""
    versus: Period | None = None
    """The other period of a comparison."""
    now_ns: int = 0
    """When it was asked."""
    missing: str = ""
    """Why the tool can say nothing, in words; "" if it can."""
    source: Literal["database", "model"] = "database"
    """Who says so: `model` marks what the language model reads off the signal."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.step.as_json(),
            "period": self._shown(self.period),
            "facts": {name: fact.as_json() for name, fact in self.facts.items()},
            "items": [{name: fact.as_json() for name, fact in item.items()} for item in self.items],
            "coverage": asdict(self.coverage),
            **({"versus": self._shown(self.versus)} if self.versus is not None else {}),
            **({"missing": self.missing} if self.missing else {}),
            **({"source": self.source} if self.source != "database" else {}),
        }

    @staticmethod
    def _shown(period: Period) -> dict[str, str]:
        return {"phrase": period.phrase, "start": iso_utc(period.start_ns), "end": iso_utc(period.end_ns)}


class Eyes(Protocol):
    """The language model looking at signal through soft tokens."""

    name: str

    def localize(
        self, signal_mv: NDArray[np.float32], fs_hz: float, leads: tuple[str, ...], label: str
    ) -> list[tuple[float, float]]:
        """Return the spans, in seconds, in which a label is seen in at most 60 s of signal [leads, n], NaN missing."""
        ...

    def describe(self, signal_mv: NDArray[np.float32], fs_hz: float, leads: tuple[str, ...]) -> str:
        """Return what is seen in at most 60 s of signal, in words."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom and what a tool reads: fixed by code, not by the plan."""

    conn: Connection
    wearer: str
    tz: ZoneInfo
    now_ns: int
    eyes: Eyes | None = None
    blind: str = NO_EYES
    """Why there are none."""
    clock: Clock = field(default_factory=SystemClock)
    """By which the time for looking at signal is measured."""
    reading_s: float = READING_S


def is_one_day(period: Period, tz: ZoneInfo) -> bool:
    """Whether a period lies within one local day."""
    last = to_local(period.end_ns, tz) - timedelta(microseconds=1)
    return to_local(period.start_ns, tz).date() == last.date()


def spoken_period(period: Period, tz: ZoneInfo, now_ns: int) -> str:
    """Return `from Sat 28 Mar 22:00 to Sun 29 Mar 07:00 CEST`, with the year unless it is the current one."""
    start, end = to_local(period.start_ns, tz), to_local(period.end_ns, tz)
    year = f" {start.year}" if start.year != to_local(now_ns, tz).year else ""
    zones = (f" {start:%Z}" if start.utcoffset() != end.utcoffset() else "", f" {end:%Z}")
    day = f"{start:%a} {start.day} {start:%b}{year}"
    if not is_one_day(period, tz):
        return f"from {day} {start:%H:%M}{zones[0]} to {end:%a} {end.day} {end:%b %H:%M}{zones[1]}"
    if start.time() == end.time() == time():
        return f"on {day}"
    until = "24:00" if end.time() == time() else f"{end:%H:%M}"
    return f"on {day} from {start:%H:%M}{zones[0]} to {until}{zones[1]}"


def span(start_ns: int, end_ns: int) -> Citation:
    """Return the citation of a span of time."""
    return {"span": [iso_utc(start_ns), iso_utc(end_ns)]}
