"""Scoring of delineation and of the cross-validated folds, on made-up answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.encoder.contract import RHYTHMS
from edge.errors import BadInputError
from export.datasets.record import Record
from export.evaluate import folds, waves
from export.evaluate.beats import Beats, Score
from export.evaluate.reading import Reading

pytestmark = pytest.mark.export


def _waves(*starts: float, shift: float = 0.0) -> waves.Spans:
    return {
        "P": [(s + shift, s + shift + 0.1) for s in starts],
        "QRS": [(s + 0.16, s + 0.25) for s in starts],
        "T": [(s + 0.35, s + 0.52) for s in starts],
    }


def test_points_are_found_within_150_ms_and_their_distance_is_told() -> None:
    scores, off_ms = waves.compare(_waves(1, 2, 3), _waves(1, 2, 3, shift=0.01))
    assert scores["P", "onset"] == Score(3, 0, 0)
    assert off_ms["P", "onset"] == pytest.approx([10, 10, 10])
    scores, _ = waves.compare(_waves(1, 2, 3), _waves(1, 2, 3, shift=0.16))
    assert scores["P", "offset"] == Score(0, 3, 3)
    assert scores["T", "offset"] == Score(3, 0, 0)


def test_what_nobody_annotated_is_neither_right_nor_wrong() -> None:
    scores, _ = waves.compare(_waves(2, 3), _waves(1, 2, 2.5, 3, 4))
    assert scores["QRS", "onset"] == Score(2, 0, 1)


def test_the_common_wave_is_the_median_of_at_least_half_of_the_leads() -> None:
    leads = [_waves(1, 2), _waves(1, 2, shift=0.02), _waves(1, shift=0.04), _waves(1.01)]
    found = waves.common(leads)
    assert [len(found[wave]) for wave in waves.WAVES] == [2, 2, 2]
    assert found["P"][0][0] == pytest.approx(1.015)
    leads[1]["T"] = []
    assert len(waves.common(leads)["T"]) == 1


def _read(name: str, truth: str, called: str, ventricular: list[float]) -> folds.Read:
    letters = {"N": "N", "V": "VT", "A": "ASYS", "P": "P", "F": "AFIB"}

    def index(letter: str) -> int:
        return -1 if letter == "-" else RHYTHMS.index(letters[letter])

    n = len(truth)
    scores = np.zeros((n, len(RHYTHMS)), np.float32)
    scores[:, RHYTHMS.index("VT")] = ventricular
    nothing = np.zeros(0)
    record = Record(
        db="vfdb",
        name=name,
        ecg=np.zeros((1, n * 128), np.float32),
        beat_at=nothing.astype(np.float32),
        beat=nothing.astype(np.int8),
        morphology=nothing.astype(np.int8),
        beats_known=np.zeros(n, dtype=bool),
        rhythm=np.array([index(letter) for letter in truth], dtype=np.int8),
        quality=np.ones(n, dtype=np.int8),
    )
    reading = Reading(
        fs_hz=250.0,
        beats=Beats(nothing, nothing.astype(np.int64)),
        rhythm=np.array([index(letter) for letter in called]),
        rhythm_scores=scores,
        quality=np.ones(n, np.float32),
        findings=[],
        marks=[],
    )
    return folds.Read(record, reading)


def test_seconds_of_vt_and_of_sinus() -> None:
    found = folds.ventricular([
        _read("418", "VVNNNN--", "VNNVN-VV", [0.9, 0.1, 0.2, 0.8, 0, 0.9, 1, 1]),
        _read("419", "VVNN", "VVNN", [0.7, 0.6, 0.1, 0.0]),
    ])  # fmt: skip
    called = found["as_called"]
    assert (called["seconds"]["tp"], called["seconds"]["fn"], called["seconds"]["fp"]) == (3, 1, 1)
    assert called["sinus_specificity"] == pytest.approx(83.33)
    assert called["false_s_per_hour"] == 600.0
    limited = found["at_one_false_minute_per_hour"]
    assert limited["thresholds"][1] > 0.8, "no false second is allowed among the four sinus seconds of 418"
    assert limited["per_record"]["419"]["tp"] == 0
    assert limited["per_record"]["418"]["tp"] == 1, "its threshold comes from the other fold"


def test_the_threshold_leaves_one_false_minute_an_hour() -> None:
    score = np.linspace(0, 0.99, 7200).tolist()
    one = _read("418", "N" * 7200 + "V" * 10, "N" * 7210, [*score, *[1.0] * 10])
    limit = folds.threshold([one])
    assert (one.ventricular[:7200] >= limit).sum() == 120


def test_asystole_and_pacing_are_counted_per_record() -> None:
    stop = folds.asystole([_read("418", "AAAANN", "AV-NNN", [0.0] * 6), _read("419", "NN", "NN", [0.0] * 2)])
    assert stop["per_record"] == {"418": {"seconds": 4, "asystole": 1, "vt_vf": 1, "unread": 1, "other": 1}}
    assert (stop["called_asystole"], stop["called_vt_vf"]) == (25.0, 25.0)
    paced = folds.paced_seconds([_read("602", "PPPN", "PPNP", [0.0] * 4)])
    assert (paced["gross"]["tp"], paced["gross"]["fn"], paced["gross"]["fp"]) == (2, 1, 1)


def test_missing_folds_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"export/recipes/encoder\.sh"):
        folds.encoders(tmp_path)
