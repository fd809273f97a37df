"""Calibration: curves, errors and temperatures whose values are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.evaluate import calibration, goals
from export.evaluate.calibration import Said

pytestmark = pytest.mark.export


def _said(log_odds: NDArray[np.float64], temperature: float, seed: int = 0) -> Said:
    """Return probabilities that are too sure by a factor of `temperature`."""
    rng = np.random.default_rng(seed)
    right = rng.random(log_odds.size) < 1 / (1 + np.exp(-log_odds))
    return Said(1 / (1 + np.exp(-log_odds * temperature)), right)


def test_an_honest_head_has_no_error_and_a_boastful_one_has() -> None:
    log_odds = np.random.default_rng(1).normal(1, 1.5, 40_000)
    honest, boastful = _said(log_odds, 1.0), _said(log_odds, 2.5)
    assert calibration.ece(honest) < 0.01
    assert calibration.ece(boastful) > 0.05
    assert calibration.likeliest(honest) == pytest.approx(1.0, rel=0.06)
    found = calibration.likeliest(boastful)
    assert found == pytest.approx(2.5, rel=0.08)
    assert calibration.ece(calibration.tempered(boastful, found)) < 0.01


def test_bins_hold_what_was_said() -> None:
    said = Said(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert calibration.curve(said) == [
        {"said": 0.05, "right": 0.5, "n": 2},
        {"said": 0.975, "right": 1.0, "n": 2},
    ]
    assert calibration.ece(said) == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)


def test_the_picture_and_the_table_show_every_head(tmp_path: Path) -> None:
    said = _said(np.random.default_rng(2).normal(1, 1.5, 500), 1.5)
    told = {"databases": ["mitdb"], "temperature": 1.5, "test": calibration._told(said, 1.5)}
    found = dict.fromkeys(calibration.HEADS, told)
    path = tmp_path / "calibration.png"
    calibration.draw(found, path)
    assert 0 < path.stat().st_size < 200_000
    page = calibration.table(found)
    assert all(f"| {head} |" in page for head in calibration.HEADS)


def test_goals_say_met_not_met_or_not_measured() -> None:
    speed = {"speed": {"anyecg": {"ecg_s_per_cpu_s": 5_000}, "anyecg int8": {"ecg_s_per_cpu_s": 9_000}}}
    found = {what: (got, met) for what, _, got, met in goals.rows(speed)}
    assert found["ECG-s per CPU-s, one thread, int8 / fp32"] == ("9,000 / 5,000", False)
    assert found["V F1, DS2"] == ("not measured", None)
    speed["speed"]["anyecg int8"]["ecg_s_per_cpu_s"] = 10_000
    assert "| 10,000 / 5,000 | met |" in goals.table(speed)
