"""QRS duration makes a bundle branch block, its end says which; both on shapes whose answer is known."""

from __future__ import annotations

import cbor2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.conduction import Conduction
from edge.rhythm.peaks import Peak, _qrs
from edge.rhythm.rules import ConductionLimits
from edge.rhythm.wearer import REACH

NARROW, WIDE = (-5.0, 6.0), (-8.0, 11.0)
"""86 and 148 ms."""


def lead_mv(late_mv: float) -> NDArray[np.float32]:
    """Return a complex that points up at the R peak and ends with `late_mv`."""
    m = np.arange(-REACH, REACH + 1)
    early, late = np.exp(-0.5 * (m / 2.5) ** 2), np.exp(-0.5 * ((m - 7) / 2.0) ** 2)
    return (early + late_mv * late).astype(np.float32)


def a_peak(
    *late_mv: float,
    qrs: tuple[float, float] | None = WIDE,
    said: str = "narrow",
    left: float = 0.1,
    right: float = 0.1,
) -> Peak:
    around = np.stack([lead_mv(late) for late in late_mv or (0.5,)])
    return Peak(1000.0, 1000.0, 0.9, False, (0.9, 0.02, 0.05, 0.02, 0.01), said, left, right, around, qrs)


def read(peak: Peak, leads: tuple[str, ...] = ("unknown",), beats: int = 5) -> str:
    conduction = Conduction(ConductionLimits(), leads)
    return [conduction.morphology(peak, ectopic=False) for _ in range(beats)][-1]


@pytest.mark.parametrize(
    ("lead", "late_mv", "shape"),
    [
        ("V1", 0.6, "RBBB"),
        ("V1", -0.6, "LBBB"),
        ("I", -0.6, "RBBB"),
        ("I", 0.6, "LBBB"),
        ("aVL", -0.6, "RBBB"),
        ("V6", 0.6, "LBBB"),
    ],
)
def test_the_end_of_the_complex_tells_the_bundle(lead: str, late_mv: float, shape: str) -> None:
    assert read(a_peak(late_mv), (lead,)) == shape


def test_v1_is_asked_before_the_left_leads() -> None:
    assert read(a_peak(0.6, 0.6), ("I", "V1")) == "RBBB"


@pytest.mark.parametrize(("left", "right", "shape"), [(0.3, 0.02, "LBBB"), (0.02, 0.3, "RBBB")])
def test_without_such_a_lead_the_network_tells_the_bundle(left: float, right: float, shape: str) -> None:
    assert read(a_peak(0.6, left=left, right=right), ("MLII",)) == shape


def test_a_narrow_complex_is_narrow_whatever_the_network_says() -> None:
    assert read(a_peak(qrs=NARROW, said="LBBB", left=0.9)) == "narrow"


@pytest.mark.parametrize("qrs", [WIDE, NARROW])
def test_pacing_ectopy_and_unseen_complexes_stay_as_the_network_says(qrs: tuple[float, float]) -> None:
    conduction = Conduction(ConductionLimits(), ("V1",))
    assert conduction.morphology(a_peak(qrs=qrs, said="paced"), ectopic=False) == "paced"
    assert conduction.morphology(a_peak(qrs=qrs, said="other"), ectopic=True) == "other"
    assert conduction.morphology(a_peak(qrs=None, said="RBBB"), ectopic=False) == "RBBB"
    assert conduction.newest == []


def test_one_wide_beat_among_narrow_ones_is_no_block() -> None:
    conduction = Conduction(ConductionLimits(), ("V1",))
    for _ in range(5):
        conduction.morphology(a_peak(qrs=NARROW), ectopic=False)
    said = [conduction.morphology(a_peak(), ectopic=False) for _ in range(3)]
    assert said == ["narrow", "narrow", "LBBB" if a_peak().around[0, REACH + 8] < 0 else "RBBB"]


def test_a_lead_that_is_not_known_there_says_nothing() -> None:
    peak = a_peak(0.6, left=0.3, right=0.02)
    peak.around[:] = np.nan
    assert read(peak, ("V1",)) == "LBBB"


def test_a_saved_state_continues_the_same() -> None:
    rng = np.random.default_rng(2)
    straight = Conduction(ConductionLimits(), ("V1",))
    restored = Conduction(ConductionLimits(), ("V1",))
    for _ in range(200):
        peak = a_peak(rng.normal(), qrs=(-8.0, 4 + 6 * rng.random()))
        again = Conduction(ConductionLimits(), ("V1",))
        again.load(cbor2.loads(cbor2.dumps(restored.save(), canonical=True)))
        restored = again
        assert straight.morphology(peak, ectopic=False) == restored.morphology(peak, ectopic=False)
        assert straight.save() == restored.save()


def test_onset_and_offset_lie_where_the_probability_crosses_one_half() -> None:
    probability = np.full(200, 0.1, np.float32)
    probability[95:110] = 0.9
    found = _qrs(probability, 100)
    assert found is not None
    assert found == pytest.approx((-5.5, 9.5))
    assert 1000 * (found[1] - found[0]) / MODEL_FS_HZ == pytest.approx(117, abs=1)
    assert _qrs(probability, 90) == pytest.approx((4.5, 19.5)), "the nearest within 100 ms"
    assert _qrs(probability, 60) is None


def test_it_is_cut_where_nothing_more_is_known() -> None:
    probability = np.full(30, 0.9, np.float32)
    assert _qrs(probability, 2) == (-2.0, 24.0)
