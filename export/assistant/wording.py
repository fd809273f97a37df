"""How questions are asked and reports are written: templates of the data set, in the field's words."""

from __future__ import annotations

import random
from collections.abc import Sequence

from edge.assistant.wording import NAMES, SHORT

LOCATE = (
    "Where is the {x}?",
    "Where is the {x} in this ECG?",
    "Where do you see {x}?",
    "When does a {x} occur?",
    "At what times is there a {x}?",
    "Mark every {x}.",
    "Mark the {x} on this strip.",
    "Locate all {x} in this recording.",
    "Find each {x}.",
    "Is there any {x}, and when?",
    "Give the time spans of {x}.",
    "Show me the {x}.",
    "From when to when is there {x}?",
    "List the {x} with start and end.",
)
PRESENT = (
    "Is there a {x}?",
    "Does this ECG show {x}?",
    "Do you see any {x} here?",
    "Is {x} present?",
    "Any {x} in this strip?",
    "Can you find {x}?",
)
COUNT = (
    "How many {x} are there?",
    "Count the {x}.",
    "What is the number of {x}?",
    "How many {x} do you see?",
    "How often does {x} occur here?",
)
RATE = (
    "What is the heart rate?",
    "How fast is the heart?",
    "Give the ventricular rate.",
    "What is the rate in bpm?",
    "Pulse?",
)
RHYTHM = (
    "What is the rhythm?",
    "Which rhythm is this?",
    "Name the rhythm.",
    "What rhythm does the ECG show?",
    "Rhythm?",
)
QUALITY = (
    "Can this signal be read?",
    "How is the signal quality?",
    "Is the recording readable?",
    "Is there noise in this ECG?",
)
CHOOSE = (
    "Which is it: {options}?",
    "Is this {options}?",
    "Choose: {options}.",
    "What fits best, {options}?",
)
REPORT = (
    "Describe this ECG.",
    "Write a report.",
    "Report this ECG.",
    "What does this ECG show?",
    "Give a short report of the recording.",
    "Summarise the findings.",
    "Interpret this strip.",
    "What do you see?",
)
DIAGNOSE = (
    "Which diagnostic classes apply?",
    "Name the diagnostic class.",
    "Classify this 12-lead ECG.",
    "What is the diagnostic statement?",
)
FASTEST = ("Which ECG has the highest heart rate?", "Which one is fastest?", "In which ECG is the rate highest?")
SLOWEST = ("Which ECG has the lowest heart rate?", "Which one is slowest?", "In which ECG is the rate lowest?")
MOST = ("Which ECG has the most {x}?", "Where are more {x}?", "In which ECG are {x} most frequent?")
WHICH = ("Which ECG shows {x}?", "In which of them is there {x}?", "Which ones have {x}?", "Which ECGs contain {x}?")
CHANGED = (
    "What changed from ECG {a} to ECG {b}?",
    "Compare ECG {a} and ECG {b}.",
    "How does ECG {b} differ from ECG {a}?",
    "What is different between ECG {a} and ECG {b}?",
)
SAME = ("Is the rhythm the same in all of them?", "Do all ECGs have the same rhythm?", "Is the rhythm unchanged?")

SUPERCLASSES = {
    "NORM": "normal",
    "MI": "myocardial infarction",
    "STTC": "ST-T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
"""PTB-XL's diagnostic superclasses."""


def pick(rng: random.Random, templates: Sequence[str], **values: object) -> str:
    """Return one template, filled."""
    return rng.choice(templates).format(**values)


def named(rng: random.Random, label: str) -> str:
    """Return a label by its long name, or, a third of the time, a short one."""
    return rng.choice(SHORT[label]) if rng.random() < 0.35 else NAMES[label]
