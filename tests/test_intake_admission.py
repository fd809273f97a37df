"""Deliveries on their way to the disk: bounded, and each chunk once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from intake_kit import Sender, wave

from edge.chunk import Delivery
from edge.intake.admission import Admission


def _delivery(told: list[str], name: str, seq: int = 0) -> Delivery:
    sender = Sender()
    chunk = [sender.take(wave(100)) for _ in range(seq + 1)][seq]
    return Delivery(chunk, 0, lambda: told.append(name))


def test_a_chunk_that_comes_again_meanwhile_is_kept_once_and_told_to_all() -> None:
    """A broker that was away: over a new connection comes what the old one has brought already."""
    told: list[str] = []
    passed: list[Delivery] = []
    admission = Admission(1)
    assert admission.offer(_delivery(told, "old connection"), passed.append)
    assert admission.offer(_delivery(told, "new connection"), passed.append)
    assert not admission.offer(_delivery(told, "another chunk", seq=1), passed.append)
    assert (len(passed), len(admission), admission.repeated, told) == (1, 1, 1, [])
    passed[0].committed()
    assert told == ["old connection", "new connection"]
    assert len(admission) == 0
    assert admission.offer(_delivery(told, "later"), passed.append)
    assert len(passed) == 2


def test_another_content_under_the_same_number_is_another_chunk() -> None:
    told: list[str] = []
    passed: list[Delivery] = []
    admission = Admission(5)
    one = _delivery(told, "one")
    other = replace(one, chunk=replace(one.chunk, samples=one.chunk.samples + np.int32(1)))
    assert admission.offer(one, passed.append)
    assert admission.offer(other, passed.append)
    assert len(passed) == len(admission) == 2


def test_what_failed_is_forgotten_and_nobody_is_told() -> None:
    told: list[str] = []
    passed: list[Delivery] = []
    admission = Admission(1)
    assert admission.offer(_delivery(told, "one"), passed.append)
    admission.end(passed[0])
    admission.end(passed[0])
    assert (len(admission), told) == (0, [])
    assert admission.offer(_delivery(told, "again"), passed.append)
