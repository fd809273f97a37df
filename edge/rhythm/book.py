"""The findings that are open, and what has to be told about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.events import SEVERITIES, Finding, Severity, finding_id
from edge.rhythm.rules import Rule, Rules
from edge.rhythm.state import Part

Evidence = Mapping[str, float | int | str]

_START, _OPENED, _DETECTED, _END, _SEVERITY, _EVIDENCE, _TOLD = range(7)
"""Fields of an open finding, a list of plain values; `_TOLD` is how many periods of `update_s` it was old when told."""


class FindingBook(Part):
    """At most one open finding per rule. Positions come in model-rate samples and leave as recording samples."""

    STATE: ClassVar[tuple[str, ...]] = ("entries",)

    def __init__(self, recording_key: str, rules: Rules, to_sample: Callable[[float], int]) -> None:
        self._recording_key = recording_key
        self._rules = {name: group for name, group in rules.groups() if isinstance(group, Rule)}
        self._to_sample = to_sample
        self._changed: dict[str, Finding] = {}
        self._now = 0.0
        self._newest = 0.0
        self.entries: dict[str, list[Any]] = {}

    def begin(self, now: float, newest: float) -> None:
        """Start a hop that ends at `now` and for which data up to `newest` was needed."""
        self._now, self._newest = now, newest
        self._changed = {}

    def is_open(self, rule: str) -> bool:
        """Whether the rule has an open finding."""
        return rule in self.entries

    def report(
        self, rule: str, start: float, end: float, opened: float, evidence: Evidence, severity: Severity | None = None
    ) -> None:
        """Open the rule's finding, or extend the open one; a severity only ever rises."""
        limits = self._rules[rule]
        if not limits.enabled:
            return
        level = SEVERITIES.index(severity or limits.severity)
        entry = self.entries.get(rule)
        if entry is None:
            entry = [start, opened, self._newest, end, level, dict(evidence), 0]
            self.entries[rule] = entry
            self._tell(rule, entry)
            return
        entry[_END] = max(entry[_END], end)
        entry[_EVIDENCE] = dict(evidence)
        period = int((self._now - entry[_OPENED]) // (limits.update_s * MODEL_FS_HZ))
        due = period > entry[_TOLD]
        entry[_TOLD] = period
        if level > entry[_SEVERITY] or due or self._id(rule, entry) in self._changed:
            entry[_SEVERITY] = max(level, entry[_SEVERITY])
            self._tell(rule, entry)

    def close(self, rule: str) -> None:
        """Close the rule's finding, where it is open, at how far it reached."""
        entry = self.entries.pop(rule, None)
        if entry is not None:
            self._tell(rule, entry, "closed")

    def expire(self, rule: str, now: float) -> bool:
        """Close the rule's finding if its last evidence lies more than `merge_s` before `now`; return whether."""
        entry = self.entries.get(rule)
        if entry is None or now - entry[_END] <= self._rules[rule].merge_s * MODEL_FS_HZ:
            return False
        self.close(rule)
        return True

    def close_all(self) -> None:
        """Close everything: the recording has ended."""
        for rule in sorted(self.entries):
            self.close(rule)

    def changes(self) -> list[Finding]:
        """Return the newest state of every finding that changed in this hop, in the order of first change."""
        return list(self._changed.values())

    def _id(self, rule: str, entry: list[Any]) -> str:
        return finding_id(self._recording_key, rule, self._to_sample(entry[_OPENED]))

    def _tell(self, rule: str, entry: list[Any], state: Any = "open") -> None:
        start = self._to_sample(entry[_START])
        finding = Finding(
            id=self._id(rule, entry),
            rule=rule,
            severity=SEVERITIES[entry[_SEVERITY]],
            state=state,
            start_sample=start,
            end_sample=max(start, self._to_sample(entry[_END])),
            opened_sample=self._to_sample(entry[_OPENED]),
            detected_sample=self._to_sample(entry[_DETECTED]),
            evidence=dict(entry[_EVIDENCE]),
        )
        self._changed[finding.id] = finding
