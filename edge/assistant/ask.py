"""One question, answered: fixed answers first, then plan, tools, sentences with citations."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection

from edge.assistant.answer import answer_grammar, fill, settle, ways
from edge.assistant.find import event
from edge.assistant.guard import fixed_answer
from edge.assistant.localtime import show_minute, zone
from edge.assistant.period import Anchor, Period, anchor, default_period, other_half, resolve
from edge.assistant.plan import Marked, Step, Steps, line, mark, named, plain
from edge.assistant.planner import Writer, make_plan
from edge.assistant.reader import Reading, read
from edge.assistant.result import NO_EYES, Citation, Eyes, Result, Scope
from edge.assistant.scan import READING_S
from edge.assistant.spelling import WORDS
from edge.assistant.tools import run_step
from edge.clock import Clock, SystemClock
from edge.errors import BadInputError
from edge.process import peak_rss_mb
from edge.store import queries

MAX_QUESTION = 500
"""Characters."""
MAX_NAMED = 50
"""More wearers than this cannot be told apart by name in a question."""
MAX_PERIOD_S = 60 * 86_400
"""Longest period of one answer; within it the limits of `queries` are not reached."""
MAX_ANSWER_TOKENS = 64
_PLAIN_TEXT = (
    "how many much when what which who where why is are was were did do does have has had any the a an and or of in "
    "on at to for from with me my i it that this last first long time all show list give tell count find mark sum may "
    "will august april june can hr af vt vf svt pac pvc ves pr qt qrs strip trace clip gap flat run beat beats noise "
    "mean max min low high fast slow now ago ever "
)
PLAIN_WORDS = WORDS | frozenset(_PLAIN_TEXT.split())
"""Words of ordinary questions: a wearer who is called like one cannot be named in a question."""

NOT_UNDERSTOOD = (
    "I did not understand the question. I can count, list and time events (for example: how many PVCs last night, "
    "how long was I in AF yesterday, when was the last pause), give the heart rate, its trend and variability, compare "
    "two periods, describe the signal or mark beats in it, explain a term, say how much was recorded, and summarise a "
    "period. I cannot help in an emergency: if somebody is unwell, call the emergency number."
)
NOT_A_DIAGNOSIS = " This is what the software found in the recording, not a diagnosis."

Say = Callable[[str], None]


@dataclass(slots=True)
class Answer:
    """What `ask --json` prints."""

    question: str
    answer: str
    wearer: str | None = None
    now_ns: int = 0
    steps: Steps = ()
    results: list[Result] = field(default_factory=list)
    fallback: bool = False
    """The language model was asked and could not be followed: words planned, or the usual wording was used."""
    model: str | None = None
    model_steps: Steps | None = None
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
            "model_plan": None if self.model_steps is None else [step.as_json() for step in self.model_steps],
            "wearer": self.wearer,
            "timing_ms": self.timing_ms,
            "rss_mb": round(peak_rss_mb(), 1),
        }


@dataclass(frozen=True, slots=True)
class Helpers:
    """What an answer may use beside the database; all of it optional."""

    writer: Writer | None = None
    """Plans what the words leave open, and chooses the wording."""
    eyes: Eyes | None = None
    """Looks at signal."""
    blind: str = NO_EYES
    """Why nothing does."""
    words_answers: bool = True
    """Whether the writer chooses the wording."""
    clock: Clock = field(default_factory=SystemClock)
    """By which the time for looking at signal is measured."""
    reading_s: float = READING_S
    """Time for looking at signal within one answer."""


def ask(
    conn: Connection,
    question: str,
    *,
    now_ns: int,
    wearer: str | None = None,
    since_ns: int | None = None,
    context: Steps = (),
    helpers: Helpers | None = None,
    say: Say | None = None,
) -> Answer:
    """Answer a question from the database.

    Args:
        conn: read only.
        question: what a person asks.
        now_ns: what "today" and "last night" are counted from.
        wearer: whom it is about; None: the one the question names, or the only one there is.
        since_ns: nothing before this is looked at.
        context: the plan of the question before, for a follow-up.
        helpers: the language model; None plans and speaks by fixed rules alone.
        say: called with each piece of the answer as soon as it is known.

    Raises:
        BadInputError: an empty or oversized question, an unknown wearer, or no way to tell whom it is about.
    """
    started = time.perf_counter()
    text = plain(question)
    if not text:
        raise BadInputError("the question is empty")
    if len(text) > MAX_QUESTION:
        raise BadInputError(f"the question has {len(text)} characters, more than {MAX_QUESTION}: ask it shorter")
    if wearer is not None:  # who may ask about one wearer hears of no other through the plan before
        context = tuple(Step(step.tool, step.args | {"wearer": wearer}) for step in context)
    answer = Answer(text, "", now_ns=now_ns)
    pieces: list[str] = []
    for piece in _said(conn, answer, wearer, since_ns, context, helpers or Helpers()):
        if not pieces:
            answer.timing_ms["first_words"] = _ms_since(started)
        pieces.append(piece)
        if say is not None:
            say(piece)
    answer.answer = "".join(pieces)
    answer.timing_ms["total"] = _ms_since(started)
    return answer


def _said(
    conn: Connection, answer: Answer, wearer: str | None, since_ns: int | None, context: Steps, helpers: Helpers
) -> Iterator[str]:
    """Fill in an answer and yield its text."""
    text = answer.question
    fixed = fixed_answer(text)
    if fixed is not None:
        yield fixed
        return
    everyone = queries.wearers(conn)
    who = _choose(everyone, text, wearer, context)
    answer.wearer = who.id
    names = [w.id for w in everyone if w.id not in PLAIN_WORDS][:MAX_NAMED]
    planning = time.perf_counter()
    marked = mark(text, names)
    reading = read(marked, context)
    refusal = _refusal(reading)
    if refusal is not None:
        yield refusal
        return
    planned = make_plan(marked, reading, context, helpers.writer)
    answer.steps = tuple(Step(s.tool, s.args | {"wearer": s.args["wearer"] or who.id}) for s in planned.steps)
    answer.fallback, answer.model_steps = planned.fallback, planned.model_steps
    answer.model = helpers.writer.name if helpers.writer is not None else None
    answer.timing_ms["plan"] = _ms_since(planning)

    looking = time.perf_counter()
    try:
        answer.results = [_run(conn, step, everyone, answer.now_ns, since_ns, helpers) for step in answer.steps]
    except BadInputError as error:
        answer.results = []
        yield f"I cannot answer that: {error}."
        return
    answer.timing_ms["tools"] = _ms_since(looking)
    if not answer.results:
        yield NOT_UNDERSTOOD
        return
    yield from _spoken(answer, marked, everyone, helpers)
    if re.search(r"\b(?:do|does) (?:i|he|she|they|we) have\b|\bam i in\b", text, re.IGNORECASE):
        yield NOT_A_DIAGNOSIS


def _spoken(answer: Answer, marked: Marked, everyone: Sequence[queries.Wearer], helpers: Helpers) -> Iterator[str]:
    """Yield the sentences about the results, in the wording of the model if there is one."""
    results = answer.results
    tz = zone(next(w.timezone for w in everyone if w.id == results[0].step.args["wearer"]))
    writer = helpers.writer if helpers.words_answers else None
    yield from fill(_worded(answer, marked, writer), results, tz)


def _worded(answer: Answer, marked: Marked, writer: Writer | None) -> Iterator[str]:
    """Yield the wording of each result, with slots."""
    asked = f"Answer\nQ: {marked.text}\nP: {line(answer.steps, marked)}\nA:"
    for n, result in enumerate(answer.results, 1):
        choices = ways(result, n)
        way = choices[0]
        if writer is not None and len(choices) > 1:
            speaking = time.perf_counter()
            try:
                way = settle(writer.stream(asked, answer_grammar(choices), MAX_ANSWER_TOKENS), choices)
            except ValueError:
                answer.fallback = True
            answer.timing_ms["wording"] = answer.timing_ms.get("wording", 0.0) + _ms_since(speaking)
        asked += way
        yield way


def _run(
    conn: Connection,
    step: Step,
    everyone: Sequence[queries.Wearer],
    now_ns: int,
    since_ns: int | None,
    helpers: Helpers,
) -> Result:
    tz = zone(next(w.timezone for w in everyone if w.id == step.args["wearer"]))
    scope = Scope(conn, step.args["wearer"], tz, now_ns, helpers.eyes, helpers.blind, helpers.clock, helpers.reading_s)
    period = _period(scope, step.args["period"], _default(step, scope), since_ns)
    if step.tool != "compare":
        return run_step(step, period, scope)
    versus = _period(scope, step.args["versus"], default_period(now_ns), since_ns)
    return run_step(step, period, scope, versus)


def _period(scope: Scope, phrase: str, default: Period, since_ns: int | None) -> Period:
    """Return what time words mean, bounded.

    Raises:
        BadInputError: a period that lies in the future, before everything looked at, or on an event there is not.
    """
    hangs = anchor(phrase) if phrase else None
    if hangs is not None:
        period = _hanging(scope, hangs, phrase)
    else:
        period = resolve(phrase, scope.now_ns, scope.tz) if phrase else default
        earlier = other_half(phrase, scope.now_ns, scope.tz) if phrase else None
        if earlier is not None and not _recorded(scope, period) and _recorded(scope, earlier):
            period = earlier
    period = _bounded(scope.conn, scope.wearer, period, since_ns)
    if period.start_ns >= period.end_ns:
        raise BadInputError(f"{period.phrase!r} lies before {show_minute(period.start_ns, scope.tz)}")
    return period


def _recorded(scope: Scope, period: Period) -> bool:
    return queries.coverage(scope.conn, scope.wearer, period.start_ns, period.end_ns).recorded_s > 0


def _hanging(scope: Scope, hangs: Anchor, phrase: str) -> Period:
    everything = Period("", 0, scope.now_ns)
    within = resolve(hangs.within, scope.now_ns, scope.tz) if hangs.within else everything
    found = event(scope, hangs.which, hangs.label, _bounded(scope.conn, scope.wearer, within, None))
    if found is None:
        raise BadInputError(f"there is no such event for {phrase!r}")
    length_ns = round(hangs.seconds * queries.NS)
    if hangs.side == "before":
        return Period(phrase, found["start_ns"] - length_ns, found["start_ns"])
    if hangs.side == "after":
        return Period(phrase, found["end_ns"], min(found["end_ns"] + length_ns, scope.now_ns))
    return Period(phrase, found["start_ns"], max(found["end_ns"], found["start_ns"] + queries.NS))


def _default(step: Step, scope: Scope) -> Period:
    """Without time words an extreme is about everything recorded, a comparison about today, else the past 24 hours."""
    if step.tool in ("first", "last", "longest") or step.args.get("which") in ("first", "last", "longest"):
        return Period("", 0, scope.now_ns)
    if step.tool == "compare":
        return resolve("today", scope.now_ns, scope.tz)
    return default_period(scope.now_ns)


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
            raise BadInputError(f"the period is longer than {MAX_PERIOD_S // 86_400} days: ask about a shorter one")
        start_ns = period.end_ns - longest_ns
    return Period(period.phrase, start_ns, period.end_ns)


def _refusal(reading: Reading) -> str | None:
    if reading.unsupported is not None:
        return (
            f"I cannot tell anything about {reading.unsupported}: this gateway does not measure it. It reads beats, "
            "rhythm, heart rate and signal quality from the ECG."
        )
    if reading.condition is not None:
        return (
            f"I cannot pick out what keeps to a limit ({reading.condition!r}). I can list events with their lengths, "
            "name the longest, or give the highest and lowest heart rate."
        )
    if reading.unknown_time is not None:
        return (
            f"I did not understand the time in this question ({reading.unknown_time!r}). I know times such as: last "
            "night, yesterday morning, since lunch, between 2 and 3 am, on 29 March, in the past 24 hours."
        )
    return None


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 1)


def whom(conn: Connection, question: str, wearer: str | None, context: Steps = ()) -> queries.Wearer:
    """Return whom a question is about: `wearer`, else the one it names, else as before, else the only one there is.

    Raises:
        BadInputError: an unknown wearer, somebody else than `wearer` is named, or no way to tell.
    """
    return _choose(queries.wearers(conn), plain(question), wearer, context)


def _choose(everyone: list[queries.Wearer], text: str, wearer: str | None, context: Steps) -> queries.Wearer:
    known = {w.id: w for w in everyone}
    if wearer is not None and wearer not in known:
        names = ", ".join(list(known)[:20]) or "nobody yet: a wearer appears with its first data"
        raise BadInputError(f"there is no wearer {wearer!r}; known: {names}")
    named = _named(everyone, text)
    if wearer is not None:
        others = [w.id for w in named if w.id != wearer]
        if others:
            raise BadInputError(f"the question names {others[0]}, --wearer names {wearer}: which of them is meant?")
        return known[wearer]
    if named:
        return named[0]
    if context and context[-1].args.get("wearer") in known:
        return known[context[-1].args["wearer"]]
    if len(everyone) == 1:
        return everyone[0]
    if not everyone:
        raise BadInputError("there are no wearers yet: a wearer appears with its first data")
    names = ", ".join(list(known)[:20])
    raise BadInputError(f"there are several wearers ({names}): name one in the question or with --wearer")


def _named(everyone: Sequence[queries.Wearer], text: str) -> list[queries.Wearer]:
    def at(wearer: queries.Wearer) -> int:
        match = re.search(named(wearer.id), text, re.IGNORECASE)
        return -1 if match is None else match.start()

    found = [(at(w), w) for w in everyone if w.id not in PLAIN_WORDS]
    return [w for place, w in sorted(((p, w) for p, w in found if p >= 0), key=lambda pair: pair[0])]
