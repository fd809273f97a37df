"""Intervals from delineation: synthetic masks whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ, WAVES
from edge.encoder.intervals import MIN_BEATS, Intervals, Waves, delineate, intervals

PR_MS, QRS_MS, QT_MS, P_MS, T_MS = 160.0, 92.0, 388.0, 100.0, 160.0


def _mask(
    r_s: list[float], seconds: float, *, without: str = "", softness: float = 1.0
) -> tuple[NDArray[np.float64], list[float]]:
    """Return probabilities of beats with known waves, and their R peaks in model samples.

    An edge at x has probability one half at x, rising over `softness` samples.
    """
    at = np.arange(round(seconds * MODEL_FS_HZ))
    out = np.zeros((at.size, len(WAVES)))
    for r in r_s:
        on = r * 1000 - 0.4 * QRS_MS
        spans = {"P": (on - PR_MS, on - PR_MS + P_MS), "QRS": (on, on + QRS_MS), "T": (on + QT_MS - T_MS, on + QT_MS)}
        for name, (start_ms, end_ms) in spans.items():
            if name != without:
                start, end = start_ms * MODEL_FS_HZ / 1000, end_ms * MODEL_FS_HZ / 1000
                rise, fall = (at - start) / softness + 0.5, (end - at) / softness + 0.5
                column = out[:, WAVES.index(name)]
                np.maximum(column, np.clip(np.minimum(rise, fall), 0, 1), out=column)
    out[:, 0] = 1 - out[:, 1:].sum(axis=1)
    return out, [r * MODEL_FS_HZ for r in r_s]


def _clip(r_s: list[float], seconds: float = 12, **options: str) -> Intervals:
    probability, r = _mask(r_s, seconds, **options)
    return intervals(delineate(probability, r))


STEADY = [0.6 + 0.8 * i for i in range(14)]


@pytest.mark.parametrize("softness", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("shift_s", [0.0, 0.0013, 0.0037, 0.0061])
def test_edges_are_found_between_samples(softness: float, shift_s: float) -> None:
    probability, r = _mask([t + shift_s for t in STEADY], 12, softness=softness)
    found = intervals(delineate(probability, r))
    assert found.pr.median_ms == pytest.approx(PR_MS, abs=0.5)
    assert found.qrs.median_ms == pytest.approx(QRS_MS, abs=0.5)
    assert found.qt.median_ms == pytest.approx(QT_MS, abs=0.5)
    assert {one.beats for one in (found.pr, found.qrs, found.qt)} == {14}


def test_qtc_by_the_named_formula() -> None:
    probability, r = _mask(STEADY, 12)
    beats = delineate(probability, r)
    assert intervals(beats).formula == "fridericia"
    assert intervals(beats).qtc.median_ms == pytest.approx(QT_MS / 0.8 ** (1 / 3), abs=0.5)
    assert intervals(beats, "bazett").qtc.median_ms == pytest.approx(QT_MS / 0.8**0.5, abs=0.5)
    assert intervals(beats).qtc.beats == 13, "the first beat has no RR interval"


def test_positions_are_those_of_the_recording() -> None:
    probability, r = _mask(STEADY, 12)
    here, there = delineate(probability, r), delineate(probability, [at + 1e6 for at in r], first=1e6)
    for a, b in zip(here, there, strict=True):
        assert a.qrs is not None
        assert b.qrs is not None
        assert b.qrs[0] - a.qrs[0] == pytest.approx(1e6)


@pytest.mark.parametrize(
    ("without", "missing"), [("P", {"pr"}), ("T", {"qt", "qtc"}), ("QRS", {"pr", "qrs", "qt", "qtc"})]
)
def test_a_wave_that_is_not_there_is_not_measured(without: str, missing: set[str]) -> None:
    found = _clip(STEADY, without=without)
    for name in ("pr", "qrs", "qt", "qtc"):
        one = getattr(found, name)
        assert (one.median_ms is None) is (name in missing)
        assert bool(one.reason) is (name in missing)
        assert one.beats == 0 or name not in missing


def test_few_beats_are_not_enough_and_half_of_them_must_agree() -> None:
    few = _clip(STEADY[: MIN_BEATS - 1], 4)
    assert few.qrs.median_ms is None
    assert "2 of 2 beats, 3 needed" in few.qrs.reason
    probability, r = _mask(STEADY, 12)
    probability[round(5 * MODEL_FS_HZ) :, WAVES.index("P")] = 0
    found = intervals(delineate(probability, r))
    assert found.pr.median_ms is None
    assert found.pr.beats == 6
    assert found.qrs.median_ms is not None


def test_no_correction_where_rr_varies() -> None:
    rng = np.random.default_rng(0)
    irregular = list(itertools.accumulate(rng.choice([0.55, 0.95], 14), initial=0.6))
    found = _clip(irregular, 14)
    assert found.qt.median_ms is not None
    assert found.qtc.median_ms is None
    assert "vary" in found.qtc.reason


def test_a_wave_belongs_to_one_beat() -> None:
    """Blocked P waves, a T wave under the next P, a beat without QRS: nothing is borrowed from a neighbour."""
    probability, r = _mask([1.0, 2.6, 4.2, 5.8], 8)
    extra, _ = _mask([1.8], 8, without="QRS")
    extra[:, WAVES.index("T")] = 0
    beats = delineate(np.maximum(probability, extra), r)
    assert [beat.pr_ms for beat in beats] == pytest.approx([PR_MS] * 4, abs=1.5)
    lone = delineate(probability, [1.0 * MODEL_FS_HZ, 3.4 * MODEL_FS_HZ])
    assert lone[1] == Waves(3.4 * MODEL_FS_HZ, None, None, None, 2.4)


def test_nothing_and_nan_are_nothing() -> None:
    assert delineate(np.zeros((0, 4)), []) == []
    nothing = intervals(delineate(np.full((1280, 4), np.nan), [200.0, 300.0, 400.0]))
    assert nothing.qrs.median_ms is None
    assert nothing.beats == 3
    with pytest.raises(ValueError, match="delineation"):
        delineate(np.zeros((10, 3)), [])
