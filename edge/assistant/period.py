"""Time words → a period in UTC, resolved by code in the wearer's time zone; `now` is given.

Conventions (every answer shows the resolved times): night 22:00-07:00, morning 05:00-12:00, afternoon 12:00-18:00,
evening 18:00-22:00; breakfast 07:00, lunch 12:00, dinner 18:00. "Last night" is the night that ended or ends today.
"Last 3 days" are 72 hours, "yesterday" is a calendar day of 23, 24 or 25 h, "last week" runs Monday to Monday,
"the past week" is 7 × 24 h. A clock time without am or pm means its most recent occurrence (`other_half` is the one
before); within a named day, 12 to 6 is taken as afternoon. Nothing reaches beyond now.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from edge.assistant.labels import LABEL_WORDS
from edge.assistant.localtime import NS, to_local, to_utc_ns
from edge.errors import BadInputError

Span = tuple[datetime, datetime]

_DAY = timedelta(days=1)
_PARTS = {"morning": (5, 12), "afternoon": (12, 18), "evening": (18, 22), "night": (22, 31)}
_MEALS = {
    "breakfast": time(7),
    "lunch": time(12),
    "lunchtime": time(12),
    "noon": time(12),
    "midday": time(12),
    "dinner": time(18),
    "supper": time(18),
    "midnight": time(0),
}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMBERS = {
    word: n
    for n, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
} | {"a": 1, "an": 1, "couple of": 2, "a couple of": 2}
_UNITS = {"second": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86_400, "week": 604_800}

_N = r"(?:\d{1,4}|an?|a couple of|couple of|" + "|".join(list(_NUMBERS)[1:13]) + r")"
_UNIT = r"(?:seconds?|minutes?|mins?|hours?|days?|weeks?)"
_CLOCK = (
    rf"(?:{'|'.join(sorted(_MEALS, key=len, reverse=True))}"
    r"|\d{1,2}(?:[:.]\d{2}(?::\d{2})?)?(?:\s*(?:am|pm|a\.m\.|p\.m\.)(?!\w)|\s*o'?clock)?)(?![\w%])"
)
_CLOCK_PLAIN = (
    rf"(?:{'|'.join(sorted(_MEALS, key=len, reverse=True))}"
    r"|\d{1,2}(?:[:.]\d{2}(?::\d{2})?)?\s*(?:am|pm|a\.m\.|p\.m\.)(?!\w)|\d{1,2}:\d{2})(?![\w%])"
)
"""A clock time that nothing else can be."""
_MONTH = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december"
    rf"|{'|'.join(_MONTHS)})(?!\w)"
)
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = (
    rf"(?:\d{{4}}-\d{{2}}-\d{{2}}|{_ORDINAL}(?: of)? {_MONTH}(?:,? \d{{4}})?"
    rf"|{_MONTH} {_ORDINAL}(?:,? \d{{4}})?)(?![\w:])"
)
_DAYNAME = (
    r"(?:today|all day|yesterday|(?:the )?day before yesterday"
    rf"|(?:last |this )?(?:{'|'.join(_WEEKDAYS)})|{_N} days? ago|{_DATE})"
)
_PART = r"(?:morning|afternoon|evening|night)"
_WHEN = (
    rf"(?:last night|all night(?: long)?|overnight|tonight|(?:on |in |during |over )?the night before(?: last)?"
    r"|(?:over |during )?(?:the |my |his |her )?day so far"
    r"|(?:compared (?:with|to) )?the previous night|(?:(?:of|for|during|in|over|through|throughout) )?the night"
    r"|(?:last |in |during |through(?:out)? )?(?:the )?(?:whole|entire) night|(?:my|his|her|their|(?<='s)) night"
    r"|so far today|today so far|(?:my|his|her|their|(?<='s)) day|(?:over|during|throughout|through) the (?:whole )?day"
    rf"|this {_PART}|in the {_PART}|(?:on )?{_DAYNAME} (?:in the )?{_PART}|(?:in the )?{_PART} of (?:{_DATE})"
    rf"|(?:on )?(?:the )?{_DAYNAME}|last evening)(?!\w)"
)
_LABELS = "|".join(words for _, words in LABEL_WORDS)
_LAST = r"(?:(?:in|over|during|for|within) )?(?:the )?(?:last|past)"


def _on(group: str) -> str:
    return rf"(?:,? (?:on |of )?(?P<{group}>{_WHEN}))?"


def _of(group: str) -> str:
    return rf"(?:(?P<{group}>{_WHEN}),? (?:at |around |about )?)?"


_DOING = r"(?:i|he|she|we|they) (?:[a-z]+ ){1,5}?"
"""What somebody did at a clock time: since I went to bed at 11."""
_NOW = r"(?:right )?now|the present"


_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)", re.IGNORECASE))
    for name, pattern in (
        (
            "range",
            rf"(?:(?P<day0>{_WHEN}),? )?(?:between|from) (?P<a>{_CLOCK}){_on('day1')}"
            rf" ?(?:and|to|until|till|-|–) ?(?P<b>{_CLOCK}){_on('day')}",
        ),
        (
            "range",
            rf"(?:(?P<day0>{_WHEN}),? )?(?:at )?(?P<a>{_CLOCK})(?P<day1>)"
            rf" ?(?:to|until|till|-|–) ?(?P<b>{_CLOCK_PLAIN}){_on('day')}",
        ),
        ("days", rf"(?:between|from) (?P<first>{_DAYNAME}) (?:and|to|until|till|through) (?P<last>{_DAYNAME})"),
        ("since_back", rf"since (?P<ago>{_N} {_UNIT}) ago"),
        ("until_now", rf"from {_of('day0')}(?P<a>{_CLOCK}){_on('day')} (?:until|till|to|up to) (?:{_NOW})"),
        ("until_now_day", rf"from (?P<day>{_WHEN}) (?:until|till|to|up to) (?:{_NOW})"),
        (
            "since_clock",
            rf"(?:since|after) (?:{_DOING}at |i had |i ate |my )?{_of('day0')}(?P<a>{_CLOCK}){_on('day')}",
        ),
        ("since", rf"since (?P<day>{_WHEN})"),
        ("before", rf"(?:before|until|up to) (?P<a>{_CLOCK}){_on('day')}"),
        ("half", rf"{_LAST} half(?: an)? hour"),
        ("back", rf"{_LAST} (?P<n>{_N}) (?P<unit>{_UNIT})"),
        ("back_one", rf"{_LAST} (?P<unit>minute|hour|day|24 ?h)"),
        ("past_week", r"(?:in|over|during|for|within) the (?:last|past) week|(?:the )?past week"),
        ("week", r"(?:this|last) (?:week|month)|(?:the )?week before last"),
        ("weekend", r"(?:(?:at |on |over |during )?(?:the |this |last )|on )weekend"),
        ("at", rf"(?:(?P<day0>{_WHEN}),? )?(?:at|around|about) (?P<a>{_CLOCK}){_on('day')}"),
        ("ago", rf"(?P<n>{_N}) (?P<unit>(?:seconds?|minutes?|mins?|hours?)) ago|half an hour ago"),
        ("when", _WHEN),
        ("now", r"right now|just now|now|currently|at the moment"),
        ("ever", r"ever|so far|of all time|overall|since the (?:beginning|start)|in the whole recording"),
    )
)


_EVENT = (
    rf"(?:the |my |his |her )?(?P<which>very first|first|last|latest|longest|long|most recent) (?P<label>{_LABELS})"
)
_ANCHORED = re.compile(
    rf"(?<![\w-])(?:(?:in |during |over |for )?(?:the )?(?:(?P<n>{_N}) )?(?P<unit>{_UNIT})"
    r" (?P<side>before|after|following)"
    rf"|(?P<during>during|while|in)) {_EVENT}(?: episodes?| runs?| beats?| events?)?(?: was (?:going on|happening))?"
    rf"(?: (?:of |on |in )?(?P<day>{_WHEN}))?(?!\w)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A period that hangs on an event: `seconds` before or after it, or while it lasted."""

    side: Literal["before", "after", "during"]
    seconds: float
    which: Literal["first", "last", "longest"]
    label: str
    within: str
    """Time words that say where to look for the event, "" for everywhere."""


def anchor(phrase: str) -> Anchor | None:
    """Return what a phrase hangs on; None if it hangs on the clock alone."""
    match = _ANCHORED.fullmatch(" ".join(phrase.split()))
    if match is None:
        return None
    which = match["which"].lower()
    kind: Literal["first", "last", "longest"] = (
        "first" if "first" in which else "longest" if "long" in which else "last"
    )
    label = next(name for name, words in LABEL_WORDS if re.fullmatch(words, match["label"], re.IGNORECASE))
    side: Literal["before", "after", "during"] = "during"
    seconds = 0.0
    if match["side"]:
        side = "before" if match["side"].lower() == "before" else "after"
        seconds = _length_s(match["n"] or "1", match["unit"])
    return Anchor(side, seconds, kind, label, match["day"] or "")


@dataclass(frozen=True, slots=True)
class Period:
    """[start_ns, end_ns) in UTC and the words it came from ("" for the default)."""

    phrase: str
    start_ns: int
    end_ns: int


def find_phrases(question: str) -> list[str]:
    """Return the time phrases of a question in order, as written, without overlaps."""
    found: list[tuple[int, int]] = [match.span() for match in _ANCHORED.finditer(question)]
    for name, pattern in _PATTERNS:
        for match in pattern.finditer(question):
            start, end = match.span()
            if name == "at" and _counts_things(match, question):
                continue  # "about 3 episodes"
            if all(end <= a or b <= start for a, b in found):
                found.append((start, end))
    phrases = [re.sub(r"^on (?=yesterday|today|last|this|all)", "", question[a:b]) for a, b in sorted(found)]
    narrower = [phrase for phrase in phrases if phrase.lower() not in ("ever", "so far", "overall")]
    return narrower or phrases


def _counts_things(match: re.Match[str], question: str) -> bool:
    """Whether `about 3` says how many: a bare number without a day, before a word."""
    if not match["a"].isdigit() or match["day"] or match["day0"] or match[0].lower().startswith("at"):
        return False
    return re.match(r"\W*(?:$|(?:and|or|did|was|were|is|do|does)\b)", question[match.end() :], re.IGNORECASE) is None


def default_period(now_ns: int) -> Period:
    """The past 24 hours: what a question without time words is about."""
    return Period("", now_ns - 86_400 * NS, now_ns)


def resolve(phrase: str, now_ns: int, tz: ZoneInfo) -> Period:
    """Return the period that a time phrase means at `now_ns` in a wearer's time zone, clipped to now.

    Raises:
        BadInputError: not a time phrase, in the future, or local times that the clocks skipped.
    """
    words = " ".join(phrase.split())
    now = to_local(now_ns, tz).replace(tzinfo=None)
    for name, pattern in _PATTERNS:
        match = pattern.fullmatch(words)
        if match is None:
            continue
        back_s = _back_s(name, match)
        if back_s is not None:
            return Period(phrase, now_ns - round(back_s * NS), now_ns)
        if name == "ever":
            return Period(phrase, 0, now_ns)
        start, end = _RESOLVERS[name](match, now)
        start_ns = to_utc_ns(start, tz, "start")
        end_ns = now_ns if end >= now else min(to_utc_ns(end, tz, "end"), now_ns)
        if start_ns >= now_ns:
            raise BadInputError(f"{phrase!r} lies in the future")
        if start_ns >= end_ns:
            raise BadInputError(f"{phrase!r}: the clocks skipped these times on that day")
        return Period(phrase, start_ns, end_ns)
    raise BadInputError(f"{phrase!r} is not a time I know")


def other_half(phrase: str, now_ns: int, tz: ZoneInfo) -> Period | None:
    """Return the period twelve hours before the one that clock times without am, pm or day mean; None for others."""
    words = " ".join(phrase.split())
    for name, pattern in _PATTERNS:
        match = pattern.fullmatch(words)
        if match is None:
            continue
        named = match.groupdict()
        if name not in ("range", "at", "since_clock") or any(named.get(day) for day in ("day", "day0", "day1")):
            return None
        if any(len(_clocks(clock)) < 2 for clock in (named.get("a"), named.get("b")) if clock):
            return None
        start_ns = resolve(phrase, now_ns, tz).start_ns
        earlier = resolve(phrase, now_ns - 43_200 * NS, tz)
        end_ns = now_ns if name == "since_clock" else earlier.end_ns
        return Period(phrase, earlier.start_ns, end_ns) if earlier.start_ns < start_ns else None
    return None


def _back_s(name: str, match: re.Match[str]) -> float | None:
    """Return how far before now the period begins when it is a length of time up to now."""
    if name == "half":
        return 1800.0
    if name == "now":
        return 300.0
    if name == "past_week":
        return 604_800.0
    if name == "back_one":
        return float(_UNITS.get(match["unit"].lower(), 86_400))
    if name == "back":
        return _length_s(match["n"], match["unit"])
    if name == "since_back":
        n, unit = match["ago"].rsplit(" ", 1)
        return _length_s(n, unit)
    return None


def _length_s(n: str, unit: str) -> float:
    count = int(n) if n.isdigit() else _NUMBERS[n.lower()]
    return float(count * _UNITS[unit.lower().rstrip("s")])


def _clocks(text: str) -> list[time]:
    """Return the times of day a clock text may mean, one or two."""
    text = text.lower().replace("o'clock", "").replace("oclock", "").strip()
    if text in _MEALS:
        return [_MEALS[text]]
    match = re.fullmatch(r"(\d{1,2})(?:[:.](\d{2})(?::(\d{2}))?)?\s*([ap]\.?m\.?)?", text)
    hour, minute, second = (int(match[1]), int(match[2] or 0), int(match[3] or 0)) if match else (99, 0, 0)
    if match is None or max(minute, second) > 59 or hour > 24 or (match[4] and not 1 <= hour <= 12):
        raise BadInputError(f"{text!r} is not a time of day")
    if match[4]:
        return [time(hour % 12 + (12 if match[4].startswith("p") else 0), minute, second)]
    if hour == 24 or hour == 0 or hour > 12 or match[1].startswith("0"):
        return [time(hour % 24, minute, second)]
    return [time(hour % 12, minute, second), time(hour % 12 + 12, minute, second)]


def _named_day(text: str, now: datetime) -> date:
    text = text.lower().strip().removeprefix("on ").removeprefix("the ")
    today = now.date()
    if text in ("today", "all day"):
        return today
    if text == "yesterday":
        return today - _DAY
    if text == "day before yesterday":
        return today - 2 * _DAY
    ago = re.fullmatch(rf"({_N}) days? ago", text)
    if ago:
        return today - timedelta(days=_length_s(ago[1], "day") / 86_400)
    weekday = text.removeprefix("last ").removeprefix("this ")
    if weekday in _WEEKDAYS:
        back = (today.weekday() - _WEEKDAYS.index(weekday)) % 7
        return today - timedelta(days=back or (7 if text.startswith("last ") else 0))
    return _date(text, today)


def _date(text: str, today: date) -> date:
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return date.fromisoformat(text)
        month = next(n for n, m in enumerate(_MONTHS, 1) if re.search(rf"\b{m}", text))
        numbers = [int(n) for n in re.findall(r"\d+", text)]
        year = numbers[1] if len(numbers) > 1 else today.year
        named = date(year, month, numbers[0])
        return named if len(numbers) > 1 or named <= today else named.replace(year=year - 1)
    except (ValueError, StopIteration, IndexError):
        raise BadInputError(f"{text!r} is not a date") from None


def _at(day: date, hour: int) -> datetime:
    if not 1970 <= day.year < 2200:
        raise BadInputError(f"{day} lies outside 1970-2199")
    return datetime.combine(day, time()) + timedelta(hours=hour)


_THIS_NIGHT = (
    r"last night|overnight|this night|all night(?: long)?|(?:(?:of|for|during|in|over|through|throughout) )?the night"
    r"|(?:last |in |during |through(?:out)? )?(?:the )?(?:whole|entire) night|(?:(?:my|his|her|their) )?night"
)


def _when(text: str, now: datetime) -> Span:
    """Return the local span of a day, a part of a day, or a night."""
    text = " ".join(text.lower().split())
    today = now.date()
    if text == "tonight":
        evening = today if now.hour >= 7 else today - _DAY
        return _at(evening, 18), _at(evening, 31)
    if re.fullmatch(
        r"today so far|so far today|(?:my|his|her|their)? ?day|\w+ the (?:whole )?day|(?:\w+ )?(?:\w+ )?day so far",
        text,
    ):
        return _at(today, 0), _at(today, 24)
    if "previous night" in text or "the night before" in text:
        return _at(today - 2 * _DAY, 22), _at(today - _DAY, 7)
    if re.fullmatch(_THIS_NIGHT, text):
        return _at(today - _DAY, 22), _at(today, 7)
    if text == "last evening":
        return _at(today - _DAY, 18), _at(today - _DAY, 22)
    of_date = re.fullmatch(rf"(?:in the )?({_PART}) of (.+)", text)
    named = re.fullmatch(rf"(?:this|in the) ({_PART})", text)
    both = re.fullmatch(rf"(.+?) (?:in the )?({_PART})", text)
    if named:
        first, last = _PARTS[named[1]]
        day = today if _at(today, first) < now else today - _DAY
    elif of_date:
        (first, last), day = _PARTS[of_date[1]], _named_day(of_date[2], now)
    elif both:
        (first, last), day = _PARTS[both[2]], _named_day(both[1], now)
    else:
        day = _named_day(text, now)
        first, last = 0, 24
    return _at(day, first), _at(day, last)


def _occurrences(clock: str, around: Span) -> list[datetime]:
    day = around[0].date() - _DAY
    times = _clocks(clock)
    found = []
    while day <= around[1].date() + _DAY:
        found += [datetime.combine(day, t) for t in times]
        day += _DAY
    return found


def _instant(clock: str, day: str | None, now: datetime) -> datetime:
    """Return the occurrence of a clock text within the named day, or the most recent one before now."""
    if day is None:
        return max(t for t in _occurrences(clock, (now - _DAY, now)) if t <= now)
    span = _when(day, now)
    inside = [t for t in _occurrences(clock, span) if span[0] <= t < span[1]]
    if inside:
        return _likeliest(inside)
    wide = _wide(day, span)
    inside = [t for t in _occurrences(clock, wide) if wide[0] <= t < wide[1]]
    if not inside:
        raise BadInputError(f"{clock!r} does not fall into {day!r}")
    return inside[0]


def _wide(day: str, span: Span) -> Span:
    """Return the part of a day as wide as people mean it beside a clock time: 3 in the morning, 8 last night."""
    midnight = datetime.combine(span[0].date(), time())
    if "morning" in day.lower():
        return midnight, midnight + timedelta(hours=12)
    if re.search("night|evening", day.lower()):
        return midnight + timedelta(hours=17), midnight + timedelta(hours=36 if "night" in day.lower() else 24)
    return span


def _likeliest(times: list[datetime]) -> datetime:
    return next((t for t in times if 7 <= t.hour <= 18), times[0])


def _range(match: re.Match[str], now: datetime) -> Span:
    if match["day1"] and match["day"]:
        return _instant(match["a"], match["day1"], now), _instant(match["b"], match["day"], now)
    day = match["day1"] or match["day"] or match["day0"]
    around = _when(day, now) if day else (now - 2 * _DAY, now)
    starts, ends = _occurrences(match["a"], around), _occurrences(match["b"], around)
    pairs = []
    for start in starts:
        end = min((e for e in ends if e > start), default=None)
        if end is not None and start == max(s for s in starts if s < end):
            pairs.append((start, end))
    if day is None:
        return max(p for p in pairs if p[1] <= now)
    inside = {start: end for start, end in pairs if around[0] <= start < around[1]}
    if not inside:
        wide = _wide(day, around)
        inside = {start: end for start, end in pairs if wide[0] <= start < wide[1]}
    if not inside:
        raise BadInputError(f"{match[0]!r}: these times do not fall into {day!r}")
    start = _likeliest(sorted(inside))
    return start, inside[start]


def _since_clock(match: re.Match[str], now: datetime) -> Span:
    day = match["day0"] or match["day"]
    start = _instant(match["a"], day, now)
    if day and match[0].lower().startswith("after"):
        return start, _when(day, now)[1]
    return start, now


def _before(match: re.Match[str], now: datetime) -> Span:
    if match["day"] and match["a"].lower() == "midnight":  # that of the evening, or it would be the day before
        start, end = _when(match["day"], now)
        return start, end if end.time() == time() else datetime.combine(end.date(), time())
    end = _instant(match["a"], match["day"], now)
    midnight = datetime.combine((end - timedelta(microseconds=1)).date(), time())
    return (min(_when(match["day"], now)[0], midnight) if match["day"] else midnight), end


def _clock_around(match: re.Match[str], now: datetime) -> Span:
    at = _instant(match["a"], match["day0"] or match["day"], now)
    margin = timedelta(minutes=30 if re.search(r"\b(?:around|about)\b", match[0].lower()) else 5)
    if re.search(r":\d\d:\d\d", match["a"]):
        margin = timedelta(seconds=30)
    return at - margin, at + margin


def _ago(match: re.Match[str], now: datetime) -> Span:
    if match["n"] is None:
        unit_s, back_s = 1800.0, 1800.0
    else:
        unit_s, back_s = _length_s("1", match["unit"]), _length_s(match["n"], match["unit"])
    at = now - timedelta(seconds=back_s)
    return at - timedelta(seconds=unit_s / 2), at + timedelta(seconds=unit_s / 2)


def _week(match: re.Match[str], now: datetime) -> Span:
    today = now.date()
    if match[0].lower().endswith("before last"):
        monday = today - timedelta(days=today.weekday() + 14)
        return _at(monday, 0), _at(monday + 7 * _DAY, 0)
    which, unit = match[0].lower().split()
    if unit == "week":
        monday = today - timedelta(days=today.weekday())
        first, last = (monday, monday + 7 * _DAY) if which == "this" else (monday - 7 * _DAY, monday)
    else:
        first = today.replace(day=1)
        last = (first + 32 * _DAY).replace(day=1)
        if which == "last":
            first, last = (first - _DAY).replace(day=1), first
    return _at(first, 0), _at(last, 0)


def _weekend(_: re.Match[str], now: datetime) -> Span:
    saturday = now.date() - timedelta(days=(now.weekday() - 5) % 7)
    return _at(saturday, 0), _at(saturday, 48)


def _days(match: re.Match[str], now: datetime) -> Span:
    first, last = _named_day(match["first"], now), _named_day(match["last"], now)
    if last < first and not re.search(r"\d", match["first"]):
        first -= timedelta(days=7)
    return _at(first, 0), _at(last, 24)


_RESOLVERS: dict[str, Callable[[re.Match[str], datetime], Span]] = {
    "range": _range,
    "days": _days,
    "until_now": _since_clock,
    "until_now_day": lambda match, now: (_when(match["day"], now)[0], now),
    "since_clock": _since_clock,
    "since": lambda match, now: (_when(match["day"], now)[0], now),
    "before": _before,
    "week": _week,
    "weekend": _weekend,
    "at": _clock_around,
    "ago": _ago,
    "when": lambda match, now: _when(match[0], now),
}
