"""Local wall time and UTC, across clock changes; instants as people type them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge.errors import BadInputError

NS = 1_000_000_000
_MAX_NS = 7_258_118_400 * NS
"""2200-01-01; times beyond it are typing errors."""
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name.

    Raises:
        BadInputError: the name is unknown on this machine.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInputError(f"unknown time zone {name!r}: give an IANA name such as Europe/Berlin") from None


def to_local(utc_ns: int, tz: tzinfo) -> datetime:
    """Return the aware local time of a UTC instant, to the microsecond."""
    return datetime.fromtimestamp(utc_ns // NS, tz).replace(microsecond=utc_ns % NS // 1000)


def to_utc_ns(local: datetime, tz: ZoneInfo, edge: Literal["start", "end"] = "start") -> int:
    """Return the UTC instant of a naive local time.

    A time that occurs twice means its first occurrence at the start of a period and its second at the end; a time
    that the clocks skipped means the instant of the change.

    Raises:
        BadInputError: the year lies outside 1970-2199.
    """
    if not 1970 <= local.year < 2200:
        raise BadInputError(f"{local:%Y-%m-%d} lies outside 1970-2199")
    aware = local.replace(tzinfo=tz, fold=1 if edge == "end" else 0)
    at = aware.astimezone(UTC)
    if at.astimezone(tz).replace(tzinfo=None) != local:
        at = _clock_change(local, tz)
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000


def _clock_change(skipped: datetime, tz: ZoneInfo) -> datetime:
    low = skipped.replace(tzinfo=tz, fold=1).astimezone(UTC)
    high = skipped.replace(tzinfo=tz, fold=0).astimezone(UTC)
    before = low.astimezone(tz).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        if middle.astimezone(tz).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def iso_utc(utc_ns: int) -> str:
    """Return `2026-03-29T01:00:00.000Z`."""
    at = datetime.fromtimestamp(utc_ns // NS, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{utc_ns % NS // 1_000_000:03d}Z"


def show(utc_ns: int, tz: tzinfo) -> str:
    """Return `Sun 29 Mar 2026 03:00:00 CEST`."""
    at = to_local(utc_ns, tz)
    return f"{at:%a} {at.day} {at:%b %Y %H:%M:%S %Z}"


def show_minute(utc_ns: int, tz: tzinfo) -> str:
    """Return `Sun 29 Mar 2026 03:00 CEST`."""
    at = to_local(utc_ns, tz)
    return f"{at:%a} {at.day} {at:%b %Y %H:%M %Z}"


def spoken(utc_ns: int, tz: tzinfo) -> str:
    """Return `Sun 29 Mar 03:20`, with seconds where there are any, with the zone in an hour that comes twice."""
    at = to_local(utc_ns, tz)
    seconds = f":{at:%S}" if at.second else ""
    twice = at.replace(fold=0).utcoffset() > at.replace(fold=1).utcoffset()  # type: ignore[operator]
    return f"{at:%a} {at.day} {at:%b %H:%M}{seconds}" + (f" {at:%Z}" if twice else "")


def show_duration(seconds: float) -> str:
    """Return `2 h 5 min`, `3 min 10 s` or `4.2 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def parse_instant(text: str, now_ns: int, tz: ZoneInfo, edge: Literal["start", "end"] = "start") -> int:
    """Return the instant a person typed, ns UTC.

    Understood: ISO 8601 with or without offset (without: local time), a date (`edge` chooses its first or last
    instant), a length of time before now (`90m`, `24h`, `7d`), `now`, and the time words of `edge.assistant.period`.

    Raises:
        BadInputError: none of these.
    """
    from edge.assistant.period import resolve

    words = text.strip()
    ago = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*(s|m|min|h|d|w)", words.lower())
    if ago:
        return _checked(text, now_ns - round(float(ago[1]) * _UNIT_S[ago[2]] * NS))
    if words.lower() == "now":
        return now_ns
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", words):
            day = datetime.combine(date.fromisoformat(words), datetime.min.time())
            return to_utc_ns(day + timedelta(days=1 if edge == "end" else 0), tz)
        at = datetime.fromisoformat(words)
    except (ValueError, OverflowError):
        pass
    else:
        if at.tzinfo is None:
            return to_utc_ns(at, tz, edge)
        return _checked(text, round((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000)
    try:
        period = resolve(words, now_ns, tz)
    except BadInputError as error:
        raise BadInputError(
            f"cannot read the time {text!r}: give an ISO time (2026-03-29T07:30), a date (2026-03-29), "
            f"a length before now (24h, 90m, 7d) or words (yesterday, last night, since lunch): {error}"
        ) from None
    return period.start_ns if edge == "start" else period.end_ns


def _checked(text: str, utc_ns: int) -> int:
    if not 0 <= utc_ns < _MAX_NS:
        raise BadInputError(f"the time {text!r} lies outside 1970-2199")
    return utc_ns
