"""Questions and the call each one means: what the language model is shown before it plans."""

from __future__ import annotations

import json
import re

from edge.assistant.keywords import TOOLS

SHOWN = 3
"""Nearest examples in a prompt; docs/assistant.md has what was measured with other numbers of them."""

EXAMPLES = (
    ("How many pauses were there last night?", "count", "pause", "last night"),
    ("Did I have any AF on Tuesday?", "list", "af", "on Tuesday"),
    ("What was my highest heart rate this morning?", "heart_rate", "max", "this morning"),
    ("When was the last run of ventricular tachycardia?", "last", "vt", ""),
    ("How long was I in AF in the past 24 hours?", "total_time", "af", "in the past 24 hours"),
    ("What happened on Sunday?", "summary", "", "on Sunday"),
    ("How many PVCs today?", "count", "pvc", "today"),
    ("Was the signal recorded all night?", "coverage", "", "all night"),
    ("How did my heart rate develop since lunch?", "trend", "", "since lunch"),
    ("Show the longest bradycardia on Monday", "longest", "bradycardia", "on Monday"),
    ("How many runs of VT since Friday?", "count", "vt", "since Friday"),
    ("How many times did my heart pause today?", "count", "pause", "today"),
    ("Count the bradycardia episodes of last night", "count", "bradycardia", "last night"),
    ("How many supraventricular beats yesterday?", "count", "sve", "yesterday"),
    ("How often was there AF in the last 3 days?", "count", "af", "in the last 3 days"),
    ("Was there tachycardia this morning?", "list", "tachycardia", "this morning"),
    ("Were there any pauses today?", "list", "pause", "today"),
    ("List every event of yesterday", "list", "any", "yesterday"),
    ("Show me all AF episodes", "list", "af", ""),
    ("Did the electrode fall off today?", "list", "lead_off", "today"),
    ("When did the first pause happen today?", "first", "pause", "today"),
    ("What was the first event this morning?", "first", "any", "this morning"),
    ("What is the latest AF episode?", "last", "af", ""),
    ("Longest AF episode this week?", "longest", "af", "this week"),
    ("What was the longest pause yesterday?", "longest", "pause", "yesterday"),
    ("How much time in bradycardia last night?", "total_time", "bradycardia", "last night"),
    ("Total time in tachycardia today", "total_time", "tachycardia", "today"),
    ("What was my average heart rate yesterday?", "heart_rate", "mean", "yesterday"),
    ("What was the lowest pulse last night?", "heart_rate", "min", "last night"),
    ("How fast is my heart right now?", "heart_rate", "latest", "right now"),
    ("Show the trend of my heart rate yesterday", "trend", "", "yesterday"),
    ("How many hours were readable last night?", "coverage", "", "last night"),
    ("How much of today was recorded?", "coverage", "", "today"),
    ("Summarise this morning", "summary", "", "this morning"),
)
"""(question, tool, label or aggregate, time phrase)"""

PLAIN_WORDS = frozenset(re.findall(r"[a-z]+", " ".join(example[0] for example in EXAMPLES).lower()))
"""Words of ordinary questions: a wearer who is called like one cannot be named in a question."""


def nearest(question: str, shown: int = SHOWN) -> str:
    """Return the examples that share most words with a question, the nearest last, as prompt lines."""
    words = set(re.findall(r"\w+", question.lower()))

    def likeness(example: tuple[str, str, str, str]) -> float:
        own = set(re.findall(r"\w+", example[0].lower()))
        return len(words & own) / len(words | own)

    return "".join(_line(*example) for example in sorted(EXAMPLES, key=likeness)[-shown:])


def _line(question: str, tool: str, value: str, period: str) -> str:
    args = {name: value if n == 0 else values[0] for n, (name, values) in enumerate(TOOLS[tool].items())}
    call = {"tool": tool, **args, "period": period, "wearer": ""}
    return f"\nQ: {question}\nA: {json.dumps(call, separators=(',', ':'))}"
