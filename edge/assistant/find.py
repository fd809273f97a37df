"""What several tools look up: the events, beats and minutes of a result's period."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edge.assistant.labels import BEAT_LABELS, GENERAL_LABELS, SEVERITY_LABELS
from edge.assistant.localtime import NS
from edge.assistant.period import Period
from edge.assistant.result import MAX_CITATIONS, Fact, Result, Scope
from edge.encoder.contract import BEAT_CLASSES, MORPHOLOGIES
from edge.errors import BadInputError
from edge.store import queries

SHAPES = {"lbbb": "LBBB", "rbbb": "RBBB", "paced": "paced"}
"""Labels that are shapes of beats → their names in `MORPHOLOGIES`."""


def findings(scope: Scope, label: str, period: Period) -> list[dict[str, Any]]:
    """Return the events of a label that overlap a period, by onset.

    Raises:
        BadInputError: more than one answer can hold.
    """
    rows = queries.findings(
        scope.conn,
        wearer=scope.wearer,
        rules=() if label in GENERAL_LABELS else (label,),
        severities=SEVERITY_LABELS.get(label, ()),
        start_ns=period.start_ns,
        end_ns=period.end_ns,
    )
    if len(rows) == queries.MAX_FINDINGS:
        raise BadInputError(f"there are {len(rows)} events or more in this period: ask about a shorter one")
    return rows


def cite(result: Result, rows: list[dict[str, Any]]) -> None:
    """Cite events, as many as are kept."""
    result.citations = [{"event": row["id"]} for row in rows[:MAX_CITATIONS]]


def item(row: dict[str, Any]) -> dict[str, Fact]:
    """Return an event as facts."""
    return {
        **{name: Fact("text", row[name]) for name in ("id", "rule", "severity", "state")},
        "start": Fact("utc", row["start_ns"]),
        "end": Fact("utc", row["end_ns"]),
        "duration": Fact("duration_s", (row["end_ns"] - row["start_ns"]) / NS),
    }


def beat_counts(scope: Scope, period: Period) -> Counter[str]:
    """Return the beats of the period per class, exact to the sample."""
    counts: Counter[str] = Counter()
    for found in queries.beats_in_period(scope.conn, scope.wearer, period.start_ns, period.end_ns):
        classes, n = np.unique(found.beats["type"], return_counts=True)
        counts.update({BEAT_CLASSES[int(c)]: int(k) for c, k in zip(classes, n, strict=True)})
    return counts


def minutes(scope: Scope, period: Period) -> list[dict[str, Any]]:
    """Return the trend minutes with a heart rate whose middle lies in the period."""
    start_ns, end_ns = period.start_ns, period.end_ns
    half = queries.MINUTE_NS // 2
    rows = queries.trends(scope.conn, scope.wearer, start_ns, end_ns)
    return [row for row in rows if row["hr_bpm"] is not None and start_ns <= row["utc_ns"] + half < end_ns]


def rate(row: dict[str, Any], column: str) -> float:
    """Return a rate of a trend minute, its mean where the column has none."""
    return float(row["hr_bpm"] if row[column] is None else row[column])


def bin_length_ns(length_ns: int) -> int:
    """Return the steps in which a period of this length is shown: 10 minutes, an hour or a day."""
    hour = 3600 * NS
    if length_ns <= 3 * hour:
        return hour // 6
    return hour if length_ns <= 50 * hour else 24 * hour


def total_s(rows: list[dict[str, Any]], period: Period) -> float:
    """Return the time within the period that lies in any of the findings."""
    clipped = [(max(row["start_ns"], period.start_ns), min(row["end_ns"], period.end_ns)) for row in rows]
    return sum(end - start for start, end in queries.merge(clipped)) / NS


def event(scope: Scope, which: str, label: str, period: Period) -> dict[str, Any] | None:
    """Return the first, last or longest event of a label, or beat as an event of no length; None if there is none."""
    if label in BEAT_LABELS:
        return _beat(scope, which, label, period)
    rows = findings(scope, label, period)
    if not rows:
        return None
    if which == "longest":
        return max(rows, key=lambda row: row["end_ns"] - row["start_ns"])
    return rows[0] if which == "first" else rows[-1]


def beat_times(scope: Scope, label: str, period: Period) -> list[int]:
    """Return when the beats of a label, or of one of `SHAPES`, fell, ns UTC ascending."""
    if label in SHAPES:
        column, values = "morphology", [MORPHOLOGIES.index(SHAPES[label])]
    else:
        column, values = "type", [BEAT_CLASSES.index(c) for c in BEAT_LABELS[label]]
    times: list[int] = []
    for found in queries.beats_in_period(scope.conn, scope.wearer, period.start_ns, period.end_ns):
        samples = found.beats["sample"][np.isin(found.beats[column], values)]
        times += [found.recording.to_utc_ns(int(sample)) for sample in samples]
    return sorted(times)


def _beat(scope: Scope, which: str, label: str, period: Period) -> dict[str, Any] | None:
    times = beat_times(scope, label, period)
    if not times:
        return None
    at = times[0] if which == "first" else times[-1]
    return {"id": "", "rule": label, "severity": "info", "state": "closed", "start_ns": at, "end_ns": at}
