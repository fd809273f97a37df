"""From facts to questions and answers: localisation, report, yes/no, count, choose, rate, comparison of ECGs.

Every question has one right answer that follows from the annotations; what they do not say is not asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from edge.assistant import reports as r
from edge.assistant.comparing import ENOUGH_BPM, changes, named
from edge.assistant.reports import upper
from edge.assistant.wording import NAMES, RHYTHM_NAMES, write_spans
from export.assistant import wording as w
from export.assistant.facts import Facts

TASKS = ("localise", "report", "present", "count", "rate", "rhythm", "quality", "choose", "diagnose", "compare")
MOST_SPANS = 14
"""Localisations with more spans are not taught: their answers alone would fill a batch."""
CHANGED = "changed"
"""Label of the question what changed."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question about the ECGs of a row, with its answer as the model should write it."""

    task: str
    question: str
    answer: str
    label: str = ""


def localise(rng: random.Random, facts: Facts, label: str) -> Item:
    """Ask for the spans of a label."""
    question = w.pick(rng, w.LOCATE, x=w.named(rng, label))
    return Item("localise", question, write_spans(facts.spans[label]) + "\n", label)


def about_one(rng: random.Random, facts: Facts, wanted: Sequence[str], most: int) -> list[Item]:
    """Return up to `most` items of the wanted tasks about one clip, positives before negatives."""
    known = [label for label, spans in facts.spans.items() if len(spans) <= MOST_SPANS]
    there = [label for label in known if facts.spans[label]]
    absent = [label for label in known if not facts.spans[label]]
    rng.shuffle(there)
    rng.shuffle(absent)
    items: list[Item] = []
    if "localise" in wanted:
        chosen = there[:2] + sorted(absent, key=lambda x: x not in NEAR)[: 2 if len(there) < 2 else 1]
        items += [localise(rng, facts, label) for label in chosen]
    others = [item for task in wanted if task not in ("localise", "compare") for item in _one(rng, task, facts)]
    rng.shuffle(others)
    report = [item for item in others if item.task in ("report", "diagnose")]
    rest = [item for item in others if item.task not in ("report", "diagnose")]
    return (items + report[:1] + rest)[:most]


NEAR = ("PVC", "SVPB", "LBBB", "RBBB")
"""Labels whose absence is asked first: the paper's."""


def _one(rng: random.Random, task: str, facts: Facts) -> list[Item]:
    if task == "report":
        text = report(rng, facts)
        return [Item("report", w.pick(rng, w.REPORT), f" {text}\n")] if text else []
    if task == "present" and facts.spans:
        there = [label for label, spans in facts.spans.items() if spans]
        label = rng.choice(there if there and rng.random() < 0.5 else list(facts.spans))
        said = " Yes\n" if facts.spans[label] else " No\n"
        return [Item("present", w.pick(rng, w.PRESENT, x=w.named(rng, label)), said, label)]
    if task == "count":
        found = [("PVC", facts.pvcs), ("SVPB", facts.svpbs)]
        label, number = rng.choice(found)
        if number is not None:
            return [Item("count", w.pick(rng, w.COUNT, x=w.named(rng, label)), f" {number}\n", label)]
    if task == "rate" and facts.rate_bpm is not None:
        return [Item("rate", w.pick(rng, w.RATE), f" {facts.rate_bpm} bpm\n")]
    if task == "rhythm" and facts.rhythm is not None:
        return [Item("rhythm", w.pick(rng, w.RHYTHM), f" {upper(RHYTHM_NAMES[facts.rhythm])}\n")]
    if task == "choose" and facts.rhythm is not None:
        others = rng.sample([name for name in RHYTHM_NAMES if name != facts.rhythm], rng.choice((1, 2)))
        options = [RHYTHM_NAMES[name] for name in (facts.rhythm, *others)]
        rng.shuffle(options)
        asked = ", ".join(options[:-1]) + " or " + options[-1]
        return [Item("choose", w.pick(rng, w.CHOOSE, options=asked), f" {upper(RHYTHM_NAMES[facts.rhythm])}\n")]
    if task == "quality" and facts.quality is not None:
        said = {"good": " Good quality", "partly": " Partly unreadable", "poor": " Poor quality"}[facts.quality]
        return [Item("quality", w.pick(rng, w.QUALITY), said + "\n")]
    if task == "diagnose" and facts.statements:
        said = ", ".join(w.SUPERCLASSES[name] for name in facts.statements)
        return [Item("diagnose", w.pick(rng, w.DIAGNOSE), f" {upper(said)}\n")]
    return []


def report(rng: random.Random, facts: Facts) -> str:
    """Return a report of what is known: rhythm and rate, ectopy, conduction, quality; empty without rhythm."""
    if facts.rhythm is None or facts.quality is None:
        return ""
    rhythm = upper(RHYTHM_NAMES[facts.rhythm])
    if facts.rate_bpm is not None:
        text = w.pick(rng, r.WITH_RATE, rhythm=rhythm, rate=facts.rate_bpm)
    else:
        text = w.pick(rng, r.ALONE, rhythm=rhythm)
    if facts.pvcs is not None and facts.svpbs is not None:
        found = r.counted(facts.pvcs, facts.svpbs)
        text += w.pick(rng, r.ECTOPY, what=found) if found else w.pick(rng, r.NO_ECTOPY)
    if facts.conduction is not None:
        text += w.pick(rng, r.CONDUCTION[facts.conduction])
    return text + w.pick(rng, r.QUALITY[facts.quality])


def compare(rng: random.Random, ecgs: Sequence[Facts], most: int) -> list[Item]:
    """Return up to `most` items that compare two to four ECGs."""
    items: list[Item] = []

    def add(templates: Sequence[str], answer: str, label: str = "", **values: object) -> None:
        items.append(Item("compare", w.pick(rng, templates, **values), f" {answer}\n", label))

    rates = [one.rate_bpm for one in ecgs]
    known_rates = [rate for rate in rates if rate is not None]
    if len(known_rates) == len(ecgs):
        ordered = sorted(known_rates)
        if ordered[-1] - ordered[-2] >= ENOUGH_BPM:
            add(w.FASTEST, f"ECG {rates.index(ordered[-1]) + 1}")
        if ordered[1] - ordered[0] >= ENOUGH_BPM:
            add(w.SLOWEST, f"ECG {rates.index(ordered[0]) + 1}")
    counts = [one.pvcs for one in ecgs]
    known_counts = [count for count in counts if count is not None]
    if len(known_counts) == len(ecgs) and sorted(known_counts)[-1] > sorted(known_counts)[-2]:
        add(w.MOST, f"ECG {counts.index(max(known_counts)) + 1}", "PVC", x="PVCs")
    shared = set.intersection(*(set(one.spans) for one in ecgs))
    labels = [label for label in NAMES if label in shared]
    some = [label for label in labels if any(one.spans[label] for one in ecgs)]
    for label in rng.sample(some, min(2, len(some))) + rng.sample(labels, min(1, len(labels))):
        add(w.WHICH, named([bool(one.spans[label]) for one in ecgs]), label, x=w.named(rng, label))
    if all(one.rhythm for one in ecgs):
        add(w.SAME, "Yes" if len({one.rhythm for one in ecgs}) == 1 else "No")
    a, b = sorted(rng.sample(range(len(ecgs)), 2))
    changed = changes(ecgs[a], ecgs[b])
    if changed is not None:
        add(w.CHANGED, changed, CHANGED, a=a + 1, b=b + 1)
    rng.shuffle(items)
    return items[:most]
