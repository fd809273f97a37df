"""Variability and patterns against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge.encoder.contract import BEAT_CLASSES
from edge.report import ectopy, hrv


def measure(intervals_ms: list[float] | np.ndarray, normal: np.ndarray | None = None) -> hrv.Hrv:
    seconds = np.concatenate(([np.nan], np.asarray(intervals_ms) / 1000))
    times = np.nancumsum(seconds)
    flags = np.ones(seconds.size, bool) if normal is None else normal
    return hrv.measure(times, seconds, flags)


def test_alternating_intervals_have_known_measures() -> None:
    found = measure([800.0, 860.0] * 100)
    assert found.nn == 200
    assert found.mean_nn_ms == pytest.approx(830)
    assert found.sdnn_ms == pytest.approx(30 * np.sqrt(200 / 199))
    assert found.rmssd_ms == pytest.approx(60)
    assert found.pnn50_percent == pytest.approx(100)
    assert found.triangular_index == pytest.approx(2)
    assert measure([800.0, 850.0] * 100).pnn50_percent == 0  # more than 50 ms, not 50


def test_sdann_and_sdnn_index_are_of_five_minutes() -> None:
    found = measure(np.concatenate([np.full(375, 800.0), np.full(300, 1000.0)]))
    assert found.sdann_ms == pytest.approx(np.std([800, 1000], ddof=1), rel=0.01)
    assert found.sdnn_index_ms == pytest.approx(0, abs=8)
    assert found.sdnn_ms == pytest.approx(np.std([800] * 375 + [1000] * 300, ddof=1), rel=0.01)


def test_an_ectopic_beat_a_hole_and_a_missed_beat_leave_no_trace() -> None:
    quiet = [800.0, 810.0] * 100
    clean = measure(quiet)
    spoilt = [*quiet[:100], 500.0, 1100.0, *quiet[100:150], 1610.0, *quiet[150:]]
    flags = np.ones(len(spoilt) + 1, bool)
    flags[101:103] = False  # to and from a V beat
    found = measure(spoilt, flags)
    assert (found.nn, found.sdnn_ms) == (clean.nn, pytest.approx(clean.sdnn_ms))
    assert found.rmssd_ms == pytest.approx(10)  # no difference is taken across what was left out
    assert found.pnn50_percent == 0


def test_too_little_says_nothing() -> None:
    assert measure([800.0] * 19).sdnn_ms is None
    assert measure([]) == hrv.Hrv(0, 0.0)
    assert measure([300.0] * 100).nn == 0


def patterns(beats: str) -> dict[str, list[tuple[int, int]]]:
    """Find patterns in a text such as `NNVN|NV`; `|` is a hole before the next beat."""
    kinds, intervals, hole = [], [], True
    for letter in beats:
        if letter == "|":
            hole = True
            continue
        kinds.append(BEAT_CLASSES.index(letter))
        intervals.append(np.nan if hole else 0.8)
        hole = False
    found = ectopy.find(np.array(kinds, np.uint8), np.array(intervals))
    return {name: [(p.first, p.last) for p in each] for name, each in found.items() if each}


def test_runs_couplets_and_single_beats() -> None:
    assert patterns("NVNVVNVVVVN") == {"v_single": [(1, 2)], "couplet": [(3, 5)], "v_run": [(6, 10)]}
    assert patterns("NSSSNSSNS") == {"s_run": [(1, 4)], "s_couplet": [(5, 7)], "s_single": [(8, 9)]}


def test_a_hole_ends_a_pattern() -> None:
    assert "v_run" not in patterns("NVV|VN")
    assert patterns("NVV|VN") == {"couplet": [(1, 3)], "v_single": [(3, 4)]}
    assert "bigeminy" not in patterns("NVNV|NV")


def test_bigeminy_and_trigeminy_need_three_cycles() -> None:
    assert patterns("NNVNVNVNN")["bigeminy"] == [(1, 8)]
    assert "bigeminy" not in patterns("NNVNVNN")
    assert patterns("NNNVNNVNNVN")["trigeminy"] == [(1, 10)]
    assert "trigeminy" not in patterns("NNVNNVN")


def test_the_rate_of_a_run_is_of_its_own_intervals() -> None:
    kinds = np.array([BEAT_CLASSES.index(c) for c in "NVVVN"], np.uint8)
    (run,) = ectopy.find(kinds, np.array([np.nan, 0.5, 0.4, 0.4, 1.2]))["v_run"]
    assert (run.beats, run.rate_bpm) == (3, pytest.approx(150))
