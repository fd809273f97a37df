"""Question → plan: which tools to call with which arguments.

The language model writes one step under a grammar that admits nothing but a valid step. Its step is kept only if
it agrees with the words of the question (`vocabulary`); otherwise the plan is made from the words alone and the
answer says so (`fallback`). The plan carries time phrases; `period` resolves them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.assistant.labels import ANY, BEAT_LABELS, GENERAL_LABELS, LABELS
from edge.assistant.plan import Step
from edge.assistant.vocabulary import Words
from edge.rhythm.events import RULES

MAX_STEPS = 4
AGGREGATES = ("mean", "min", "max", "latest")
MEASURES = ("time", "share")
_EVENT_LABELS = (*RULES, *GENERAL_LABELS)
TOOLS: dict[str, dict[str, tuple[str, ...]]] = {
    "count": {"label": LABELS},
    "list": {"label": _EVENT_LABELS},
    "first": {"label": LABELS},
    "last": {"label": LABELS},
    "longest": {"label": _EVENT_LABELS},
    "total_time": {"label": LABELS, "measure": MEASURES},
    "heart_rate": {"aggregate": AGGREGATES},
    "trend": {},
    "coverage": {},
    "summary": {},
}
"""Tool → its arguments and their values; every tool also takes `period` and `wearer`."""


class Planner(Protocol):
    """What can complete a prompt under a grammar: the language model, or a script in tests."""

    name: str

    def complete(self, question: str, grammar: str) -> str:
        """Return the text of one step; the grammar admits nothing else."""
        ...


@dataclass(frozen=True, slots=True)
class Planned:
    """The steps to take, and how they came about."""

    steps: tuple[Step, ...]
    model_step: Step | None
    """What the model wrote, None if none was asked."""
    fallback: bool
    """The model's step contradicted the question and the keyword planner's steps are used."""


def grammar(phrases: Sequence[str], wearers: Sequence[str]) -> str:
    """Return the GBNF of one step for a question with these time phrases, about one of these wearers."""
    period = " | ".join(_literal(phrase) for phrase in [*dict.fromkeys(phrases), ""])
    wearer = " | ".join(_literal(name) for name in [*wearers, ""])
    rules = [
        f"root ::= {' | '.join(tool.replace('_', '-') for tool in TOOLS)}",
        f"period ::= {period}",
        f"wearer ::= {wearer}",
    ]
    for tool, args in TOOLS.items():
        rule = tool.replace("_", "-")
        parts = [_quote(f'{{"tool":"{tool}"')]
        for name, values in args.items():
            parts += [_quote(f',"{name}":'), f"{rule}-{name}"]
            rules.append(f"{rule}-{name} ::= {' | '.join(_literal(value) for value in values)}")
        parts += [_quote(',"period":'), "period", _quote(',"wearer":'), "wearer", _quote("}")]
        rules.append(f"{rule} ::= {' '.join(parts)}")
    return "\n".join(rules) + "\n"


def _literal(value: str) -> str:
    return _quote(json.dumps(value, ensure_ascii=True))


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_step(text: str) -> Step:
    """Return the step that a completion spells.

    Raises:
        ValueError: not a step (a completion cut short, or a planner that ignores its grammar).
    """
    value = json.loads(text)
    if not isinstance(value, dict) or value.get("tool") not in TOOLS:
        raise ValueError(f"not a step: {text[:80]!r}")
    tool = str(value["tool"])
    args = {name: str(value[name]) for name in (*TOOLS[tool], "period", "wearer")}
    if any(args[name] not in allowed for name, allowed in TOOLS[tool].items()):
        raise ValueError(f"not a step: {text[:80]!r}")
    return Step(tool, args)


def make_plan(question: str, words: Words, wearers: Sequence[str], wearer: str, planner: Planner | None) -> Planned:
    """Return the steps for a question whose words are known.

    Args:
        wearers: everyone the grammar may name.
        wearer: whom the question is about; a step that names somebody else contradicts it.
        planner: the model, or None to plan from the words alone.
    """
    step = None
    if planner is not None:
        try:
            step = parse_step(planner.complete(question, grammar(words.phrases, wearers)))
        except (ValueError, KeyError):
            step = None
        if step is not None and agrees(step, words, wearer):
            return Planned((Step(step.tool, step.args | {"wearer": wearer}),), step, fallback=False)
    return Planned(keyword_steps(words, wearer), step, fallback=True)


def agrees(step: Step, words: Words, wearer: str) -> bool:
    """Whether a step says nothing else than the words of the question."""
    if words.phrases != ((step.args["period"],) if step.args["period"] else ()):
        return False
    if step.args["wearer"] not in ("", wearer):
        return False
    return any(
        step.tool == other.tool
        and all(other.args[name] == step.args[name] for name in TOOLS[step.tool])
        for other in _readings(words, wearer)
    )  # fmt: skip


def _readings(words: Words, wearer: str) -> list[Step]:
    """Return every single step that the words allow."""
    if len(words.labels) > 1:
        return []
    steps = list(keyword_steps(words, wearer))
    if not words.tools and words.labels and len(steps) == 1:
        open_tools = ("count", "list", "total_time", "first", "last", "longest")
        label = words.labels[0]
        steps += [
            Step(tool, steps[0].args | {"label": label} | ({"measure": "time"} if tool == "total_time" else {}))
            for tool in open_tools
            if label in TOOLS[tool]["label"]
        ]
    if len(steps) == 1 and steps[0].tool in ("count", "list") and words.polar:
        label = steps[0].args["label"]
        steps += [Step(tool, steps[0].args) for tool in ("count", "list") if label in TOOLS[tool]["label"]]
    return steps


def keyword_steps(words: Words, wearer: str) -> tuple[Step, ...]:
    """Return the steps that the words alone spell: each label in each period; empty if they spell none."""
    periods = words.phrases or ("",)
    calls = _calls(words)
    steps = [Step(tool, args | {"period": p, "wearer": wearer}) for p in periods for tool, args in calls]
    return tuple(steps[:MAX_STEPS])


def _calls(words: Words) -> list[tuple[str, dict[str, str]]]:
    tool = words.tools[0] if words.tools else None
    if tool in ("coverage", "trend") and not set(words.labels) - {ANY, "all_beats", "gap", "unreadable"}:
        return [(tool, {})]
    if tool == "heart_rate":
        figures = [a for a in words.aggregates if a != "mean"] or ["mean"]
        return [("heart_rate", {"aggregate": a}) for a in figures] + [
            ("count", {"label": label}) for label in words.labels
        ]
    if "summary" in words.tools and words.labels in ((), (ANY,)):
        return [("summary", {})]
    return [_call(label, words) for label in words.labels]


def _call(label: str, words: Words) -> tuple[str, dict[str, str]]:
    tools = [t for t in words.tools if t in TOOLS and "label" in TOOLS[t] and label in TOOLS[t]["label"]]
    tool = tools[0] if tools else ("count" if label in BEAT_LABELS else "list")
    if label in BEAT_LABELS and tool == "total_time" and not words.share:
        tool = "count"
    if tool == "total_time":
        return tool, {"label": label, "measure": "share" if words.share else "time"}
    return tool, {"label": label}
