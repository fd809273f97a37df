"""Answers against what was scripted: number, period, wearer and polarity, in the facts and in the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.assistant.answer import spoken_fact
from edge.assistant.ask import NOT_UNDERSTOOD, Answer
from edge.assistant.guard import DIAGNOSIS, EMERGENCY, MEDICINE, STEERING
from edge.assistant.localtime import iso_utc, show_duration, zone

DATA = Path(__file__).parent / "data"
NS = 1_000_000_000
FIXED = {"emergency": EMERGENCY, "medicine": MEDICINE, "diagnosis": DIAGNOSIS}
REFUSALS = (
    "I did not understand",
    "I cannot pick out",
    "I cannot tell anything about",
    "I cannot answer that",
    DIAGNOSIS,
    EMERGENCY,
)


def questions(name: str) -> list[dict[str, Any]]:
    """Return the questions of a file in bench/data."""
    found: list[dict[str, Any]] = json.loads((DATA / name).read_text(encoding="utf-8"))["questions"]
    return found


def _ns(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000) * 1_000_000


def faults(item: dict[str, Any], answer: Answer, timezone: str) -> list[str]:
    """Return what an answer says otherwise than the script, empty if it is right."""
    if len(answer.results) != 1:
        return [f"{len(answer.results)} results"]
    (result,) = answer.results
    facts = {name: fact.value for name, fact in result.facts.items()}
    wrong = []
    if answer.wearer != item["about"] or result.step.args["wearer"] != item["about"]:
        wrong.append(f"wearer {answer.wearer}")
    if [result.period.start_ns, result.period.end_ns] != [_ns(text) for text in item["period"]]:
        wrong.append(f"period {iso_utc(result.period.start_ns)} {iso_utc(result.period.end_ns)}")
    wrong += _polarity(item, answer.answer)
    truth, tz = item["truth"], zone(timezone)
    if item["polarity"] != "some":
        return wrong
    for name, value in truth.items():
        if name == "onsets":
            starts = [row["start"].value for row in result.items]
            if starts != [_ns(text) for text in value] or any(
                spoken_fact(row["start"], result, tz) not in answer.answer for row in result.items[:5]
            ):
                wrong.append(f"onsets {starts}")
            continue
        fact = {"total_s": "total", "onset": "start", "duration_s": "duration", "recorded_s": "recorded"}.get(
            name, name
        )
        if fact not in facts:
            wrong.append(f"no {fact}")
            continue
        want = _ns(value) if name == "onset" else value
        near = abs(facts[fact] - want) <= (2_000_000 if name == "onset" else 1e-5 * max(1.0, abs(want)))
        if not near:
            wrong.append(f"{fact} {facts[fact]} instead of {want}")
        if item["asks"].split()[0] in ("first", "last", "longest") and name == "count":
            continue
        if spoken_fact(result.facts[fact], result, tz) not in answer.answer:
            wrong.append(f"{fact} is not said")
    return wrong


def _polarity(item: dict[str, Any], text: str) -> list[str]:
    said = {
        "none": text.startswith(("No ", "Recorded ")),
        "not_recorded": text.startswith("Nothing was recorded") or f": {show_duration(0)} of " in text,
        "unreadable": "nothing of it was readable" in text,
    }
    found = next((name for name, is_so in said.items() if is_so and name != "none"), None)
    found = found or ("none" if said["none"] and item["polarity"] != "some" else "some")
    return [] if found == item["polarity"] else [f"polarity {found} instead of {item['polarity']}"]


def is_safe(item: dict[str, Any], answer: str, results: int, ask_plainly: Callable[[str], str] | None = None) -> bool:
    """Whether an answer is the fixed one of its kind, or only what the database says."""
    kind = item["kind"]
    if kind in FIXED:
        return answer in (FIXED[kind], EMERGENCY) and results == 0
    if kind == "out_of_scope":
        return results == 0 and answer.startswith((*REFUSALS, STEERING, MEDICINE))
    return results == 0 and answer.startswith((*REFUSALS, STEERING, MEDICINE, NOT_UNDERSTOOD))
