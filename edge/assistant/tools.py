"""What a plan may call: code that reads the database and returns typed figures with citations and coverage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edge.assistant import looking, measures, waves
from edge.assistant.find import beat_counts, cite, findings, item, minutes, rate, total_s
from edge.assistant.labels import ANY, BEAT_LABELS, SIGNAL_RULES
from edge.assistant.localtime import NS
from edge.assistant.period import Period
from edge.assistant.plan import Step
from edge.assistant.result import BEAT_MARGIN_NS, MAX_ITEMS, Fact, Result, Scope, span
from edge.encoder.contract import BEAT_CLASSES
from edge.rhythm.events import SEVERITIES
from edge.store import queries


def run_step(step: Step, period: Period, scope: Scope, versus: Period | None = None) -> Result:
    """Call the tool of a step over a resolved period."""
    coverage = queries.coverage(scope.conn, scope.wearer, period.start_ns, period.end_ns)
    result = Result(step, period, coverage, versus=versus, now_ns=scope.now_ns)
    _TOOLS[step.tool](result, scope)
    if step.tool not in ("explain", "device") and not result.citations and coverage.recorded_s > 0:
        result.citations.append(span(period.start_ns, period.end_ns))
    return result


def _count(result: Result, scope: Scope) -> None:
    label = result.step.args["label"]
    if label in BEAT_LABELS:
        counts = beat_counts(scope, result.period)
        all_beats = sum(counts.values())
        count = sum(counts[c] for c in BEAT_LABELS[label])
        result.facts["count"] = Fact("count", count)
        result.facts["all_beats"] = Fact("count", all_beats)
        if all_beats:
            result.facts["share"] = Fact("share", count / all_beats)
        return
    rows = findings(scope, result.step.args.get("label", ANY), result.period)
    result.facts["count"] = Fact("count", len(rows))
    result.items = [item(row) for row in rows[:MAX_ITEMS]]
    cite(result, rows)


def _list(result: Result, scope: Scope) -> None:
    rows = findings(scope, result.step.args.get("label", ANY), result.period)
    result.facts["count"] = Fact("count", len(rows))
    result.items = [item(row) for row in rows[:MAX_ITEMS]]
    cite(result, rows)


def _one(result: Result, row: dict[str, Any]) -> None:
    result.facts |= item(row)
    result.citations = [{"event": row["id"]}]


def _edge(result: Result, scope: Scope) -> None:
    first = result.step.tool == "first"
    label = result.step.args["label"]
    if label not in BEAT_LABELS:
        rows = findings(scope, result.step.args.get("label", ANY), result.period)
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
        result.citations = [span(at - BEAT_MARGIN_NS, at + BEAT_MARGIN_NS)]


def _longest(result: Result, scope: Scope) -> None:
    rows = findings(scope, result.step.args.get("label", ANY), result.period)
    result.facts["count"] = Fact("count", len(rows))
    if rows:
        _one(result, max(rows, key=lambda row: row["end_ns"] - row["start_ns"]))


def _total_time(result: Result, scope: Scope) -> None:
    label = result.step.args["label"]
    if label in BEAT_LABELS:
        _count(result, scope)
        return
    rows = findings(scope, result.step.args.get("label", ANY), result.period)
    total = total_s(rows, result.period)
    base_s = result.coverage.period_s if label in SIGNAL_RULES else result.coverage.readable_s
    result.facts["count"] = Fact("count", len(rows))
    result.facts["total"] = Fact("duration_s", total)
    if base_s > 0:
        result.facts["share"] = Fact("share", min(total / base_s, 1.0))
    cite(result, rows)


def _heart_rate(result: Result, scope: Scope) -> None:
    rows = minutes(scope, result.period)
    result.facts["minutes"] = Fact("count", len(rows))
    if not rows:
        return
    aggregate = result.step.args["aggregate"]
    if aggregate == "mean":
        result.facts["bpm"] = Fact("bpm", queries.mean_bpm(rows))
        result.citations = [span(rows[0]["utc_ns"], rows[-1]["utc_ns"] + queries.MINUTE_NS)]
        return
    if aggregate == "latest":
        row, column = rows[-1], "hr_bpm"
    elif aggregate == "min":
        column = "hr_min_bpm"
        row = min(rows, key=lambda r: rate(r, column))
    else:
        column = "hr_max_bpm"
        row = max(rows, key=lambda r: rate(r, column))
    result.facts["bpm"] = Fact("bpm", rate(row, column))
    result.facts["minute"] = Fact("utc", row["utc_ns"])
    result.citations = [span(row["utc_ns"], row["utc_ns"] + queries.MINUTE_NS)]


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
    rows = findings(scope, result.step.args.get("label", ANY), result.period)
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
            "total": Fact("duration_s", total_s(inside, result.period)),
        }
        for rule, inside in ranked
    ]
    read = minutes(scope, result.period)
    if read:
        result.facts |= {
            "mean": Fact("bpm", queries.mean_bpm(read)),
            "min": Fact("bpm", min(rate(r, "hr_min_bpm") for r in read)),
            "max": Fact("bpm", max(rate(r, "hr_max_bpm") for r in read)),
        }
    cite(result, [row for _, inside in ranked for row in inside])


def _explain(result: Result, _: Scope) -> None:
    result.facts["term"] = Fact("text", result.step.args["term"])


_TOOLS: dict[str, Callable[[Result, Scope], None]] = {
    "count": _count,
    "list": _list,
    "first": _edge,
    "last": _edge,
    "longest": _longest,
    "total_time": _total_time,
    "heart_rate": _heart_rate,
    "hrv": measures.hrv_of,
    "interval": waves.interval,
    "trend": measures.trend,
    "compare": measures.compare,
    "device": measures.device,
    "strip": looking.strip,
    "describe": looking.describe,
    "localize": looking.localize,
    "similar": looking.similar,
    "explain": _explain,
    "coverage": _coverage,
    "summary": _summary,
}
