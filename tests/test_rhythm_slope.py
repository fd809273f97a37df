"""P waves that the encoder takes for beats: too flat beside the newest beats."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.rules import BeatLimits
from edge.rhythm.slope import SlopeGate
from edge.rhythm.wearer import REACH


def _wave(*mv: float) -> NDArray[np.float32]:
    """Return a triangle of ±40 ms on every lead."""
    shape = np.clip(1 - np.abs(np.arange(-REACH, REACH + 1)) / 5, 0, 1)
    return (np.array(mv)[:, None] * shape).astype(np.float32)


def _after(gate: SlopeGate, *mv: float, beats: int = 8) -> float:
    """Feed beats of the given height, one a second; return the position of the next."""
    for n in range(beats):
        gate.beat(n * MODEL_FS_HZ, gate.slopes(_wave(*mv)))
    return beats * MODEL_FS_HZ


def _flat(gate: SlopeGate, position: float, *mv: float, score: float = 0.6) -> bool:
    return gate.is_flat(position, score, gate.slopes(_wave(*mv)))


def test_a_p_wave_is_flat_and_a_small_beat_is_not() -> None:
    gate = SlopeGate(BeatLimits())
    at = _after(gate, 1.0)
    assert _flat(gate, at, 0.08)
    assert not _flat(gate, at, 0.12)
    assert not _flat(gate, at, -0.5)


def test_what_the_encoder_is_sure_of_is_not_asked() -> None:
    gate = SlopeGate(BeatLimits())
    at = _after(gate, 1.0)
    assert not _flat(gate, at, 0.01, score=0.9)


@pytest.mark.parametrize(("mv", "flat"), [((0.05, 0.5), False), ((0.05, 0.04), True), ((np.nan, 0.04), True)])
def test_one_steep_lead_is_enough(mv: tuple[float, float], flat: bool) -> None:
    gate = SlopeGate(BeatLimits())
    assert _flat(gate, _after(gate, 1.0, 1.0), *mv) is flat


def test_nothing_is_flat_without_something_to_compare() -> None:
    gate = SlopeGate(BeatLimits())
    assert not _flat(gate, _after(gate, 1.0, beats=3), 0.01)
    at = _after(gate, 1.0)
    assert not _flat(gate, at + 11 * MODEL_FS_HZ, 0.01), "beats of long ago say nothing"
    assert not _flat(gate, at, np.nan)


def test_the_state_is_bounded_and_plain() -> None:
    gate, other = SlopeGate(BeatLimits()), SlopeGate(BeatLimits())
    _after(gate, 1.0, np.nan, beats=100)
    other.load(gate.save())
    assert len(gate.newest) == 16
    assert _flat(other, 100 * MODEL_FS_HZ, 0.05, np.nan)
