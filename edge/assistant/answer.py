"""Results → sentences. Every figure, time and label is a slot that code fills; the sentences are fixed.

Answers state what was found instead of saying yes or no, so a negated question cannot turn one into its opposite.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

from edge.assistant.labels import ANY, BEAT_LABELS, GENERAL_LABELS, SIGNAL_RULES, SPOKEN
from edge.assistant.localtime import show_duration
from edge.assistant.tools import Fact, Result, spoken_period

SHOWN_ITEMS = 5
UNANALYSED_S = 60.0
"""Less than this is the ordinary lag of analysis and goes unsaid."""

_TEMPLATES = {
    "count": "{count} {label} {period}.",
    "count_beats": "{count} {label} {period}, {share} of {all_beats} beats.",
    "list": "{count} {label} {period}: {items}.",
    "first": "The first {rule} {period} began at {start} and lasted {duration}{open}.",
    "last": "The last {rule} {period} began at {start} and lasted {duration}{open}.",
    "first_beat": "The first {label_one} {period} was at {start}.",
    "last_beat": "The last {label_one} {period} was at {start}.",
    "longest": "The longest {rule} {period} lasted {duration}{open}; it began at {start}.",
    "total_time": "{count} {label} {period}, {total} in all, {share} of the {base}.",
    "total_time_no_share": "{count} {label} {period}, {total} in all.",
    "mean": "The mean heart rate {period} was {bpm}.",
    "min": "The lowest heart rate {period} was {bpm}, in the minute from {minute}.",
    "max": "The highest heart rate {period} was {bpm}, in the minute from {minute}.",
    "latest": "The latest heart rate {period} is {bpm}, in the minute from {minute}.",
    "trend": (
        "Heart rate {period}, in steps of {bin}: {first} in the first step, {last} in the last; "
        "lowest {lowest} from {lowest_at}, highest {highest} from {highest_at}."
    ),
    "coverage": "Recorded {period}: {recorded} of {period_length} ({recorded_share}), of which {readable} readable.",
    "coverage_hole": " {missing} are missing in {holes} {pieces}, the longest {longest_hole} from {longest_hole_at}.",
    "summary": "{count} {label} {period}: {items}.",
    "summary_rate": " Heart rate: mean {mean}, lowest {min}, highest {max}.",
    "none": "No {label} were found {period}.",
    "no_rate": "There is no heart rate {period}.",
    "not_recorded": "Nothing was recorded {period}, so I cannot tell {what}.",
    "not_analysed": "What was recorded {period} ({recorded}) has not been analysed yet, so I cannot tell {what}.",
    "not_readable": "{recorded} were recorded {period}, but nothing of it was readable, so I cannot tell {what}.",
    "basis": " This rests on {readable} of readable signal, {recorded} recorded, in a period of {period_length}.",
    "unanalysed": " {unanalysed} of the recording are not analysed yet.",
}


def speak(result: Result, tz: ZoneInfo) -> str:
    """Return the sentences that state a result and what it rests on."""
    slots = _slots(result, tz)
    tool = result.step.tool
    if tool == "coverage":
        hole = _TEMPLATES["coverage_hole"] if "longest_hole" in result.facts else ""
        return (_TEMPLATES["coverage"] + hole + _unanalysed(result)).format_map(slots)
    blind = _blind(result)
    if blind is not None:
        return _TEMPLATES[blind].format_map(slots)
    return (_said(result) + _TEMPLATES["basis"] + _unanalysed(result)).format_map(slots)


def _blind(result: Result) -> str | None:
    """Return why nothing can be said, None if something can: nothing found in no signal is not "none"."""
    found = result.facts.get("count", result.facts.get("minutes"))
    if found is not None and found.value:
        return None
    coverage = result.coverage
    if coverage.recorded_s <= 0:
        return "not_recorded"
    if result.step.args.get("label") in SIGNAL_RULES:
        return None
    if coverage.readable_s > 0:
        return None
    return "not_analysed" if coverage.analysed_s <= 0 else "not_readable"


def _said(result: Result) -> str:
    tool, facts = result.step.tool, result.facts
    if tool in ("heart_rate", "trend"):
        if "minutes" not in facts or not facts["minutes"].value:
            return _TEMPLATES["no_rate"]
        return _TEMPLATES["trend" if tool == "trend" else result.step.args["aggregate"]]
    if tool == "summary":
        rate = _TEMPLATES["summary_rate"] if "mean" in facts else ""
        return _TEMPLATES["summary" if facts["count"].value else "none"] + rate
    beats = result.step.args["label"] in BEAT_LABELS
    if not facts["count"].value:
        return _TEMPLATES["none"]
    if tool in ("first", "last"):
        return _TEMPLATES[f"{tool}_beat" if beats else tool]
    if beats:
        return _TEMPLATES["count_beats"]
    if tool == "total_time" and "share" not in facts:
        return _TEMPLATES["total_time_no_share"]
    return _TEMPLATES[tool]


def _unanalysed(result: Result) -> str:
    lag_s = result.coverage.recorded_s - result.coverage.analysed_s
    return _TEMPLATES["unanalysed"] if lag_s >= UNANALYSED_S else ""


def _slots(result: Result, tz: ZoneInfo) -> dict[str, str]:
    coverage = result.coverage
    label = result.step.args.get("label", ANY)
    one, several = SPOKEN[label]
    count = result.facts.get("count", Fact("count", 0)).value
    heart = result.step.tool in ("heart_rate", "trend")
    slots = {name: fact.spoken(tz) for name, fact in result.facts.items()}
    if "rule" in slots:
        slots["rule"] = SPOKEN[slots["rule"]][0]
    return slots | {
        "label": one if count == 1 else several,
        "label_one": one,
        "what": "the heart rate" if heart else f"whether there were {several}",
        "period": spoken_period(result.period, tz),
        "base": "period" if label in SIGNAL_RULES else "readable time",
        "open": " so far (it goes on)" if result.facts.get("state", Fact("text", "")).value == "open" else "",
        "period_length": show_duration(coverage.period_s),
        "recorded": show_duration(coverage.recorded_s),
        "readable": show_duration(coverage.readable_s),
        "unanalysed": show_duration(coverage.recorded_s - coverage.analysed_s),
        "pieces": "piece" if result.facts.get("holes", Fact("count", 0)).value == 1 else "pieces",
        "items": _items(result, tz) if result.step.tool in ("list", "summary") else "",
    }


def _items(result: Result, tz: ZoneInfo) -> str:
    def words(item: dict[str, Fact]) -> str:
        one, several = SPOKEN[item["rule"].value]
        if "count" in item:
            count = item["count"]
            return f"{count.spoken(tz)} {one if count.value == 1 else several} ({item['total'].spoken(tz)})"
        named = f"{one}, " if result.step.args.get("label") in GENERAL_LABELS else ""
        return f"{named}{item['start'].spoken(tz)} for {item['duration'].spoken(tz)}"

    shown = "; ".join(words(item) for item in result.items[:SHOWN_ITEMS])
    total = result.facts["count"].value if result.step.tool == "list" else len(result.items)
    more = total - min(len(result.items), SHOWN_ITEMS)
    return f"{shown}; and {more} more" if more > 0 else shown
