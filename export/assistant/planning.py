"""Planning questions with their plan lines: the words of people, the lines of `edge.assistant.plan`.

Templates were written without looking at the held-out questions of the bench.
"""

from __future__ import annotations

import random
from functools import cache

from edge.assistant.labels import TERMS
from edge.assistant.plan import TOOLS, Step, line, mark, prompt
from edge.rhythm.events import RULES

TIMES = (
    *("last night", "yesterday", "today", "this morning", "this week", "last week", "since lunch", "this afternoon"),
    *("in the last hour", "in the past 24 hours", "between 2 and 3 am", "since 8 am", "tonight", "this evening"),
    *("yesterday evening", "on Monday", "the night before", "in the last 10 minutes", "over the weekend", "at 3 am"),
    *(
        "during the night",
        "the day before yesterday",
        "between 10 pm and 6 am",
        "in the past two days",
        "since yesterday",
    ),
)
WEARERS = ("anna", "bob", "carla", "max", "grandma", "w-7", "opa", "lee")
CALLED = {
    "af": ("AF", "AFib", "atrial fibrillation", "a-fib", "fibrillation"),
    "svt": ("SVT", "supraventricular tachycardia"),
    "vt": ("VT", "ventricular tachycardia", "V-tach"),
    "vf": ("VF", "ventricular fibrillation"),
    "pause": ("pauses", "pause", "long pauses", "dropped beats", "moments when the heart stopped for a bit"),
    "asystole": ("asystole", "standstill"),
    "bradycardia": ("bradycardia", "slow heart rate", "slow episodes", "times the heart was too slow"),
    "tachycardia": ("tachycardia", "fast heart rate", "racing heart", "fast episodes"),
    "ectopy_rate": ("frequent ectopy", "periods of frequent extra beats"),
    "couplet": ("couplets", "pairs of PVCs"),
    "run": ("runs of ectopic beats", "runs", "salvos"),
    "bigeminy": ("bigeminy",),
    "trigeminy": ("trigeminy",),
    "r_on_t": ("R-on-T beats", "R on T"),
    "gap": ("gaps", "gaps in the recording", "holes in the data"),
    "lead_off": ("lead-off periods", "electrode off", "times the electrode came loose"),
    "flat": ("flat lines", "flat signal"),
    "unreadable": ("unreadable signal", "noise", "unreadable parts"),
    "link_lost": ("lost connections", "connection losses", "disconnects"),
    "battery_low": ("low battery warnings", "battery warnings"),
    "recording_stopped": ("stops of the recording", "times the recording stopped"),
    "symptom": ("symptoms", "button presses", "symptom marks", "times I pressed the button"),
    "pvc": ("PVCs", "VPBs", "premature ventricular beats", "ventricular extra beats", "PVC"),
    "sve": ("SVEs", "PACs", "supraventricular extra beats", "premature atrial beats"),
    "ectopic_beats": ("extra beats", "ectopic beats", "skipped beats", "extrasystoles"),
    "all_beats": ("beats", "heartbeats"),
    "any": ("events", "episodes", "alarms", "anything"),
    "serious": ("serious events", "urgent events", "anything serious", "dangerous episodes"),
    "critical": ("critical events", "critical alarms"),
    "lbbb": ("left bundle branch block", "LBBB beats"),
    "rbbb": ("right bundle branch block", "RBBB beats"),
    "paced": ("paced beats", "pacing"),
    "noise": ("noise", "artefacts"),
}
"""Label → what people call it."""
EPISODES = tuple(label for label in RULES if label in CALLED)
BEATS = ("pvc", "sve", "ectopic_beats")
GENERAL = ("any", "serious", "critical")

ASKED: dict[str, tuple[str, ...]] = {
    "count": (
        "how many {x} {t}?",
        "how many {x} did {w} have {t}?",
        "number of {x} {t}",
        "count the {x} {t}",
        "how often was there {x} {t}?",
        "did {w} have any {x} {t}?",
        "was there any {x} {t}?",
        "were there {x} {t}?",
        "any {x} {t}?",
    ),
    "list": (
        "when was there {x} {t}?",
        "list the {x} {t}",
        "show all {x} {t}",
        "which {x} {t}?",
        "at what times did {w} have {x} {t}?",
        "give me every {x} {t}",
    ),
    "first": ("when was the first {x} {t}?", "first {x} {t}", "when did the {x} start {t}?"),
    "last": ("when was the last {x} {t}?", "most recent {x} {t}", "when did {w} last have {x} {t}?", "latest {x} {t}"),
    "longest": ("what was the longest {x} {t}?", "longest {x} {t}", "how long was the longest {x} {t}?"),
    "total_time time": (
        "how long was {w} in {x} {t}?",
        "total time in {x} {t}",
        "how many minutes of {x} {t}?",
        "how much time was spent in {x} {t}?",
    ),
    "total_time share": (
        "what share of {t} was {x}?",
        "{x} burden {t}",
        "what percentage of the time was {x} {t}?",
        "how much of the time was {w} in {x} {t}, in percent?",
    ),
    "heart_rate mean": (
        "what was the average heart rate {t}?",
        "mean pulse {t}",
        "how fast was the heart on average {t}?",
    ),
    "heart_rate min": ("what was the lowest heart rate {t}?", "minimum pulse {t}", "how slow did the heart get {t}?"),
    "heart_rate max": ("what was the highest heart rate {t}?", "maximum pulse {t}", "how high did the pulse go {t}?"),
    "heart_rate latest": ("what is the heart rate now?", "current pulse", "what is the pulse of {w} right now?"),
    "hrv all": (
        "how variable was the heartbeat {t}?",
        "heart rate variability {t}",
        "HRV {t}",
        "what was the HRV {t}?",
    ),
    "hrv sdnn": ("SDNN {t}", "what was the SDNN {t}?"),
    "hrv rmssd": ("RMSSD {t}", "what was the rmssd {t}?"),
    "hrv pnn50": ("pNN50 {t}", "what was the pnn50 {t}?"),
    "interval pr": ("what was the PR interval {t}?", "PR {t}"),
    "interval qrs": ("how wide was the QRS {t}?", "QRS duration {t}"),
    "interval qt": ("what was the QT interval {t}?", "QT {t}"),
    "interval qtc": ("what was the QTc {t}?", "corrected QT {t}", "QTc {t}"),
    "trend heart_rate": (
        "how did the heart rate change {t}?",
        "trend of the pulse {t}",
        "is the heart rate rising {t}?",
    ),
    "trend hrv": ("how did the HRV develop {t}?", "trend of heart rate variability {t}"),
    "trend": (
        "did the {x} get worse {t}?",
        "trend of {x} {t}",
        "how did the {x} change {t}?",
        "are the {x} increasing {t}?",
    ),
    "compare heart_rate": ("was the heart rate higher {t} than {u}?", "compare the pulse {t} and {u}"),
    "compare hrv": ("compare the HRV {t} with {u}", "was the HRV better {t} than {u}?"),
    "compare summary": ("how was {t} compared with {u}?", "compare {t} and {u}"),
    "compare": ("more {x} {t} than {u}?", "compare {x} {t} with {u}", "were there fewer {x} {t} than {u}?"),
    "similar longest": ("find moments like the longest {x} {t}", "what looks like the longest {x} {t}?"),
    "similar last": ("find other moments like the last {x} {t}", "anything similar to the last {x} {t}?"),
    "similar first": ("find similar moments to the first {x} {t}",),
    "strip longest": ("show me the ECG of the longest {x} {t}", "strip of the longest {x} {t}"),
    "strip last": ("show the ECG of the last {x} {t}", "draw the last {x} {t}", "plot the last {x} {t}"),
    "strip first": ("show the first {x} {t}", "strip of the first {x} {t}"),
    "strip any period": ("show me the ECG {t}", "draw the signal {t}", "print a strip {t}"),
    "describe last": ("describe the last {x} {t}", "what does the last {x} {t} look like?"),
    "describe longest": ("describe the longest {x} {t}", "look at the longest {x} {t}"),
    "describe any period": ("describe the signal {t}", "what does the ECG look like {t}?", "look at the ECG {t}"),
    "localize": ("mark the {x} {t}", "where exactly is the {x} {t}?", "locate the {x} {t}", "highlight {x} {t}"),
    "coverage": (
        "how much was recorded {t}?",
        "was the strap on {t}?",
        "did {w} wear the device {t}?",
        "how good was the signal {t}?",
        "how complete is the recording {t}?",
    ),
    "device": (
        "is the battery ok?",
        "is it recording?",
        "is the device of {w} connected?",
        "battery status",
        "how is the strap?",
    ),
    "explain": (
        "what is {e}?",
        "what does {e} mean?",
        "explain {e}",
        "is {e} dangerous, what is it?",
        "tell me about {e}",
    ),
    "summary": (
        "what happened {t}?",
        "how was {w} {t}?",
        "summary {t}",
        "give me an overview of {t}",
        "how did {t} go?",
    ),
    "none": (
        *("what's the weather?", "tell me a joke", "who won the match?", "thanks", "what is my blood pressure {t}?"),
        *("how many steps did I take {t}?", "what is my oxygen {t}?", "order a pizza", "how are you?", "open the door"),
        *("what was my temperature {t}?", "how well did I sleep {t}?", "what is 17 times 4?", "call my son"),
    ),
}
FOLLOW = ("and {x}?", "and the {x}?", "what about {x}?", "how about {x}?")
FOLLOW_TIME = ("and {t}?", "what about {t}?", "and how was it {t}?")
FOLLOW_WHO = ("and {w}?", "what about {w}?", "and for {w}?")
TERM_WORDS = {
    "r_on_t": "R on T",
    "st_segment": "the ST segment",
    "lead_off": "lead off",
    "sinus_rhythm": "sinus rhythm",
}
_WEIGHT = {"count": 8, "list": 5, "last": 4, "longest": 3, "total_time time": 3, "total_time share": 3, "none": 4}


def pairs(seed: int, group: int, n: int, count: int) -> list[tuple[str, str]]:
    """Return `count` prompts with the lines that answer them."""
    rng = random.Random(f"plan-{seed}-{group}-{n}")
    return [_pair(rng) for _ in range(count)]


@cache
def _kinds() -> tuple[list[str], list[float]]:
    return list(ASKED), [_WEIGHT.get(kind, 1) for kind in ASKED]


def _pair(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.15:
        return _follow(rng)
    steps, texts, times = [], [], []
    number = 1 if rng.random() < 0.88 else 2
    for k in range(number):
        text, step = _one(rng)
        if step is None and (number > 1):
            return _pair(rng)
        texts.append(text.rstrip("?") if k + 1 < number else text)
        steps.append(step)
        times.append(text)
    question = rng.choice((" and ", ", and ", " and ")).join(texts)
    if rng.random() < 0.4:
        question = question[:1].upper() + question[1:]
    if rng.random() < 0.2:
        question = question.rstrip("?")
    marked = mark(question, WEARERS)
    found = tuple(step for step in steps if step is not None)
    return prompt(marked), f" {line(found, marked) or 'none'}\n"


def _one(rng: random.Random, kind: str = "", time: str | None = None) -> tuple[str, Step | None]:
    kinds, weights = _kinds()
    kind = kind or rng.choices(kinds, weights)[0]
    template = rng.choice(ASKED[kind])
    tool, *words = kind.split()
    needs = "{u}" in template or "of {t}" in template
    has_time = "{t}" in template and (needs or rng.random() < 0.75)
    time = rng.choice(TIMES) if has_time and time is None else (time or "")
    if tool == "compare":
        time = rng.choice(TIMES)
    versus = rng.choice([other for other in TIMES if other != time])
    wearer = rng.choice(WEARERS) if "{w}" in template and rng.random() < 0.5 else ""
    labels = (*EPISODES, *BEATS, *GENERAL)
    if tool == "localize":
        labels = (*EPISODES[:14], "pvc", "sve", "lbbb", "rbbb", "paced", "noise")
    elif tool in ("list", "longest"):
        labels = (*EPISODES, *GENERAL)
    elif tool == "count":
        labels = (*labels, "all_beats", "pvc", "pvc", "af", "pause")
    label = rng.choice(labels)
    term = rng.choice(TERMS)
    text = template.format(
        x=rng.choice(CALLED[label]),
        t=time if has_time or tool == "compare" else "",
        u=versus,
        w=wearer or "I",
        e=TERM_WORDS.get(term, term.replace("_", " ")),
    )
    text = " ".join(text.split()).replace(" ?", "?").replace(" ,", ",")
    if tool == "none":
        return text, None
    args: dict[str, str] = {}
    rest = list(words)
    for name in TOOLS[tool]:
        if name in ("label", "of") and "{x}" in template:
            args[name] = label
        elif name == "term":
            args[name] = term
        else:
            args[name] = rest.pop(0)
    args["period"] = time if "{t}" in template and (has_time or tool == "compare") else ""
    if tool == "compare":
        args["versus"] = versus
    return text, Step(tool, args | {"wearer": wearer})


def _follow(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(("count", "list", "longest", "total_time time", "last"))
    _, before = _one(rng, kind)
    assert before is not None
    context = (Step(before.tool, before.args | {"period": before.args["period"] or "last night", "wearer": ""}),)
    args = dict(context[0].args)
    which = rng.random()
    if which < 0.4:
        label = rng.choice((*EPISODES[:14], *(() if kind in ("list", "longest") else BEATS)))
        question, args["label"] = rng.choice(FOLLOW).format(x=rng.choice(CALLED[label])), label
    elif which < 0.7:
        args["period"] = rng.choice([time for time in TIMES if time != args["period"]])
        question = rng.choice(FOLLOW_TIME).format(t=args["period"])
    elif which < 0.85:
        args["wearer"] = rng.choice(WEARERS)
        question = rng.choice(FOLLOW_WHO).format(w=args["wearer"])
    else:
        question = rng.choice(("show me that", "show me the ECG", "let me see it", "draw it"))
        edge = kind if kind in ("longest", "last") else "last"
        marked = mark(question)
        step = Step("strip", {"label": args["label"], "which": edge, "period": args["period"], "wearer": ""})
        return prompt(marked, context), f" {line((step,), marked, context)}\n"
    marked = mark(question, WEARERS)
    return prompt(marked, context), f" {line((Step(context[0].tool, args),), marked, context)}\n"
