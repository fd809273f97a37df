"""Plans: which tools to call with which arguments; as JSON, and as the short line the language model writes.

A line holds up to `MAX_STEPS` steps, `TOOL ARGS [tN [tM]] [wN]`, joined by `; `. What the model sees of a question is
marked by code: `how many pvcs (t1: last night) for (w1: bob)?`. It points at time words and names by their number and
cannot write any others; `edge.assistant.period` resolves the words. In a follow-up `t0` is the period of the plan
before it. docs/assistant.md has the table of tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.assistant.labels import BEAT_LABELS, EVENT_LABELS, LABELS, MORPHOLOGY_LABELS, TERMS
from edge.assistant.period import find_phrases
from edge.assistant.spelling import spell
from edge.errors import BadInputError

MAX_STEPS = 4
MAX_MARKS = 9
AGGREGATES = ("mean", "min", "max", "latest")
MEASURES = ("time", "share")
EDGES = ("first", "last", "longest")
HRV = ("all", "sdnn", "rmssd", "pnn50")
INTERVALS = ("pr", "qrs", "qt", "qtc")
SPAN = "period"
"""The `which` of a strip or description of the period itself instead of an event in it."""

TOOLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "count": {"label": LABELS},
    "list": {"label": EVENT_LABELS},
    "first": {"label": LABELS},
    "last": {"label": LABELS},
    "longest": {"label": EVENT_LABELS},
    "total_time": {"label": LABELS, "measure": MEASURES},
    "heart_rate": {"aggregate": AGGREGATES},
    "hrv": {"measure": HRV},
    "interval": {"name": INTERVALS},
    "trend": {"of": ("heart_rate", "hrv", *LABELS)},
    "compare": {"of": ("heart_rate", "hrv", "summary", *LABELS)},
    "similar": {"label": LABELS, "which": EDGES},
    "strip": {"label": LABELS, "which": (*EDGES, SPAN)},
    "describe": {"label": LABELS, "which": (*EDGES, SPAN)},
    "localize": {"label": (*EVENT_LABELS, *BEAT_LABELS, *MORPHOLOGY_LABELS)},
    "coverage": {},
    "device": {},
    "explain": {"term": TERMS},
    "summary": {},
    "none": {},
}
"""Tool → its arguments and their values; every tool also takes `period` and `wearer`, `compare` also `versus`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a tool."""

    tool: str
    args: dict[str, str] = field(default_factory=dict)
    """Those of `TOOLS`, and `period` ("" for none named), `wearer` ("" for the one who is asked about), `versus`."""

    def as_json(self) -> dict[str, Any]:
        return {"tool": self.tool, "args": dict(self.args)}


Steps = tuple[Step, ...]


def step_of(row: Any) -> Step:
    """Return the step that `Step.as_json` wrote.

    Raises:
        ValueError: not a step.
    """
    if not isinstance(row, dict) or row.get("tool") not in TOOLS or not isinstance(row.get("args"), dict):
        raise ValueError(f"not a step: {str(row)[:80]}")
    tool, args = row["tool"], row["args"]
    known = {*TOOLS[tool], "period", "wearer", *(("versus",) if tool == "compare" else ())}
    if set(args) != known or not all(isinstance(value, str) and len(value) <= 200 for value in args.values()):
        raise ValueError(f"not a step: {str(row)[:80]}")
    if any(args[name] not in allowed for name, allowed in TOOLS[tool].items()):
        raise ValueError(f"not a step: {str(row)[:80]}")
    return Step(tool, dict(args))


def context_of(plan: Any) -> Steps:
    """Return the plan of an answer as the context of a follow-up.

    Raises:
        BadInputError: not a plan.
    """
    if plan is None:
        return ()
    if not isinstance(plan, list) or len(plan) > 16:
        raise BadInputError('"context" must be the "plan" of the answer before')
    found: list[Step] = []
    for row in plan:
        try:
            found.append(step_of(row))
        except ValueError as error:
            raise BadInputError(f'"context" must be the "plan" of the answer before: {error}') from None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Marked:
    """A question as the model sees it."""

    text: str
    phrases: tuple[str, ...]
    """Time words as written: t1, t2, …"""
    wearers: tuple[str, ...]
    """Wearers it names: w1, w2, …"""


def plain(text: str) -> str:
    """Return text without control characters, runs of blanks made one: what a prompt may hold of a question."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def named(wearer: str) -> str:
    """Return the pattern of a name in a question; the s of a possessive does not belong to it."""
    return rf"(?<![\w-]){re.escape(wearer)}(?=s?(?!-?\w))"


def mark(question: str, wearers: Sequence[str] = ()) -> Marked:
    """Return a question with its time words and the wearers it names marked."""
    text = spell(re.sub(r"[()<>]", " ", plain(question)), wearers)
    marks: list[tuple[int, int, str, str]] = []
    at = 0
    for phrase in find_phrases(text)[:MAX_MARKS]:
        start = text.index(phrase, at)
        at = start + len(phrase)
        marks.append((start, at, "t", phrase))
    for wearer in wearers:
        for match in re.finditer(named(wearer), text, re.IGNORECASE):
            if all(match.end() <= a or b <= match.start() for a, b, *_ in marks):
                marks.append((match.start(), match.end(), "w", wearer))
    marks.sort()
    phrases: list[str] = []
    names: list[str] = []
    parts, at = [], 0
    for start, end, kind, value in marks:
        known = phrases if kind == "t" else names
        if value not in known:
            known.append(value)
        parts += [text[at:start], f"({kind}{known.index(value) + 1}: {text[start:end]})"]
        at = end
    return Marked(" ".join("".join([*parts, text[at:]]).split()), tuple(phrases), tuple(names[:MAX_MARKS]))


def prompt(marked: Marked, context: Steps = ()) -> str:
    """Return what the model is given; it continues with ` LINE` and a line break."""
    before = f"C: {line(context, Marked('', (), ()), context)}\n" if context else ""
    return f"Plan\n{before}Q: {marked.text}\nA:"


def line(steps: Steps, marked: Marked, context: Steps = ()) -> str:
    """Return the line that spells these steps for a marked question."""
    return "; ".join(_words(step, marked, context) for step in steps)


def _words(step: Step, marked: Marked, context: Steps) -> str:
    words = [step.tool, *(step.args[name] for name in TOOLS[step.tool])]
    for phrase in (step.args.get("period", ""), step.args.get("versus", "")):
        if phrase in marked.phrases:
            words.append(f"t{marked.phrases.index(phrase) + 1}")
        elif phrase and phrase == context_period(context) and "t0" not in words:
            words.append("t0")
    if step.args.get("wearer") in marked.wearers:
        words.append(f"w{marked.wearers.index(step.args['wearer']) + 1}")
    return " ".join(words)


def context_period(context: Steps) -> str:
    """Return the time words a follow-up may keep: those of the last step."""
    return context[-1].args.get("period", "") if context else ""


def grammar(marked: Marked, context: Steps = ()) -> str:
    """Return the GBNF of every line there is for a marked question."""
    times = [f"t{n + 1}" for n in range(len(marked.phrases))] + (["t0"] if context_period(context) else [])
    names = [f"w{n + 1}" for n in range(len(marked.wearers))]
    time = " time?" if times else ""
    who = " who?" if names else ""
    more = f'("; " step){{0,{MAX_STEPS - 1}}}'
    rules = [
        f'root ::= " " ({_quote("none")} | step {more}) "\\n"',
        f"step ::= {' | '.join(tool.replace('_', '-') for tool in TOOLS if tool != 'none')}",
    ]
    values: dict[tuple[str, ...], str] = {}
    for tool, args in TOOLS.items():
        if tool == "none":
            continue
        parts = [_quote(tool)]
        for name, allowed in args.items():
            rule = values.setdefault(allowed, f"{tool.replace('_', '-')}-{name}")
            parts += [_quote(" "), rule]
        twice = time if tool == "compare" else ""
        rules.append(f"{tool.replace('_', '-')} ::= {' '.join(parts)}{time}{twice}{who}")
    rules += [f"{rule} ::= {' | '.join(_quote(v) for v in allowed)}" for allowed, rule in values.items()]
    if times:
        rules.append(f"time ::= {' | '.join(_quote(' ' + t) for t in times)}")
    if names:
        rules.append(f"who ::= {' | '.join(_quote(' ' + n) for n in names)}")
    return "\n".join(rules) + "\n"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_line(text: str, marked: Marked, context: Steps = ()) -> Steps:
    """Return the steps that a line spells; `none` is no step.

    Raises:
        ValueError: not a line (one cut short, or by a model that ignores its grammar).
    """
    if text.strip() == "none":
        return ()
    steps = tuple(_step(words.split(), marked, context) for words in text.strip().split(";"))
    if not 0 < len(steps) <= MAX_STEPS:
        raise ValueError(f"not a plan: {text[:80]!r}")
    return steps


def _step(words: list[str], marked: Marked, context: Steps) -> Step:
    if not words or words[0] not in TOOLS or words[0] == "none":
        raise ValueError(f"not a step: {' '.join(words)[:80]!r}")
    tool, rest = words[0], words[1:]
    args: dict[str, str] = {}
    for name, allowed in TOOLS[tool].items():
        if not rest or rest[0] not in allowed:
            raise ValueError(f"not a step: {' '.join(words)[:80]!r}")
        args[name] = rest.pop(0)
    pointed = {f"t{n + 1}": phrase for n, phrase in enumerate(marked.phrases)} | {"t0": context_period(context)}
    periods = [pointed[rest.pop(0)] for _ in range(2 if tool == "compare" else 1) if rest and rest[0] in pointed]
    named = {f"w{n + 1}": wearer for n, wearer in enumerate(marked.wearers)}
    wearer = named[rest.pop(0)] if rest and rest[0] in named else ""
    if rest:
        raise ValueError(f"not a step: {' '.join(words)[:80]!r}")
    if tool == "compare" and len(periods) < 2:
        periods = ["", *periods]
    args["period"] = periods[0] if periods else ""
    if tool == "compare":
        args["versus"] = periods[1] if len(periods) > 1 else ""
    return Step(tool, args | {"wearer": wearer})
