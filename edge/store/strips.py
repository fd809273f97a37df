"""Which findings of a day keep their strip, as Holter practice has it: a quota, so that a thousand runs are not a
thousand strips.

Per rule and day the extreme one (fastest, slowest), the longest and the second longest, and every symptom. Findings
of the recording itself (gaps, links, batteries) have none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from edge.rhythm.events import SYSTEM_RULES

NO_STRIP = frozenset({*SYSTEM_RULES, "gap", "lead_off", "flat", "unreadable"})
SLOW = frozenset({"bradycardia", "extreme_bradycardia"})
SYMPTOM_S = 90
"""Length of a symptom's strip (symptom-button strips of ambulatory services)."""


def kept(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return id → why its strip is kept, of the findings of one wearer and day (rows of `finding`)."""
    by_rule: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    why: dict[str, str] = {}
    for row in rows:
        if row["state"] == "retracted" or row["rule"] in NO_STRIP:
            continue
        if row["rule"] == "symptom":
            why[row["id"]] = "symptom"
        else:
            by_rule[row["rule"]].append(row)
    for rule, found in by_rule.items():
        found.sort(key=lambda row: (row["start_ns"] - row["end_ns"], row["start_ns"], row["id"]))
        slow = rule in SLOW
        measured = [(bpm, row["id"]) for row in found if (bpm := _rate_bpm(row["evidence"], slow)) is not None]
        if measured:
            extreme = min(measured) if slow else max(measured)
            why[extreme[1]] = "slowest" if slow else "fastest"
        for row, word in zip(
            [row for row in found if row["id"] not in why], ("longest", "second longest"), strict=False
        ):
            why[row["id"]] = word
    return why


def _rate_bpm(evidence: Mapping[str, Any], slow: bool) -> float | None:
    """Return the extreme rate in the evidence of a finding, None where it has none."""
    values = [
        float(value)
        for name, value in evidence.items()
        if name.endswith("bpm") and name != "threshold_bpm" and isinstance(value, int | float)
    ]
    return (min if slow else max)(values, default=None)
