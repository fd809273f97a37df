"""Which sequence numbers of one boot are done with."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

MAX_RANGES = 1000
"""Holes remembered above the frontier; beyond, the lowest one is abandoned."""


class Sequence:
    """The numbers committed or given up: everything below `next_seq`, and the ranges in `ahead`."""

    def __init__(self, next_seq: int, ahead: Iterable[tuple[int, int]] = ()) -> None:
        """`ahead` holds sorted disjoint [first, end) ranges above `next_seq`."""
        self.next_seq = next_seq
        self.ahead = list(ahead)

    def __contains__(self, seq: int) -> bool:
        if seq < self.next_seq:
            return True
        at = bisect.bisect_right(self.ahead, (seq, 2**63))
        return at > 0 and seq < self.ahead[at - 1][1]

    def add(self, seq: int) -> bool:
        """Note that `seq` is committed; return True if a hole had to be abandoned to stay within `MAX_RANGES`."""
        if seq == self.next_seq:
            self._advance(seq + 1)
            return False
        at = bisect.bisect_left(self.ahead, (seq, seq))
        first, end = seq, seq + 1
        if at < len(self.ahead) and self.ahead[at][0] == end:
            end = self.ahead.pop(at)[1]
        if at > 0 and self.ahead[at - 1][1] == first:
            at -= 1
            first = self.ahead.pop(at)[0]
        self.ahead.insert(at, (first, end))
        if len(self.ahead) > MAX_RANGES:
            self._advance(self.ahead[0][0])
            return True
        return False

    def give_up(self, oldest: int) -> None:
        """Note that the sender holds nothing below `oldest` any more."""
        if oldest > self.next_seq:
            self._advance(oldest)

    def missing(self, first: int, end: int) -> int:
        """Return how many numbers of [first, end) are neither committed nor given up."""
        first = max(first, self.next_seq)
        held = sum(max(0, min(e, end) - max(f, first)) for f, e in self.ahead)
        return max(0, end - first) - held

    def newest_below(self, limit: int | None) -> int:
        """Return the largest number done with (below `limit`), or next_seq - 1."""
        for first, end in reversed(self.ahead):
            if limit is None or first < limit:
                return end - 1 if limit is None else min(end, limit) - 1
        return self.next_seq - 1 if limit is None else min(self.next_seq, limit) - 1

    def _advance(self, next_seq: int) -> None:
        self.next_seq = next_seq
        while self.ahead and self.ahead[0][0] <= self.next_seq:
            self.next_seq = max(self.next_seq, self.ahead.pop(0)[1])
