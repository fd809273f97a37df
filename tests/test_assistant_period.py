"""Time words, resolved in a wearer's zone: written truths, clock changes, nonsense."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.assistant.localtime import parse_instant, show, show_duration, to_utc_ns, zone
from edge.assistant.period import find_phrases, other_half, resolve
from edge.assistant.spelling import spell
from edge.errors import BadInputError

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
NS = 1_000_000_000


def at(text: str, tz: ZoneInfo = BERLIN) -> int:
    return to_utc_ns(datetime.fromisoformat(text), tz)


WEDNESDAY = at("2026-05-20T15:30")


@pytest.mark.parametrize(
    ("phrase", "start", "end"),
    [
        ("today", "2026-05-20T00:00", "2026-05-20T15:30"),
        ("yesterday", "2026-05-19T00:00", "2026-05-20T00:00"),
        ("the day before yesterday", "2026-05-18T00:00", "2026-05-19T00:00"),
        ("last night", "2026-05-19T22:00", "2026-05-20T07:00"),
        ("the night before last", "2026-05-18T22:00", "2026-05-19T07:00"),
        ("this morning", "2026-05-20T05:00", "2026-05-20T12:00"),
        ("this afternoon", "2026-05-20T12:00", "2026-05-20T15:30"),
        ("yesterday evening", "2026-05-19T18:00", "2026-05-19T22:00"),
        ("last hour", "2026-05-20T14:30", "2026-05-20T15:30"),
        ("in the past half hour", "2026-05-20T15:00", "2026-05-20T15:30"),
        ("past 24 hours", "2026-05-19T15:30", "2026-05-20T15:30"),
        ("the last three days", "2026-05-17T15:30", "2026-05-20T15:30"),
        ("between 2 and 3", "2026-05-20T14:00", "2026-05-20T15:00"),
        ("between 2 and 3 am", "2026-05-20T02:00", "2026-05-20T03:00"),
        ("between 2 and 3 last night", "2026-05-20T02:00", "2026-05-20T03:00"),
        ("between 11 and 1 pm", "2026-05-20T11:00", "2026-05-20T13:00"),
        ("from 22:00 to 6:00", "2026-05-19T22:00", "2026-05-20T06:00"),
        ("from 10 pm last night to 6 am this morning", "2026-05-19T22:00", "2026-05-20T06:00"),
        ("since lunch", "2026-05-20T12:00", "2026-05-20T15:30"),
        ("since midnight", "2026-05-20T00:00", "2026-05-20T15:30"),
        ("since 10 pm yesterday", "2026-05-19T22:00", "2026-05-20T15:30"),
        ("since Monday", "2026-05-18T00:00", "2026-05-20T15:30"),
        ("before 6 this morning", "2026-05-20T00:00", "2026-05-20T06:00"),
        ("after 10 pm last night", "2026-05-19T22:00", "2026-05-20T07:00"),
        ("at 3 am", "2026-05-20T02:55", "2026-05-20T03:05"),
        ("an hour ago", "2026-05-20T14:00", "2026-05-20T15:00"),
        ("on Monday", "2026-05-18T00:00", "2026-05-19T00:00"),
        ("last Wednesday", "2026-05-13T00:00", "2026-05-14T00:00"),
        ("on 2026-05-17", "2026-05-17T00:00", "2026-05-18T00:00"),
        ("on 17 May", "2026-05-17T00:00", "2026-05-18T00:00"),
        ("on May 17th, 2025", "2025-05-17T00:00", "2025-05-18T00:00"),
        ("on 24 December", "2025-12-24T00:00", "2025-12-25T00:00"),
        ("this week", "2026-05-18T00:00", "2026-05-20T15:30"),
        ("last week", "2026-05-11T00:00", "2026-05-18T00:00"),
        ("in the past week", "2026-05-13T15:30", "2026-05-20T15:30"),
        ("last month", "2026-04-01T00:00", "2026-05-01T00:00"),
        ("at the weekend", "2026-05-16T00:00", "2026-05-18T00:00"),
        ("now", "2026-05-20T15:25", "2026-05-20T15:30"),
        ("week before last", "2026-05-04T00:00", "2026-05-11T00:00"),
        ("day so far", "2026-05-20T00:00", "2026-05-20T15:30"),
        ("from Tuesday noon until now", "2026-05-19T12:00", "2026-05-20T15:30"),
        ("since yesterday 5 pm", "2026-05-19T17:00", "2026-05-20T15:30"),
        ("since she went to bed at 11 last night", "2026-05-19T23:00", "2026-05-20T15:30"),
        ("yesterday at 9 am", "2026-05-19T08:55", "2026-05-19T09:05"),
        ("around 2 yesterday afternoon", "2026-05-19T13:30", "2026-05-19T14:30"),
        ("between midnight and 3:30 this morning", "2026-05-20T00:00", "2026-05-20T03:30"),
        ("at 8 last night", "2026-05-19T19:55", "2026-05-19T20:05"),
        ("at 05:48:20", "2026-05-20T05:47:50", "2026-05-20T05:48:50"),
        ("before midnight yesterday", "2026-05-19T00:00", "2026-05-20T00:00"),
        ("2 to 3 am", "2026-05-20T02:00", "2026-05-20T03:00"),
    ],
)
def test_a_phrase_means_this_period(phrase: str, start: str, end: str) -> None:
    period = resolve(phrase, WEDNESDAY, BERLIN)
    assert (show(period.start_ns, BERLIN), show(period.end_ns, BERLIN)) == (
        show(at(start), BERLIN),
        show(at(end), BERLIN),
    )
    assert find_phrases(f"How many pauses were there {phrase}, please?") == [phrase]


def test_spoken_clock_times_and_lengths_are_figures() -> None:
    said = {
        "between half past two and quarter to four": "between 2:30 and 3:45",
        "at three this morning": "at 3 am",
        "in the past fortnight": "in the past 2 weeks",
        "the half hour before the last pause": "the 30 minutes before the last pause",
        "after one pause, a couple of PVCs": "after one pause, a couple of PVCs",
        "was it complete, a second time": "was it complete, a second time",
    }
    assert {text: spell(text) for text in said} == said


def test_the_other_half_of_the_day_is_for_clock_times_that_leave_it_open() -> None:
    earlier = other_half("between 5 and 6", WEDNESDAY, BERLIN)
    assert earlier is not None
    assert earlier.start_ns == at("2026-05-19T17:00"), "twelve hours before 5 to 6 this morning"
    for phrase in ("between 5 and 6 am", "between 5 and 6 yesterday", "between 17:00 and 18:00", "last night"):
        assert other_half(phrase, WEDNESDAY, BERLIN) is None


def test_about_three_of_something_is_no_time() -> None:
    assert find_phrases("were there about 3 episodes") == []
    assert find_phrases("any pauses around 3?") == ["around 3"]


def test_the_same_words_mean_another_time_in_another_zone() -> None:
    berlin, new_york = (resolve("last night", WEDNESDAY, tz) for tz in (BERLIN, NEW_YORK))
    assert new_york.start_ns - berlin.start_ns == 6 * 3600 * NS


@pytest.mark.parametrize(
    ("now", "phrase", "hours"),
    [
        ("2026-03-29T15:30", "last night", 8.0),  # clocks went forward
        ("2026-03-30T12:00", "yesterday", 23.0),
        ("2026-03-29T15:30", "between 1 and 4 last night", 2.0),
        ("2026-10-25T15:30", "last night", 10.0),  # clocks went back
        ("2026-10-26T12:00", "yesterday", 25.0),
        ("2026-10-25T15:30", "between 2 and 3 last night", 2.0),
        ("2026-10-25T15:30", "past 24 hours", 24.0),
        ("2026-03-29T15:30", "between 1 and 2:30 last night", 1.0),  # until the change
    ],
)
def test_nights_with_a_change_of_clocks_have_their_true_length(now: str, phrase: str, hours: float) -> None:
    period = resolve(phrase, at(now), BERLIN)
    assert (period.end_ns - period.start_ns) / (3600 * NS) == pytest.approx(hours)


def test_an_hour_that_did_not_exist_is_no_hour_without_events() -> None:
    with pytest.raises(BadInputError, match="clocks skipped"):
        resolve("between 2 and 3 last night", at("2026-03-29T15:30"), BERLIN)


@pytest.mark.parametrize("phrase", ["tomorrow", "on 2026-05-21", "between 3 and 4 pm today after noon", "", "soonish"])
def test_the_future_and_nonsense_are_refused(phrase: str) -> None:
    with pytest.raises(BadInputError):
        resolve(phrase, WEDNESDAY, BERLIN)


@pytest.mark.parametrize("clock", ["25:00", "13 pm", "3:75 pm", "31 February"])
def test_impossible_times_are_refused(clock: str) -> None:
    with pytest.raises(BadInputError):
        resolve(f"since {clock}" if "Feb" not in clock else f"on {clock}", WEDNESDAY, BERLIN)


def test_numbers_that_are_no_times_are_left_alone() -> None:
    assert find_phrases("about 3 episodes of AF") == []
    assert find_phrases("runs of 5 beats and 2 pauses") == []


@given(text=st.text(max_size=60), now=st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)))
def test_any_text_gives_a_period_before_now_or_an_error(text: str, now: datetime) -> None:
    now_ns = to_utc_ns(now, NEW_YORK)
    for phrase in [text, *find_phrases(text)]:
        try:
            period = resolve(phrase, now_ns, NEW_YORK)
        except BadInputError:
            continue
        assert period.start_ns < period.end_ns <= now_ns


@given(
    phrase=st.sampled_from(
        ["last night", "today", "between 2 and 3", "from 1 to 4", "since lunch", "this morning", "at 2:30", "yesterday"]
    ),
    hours=st.integers(0, 24 * 366),
)
def test_any_phrase_at_any_hour_of_a_year_ends_by_now(phrase: str, hours: int) -> None:
    now_ns = at("2026-01-01T00:17") + hours * 3600 * NS
    try:
        period = resolve(phrase, now_ns, BERLIN)
    except BadInputError as error:
        assert "clocks skipped" in str(error) or "future" in str(error)  # noqa: PT017
        return
    assert period.start_ns < period.end_ns <= now_ns
    assert period.end_ns - period.start_ns <= 49 * 3600 * NS


@pytest.mark.parametrize(
    ("text", "edge", "expected"),
    [
        ("24h", "start", "2026-05-19T15:30"),
        ("90m", "start", "2026-05-20T14:00"),
        ("7d", "start", "2026-05-13T15:30"),
        ("2026-05-19", "start", "2026-05-19T00:00"),
        ("2026-05-19", "end", "2026-05-20T00:00"),
        ("2026-05-19T08:15", "start", "2026-05-19T08:15"),
        ("2026-05-19T08:15Z", "start", "2026-05-19T10:15"),
        ("2026-05-19T08:15+01:00", "start", "2026-05-19T09:15"),
        ("yesterday", "start", "2026-05-19T00:00"),
        ("yesterday", "end", "2026-05-20T00:00"),
        ("now", "start", "2026-05-20T15:30"),
    ],
)
def test_instants_as_people_type_them(text: str, edge: str, expected: str) -> None:
    assert parse_instant(text, WEDNESDAY, BERLIN, edge) == at(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "24", "h", "2026-13-01", "9999-01-01", "0001-01-01", "99999999999d", "soon", "-3h"]
)
def test_unreadable_instants_say_what_would_be_understood(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_instant(text, WEDNESDAY, BERLIN)


def test_unknown_zones_are_named() -> None:
    with pytest.raises(BadInputError, match="Mars/Olympus"):
        zone("Mars/Olympus")


def test_durations_read_like_speech() -> None:
    spoken = [show_duration(s) for s in (0, 3.14, 10, 59.6, 61, 3599.7, 3600, 7500, 90_000)]
    assert spoken == ["0 s", "3.1 s", "10 s", "1 min", "1 min 1 s", "1 h", "1 h", "2 h 5 min", "25 h"]


def test_show_names_the_zone() -> None:
    change = at("2026-10-25T00:00") + timedelta(hours=3) // timedelta(microseconds=1) * 1000
    assert show(change, BERLIN).endswith("02:00:00 CET")
    assert show(change - 1, BERLIN).endswith("02:59:59 CEST")
