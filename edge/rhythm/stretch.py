"""Time that adds up to a finding: the shape shared by every rule that needs "so long of it"."""

from __future__ import annotations

from typing import ClassVar

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.book import FindingBook
from edge.rhythm.events import Severity
from edge.rhythm.state import Part


class Stretch(Part):
    """Adds up positive intervals; opens its rule's finding at `min_s`, closes it the rule's
    `merge_s` after the last one.

    Before it has opened, a break longer than `bridge_s` starts it afresh. With `beyond` the sum must exceed
    `min_s`, else reach it.
    """

    STATE: ClassVar[tuple[str, ...]] = ("start", "last", "positive_s", "weighted", "lowest", "highest")

    def __init__(
        self,
        book: FindingBook,
        rule: str,
        min_s: float,
        bridge_s: float,
        measure: str = "",
        beyond: bool = False,
    ) -> None:
        self._book, self._rule, self._measure = book, rule, measure
        self._min_s, self._bridge_s, self._beyond = min_s, bridge_s, beyond
        self._reset()

        self._reset()

    def _reset(self) -> None:
        self.start = self.last = self.positive_s = self.weighted = self.lowest = self.highest = 0.0

    @property
    def active(self) -> bool:
        """Whether something has been added since it last began afresh."""
        return self.positive_s > 0

    @property
    def reached(self) -> bool:
        """Whether the sum is enough to open."""
        return self.positive_s > self._min_s if self._beyond else self.positive_s >= self._min_s

    def add(self, start: float, end: float, value: float = 0.0, severity: Severity | None = None) -> None:
        """Count [start, end) in model-rate samples as positive, with the measured `value` in it."""
        self.advance(start)
        seconds = (end - start) / MODEL_FS_HZ
        if not self.active:
            self.start, self.lowest, self.highest = start, value, value
        self.last = end
        self.positive_s += seconds
        self.weighted += seconds * value
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
        if self._book.is_open(self._rule) or self.reached:
            self._book.report(self._rule, self.start, end, start, self._evidence(), severity)

    def advance(self, now: float) -> None:
        """Let time pass to `now`: close, or begin afresh, what has been interrupted for too long."""
        if not self.active:
            return
        if self._book.is_open(self._rule):
            if self._book.expire(self._rule, now):
                self._reset()
        elif now - self.last > self._bridge_s * MODEL_FS_HZ:
            self._reset()

    def _evidence(self) -> dict[str, float | int | str]:
        evidence: dict[str, float | int | str] = {
            "positive_s": round(self.positive_s, 3),
            "threshold_s": self._min_s,
        }
        if self._measure:
            evidence[f"mean_{self._measure}"] = round(self.weighted / self.positive_s, 3)
            evidence[f"min_{self._measure}"] = round(self.lowest, 3)
            evidence[f"max_{self._measure}"] = round(self.highest, 3)
        return evidence
