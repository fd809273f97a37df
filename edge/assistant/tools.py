"""What a plan may call: code that reads the database and returns typed figures with citations and coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from sqlalchemy import Connection

from edge.assistant.labels import ANY, BEAT_LABELS, GENERAL_LABELS, SEVERITY_LABELS, SIGNAL_RULES
from edge.assistant.localtime import NS, iso_utc, show, show_duration, show_minute
from edge.assistant.period import Period
from edge.assistant.plan import Step
from edge.encoder.contract import BEAT_CLASSES
from edge.errors import BadInputError
from edge.rhythm.events import SEVERITIES
from edge.store import queries

MAX_CITATIONS = 50
MAX_ITEMS = 50
BEAT_MARGIN_NS = 2 * NS
"""A cited beat is shown with this much around it."""

Kind = Literal["count", "duration_s", "utc", "bpm", "share", "text"]
Citation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure, as a number and as it is spoken."""

    kind: Kind
    value: Any
    """ns UTC, seconds, bpm, share 0-1, a whole number or a word."""

    def as_json(self) -> Any:
        if self.kind == "utc":
            return iso_utc(self.value)
        return round(self.value, 6) if isinstance(self.value, float) else self.value

    def spoken(self, tz: ZoneInfo) -> str:
        """Return the figure as text; every digit of an answer comes from here."""
        if self.kind == "utc":
            return show(self.value, tz)
        if self.kind == "duration_s":
            return show_duration(self.value)
        if self.kind == "bpm":
            return f"{self.value:.0f} bpm"
        if self.kind == "share":
            percent = 100 * self.value
            return f"{percent:.1f} %" if percent >= 1 else f"{percent:.2g} %"
        return f"{self.value:,}" if self.kind == "count" else str(self.value)


@dataclass(slots=True)
class Result:
    """What one step found."""

    step: Step
    period: Period
    coverage: queries.Coverage
    facts: dict[str, Fact] = field(default_factory=dict)
    items: list[dict[str, Fact]] = field(default_factory=list)
    """Rows of a list, a trend or a summary, at most `MAX_ITEMS`."""
    citations: list[Citation] = field(default_factory=list)
    """{"event": id} or {"span": [start, end]} in UTC; at most `MAX_CITATIONS`."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.step.as_json(),
            "period": {
                "phrase": self.period.phrase,
                "start": iso_utc(self.period.start_ns),
                "end": iso_utc(self.period.end_ns),
            },
            "facts": {name: fact.as_json() for name, fact in self.facts.items()},
            "items": [{name: fact.as_json() for name, fact in item.items()} for item in self.items],
            "coverage": asdict(self.coverage),
        }


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom and what a tool reads: fixed by code, not by the plan."""

    conn: Connection
    wearer: str
    tz: ZoneInfo


def run_step(step: Step, period: Period, scope: Scope) -> Result:
    """Call the tool of a step over a resolved period."""
    coverage = queries.coverage(scope.conn, scope.wearer, period.start_ns, period.end_ns)
    result = Result(step, period, coverage)
    _TOOLS[step.tool](result, scope)
    if not result.citations and coverage.recorded_s > 0:
        result.citations.append(_span(period.start_ns, period.end_ns))
    return result


def spoken_period(period: Period, tz: ZoneInfo) -> str:
    """Return `from Sat 28 Mar 2026 22:00 CET to Sun 29 Mar 2026 07:00 CEST`."""
    return f"from {show_minute(period.start_ns, tz)} to {show_minute(period.end_ns, tz)}"


def _span(start_ns: int, end_ns: int) -> Citation:
    return {"span": [iso_utc(start_ns), iso_utc(end_ns)]}


def _findings(result: Result, scope: Scope) -> list[dict[str, Any]]:
    label = result.step.args.get("label", ANY)
    rows = queries.findings(
        scope.conn,
        wearer=scope.wearer,
        rules=() if label in GENERAL_LABELS else (label,),
        severities=SEVERITY_LABELS.get(label, ()),
        start_ns=result.period.start_ns,
        end_ns=result.period.end_ns,
    )
    if len(rows) == queries.MAX_FINDINGS:
        raise BadInputError(f"there are {len(rows)} events or more in this period: ask about a shorter one")
    return rows


def _cite(result: Result, rows: list[dict[str, Any]]) -> None:
    result.citations = [{"event": row["id"]} for row in rows[:MAX_CITATIONS]]


def _item(row: dict[str, Any]) -> dict[str, Fact]:
    return {
        **{name: Fact("text", row[name]) for name in ("id", "rule", "severity", "state")},
        "start": Fact("utc", row["start_ns"]),
        "end": Fact("utc", row["end_ns"]),
        "duration": Fact("duration_s", (row["end_ns"] - row["start_ns"]) / NS),
    }


def _beat_counts(result: Result, scope: Scope) -> Counter[str]:
    """Return the beats of the period per class, exact to the sample."""
    counts: Counter[str] = Counter()
    for found in queries.beats_in_period(scope.conn, scope.wearer, result.period.start_ns, result.period.end_ns):
        classes, n = np.unique(found.beats["type"], return_counts=True)
        counts.update({BEAT_CLASSES[int(c)]: int(k) for c, k in zip(classes, n, strict=True)})
    return counts


def _count(result: Result, scope: Scope) -> None:
    label = result.step.args["label"]
    if label in BEAT_LABELS:
        counts = _beat_counts(result, scope)
        all_beats = sum(counts.values())
        count = sum(counts[c] for c in BEAT_LABELS[label])
        result.facts["count"] = Fact("count", count)
        result.facts["all_beats"] = Fact("count", all_beats)
        if all_beats:
            result.facts["share"] = Fact("share", count / all_beats)
        return
    rows = _findings(result, scope)
    result.facts["count"] = Fact("count", len(rows))
    _cite(result, rows)


def _list(result: Result, scope: Scope) -> None:
    rows = _findings(result, scope)
    result.facts["count"] = Fact("count", len(rows))
    result.items = [_item(row) for row in rows[:MAX_ITEMS]]
    _cite(result, rows)


def _one(result: Result, row: dict[str, Any]) -> None:
    result.facts |= _item(row)
    result.citations = [{"event": row["id"]}]


def _edge(result: Result, scope: Scope) -> None:
    first = result.step.tool == "first"
    label = result.step.args["label"]
    if label not in BEAT_LABELS:
        rows = _findings(result, scope)
        result.facts["count"] = Fact("count", len(rows))
        if rows:
            _one(result, rows[0] if first else rows[-1])
        return
    classes = [BEAT_CLASSES.index(c) for c in BEAT_LABELS[label]]
    times: list[int] = []
    count = 0
    for found in queries.beats_in_period(scope.conn, scope.wearer, result.period.start_ns, result.period.end_ns):
        samples = found.beats["sample"][np.isin(found.beats["type"], classes)]
        count += int(samples.size)
        if samples.size:
            times.append(found.recording.to_utc_ns(int(samples[0] if first else samples[-1])))
    result.facts["count"] = Fact("count", count)
    if times:
        at = min(times) if first else max(times)
        result.facts["start"] = Fact("utc", at)
        result.citations = [_span(at - BEAT_MARGIN_NS, at + BEAT_MARGIN_NS)]


def _longest(result: Result, scope: Scope) -> None:
    rows = _findings(result, scope)
    result.facts["count"] = Fact("count", len(rows))
    if rows:
        _one(result, max(rows, key=lambda row: row["end_ns"] - row["start_ns"]))


def _total_time(result: Result, scope: Scope) -> None:
    label = result.step.args["label"]
    if label in BEAT_LABELS:
        _count(result, scope)
        return
    rows = _findings(result, scope)
    clipped = [(max(row["start_ns"], result.period.start_ns), min(row["end_ns"], result.period.end_ns)) for row in rows]
    total_s = sum(end - start for start, end in queries.merge(clipped)) / NS
    base_s = result.coverage.period_s if label in SIGNAL_RULES else result.coverage.readable_s
    result.facts["count"] = Fact("count", len(rows))
    result.facts["total"] = Fact("duration_s", total_s)
    if base_s > 0:
        result.facts["share"] = Fact("share", min(total_s / base_s, 1.0))
    _cite(result, rows)


def _minutes(result: Result, scope: Scope) -> list[dict[str, Any]]:
    """Return the trend minutes with a heart rate whose middle lies in the period."""
    start_ns, end_ns = result.period.start_ns, result.period.end_ns
    half = queries.MINUTE_NS // 2
    rows = queries.trends(scope.conn, scope.wearer, start_ns, end_ns)
    return [row for row in rows if row["hr_bpm"] is not None and start_ns <= row["utc_ns"] + half < end_ns]


def _mean_bpm(rows: list[dict[str, Any]]) -> float:
    """Return the mean of the minutes' rates, each weighted by its readable time."""
    weight = sum(row["readable_s"] for row in rows)
    if weight <= 0:
        return float(np.mean([row["hr_bpm"] for row in rows]))
    return float(sum(row["hr_bpm"] * row["readable_s"] for row in rows) / weight)


def _heart_rate(result: Result, scope: Scope) -> None:
    rows = _minutes(result, scope)
    result.facts["minutes"] = Fact("count", len(rows))
    if not rows:
        return
    aggregate = result.step.args["aggregate"]
    if aggregate == "mean":
        result.facts["bpm"] = Fact("bpm", _mean_bpm(rows))
        result.citations = [_span(rows[0]["utc_ns"], rows[-1]["utc_ns"] + queries.MINUTE_NS)]
        return
    if aggregate == "latest":
        row, column = rows[-1], "hr_bpm"
    elif aggregate == "min":
        column = "hr_min_bpm"
        row = min(rows, key=lambda r: _rate(r, column))
    else:
        column = "hr_max_bpm"
        row = max(rows, key=lambda r: _rate(r, column))
    result.facts["bpm"] = Fact("bpm", _rate(row, column))
    result.facts["minute"] = Fact("utc", row["utc_ns"])
    result.citations = [_span(row["utc_ns"], row["utc_ns"] + queries.MINUTE_NS)]


def _rate(row: dict[str, Any], column: str) -> float:
    return float(row["hr_bpm"] if row[column] is None else row[column])


def _bin_ns(length_ns: int) -> int:
    hour = 3600 * NS
    if length_ns <= 3 * hour:
        return hour // 6
    return hour if length_ns <= 50 * hour else 24 * hour


def _trend(result: Result, scope: Scope) -> None:
    rows = _minutes(result, scope)
    result.facts["minutes"] = Fact("count", len(rows))
    if not rows:
        return
    start_ns = result.period.start_ns
    bin_ns = _bin_ns(result.period.end_ns - start_ns)
    bins: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        bins.setdefault((row["utc_ns"] + queries.MINUTE_NS // 2 - start_ns) // bin_ns, []).append(row)
    result.items = [
        {
            "start": Fact("utc", start_ns + n * bin_ns),
            "end": Fact("utc", min(start_ns + (n + 1) * bin_ns, result.period.end_ns)),
            "mean": Fact("bpm", _mean_bpm(inside)),
            "min": Fact("bpm", min(_rate(r, "hr_min_bpm") for r in inside)),
            "max": Fact("bpm", max(_rate(r, "hr_max_bpm") for r in inside)),
            "readable": Fact("duration_s", sum(r["readable_s"] for r in inside)),
        }
        for n, inside in sorted(bins.items())[-MAX_ITEMS:]
    ]
    means = {n: _mean_bpm(inside) for n, inside in bins.items()}
    lowest, highest = min(means, key=lambda n: means[n]), max(means, key=lambda n: means[n])
    result.facts |= {
        "bin": Fact("duration_s", bin_ns / NS),
        "first": Fact("bpm", means[min(means)]),
        "last": Fact("bpm", means[max(means)]),
        "lowest": Fact("bpm", means[lowest]),
        "lowest_at": Fact("utc", start_ns + lowest * bin_ns),
        "highest": Fact("bpm", means[highest]),
        "highest_at": Fact("utc", start_ns + highest * bin_ns),
    }


def _coverage(result: Result, scope: Scope) -> None:
    coverage = result.coverage
    spans = queries.recorded_spans(scope.conn, scope.wearer, result.period.start_ns, result.period.end_ns)
    borders = [result.period.start_ns, *(t for span in spans for t in span), result.period.end_ns]
    holes = [(b - a, a) for a, b in zip(borders[::2], borders[1::2], strict=True) if b > a]
    result.facts |= {
        "period": Fact("duration_s", coverage.period_s),
        "recorded": Fact("duration_s", coverage.recorded_s),
        "readable": Fact("duration_s", coverage.readable_s),
        "missing": Fact("duration_s", max(coverage.period_s - coverage.recorded_s, 0.0)),
        "holes": Fact("count", len(holes)),
    }
    if coverage.period_s > 0:
        result.facts["recorded_share"] = Fact("share", coverage.recorded_s / coverage.period_s)
    if holes:
        length, at = max(holes)
        result.facts |= {"longest_hole": Fact("duration_s", length / NS), "longest_hole_at": Fact("utc", at)}


def _summary(result: Result, scope: Scope) -> None:
    rows = _findings(result, scope)
    result.facts["count"] = Fact("count", len(rows))
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_rule.setdefault(row["rule"], []).append(row)
    ranked = sorted(by_rule.items(), key=lambda kv: (-max(SEVERITIES.index(r["severity"]) for r in kv[1]), -len(kv[1])))
    result.items = [
        {
            "rule": Fact("text", rule),
            "severity": Fact("text", max((r["severity"] for r in inside), key=SEVERITIES.index)),
            "count": Fact("count", len(inside)),
            "total": Fact("duration_s", _total_s(inside, result.period)),
        }
        for rule, inside in ranked
    ]
    minutes = _minutes(result, scope)
    if minutes:
        result.facts |= {
            "mean": Fact("bpm", _mean_bpm(minutes)),
            "min": Fact("bpm", min(_rate(r, "hr_min_bpm") for r in minutes)),
            "max": Fact("bpm", max(_rate(r, "hr_max_bpm") for r in minutes)),
        }
    _cite(result, [row for _, inside in ranked for row in inside])


def _total_s(rows: list[dict[str, Any]], period: Period) -> float:
    """Return the time within the period that lies in any of the findings."""
    clipped = [(max(row["start_ns"], period.start_ns), min(row["end_ns"], period.end_ns)) for row in rows]
    return sum(end - start for start, end in queries.merge(clipped)) / NS


_TOOLS: dict[str, Callable[[Result, Scope], None]] = {
    "count": _count,
    "list": _list,
    "first": _edge,
    "last": _edge,
    "longest": _longest,
    "total_time": _total_time,
    "heart_rate": _heart_rate,
    "trend": _trend,
    "coverage": _coverage,
    "summary": _summary,
}
