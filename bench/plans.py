"""`python -m bench.plans [FILE]`: plans of written questions beside those of the planners, exact or not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.assistant.localtime import to_utc_ns, zone
from edge.assistant.period import anchor, resolve
from edge.assistant.plan import TOOLS, Marked, Step, Steps, mark
from edge.assistant.reader import read
from edge.errors import BadInputError

DATA = Path(__file__).parent / "data"
Plan = Callable[[str, Marked, Steps], Steps]


def same_period(phrase: str, expected: Any, now_ns: int, timezone: str) -> bool:
    """Whether time words mean what a person wrote down: local times, an anchor in words, or None for none."""
    if expected is None or not phrase:
        return expected is None and not phrase
    hangs = anchor(phrase)
    if hangs is not None or isinstance(expected, str):
        if hangs is None:
            return False
        side = f"{hangs.seconds:g} s {hangs.side}" if hangs.side != "during" else "during"
        return bool(f"{side} {hangs.which} {hangs.label} {hangs.within}".strip() == expected)
    tz = zone(timezone)
    try:
        found = resolve(phrase, now_ns, tz)
    except BadInputError:
        return False
    start_ns, end_ns = (to_utc_ns(datetime.fromisoformat(text), tz) for text in expected)
    return (found.start_ns == start_ns or max(found.start_ns, start_ns) <= 0) and found.end_ns == end_ns


def exact(steps: Sequence[Step], item: dict[str, Any], data: dict[str, Any]) -> bool:
    """Whether steps are the written plan: tools, arguments, periods, wearers, in order."""
    now_ns = to_utc_ns(datetime.fromisoformat(data["now"]), zone(data["timezone"]))
    written = [call for call in item["plan"] if call["call"] != "none"]
    if len(steps) != len(written):
        return False
    for step, call in zip(steps, written, strict=True):
        if " ".join([step.tool, *(step.args[name] for name in TOOLS[step.tool])]) != call["call"]:
            return False
        if (step.args["wearer"] or data["asker"]) != call.get("wearer", data["asker"]):
            return False
        phrases = [step.args["period"], *([step.args["versus"]] if step.tool == "compare" else [])]
        names = call["periods"] or [""]
        if len(phrases) != len(names):
            return False
        for phrase, name in zip(phrases, names, strict=True):
            if not same_period(phrase, data["periods"][name], now_ns, data["timezone"]):
                return False
    return True


def score(data: dict[str, Any], plan: Plan) -> list[tuple[dict[str, Any], Steps, bool]]:
    """Return every question with its plan and whether that is exact; a follow-up follows the planner's own plan."""
    rows = []
    for item in data["questions"]:
        context: Steps = ()
        if "after" in item:
            context = plan(item["after"], mark(item["after"], data["wearers"]), ())
        marked = mark(item["question"], data["wearers"])
        steps = plan(item["question"], marked, context)
        rows.append((item, steps, exact(steps, item, data)))
    return rows


def by_words(_: str, marked: Marked, context: Steps) -> Steps:
    """Plan by the words alone."""
    reading = read(marked, context)
    return () if reading.unsupported or reading.unknown_time or reading.condition else reading.steps


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", type=Path, nargs="?", default=DATA / "plan_heldout.json")
    options.add_argument("--wrong", action="store_true", help="print the plans that are not exact")
    chosen = options.parse_args()
    data = json.loads(chosen.file.read_text(encoding="utf-8"))
    rows = score(data, by_words)
    right = sum(ok for *_, ok in rows)
    print(f"words: {right} of {len(rows)} exact ({100 * right / len(rows):.1f} %)")
    if chosen.wrong:
        for item, steps, ok in rows:
            if not ok:
                print(f"\n{item.get('after', '')} >> {item['question']}\n  written {item['plan']}")
                print(f"  found   {[step.as_json() for step in steps]}")


if __name__ == "__main__":
    main()
