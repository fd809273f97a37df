"""One question, answered: fixed answers first, then plan, tools, sentences with citations."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection

from edge.assistant.answer import speak
from edge.assistant.examples import PLAIN_WORDS
from edge.assistant.guard import fixed_answer
from edge.assistant.keywords import Planner, make_plan
from edge.assistant.localtime import show_minute, zone
from edge.assistant.period import Period, default_period, resolve
from edge.assistant.plan import Step, plain
from edge.assistant.tools import Citation, Result, Scope, run_step
from edge.assistant.vocabulary import Words, read_words
from edge.errors import BadInputError
from edge.process import peak_rss_mb
from edge.store import queries

MAX_QUESTION = 500
"""Characters."""
MAX_GRAMMAR_WEARERS = 50
MAX_PERIOD_S = 60 * 86_400
"""Longest period of one answer; within it the limits of `queries` are not reached."""

NOT_UNDERSTOOD = (
    "I did not understand the question. I can count, list and time events (for example: how many PVCs last night, "
    "how long was I in AF yesterday, when was the last pause), give the heart rate and its trend, say how much was "
    "recorded, and summarise a period."
)
NOT_A_DIAGNOSIS = " This is what the software found in the recording, not a diagnosis."


@dataclass(slots=True)
class Answer:
    """What `ask --json` prints."""

    question: str
    answer: str
    wearer: str | None = None
    now_ns: int = 0
    steps: tuple[Step, ...] = ()
    results: list[Result] = field(default_factory=list)
    fallback: bool = False
    model: str | None = None
    model_step: Step | None = None
    timing_ms: dict[str, float] = field(default_factory=dict)

    def citations(self) -> list[Citation]:
        """Return the citations of all results, each once, in order."""
        found: list[Citation] = []
        for result in self.results:
            found += [c for c in result.citations if c not in found]
        return found

    def coverage(self) -> dict[str, float] | None:
        """Return what the answer rests on: of several results the one with the least readable share."""
        if not self.results:
            return None
        weakest = min((r.coverage for r in self.results), key=lambda c: c.readable_s / c.period_s if c.period_s else 0)
        return asdict(weakest)

    def as_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "answer": self.answer,
            "plan": [step.as_json() for step in self.steps],
            "results": [result.as_json() for result in self.results],
            "citations": self.citations(),
            "coverage": self.coverage(),
            "fallback": self.fallback,
            "model": self.model,
            "model_plan": self.model_step.as_json() if self.model_step else None,
            "wearer": self.wearer,
            "timing_ms": self.timing_ms,
            "rss_mb": round(peak_rss_mb(), 1),
        }


def ask(
    conn: Connection,
    question: str,
    *,
    now_ns: int,
    wearer: str | None = None,
    since_ns: int | None = None,
    planner: Planner | None = None,
) -> Answer:
    """Answer a question from the database.

    Args:
        conn: read only.
        now_ns: what "today" and "last night" are counted from.
        wearer: whom it is about; None: the one the question names, or the only one there is.
        since_ns: nothing before this is looked at.
        planner: the language model; None plans from the words alone.

    Raises:
        BadInputError: an empty or oversized question, an unknown wearer, or no way to tell whom it is about.
    """
    started = time.perf_counter()
    text = plain(question)
    if not text:
        raise BadInputError("the question is empty")
    if len(text) > MAX_QUESTION:
        raise BadInputError(f"the question has {len(text)} characters, more than {MAX_QUESTION}: ask it shorter")
    answer = _answer(conn, text, now_ns, wearer, since_ns, planner)
    answer.timing_ms["total"] = _ms_since(started)
    return answer


def _answer(
    conn: Connection, text: str, now_ns: int, wearer: str | None, since_ns: int | None, planner: Planner | None
) -> Answer:
    fixed = fixed_answer(text)
    if fixed is not None:
        return Answer(text, fixed, now_ns=now_ns)
    everyone = queries.wearers(conn)
    who = _choose(everyone, text, wearer)
    tz = zone(who.timezone)
    words = read_words(text)
    answer = Answer(text, "", wearer=who.id, now_ns=now_ns)
    refusal = _refusal(words)
    if refusal is not None:
        answer.answer = refusal
        return answer
    try:
        periods = {phrase: resolve(phrase, now_ns, tz) for phrase in words.phrases}
    except BadInputError as error:
        answer.answer = f"I cannot answer that: {error}."
        return answer

    planning = time.perf_counter()
    names = [w.id for w in everyone[:MAX_GRAMMAR_WEARERS]]
    planned = make_plan(text, words, names, who.id, planner)
    answer.timing_ms["plan"] = _ms_since(planning)
    answer.steps, answer.fallback, answer.model_step = planned.steps, planned.fallback, planned.model_step
    answer.model = planner.name if planner is not None else None

    reading = time.perf_counter()
    scope = Scope(conn, who.id, tz)
    try:
        for step in planned.steps:
            period = periods.get(step.args["period"]) or _default(words, now_ns)
            period = _bounded(conn, who.id, period, since_ns)
            if period.start_ns >= period.end_ns:
                raise BadInputError(f"{period.phrase!r} lies before {show_minute(period.start_ns, tz)}")
            answer.results.append(run_step(step, period, scope))
    except BadInputError as error:
        answer.results.clear()
        answer.answer = f"I cannot answer that: {error}."
        return answer
    answer.timing_ms["tools"] = _ms_since(reading)
    answer.answer = " ".join(speak(result, tz) for result in answer.results) or NOT_UNDERSTOOD
    if answer.results and re.search(r"\b(?:do|does) (?:i|he|she|they|we) have\b|\bam i in\b", text, re.IGNORECASE):
        answer.answer += NOT_A_DIAGNOSIS
    return answer


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 1)


def whom(conn: Connection, question: str, wearer: str | None) -> queries.Wearer:
    """Return whom a question is about: `wearer`, else the one it names, else the only one there is.

    Raises:
        BadInputError: an unknown wearer, two different ones, or no way to tell.
    """
    return _choose(queries.wearers(conn), plain(question), wearer)


def _choose(everyone: list[queries.Wearer], text: str, wearer: str | None) -> queries.Wearer:
    known = {w.id: w for w in everyone}
    if wearer is not None and wearer not in known:
        names = ", ".join(list(known)[:20]) or "nobody yet: a wearer appears with its first data"
        raise BadInputError(f"there is no wearer {wearer!r}; known: {names}")
    named = [w for w in everyone if w.id not in PLAIN_WORDS and _names(w.id, text)]
    if wearer is not None:
        others = [w.id for w in named if w.id != wearer]
        if others and wearer not in [w.id for w in named]:
            raise BadInputError(f"the question names {others[0]}, --wearer names {wearer}: which of them is meant?")
        return known[wearer]
    if len(named) == 1:
        return named[0]
    if len(everyone) == 1:
        return everyone[0]
    if not everyone:
        raise BadInputError("there are no wearers yet: a wearer appears with its first data")
    names = ", ".join(list(known)[:20])
    raise BadInputError(f"there are several wearers ({names}): name one in the question or with --wearer")


def _names(wearer: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(wearer)}(?![\w-])", text, re.IGNORECASE) is not None


def _refusal(words: Words) -> str | None:
    if words.unsupported is not None:
        return (
            f"I cannot tell: {words.unsupported} is not something this gateway measures or combines. "
            "It knows beats, rhythm events, heart rate and how much was recorded."
        )
    if words.unknown_time is not None:
        return (
            f"I did not understand the time in this question ({words.unknown_time!r}). I know times such as: last "
            "night, yesterday morning, since lunch, between 2 and 3 am, on 29 March, in the past 24 hours."
        )
    return None


def _default(words: Words, now_ns: int) -> Period:
    """Without time words a question for an extreme is about everything recorded, any other about the past 24 hours."""
    if words.tools and words.tools[0] in ("first", "last", "longest"):
        return Period("", 0, now_ns)
    return default_period(now_ns)


def _bounded(conn: Connection, wearer: str, period: Period, since_ns: int | None) -> Period:
    """Return the period cut at `since_ns`, and at the first recorded sample if it is unbounded.

    Raises:
        BadInputError: it was asked for by name and is longer than `MAX_PERIOD_S`; the default is cut to that instead.
    """
    start_ns = period.start_ns
    if start_ns == 0:
        known = queries.recorded_range(conn, wearer)
        start_ns = default_period(period.end_ns).start_ns if known is None else min(known[0], period.end_ns - 1)
    if since_ns is not None:
        start_ns = since_ns if period.phrase == "" else max(start_ns, since_ns)
    longest_ns = MAX_PERIOD_S * queries.NS
    if period.end_ns - start_ns > longest_ns:
        if period.phrase or since_ns is not None:
            days = MAX_PERIOD_S // 86_400
            raise BadInputError(f"the period is longer than {days} days: ask about a shorter one, or with --since")
        start_ns = period.end_ns - longest_ns
    return Period(period.phrase, start_ns, period.end_ns)
