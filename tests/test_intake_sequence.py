"""Sequence numbers against a plain set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.intake import sequence
from edge.intake.sequence import Sequence


@given(st.integers(0, 5), st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40))
def test_it_is_a_set(first: int, steps: list[tuple[bool, int]]) -> None:
    numbers = Sequence(first)
    model = set(range(first))
    for commit, seq in steps:
        if commit and seq not in model:
            assert not numbers.add(seq)
            model.add(seq)
        elif not commit:
            numbers.give_up(seq)
            model |= set(range(seq))
        assert {s for s in range(40) if s in numbers} == model
        assert numbers.next_seq == next(s for s in range(99) if s not in model)
        assert all(e1 < f2 for (_, e1), (f2, _) in zip(numbers.ahead, numbers.ahead[1:], strict=False))
        assert all(numbers.missing(a, 35) == len(set(range(a, 35)) - model) for a in (0, 7, 20))
        for limit in (None, 10, 25):
            below = [s for s in model if limit is None or s < limit]
            assert numbers.newest_below(limit) == max(below, default=-1)
        assert Sequence(numbers.next_seq, numbers.ahead).ahead == numbers.ahead


def test_holes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "MAX_RANGES", 2)
    numbers = Sequence(0)
    assert not numbers.add(2)
    assert not numbers.add(4)
    assert numbers.add(6)
    assert numbers.next_seq == 3
    assert numbers.ahead == [(4, 5), (6, 7)]
