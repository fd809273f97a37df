"""Tools that measure over time: HRV, intervals, trends, two periods side by side, and how the device is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edge.assistant.find import (
    beat_counts,
    beat_times,
    bin_length_ns,
    cite,
    findings,
    minutes,
    rate,
    total_s,
)
from edge.assistant.labels import BEAT_LABELS
from edge.assistant.localtime import NS
from edge.assistant.period import Period
from edge.assistant.result import MAX_ITEMS, Fact, Result, Scope, span
from edge.errors import BadInputError
from edge.report.holter import read_holter
from edge.report.hrv import Hrv
from edge.report.status import read_status
from edge.store import queries

_DEVICE_RULES = ("battery_low", "lead_off", "link_lost", "recording_stopped")
LEAST_SHARE = 0.1
"""A step of a course counts from this share of readable minutes on, if there are such steps."""
_HRV_MS = {"sdnn": "sdnn_ms", "rmssd": "rmssd_ms"}


def hrv_of(result: Result, scope: Scope) -> None:
    """Heart rate variability of the normal-to-normal intervals of the period (see `edge.report.hrv`)."""
    found = _hrv(scope, result.period)
    result.facts["nn"] = Fact("count", found.nn)
    if found.mean_nn_ms is None:
        result.missing = "too few normal beats to tell"
        return
    result.facts["nn_time"] = Fact("duration_s", found.hours * 3600)
    for name, value in (("sdnn", found.sdnn_ms), ("rmssd", found.rmssd_ms)):
        if value is not None:
            result.facts[name] = Fact("ms", value)
    if found.pnn50_percent is not None:
        result.facts["pnn50"] = Fact("share", found.pnn50_percent / 100)
    wanted = result.step.args["measure"]
    if wanted != "all" and wanted not in result.facts:
        result.missing = "too few normal beats to tell"


def _hrv(scope: Scope, period: Period) -> Hrv:
    return read_holter(scope.conn, scope.wearer, period.start_ns, period.end_ns, scope.tz).total.hrv


def trend(result: Result, scope: Scope) -> None:
    """The course of a heart rate, of HRV, or of a label's count over the period, in steps."""
    of = result.step.args["of"]
    start_ns, end_ns = result.period.start_ns, result.period.end_ns
    step_ns = bin_length_ns(end_ns - start_ns)
    read = minutes(scope, result.period)
    readable = _binned(read, start_ns, step_ns)
    values: dict[int, Fact] = {}
    if of == "heart_rate":
        values = {n: Fact("bpm", queries.mean_bpm(rows)) for n, rows in readable.items()}
    elif of == "hrv":
        known = {n: [r["rmssd_ms"] for r in rows if r["rmssd_ms"] is not None] for n, rows in readable.items()}
        values = {n: Fact("ms", float(np.mean(found))) for n, found in known.items() if found}
    else:
        values = {n: Fact("count", 0) for n in readable}
        times = _onsets(result, scope, of)
        for at in times:
            n = max(at - start_ns, 0) // step_ns
            values[n] = Fact("count", values.get(n, Fact("count", 0)).value + 1)
        result.facts["count"] = Fact("count", len(times))
    result.facts["minutes"] = Fact("count", len(read))
    solid = {n for n, rows in readable.items() if len(rows) * queries.MINUTE_NS >= LEAST_SHARE * step_ns}
    values = {n: value for n, value in values.items() if n in solid} or values
    if not values:
        if read:
            result.missing = "too few normal beats to tell"
        return
    for n, value in sorted(values.items())[-MAX_ITEMS:]:
        rows = readable.get(n, [])
        at_ns = start_ns + n * step_ns
        point = {"start": Fact("utc", at_ns), "end": Fact("utc", min(at_ns + step_ns, end_ns)), "value": value}
        point["readable"] = Fact("duration_s", sum(r["readable_s"] for r in rows))
        if of == "heart_rate":
            point["min"] = Fact("bpm", min(rate(r, "hr_min_bpm") for r in rows))
            point["max"] = Fact("bpm", max(rate(r, "hr_max_bpm") for r in rows))
        result.items.append(point)
    lowest, highest = min(values, key=lambda n: values[n].value), max(values, key=lambda n: values[n].value)
    result.facts |= {
        "bin": Fact("duration_s", step_ns / NS),
        "first": values[min(values)],
        "last": values[max(values)],
        "lowest": values[lowest],
        "lowest_at": Fact("utc", start_ns + lowest * step_ns),
        "highest": values[highest],
        "highest_at": Fact("utc", start_ns + highest * step_ns),
    }


def _onsets(result: Result, scope: Scope, label: str) -> list[int]:
    if label in BEAT_LABELS:
        return beat_times(scope, label, result.period)
    rows = findings(scope, label, result.period)
    cite(result, rows)
    return [row["start_ns"] for row in rows]


def _binned(rows: list[dict[str, Any]], start_ns: int, step_ns: int) -> dict[int, list[dict[str, Any]]]:
    bins: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        bins.setdefault((row["utc_ns"] + queries.MINUTE_NS // 2 - start_ns) // step_ns, []).append(row)
    return bins


def compare(result: Result, scope: Scope) -> None:
    """The same figure in two periods: facts `a.…` and `b.…` of both, and how far apart they are."""
    if result.versus is None:
        raise BadInputError("a comparison needs two periods: say, for example, today and yesterday")
    of = result.step.args["of"]
    measure = _COMPARED.get(of, _compare_label)
    a, b = result.period, result.versus
    facts = {letter: measure(scope, of, period) for letter, period in (("a", a), ("b", b))}
    covered = {letter: _covered(scope, period) for letter, period in (("a", a), ("b", b))}
    for letter in "ab":
        found = facts[letter] if covered[letter].readable_s > 0 else {}
        result.facts |= {f"{letter}.{name}": fact for name, fact in found.items()}
        result.facts[f"{letter}.readable"] = Fact("duration_s", covered[letter].readable_s)
        result.facts[f"{letter}.recorded"] = Fact("duration_s", covered[letter].recorded_s)
    for name, fact in facts["a"].items():
        if all(f"{letter}.{name}" in result.facts for letter in "ab") and fact.kind in ("bpm", "count", "ms"):
            change: Any = f"change_{fact.kind}"
            result.facts[f"change.{name}"] = Fact(change, facts["a"][name].value - facts["b"][name].value)
    result.citations = [span(period.start_ns, period.end_ns) for period in (a, b)]
    result.coverage = min(covered.values(), key=lambda c: c.readable_s / c.period_s if c.period_s else 0)


def _covered(scope: Scope, period: Period) -> queries.Coverage:
    return queries.coverage(scope.conn, scope.wearer, period.start_ns, period.end_ns)


def _compare_rate(scope: Scope, _: str, period: Period) -> dict[str, Fact]:
    rows = minutes(scope, period)
    if not rows:
        return {}
    return {
        "mean": Fact("bpm", queries.mean_bpm(rows)),
        "min": Fact("bpm", min(rate(r, "hr_min_bpm") for r in rows)),
        "max": Fact("bpm", max(rate(r, "hr_max_bpm") for r in rows)),
    }


def _compare_hrv(scope: Scope, _: str, period: Period) -> dict[str, Fact]:
    found = _hrv(scope, period)
    values = {name: getattr(found, column) for name, column in _HRV_MS.items()}
    return {name: Fact("ms", value) for name, value in values.items() if value is not None}


def _compare_summary(scope: Scope, _: str, period: Period) -> dict[str, Fact]:
    return {**_compare_label(scope, "any", period), **_compare_rate(scope, "", period)}


def _compare_label(scope: Scope, label: str, period: Period) -> dict[str, Fact]:
    if label in BEAT_LABELS:
        counts = beat_counts(scope, period)
        everything = sum(counts.values())
        count = sum(counts[c] for c in BEAT_LABELS[label])
        share = {"share": Fact("share", count / everything)} if everything else {}
        return {"count": Fact("count", count), **share}
    rows = findings(scope, label, period)
    return {"count": Fact("count", len(rows)), "total": Fact("duration_s", total_s(rows, period))}


_COMPARED: dict[str, Callable[[Scope, str, Period], dict[str, Fact]]] = {
    "heart_rate": _compare_rate,
    "hrv": _compare_hrv,
    "summary": _compare_summary,
}


def device(result: Result, scope: Scope) -> None:
    """How the wearer's link and the gateway are now, and which of their events are open."""
    status = read_status(scope.conn, scope.now_ns)
    mine = next((w for w in status.wearers if w.wearer == scope.wearer), None)
    result.facts["gateway"] = Fact("text", status.state)
    if mine is None:
        result.missing = "nothing is known about this wearer's device"
        return
    result.facts["state"] = Fact("text", mine.state)
    result.facts["links"] = Fact("count", len(mine.devices))
    newest = max((d["last_received_ns"] for d in mine.devices if d["last_received_ns"]), default=None)
    if newest is not None:
        result.facts["last_received"] = Fact("utc", newest)
    week = Period("", scope.now_ns - 7 * 86_400 * NS, scope.now_ns)
    rows = [row for rule in _DEVICE_RULES for row in findings(scope, rule, week)]
    rows = [row for row in rows if row["state"] == "open"]
    result.facts["open"] = Fact("count", len(rows))
    result.items = [
        {"rule": Fact("text", row["rule"]), "start": Fact("utc", row["start_ns"])} for row in rows[:MAX_ITEMS]
    ]
    cite(result, rows)
