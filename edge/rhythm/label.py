"""One confirmed rhythm per second, and the spans it makes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from edge.encoder.contract import RHYTHMS
from edge.rhythm.events import RhythmSpan
from edge.rhythm.rules import RhythmLimits
from edge.rhythm.seconds import Second
from edge.rhythm.state import Part

GROUPS = (("N",), ("AFIB", "AFL"), ("SVTA",), ("VT", "VF"), ("P",), ("ASYS",))
"""Rhythms whose scores are added before they compete: the encoder may waver within a group."""
AF = ("AFIB", "AFL")
Scores = list[float] | tuple[float, ...]
CUT_S = 600
"""Spans are cut at multiples of this: what lies further back must not keep two states apart that agree since."""
_MEMBERS = tuple(tuple(RHYTHMS.index(name) for name in group) for group in GROUPS)


class RhythmLabel(Part):
    """Follows the scores of readable seconds and changes its mind only when a change is confirmed.

    The new rhythm is dated back to its first second. Without readable signal the rhythm is "" at once; what comes
    after continues the rhythm of before if its first second looks the same.
    """

    STATE: ClassVar[tuple[str, ...]] = ("group", "name", "start", "before", "recent")

    def __init__(self, limits: RhythmLimits) -> None:
        self._confirm_s = tuple(
            int(
                {
                    "AFIB": limits.confirm_af_s,
                    "VT": limits.confirm_ventricular_s,
                    "ASYS": limits.confirm_asystole_s,
                }.get(group[0], limits.confirm_s)
            )
            for group in GROUPS
        )
        self._margin = limits.margin
        self._keep = max(self._confirm_s)
        self.group = -1
        self.name = ""
        """The current rhythm."""
        self.start = 0
        """Its first second."""
        self.before = -1
        """The group before the signal became unreadable."""
        self.recent: list[list[float]] = []
        """Scores of the newest readable seconds."""

    def feed(self, second: Second) -> tuple[str, int, int] | None:
        """Take the next second; return (rhythm, first second, end second) when a span closed or was cut."""
        closed = self._follow(second)
        if closed is None and (second.index + 1) % CUT_S == 0:
            closed = (self.name, self.start, second.index + 1)
            self.start = second.index + 1
        return closed

    def _follow(self, second: Second) -> tuple[str, int, int] | None:
        if not second.readable:
            if self.group >= 0:
                self.before = self.group
            self.recent = []
            return self._change(-1, "", second.index)
        self.recent = [*self.recent[-self._keep + 1 :], list(second.rhythm)]
        group = self._winner(second)
        if group < 0:
            return None
        self.before = -1
        name = self._member(group)
        if name == self.name:
            return None
        return self._change(group, name, self._since(group, second.index))

    @property
    def newest_in_force(self) -> bool:
        """Whether the newest second by itself looks like the rhythm in force."""
        return bool(self.recent) and _best(self.recent[-1]) == self.group

    def finish(self, end: int) -> tuple[str, int, int] | None:
        """Close the span that is open at second `end`."""
        return (self.name, self.start, end) if end > self.start else None

    def _winner(self, second: Second) -> int:
        """Return the group in force after this second, -1 while none is confirmed."""
        if self.group < 0 and len(self.recent) == 1 and _best(second.rhythm) == self.before >= 0:
            return self.before
        for group, confirm_s in enumerate(self._confirm_s):
            if group == self.group or len(self.recent) < confirm_s:
                continue
            mean = _mean(self.recent[-confirm_s:])
            if _best(mean) == group and (self.group < 0 or _sum(mean, group) > _sum(mean, self.group) + self._margin):
                return group
        return self.group

    def _member(self, group: int) -> str:
        members, mean = _MEMBERS[group], _mean(self.recent[-self._confirm_s[group] :])
        best = max(members, key=lambda i: mean[i])
        return RHYTHMS[best]

    def _since(self, group: int, index: int) -> int:
        """Return the first of the confirming seconds that itself looks like the group."""
        confirming = self.recent[-self._confirm_s[group] :]
        late = next((i for i, scores in enumerate(confirming) if _best(scores) == group), len(confirming) - 1)
        return index - len(confirming) + 1 + late

    def _change(self, group: int, name: str, start: int) -> tuple[str, int, int] | None:
        if name == self.name:
            return None
        start = max(start, self.start + (1 if self.name and self.start % CUT_S else 0))
        closed = (self.name, self.start, start) if start > self.start else None
        self.group, self.name, self.start = group, name, start
        return closed


def extend_spans(spans: list[RhythmSpan], more: Iterable[RhythmSpan]) -> None:
    """Append spans, joining those that were only cut."""
    for span in more:
        if spans and spans[-1].rhythm == span.rhythm and spans[-1].end_sample == span.start_sample:
            span = RhythmSpan(span.rhythm, spans.pop().start_sample, span.end_sample)
        spans.append(span)


def _mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _sum(scores: Scores, group: int) -> float:
    return sum(scores[i] for i in _MEMBERS[group])


def _best(scores: Scores) -> int:
    """Return the group with the highest added score, the first of equals."""
    sums = [_sum(scores, group) for group in range(len(GROUPS))]
    return sums.index(max(sums))
