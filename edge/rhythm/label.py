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
CUT_S = 600
"""Spans are cut at multiples of this: what lies further back must not keep two states apart that agree since."""
_KEEP_S = 16
"""So far back can the start of a rhythm be dated."""
_AFIB = RHYTHMS.index("AFIB")
_MEMBERS = tuple(tuple(RHYTHMS.index(name) for name in group) for group in GROUPS)
_PAIRS = tuple((group[0], group[1] if len(group) > 1 else None) for group in _MEMBERS)
"""The same, one or two each, for the innermost sum."""


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
        self._regular = False
        self.group = -1
        self.name = ""
        """The current rhythm."""
        self.start = 0
        """Its first second."""
        self.before = -1
        """The group before the signal became unreadable."""
        self.recent: list[list[float]] = []
        """Scores of the newest readable seconds."""

    def feed(self, second: Second, regular: bool = False) -> tuple[str, int, int] | None:
        """Take the next second; return (rhythm, first second, end second) when a span closed or was cut.

        While the newest RR intervals are `regular`, AFIB is read as N.
        """
        self._regular = regular
        closed = self._follow(second)
        if closed is None and (second.number + 1) % CUT_S == 0:
            closed = (self.name, self.start, second.number + 1)
            self.start = second.number + 1
        return closed

    def _follow(self, second: Second) -> tuple[str, int, int] | None:
        if not second.readable:
            if self.group >= 0:
                self.before = self.group
            self.recent = []
            return self._change(-1, "", second.number)
        self.recent = [*self.recent[1 - _KEEP_S :], list(second.rhythm)]
        group = self._winner()
        if group < 0:
            return None
        self.before = -1
        name = self._member(group)
        if name == self.name:
            return None
        return self._change(group, name, self._since(group, second.number))

    @property
    def newest_in_force(self) -> bool:
        """Whether the newest second by itself looks like the rhythm in force."""
        return bool(self.recent) and self._looks(self.recent[-1]) == self.group

    def finish(self, end: int) -> tuple[str, int, int] | None:
        """Close the span that is open at second `end`."""
        return (self.name, self.start, end) if end > self.start else None

    def _winner(self) -> int:
        """Return the group in force after this second, -1 while none is confirmed."""
        group = self._looks(self.recent[-1])
        if group == self.group:
            return group
        if self.group < 0 and len(self.recent) == 1 and group == self.before:
            return group
        confirm_s = self._confirm_s[group]
        if len(self.recent) < confirm_s:
            return self.group
        sums = self._sums(_mean(self.recent[-confirm_s:]))
        ahead = self.group < 0 or sums[group] > sums[self.group] + self._margin
        return group if ahead and sums[group] == max(sums) else self.group

    def _sums(self, scores: list[float]) -> list[float]:
        """Return the added score of every group."""
        sums = [scores[i] if j is None else scores[i] + scores[j] for i, j in _PAIRS]
        if self._regular:
            sums[0] += scores[_AFIB]
            sums[1] -= scores[_AFIB]
        return sums

    def _looks(self, scores: list[float]) -> int:
        """Return the group with the highest added score, the first of equals."""
        sums = self._sums(scores)
        return sums.index(max(sums))

    def _member(self, group: int) -> str:
        members = _MEMBERS[group]
        if len(members) == 1:
            return RHYTHMS[members[0]]
        mean = _mean(self.recent[-self._confirm_s[group] :])
        best = max(members, key=lambda i: mean[i])
        return RHYTHMS[best]

    def _since(self, group: int, index: int) -> int:
        """Return the first second that by itself looks like the group, of those that lead up to its confirmation."""
        looks = [self._looks(scores) == group for scores in self.recent]
        first = max(0, len(looks) - self._confirm_s[group])
        while first < len(looks) - 1 and not looks[first]:
            first += 1
        while first > 0 and looks[first - 1]:
            first -= 1
        return index - len(looks) + 1 + first

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
    n = len(rows)
    return [sum(column) / n for column in zip(*rows, strict=True)]
