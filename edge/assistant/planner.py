"""Who plans: the words of the question, the language model where they leave something open, and code that checks it.

A plan that the words spell stands. Where they spell none the language model writes one under the grammar, and it is
taken if it names nothing that the question does not: no other label, all of its time words and names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from edge.assistant.labels import BEAT_LABELS, EVENT_LABELS
from edge.assistant.plan import Marked, Steps, context_period, grammar, parse_line, prompt
from edge.assistant.reader import Reading, find_labels

MAX_PLAN_TOKENS = 64


class Writer(Protocol):
    """What writes under a grammar: the language model, or a script in tests."""

    name: str

    def write(self, prompt: str, grammar: str, max_tokens: int) -> str:
        """Return what follows the prompt; the grammar admits nothing else."""
        ...

    def stream(self, prompt: str, grammar: str, max_tokens: int) -> Iterator[str]:
        """Yield what follows the prompt, piece by piece."""
        ...


@dataclass(frozen=True, slots=True)
class Planned:
    """The steps to take, and how they came about."""

    steps: Steps
    model_steps: Steps | None = None
    """What the model wrote, None if it was not asked or wrote no plan."""
    fallback: bool = False
    """The model was asked and could not be followed."""


def make_plan(marked: Marked, reading: Reading, context: Steps = (), writer: Writer | None = None) -> Planned:
    """Return the plan of a question that has been read."""
    if writer is None or reading.steps:
        return Planned(reading.steps)
    text = writer.write(prompt(marked, context), grammar(marked, context), MAX_PLAN_TOKENS)
    try:
        written = parse_line(text, marked, context)
    except ValueError:
        return Planned((), fallback=True)
    if agrees(written, marked, context):
        return Planned(written, written)
    return Planned((), written, fallback=bool(written))


def agrees(steps: Steps, marked: Marked, context: Steps = ()) -> bool:
    """Whether steps name only labels of the question (or of the one before) and all of its time words and names."""
    if not steps:
        return False
    named = set(find_labels(marked.text)[0])
    known = named | {step.args.get("label", "") for step in context}
    used = {step.args.get("label", step.args.get("of", step.args.get("term", ""))) for step in steps}
    if any(label in (*EVENT_LABELS, *BEAT_LABELS) and label not in known for label in used):
        return False
    if not known or not named <= used:  # nothing of the question to hold it to
        return False
    if not used & known and any(step.tool not in ("coverage", "device", "summary") for step in steps):
        return False
    phrases = {step.args[name] for step in steps for name in ("period", "versus") if step.args.get(name)}
    if phrases - {context_period(context)} != set(marked.phrases):
        return False
    return {step.args["wearer"] for step in steps if step.args["wearer"]} == set(marked.wearers)
