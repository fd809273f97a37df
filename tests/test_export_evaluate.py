"""The scorer: EC57's counting rules, and agreement with WFDB's own comparison."""

from __future__ import annotations

import numpy as np
import pytest

from edge.chunk import MISSING
from edge.errors import BadInputError
from export.datasets import splits
from export.datasets.folders import data_folder
from export.evaluate import beats, rhythms, strap
from export.evaluate.beats import NONE, Beats, Score

pytestmark = pytest.mark.export


def _beats(*found: tuple[float, str]) -> Beats:
    return Beats(
        np.array([at_s for at_s, _ in found]), np.array(["NSVFQ".index(label) for _, label in found], dtype=np.int64)
    )


def test_pairs_are_nearest_and_one_to_one() -> None:
    assert beats.pairs(np.array([1.0, 2.0]), np.array([0.9, 1.02, 2.149])) == [(0, 1), (1, 2)]
    assert beats.pairs(np.array([1.0, 1.12]), np.array([1.1])) == [(1, 0)]
    assert beats.pairs(np.array([1.0]), np.array([1.16])) == []


def test_five_minutes_are_skipped_and_flutter_is_excluded() -> None:
    reference = _beats((10, "N"), (301, "V"), (310, "N"), (320, "N"))
    found = _beats((11, "N"), (301.1, "V"), (311, "V"), (320.05, "S"))
    counts = beats.matrix(reference, found, [(309, 312)])
    assert counts.sum() == 2
    assert counts[2, 2] == 1
    assert counts[0, 1] == 1


def test_fusion_and_unclassifiable_called_v_are_forgiven() -> None:
    counts = np.zeros((6, 6), dtype=np.int64)
    counts[2, 2], counts[2, 0], counts[2, NONE] = 10, 1, 2
    counts[0, 2], counts[1, 2], counts[NONE, 2], counts[3, 2], counts[4, 2] = 1, 2, 3, 40, 50
    assert beats.ventricular(counts) == Score(10, 3, 6)
    counts[4, 1], counts[3, 1] = 7, 5
    assert beats.supraventricular(counts) == Score(0, 2, 5)
    assert beats.qrs(counts) == Score(10 + 1 + 1 + 2 + 40 + 50 + 7 + 5, 2, 3)


def test_average_leaves_out_records_without_the_class() -> None:
    assert beats.average([Score(1, 1, 0), Score(0, 0, 3), Score(0, 0, 0)]) == (0.5, 0.5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_detection_agrees_with_wfdb(seed: int) -> None:
    """Real reference beats; detections are moved, lost and invented."""
    wfdb = pytest.importorskip("wfdb")
    from wfdb.processing import compare_annotations

    record = data_folder() / "mitdb" / "213"
    if not record.with_suffix(".atr").exists():
        pytest.skip(f"recordings absent: {record} (python -m export.datasets fetch mitdb)")
    notes = wfdb.rdann(str(record), "atr")
    reference = np.array([s for s, c in zip(notes.sample, notes.symbol, strict=True) if c in "NVAFS"])
    rng = np.random.default_rng(seed)
    found = reference[rng.random(reference.size) > 0.03] + rng.integers(-25, 26, 1)[0]
    found = found + rng.integers(-20, 21, found.size)
    found = np.unique(np.concatenate([found, rng.integers(1000, reference[-1], 60)]))
    theirs = compare_annotations(reference, found, round(beats.WINDOW_S * 360))
    n = np.zeros(reference.size, dtype=np.int64), np.zeros(found.size, dtype=np.int64)
    counts = beats.matrix(Beats(reference / 360, n[0]), Beats(found / 360, n[1]), skip_s=0)
    ours = beats.qrs(counts)
    assert abs(ours.tp - theirs.tp) <= 2
    assert abs(ours.fp - theirs.fp) <= 2
    assert abs(ours.fn - theirs.fn) <= 2
    assert ours.tp > 2000


def test_seconds_are_scored_only_where_the_rhythm_is_known() -> None:
    reference = np.array([1, 1, 0, -1, 2, 0])
    found = np.array([1, 0, 1, 1, -1, 0])
    assert rhythms.seconds(reference, found, rhythms.AF) == Score(1, 2, 1)


def test_auc_and_threshold() -> None:
    score, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
    assert rhythms.auc(score, positive) == pytest.approx(0.875)
    assert rhythms.best_threshold(score, positive) in (0.4, 0.8)
    assert rhythms.at_threshold(score, positive, 0.5) == Score(1, 1, 0)


def test_no_record_is_in_two_parts() -> None:
    assert splits.part("mitdb", "201") is None
    assert all(splits.part("mitdb", name) == "test" for name in splits.DS2)
    assert {splits.part("mitdb", name) for name in splits.DS1} == {"train", "validation", None}
    assert [splits.part("cinc2017", f"A0000{i}") for i in range(1, 6)] == ["test", "validation", "train", "train", None]
    assert {splits.part("vfdb", name) for name in ("419", "422", "424", "602", "609", "611")} == {"test"}
    with pytest.raises(BadInputError, match="cinc2017"):
        splits.part("nosuchdb", "1")


def test_a_strap_sends_whole_microvolts_of_14_bits() -> None:
    at_s = np.arange(3600) / 360
    samples = np.rint(200 * np.sin(2 * np.pi * 5 * at_s)).astype(np.int32)  # ±1 mV at 5 µV
    sent = strap.strapped(samples, 5.0, 360)
    assert sent.size == 1300
    inner = slice(50, -50)
    wanted = 1000 * np.sin(2 * np.pi * 5 * np.arange(1300) / 130)
    assert np.abs(sent - wanted)[inner].max() < 8, "within its step and the filter's ripple"
    samples[1800:] = MISSING
    assert np.all(strap.strapped(samples, 5.0, 360)[700:] == 0), "a strap cannot say that it has nothing"
    assert strap.strapped(100 * samples[:1800], 5.0, 360).max() == 8191
