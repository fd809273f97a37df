"""Results → sentences. Every figure, time, label and negation is a slot that code fills; the wording around is chosen.

For each result there are a few sentences that say the same; `answer_grammar` is the GBNF of them all, so a language
model may choose how it is said and cannot change what is said. It writes until its choice is clear (`settle`); the
rest follows from that. Slots are written `{r1.count}` and filled as soon as they are complete, so an answer can be
streamed. Answers state what was found instead of saying yes or no, so a negated
question cannot turn one into its opposite.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from zoneinfo import ZoneInfo

from edge.assistant.glossary import GLOSSARY
from edge.assistant.labels import ANY, BEAT_LABELS, GENERAL_LABELS, SIGNAL_RULES, SPOKEN
from edge.assistant.localtime import show_duration
from edge.assistant.plan import SPAN, TOOLS
from edge.assistant.result import Fact, Result, is_one_day, spoken_period

SHOWN_ITEMS = 5
SHOWN_STEPS = 10
"""Steps of a course that are all named."""
SHOWN_KINDS = 8
"""Kinds of events that a summary names."""
UNANALYSED_S = 60.0
"""Less than this is the ordinary lag of analysis and goes unsaid."""

_FRAMES: dict[str, tuple[str, ...]] = {
    "count": (
        "{count} {label} {period}{which}.",
        "I found {count} {label} {period}{which}.",
        "The recording shows {count} {label} {period}{which}.",
    ),
    "count_beats": (
        "{count} {label} {period}, {share} of {all_beats} beats.",
        "I counted {count} {label} {period}, that is {share} of {all_beats} beats.",
    ),
    "list": ("{count} {label} {period}: {items}.", "I found {count} {label} {period}: {items}."),
    "first": (
        "The first {rule} {period} began at {start} and lasted {duration}{open}.",
        "It began at {start}: the first {rule} {period}, which lasted {duration}{open}.",
    ),
    "last": (
        "The last {rule} {period} began at {start} and lasted {duration}{open}.",
        "It began at {start}: the last {rule} {period}, which lasted {duration}{open}.",
    ),
    "first_beat": ("The first {label_one} {period} was at {start}.",),
    "last_beat": ("The last {label_one} {period} was at {start}.",),
    "longest": (
        "The longest {rule} {period} lasted {duration}{open}; it began at {start}.",
        "It lasted {duration}{open}: the longest {rule} {period}, which began at {start}.",
    ),
    "total_time": (
        "{count} {label} {period}, {total} in all, {share} of the {base}.",
        "{total} in all {period}, in {count} {label}: {share} of the {base}.",
    ),
    "total_time_no_share": ("{count} {label} {period}, {total} in all.",),
    "mean": ("The mean heart rate {period} was {bpm}.", "On average {bpm} {period}."),
    "min": (
        "The lowest heart rate {period} was {bpm}, in the minute from {minute}.",
        "It went down to {bpm} {period}, in the minute from {minute}.",
    ),
    "max": (
        "The highest heart rate {period} was {bpm}, in the minute from {minute}.",
        "It went up to {bpm} {period}, in the minute from {minute}.",
    ),
    "latest": ("The latest heart rate {period} is {bpm}, in the minute from {minute}.",),
    "trend": (
        "{subject} {period}, in steps of {bin}: {first} in the first step, {last} in the last; "
        "lowest {lowest} from {lowest_at}, highest {highest} from {highest_at}.",
    ),
    "course": ("{subject} {period}, in steps of {bin}: {items}.",),
    "hrv": ("Heart rate variability {period}: {figures}, from {nn} intervals between normal beats.",),
    "interval": (
        "{interval} {period}: {median}{spread_said}, the median of {beats} beats in {clips} clips.{formula_said}",
    ),
    "compare": (
        "{subject}: {a_said} {period}; {b_said} {versus}.{change}",
        "{subject} {period}: {a_said}. {versus_start}: {b_said}.{change}",
    ),
    "coverage": (
        "Recorded {period}: {recorded} of {period_length} ({recorded_share}), of which {readable} "
        "readable.{holes_said}",
    ),
    "device": ("The device is {state}, the gateway is {gateway}.{received}{open_said}",),
    "strip": (
        "A strip of {seconds} from {start}, with the {which_word} {rule} {period}.",
        "Here is the {which_word} {rule} {period}: {seconds} from {start}.",
    ),
    "strip_span": ("A strip of {seconds} from {start}.",),
    "describe": ("The language model, looking at {seconds} from {start}, reads: {seen}",),
    "localize": (
        "The language model marks {count} {spans} {period}: {items}. The rhythm engine found {engine}; they agree on "
        "{agreed}, {model_only} only the model sees, {engine_only} only the engine.{part}",
    ),
    "localize_none": ("{unmarked} The rhythm engine found {engine}.{part}",),
    "similar": ("Most like the {which_word} {rule} (from {onset}) in the period {period}: {items}.",),
    "explain": ("{explanation}",),
    "summary": ("{count} {label} {period}: {items}.{rates}",),
    "summary_none": ("{absence}{rates}",),
    "none": ("{absence}",),
    "unknown": ("{unknown}",),
}
"""What is said → the ways to say it, the first one where nobody chooses."""
_UNKNOWN = {
    "no_rate": "There is no heart rate {period}.",
    "missing": "I cannot tell {what} {period}: {why}.",
    "not_recorded": "Nothing was recorded {period}, so I cannot tell {what}.",
    "not_analysed": "What was recorded {period} ({recorded}) has not been analysed yet, so I cannot tell {what}.",
    "not_readable": "{recorded} were recorded {period}, but nothing of it was readable, so I cannot tell {what}.",
}
"""Why something cannot be told → the sentence of the slot `unknown`."""
_BASIS = (
    " All {period_length} of it readable.",
    " Recorded: {recorded} of {period_length}, all readable.",
    " Recorded: {recorded} of {period_length}, readable {readable}.",
    " Nothing was recorded in these {period_length}.",
)
_THAT_TIME = "in that time"
"""The period of a result, if it is that of the one before."""
_UNANALYSED = " {unanalysed} of the recording are not analysed yet."
_NO_BASIS = ("explain", "device", "coverage", "compare", "strip", "describe", "similar", "localize")
_INTERVAL_NAMES = {"pr": "the PR interval", "qrs": "the QRS duration", "qt": "the QT interval", "qtc": "QTc"}


def frames(result: Result) -> tuple[str, ...]:
    """Return the ways to state a result, each with slots and with what it rests on."""
    kind = _kind(result)
    if kind in _UNKNOWN:
        return _FRAMES["unknown"] if kind != "no_rate" else ("{unknown}{coverage}",)
    tail = "" if result.step.tool in _NO_BASIS else "{coverage}"
    return tuple(frame + tail for frame in _FRAMES[kind])


def ways(result: Result, n: int) -> list[str]:
    """Return the ways to state the n-th result (from 1), as text with slots."""
    return [f" {_numbered(frame, n)}" for frame in frames(result)]


def answer_grammar(choices: Sequence[str]) -> str:
    """Return the GBNF of the ways to say something."""
    return f"root ::= {' | '.join(_literal(way) for way in choices)}\n"


def settle(pieces: Iterable[str], choices: Sequence[str]) -> str:
    """Return the way that a model chooses, as soon as what it has written fits no other one.

    Raises:
        ValueError: it fits none, or ended before it was clear.
    """
    left, said = list(choices), ""
    if len(left) > 1:
        for piece in pieces:
            said += piece
            left = [way for way in left if way.startswith(said) or said.startswith(way)]
            if len(left) <= 1:
                break
    if len(left) != 1:
        raise ValueError(f"not a way to say it: {said[:80]!r}")
    return left[0]


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _numbered(frame: str, n: int) -> str:
    return re.sub(r"\{(\w+)\}", rf"{{r{n}.\1}}", frame)


def plain_frames(results: Sequence[Result]) -> str:
    """Return the wording used where no model chooses one."""
    return "".join(ways(result, n)[0] for n, result in enumerate(results, 1))


def fill(pieces: Iterable[str], results: Sequence[Result], tz: ZoneInfo) -> Iterator[str]:
    """Yield text with its slots filled, as soon as each is complete.

    Raises:
        ValueError: a slot that no result has.
    """
    slots: dict[str, str] = {}
    for n, result in enumerate(results, 1):
        last, following = results[n - 2] if n > 1 else None, results[n] if n < len(results) else None
        found = _slots(result, tz, same_time=last is not None and _shares(result, last))
        if following is not None and _shares(result, following) and "{coverage}" in frames(following)[0]:
            found["coverage"] = ""  # said once, at the end
        slots |= {f"r{n}.{name}": text for name, text in found.items()}
    held = ""
    first = True
    for piece in pieces:
        held += piece
        while held:
            start = held.find("{")
            if start < 0:
                said, held = held, ""
            elif start > 0:
                said, held = held[:start], held[start:]
            else:
                end = held.find("}")
                if end < 0:
                    break
                name = held[1:end]
                if name not in slots:
                    raise ValueError(f"no such slot: {name[:40]!r}")
                said, held = slots[name], held[end + 1 :]
            if first:
                said = said.lstrip()
                first = not said
            if said:
                yield said
    if held:
        raise ValueError("a slot was cut short")


def spoken_fact(fact: Fact, result: Result, tz: ZoneInfo) -> str:
    """Return a figure of a result as text: a time by the clock alone where the answer names its one day."""
    text = fact.spoken(tz)
    inside = fact.kind == "utc" and result.period.start_ns <= fact.value < result.period.end_ns
    if result.step.args.get("which") == SPAN:
        return text
    if inside and result.step.tool not in ("compare", "device", "describe") and is_one_day(result.period, tz):
        return text.split(" ", 3)[3]
    return text


def _shares(one: Result, other: Result) -> bool:
    """Whether two results are about the same time of the same wearer, and rest on the same."""
    return (
        (one.period.start_ns, one.period.end_ns, one.step.args["wearer"])
        == (other.period.start_ns, other.period.end_ns, other.step.args["wearer"])
        and one.coverage == other.coverage
        and not {one.step.tool, other.step.tool} & {"explain", "device", "compare"}
    )


def speak(result: Result, tz: ZoneInfo) -> str:
    """Return the sentences that state a result and what it rests on, in the usual wording."""
    return "".join(fill([plain_frames([result])], [result], tz))


def _blind(result: Result) -> str | None:
    """Return why nothing can be said, None if something can: nothing found in no signal is not "none"."""
    found = result.facts.get("count", result.facts.get("minutes", result.facts.get("nn")))
    if found is not None and found.value:
        return None
    coverage = result.coverage
    if coverage.recorded_s <= 0:
        return "not_recorded"
    if result.step.args.get("label", result.step.args.get("of")) in SIGNAL_RULES:
        return None
    if coverage.readable_s > 0:
        return None
    return "not_analysed" if coverage.analysed_s <= 0 else "not_readable"


def _kind(result: Result) -> str:
    tool, facts, args = result.step.tool, result.facts, result.step.args
    if tool in ("explain", "coverage", "compare"):
        return tool
    if tool == "device":
        return "missing" if result.missing else tool
    blind = _blind(result)
    if blind is not None:
        return blind
    if result.missing:
        return "missing"
    if tool in ("strip", "describe"):
        if args["which"] != SPAN and not facts["count"].value:
            return "none"
        return "strip_span" if tool == "strip" and args["which"] == SPAN else tool
    if tool == "localize":
        return tool if facts["count"].value else "localize_none"
    if tool == "heart_rate":
        return args["aggregate"] if facts["minutes"].value else "no_rate"
    if tool == "trend":
        if "first" not in facts:
            return "no_rate"
        return "course" if len(result.items) <= SHOWN_STEPS else "trend"
    if tool in ("hrv", "interval"):
        return tool
    if not facts["count"].value:
        return "summary_none" if tool == "summary" else "none"
    if tool in ("summary", "similar"):
        return tool
    beats = args["label"] in BEAT_LABELS
    if args["label"] == "all_beats" and tool not in ("first", "last"):
        return "count"
    if tool in ("first", "last"):
        return f"{tool}_beat" if beats else tool
    if beats:
        return "count_beats"
    return "total_time_no_share" if tool == "total_time" and "share" not in facts else tool


def _slots(result: Result, tz: ZoneInfo, *, same_time: bool = False) -> dict[str, str]:
    coverage, facts, args = result.coverage, result.facts, result.step.args
    label = args.get("label", args.get("of", ANY))
    one, several = SPOKEN.get(label, ("place", "places"))
    count = facts.get("count", Fact("count", 0)).value
    period = _THAT_TIME if same_time else spoken_period(result.period, tz, result.now_ns)
    slots = {name: spoken_fact(fact, result, tz) for name, fact in facts.items()}
    if "rule" in slots:
        slots["rule"] = SPOKEN[slots["rule"]][0]
    slots |= {
        "label": one if count == 1 else several,
        "label_one": one,
        "what": _what(result, several),
        "why": result.missing,
        "absence": f"No {several} were found {period}.",
        "period": period,
        "base": "period" if label in SIGNAL_RULES else "readable time",
        "open": " so far (it goes on)" if facts.get("state", Fact("text", "")).value == "open" else "",
        "period_length": show_duration(coverage.period_s),
        "recorded": show_duration(coverage.recorded_s),
        "readable": show_duration(coverage.readable_s),
        "unanalysed": show_duration(coverage.recorded_s - coverage.analysed_s),
        "items": _items(result, tz),
        "which": _named(result, tz),
        "which_word": {"last": "latest"}.get(args.get("which", ""), args.get("which", "")),
        "rates": f" Heart rate: mean {slots['mean']}, lowest {slots['min']}, highest {slots['max']}."
        if "mean" in slots and result.step.tool == "summary"
        else "",
        "subject": _subject(result, several),
    }
    kind = _kind(result)
    if kind in _UNKNOWN:
        slots["unknown"] = _UNKNOWN[kind].format_map(slots)
    slots["unmarked"] = f"The language model marks nothing {period}."
    slots["coverage"] = (_basis(result) + (_UNANALYSED if _lags(result) else "")).format_map(slots)
    return slots | _slots_of_tool(result, tz, slots)


def _basis(result: Result) -> str:
    coverage = result.coverage
    lost_s, unread_s = coverage.period_s - coverage.recorded_s, coverage.recorded_s - coverage.readable_s
    if coverage.recorded_s <= 0:
        return _BASIS[3]
    if unread_s >= min(60.0, 0.01 * coverage.recorded_s):
        return _BASIS[2]
    return _BASIS[0 if lost_s < min(60.0, 0.01 * coverage.period_s) else 1]


def _slots_of_tool(result: Result, tz: ZoneInfo, slots: dict[str, str]) -> dict[str, str]:
    tool, facts = result.step.tool, result.facts
    if tool == "coverage":
        said = ""
        if "longest_hole" in facts:
            longest = (
                f" in {slots['holes']} pieces, the longest {slots['longest_hole']}" if facts["holes"].value > 1 else ""
            )
            said = f" {slots['missing']} are missing{longest}, from {slots['longest_hole_at']}."
        return {"holes_said": said + (_UNANALYSED.format_map(slots) if _lags(result) else "")}
    if tool == "explain":
        return {"explanation": GLOSSARY[facts["term"].value]}
    if tool == "hrv":
        wanted = result.step.args["measure"]
        names = [n for n in ("sdnn", "rmssd", "pnn50") if n in facts and wanted in ("all", n)]
        spoken = {"sdnn": "SDNN", "rmssd": "RMSSD", "pnn50": "pNN50"}
        return {"figures": ", ".join(f"{spoken[n]} {slots[n]}" for n in names)}
    if tool == "interval":
        name = result.step.args["name"]
        formula = f" Corrected by {facts['formula'].value}'s formula." if name == "qtc" and "formula" in facts else ""
        spread = f" (middle half within {slots['spread']})" if "spread" in facts else ""
        return {
            "interval": _INTERVAL_NAMES[name].removeprefix("the "),
            "spread_said": spread,
            "formula_said": formula,
        }
    if tool == "compare":
        return _slots_of_compare(result, tz)
    if tool == "device":
        received = f" Last data at {slots['last_received']}." if "last_received" in slots else " No data so far."
        return {"received": received, "open_said": f" Open: {slots['items']}." if result.items else ""}
    if tool == "localize" and "engine" in facts:
        part = ""
        if facts["left"].value > 0:
            part = (
                f" All this is about the {slots['read']} that stood out most, read in the time for one answer; another "
                f"{slots['left']} stood out: ask about a shorter period for those."
            )
        elif facts["whole"].value == "part":
            part = f" It read {slots['read']} around what stood out, not everything."
        return {"part": part, "spans": "span" if facts["count"].value == 1 else "spans"}
    return {}


def _slots_of_compare(result: Result, tz: ZoneInfo) -> dict[str, str]:
    assert result.versus is not None
    versus = spoken_period(result.versus, tz, result.now_ns)
    change = ""
    first = next((name for name in result.facts if name.startswith("change.")), None)
    if first is not None:
        change = f" The difference is {result.facts[first].spoken(tz)}."
    return {
        "a_said": _side(result, "a", tz),
        "b_said": _side(result, "b", tz),
        "versus": versus,
        "versus_start": versus[0].upper() + versus[1:],
        "change": change,
    }


def _side(result: Result, letter: str, tz: ZoneInfo) -> str:
    """Return the figures of one side of a comparison, or why there are none."""
    facts = {name[2:]: fact for name, fact in result.facts.items() if name.startswith(f"{letter}.")}
    if facts["recorded"].value <= 0:
        return "unknown, nothing was recorded"
    if facts["readable"].value <= 0:
        return "unknown, nothing of it was readable"
    names = {"mean": "mean ", "min": "lowest ", "max": "highest ", "sdnn": "SDNN ", "rmssd": "RMSSD "}
    said = [f"{names[n]}{facts[n].spoken(tz)}" for n in names if n in facts]
    if "count" in facts:
        rest = f" ({facts['share'].spoken(tz)} of the beats)" if "share" in facts else ""
        rest = f" ({facts['total'].spoken(tz)} in all)" if "total" in facts and facts["total"].value else rest
        said = [facts["count"].spoken(tz) + rest, *said]
    basis = f"{facts['readable'].spoken(tz)} readable"
    return f"{', '.join(said)}, over {basis}" if said else f"unknown, too little to measure in {basis}"


def _subject(result: Result, several: str) -> str:
    of = result.step.args.get("of", "")
    names = {"heart_rate": "Heart rate", "hrv": "Heart rate variability (RMSSD)", "summary": "Events and heart rate"}
    if of == "hrv" and result.step.tool == "compare":
        return "Heart rate variability"
    return names.get(of, several[0].upper() + several[1:])


def _what(result: Result, several: str) -> str:
    tool, args = result.step.tool, result.step.args
    if tool == "heart_rate" or args.get("of") == "heart_rate":
        return "the heart rate"
    if tool == "hrv" or args.get("of") == "hrv":
        return "the heart rate variability"
    if tool == "interval":
        return _INTERVAL_NAMES[args["name"]]
    if tool == "device":
        return "how the device is"
    if tool in ("strip", "describe"):
        return "what the signal looks like"
    if tool == "localize":
        return "where they are in the signal"
    if tool == "similar":
        return "what looks like it"
    return f"whether there were {several}"


def _lags(result: Result) -> bool:
    return result.coverage.recorded_s - result.coverage.analysed_s >= UNANALYSED_S


def _named(result: Result, tz: ZoneInfo) -> str:
    """Return when the events of a count began, if they are few."""
    if result.step.tool != "count" or not 0 < len(result.items) <= 3:
        return ""
    return f": {_items(result, tz)}"


def _items(result: Result, tz: ZoneInfo) -> str:
    def said(fact: Fact) -> str:
        return spoken_fact(fact, result, tz)

    def words(item: dict[str, Fact]) -> str:
        if "value" in item:
            return f"{said(item['value'])} from {said(item['start'])}"
        if "likeness" in item:
            rule = item["event"].value
            name = SPOKEN[rule][0] if rule in SPOKEN else rule
            return f"{said(item['start'])} ({name}, likeness {said(item['likeness'])})"
        if "engine" in item:
            return f"{said(item['start'])} for {said(item['duration'])}"
        one, several = SPOKEN[item["rule"].value]
        if "count" in item:
            count = item["count"]
            return f"{said(count)} {one if count.value == 1 else several} ({said(item['total'])})"
        if "duration" not in item:
            return f"{one} since {said(item['start'])}"
        named = f"{one}, " if result.step.args.get("label") in GENERAL_LABELS else ""
        return f"{named}{said(item['start'])} for {said(item['duration'])}"

    if not result.items or result.step.tool not in (*TOOLS,):
        return ""
    most = {"summary": SHOWN_KINDS, "trend": SHOWN_STEPS}.get(result.step.tool, SHOWN_ITEMS)
    shown = "; ".join(words(item) for item in result.items[:most])
    total = result.facts["count"].value if result.step.tool in ("list", "count", "localize") else len(result.items)
    more = total - min(len(result.items), most)
    return f"{shown}; and {more} more" if more > 0 else shown
