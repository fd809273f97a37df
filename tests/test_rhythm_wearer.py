"""The wearer's own normal: what is like it is N, what is not is V, early is S; without it the encoder decides."""

from __future__ import annotations

import cbor2
import numpy as np
import pytest
from numpy.typing import NDArray
from rhythm_kit import Script, play

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.peaks import Peak
from edge.rhythm.rules import Rules, WearerLimits
from edge.rhythm.wearer import FEATURES, REACH, WEIGHTS, Wearer

WEIGHED = Rules().wearer
OFF = WearerLimits(encoder_weight=1, own_weight=0)
SURE_N = (0.94, 0.02, 0.02, 0.01, 0.01)
V_OR_N = (0.42, 0.02, 0.54, 0.01, 0.01)
N_OR_V = (0.54, 0.02, 0.42, 0.01, 0.01)
N_OR_S = (0.60, 0.36, 0.02, 0.01, 0.01)
SURE_S = (0.03, 0.93, 0.02, 0.01, 0.01)
NARROW, WIDE = 1.7, 6.0
SHORT, LONG = (-5.0, 6.0), (-9.0, 11.0)
"""QRS complexes of 86 and 156 ms."""


def complex_mv(width: float = NARROW, height: float = 1.0, leads: int = 1, seed: int = 0) -> NDArray[np.float32]:
    m = np.arange(-REACH, REACH + 1)
    noise = np.random.default_rng(seed).normal(0, 0.01, (leads, m.size))
    return (height * np.exp(-0.5 * (m / width) ** 2) + noise).astype(np.float32)


def a_peak(
    position: float,
    around: NDArray[np.float32],
    classes: tuple[float, ...],
    qrs: tuple[float, float] | None = SHORT,
    score: float = 0.9,
) -> Peak:
    return Peak(position, position, score, False, classes, "narrow", 0.1, 0.1, around, qrs)


def accustomed(beats: int = 60, leads: int = 1, limits: WearerLimits | None = None, rr_s: float = 0.8) -> Wearer:
    """Return a wearer of `beats` narrow beats at 75 bpm."""
    wearer = Wearer(limits or WEIGHED, leads)
    for i in range(beats):
        peak = a_peak(i * rr_s * MODEL_FS_HZ, complex_mv(leads=leads, seed=i), SURE_N)
        wearer.weigh(peak, rr_s if i else None, 0.0, 1.0)
    return wearer


def weigh(
    wearer: Wearer,
    around: NDArray[np.float32],
    rr_s: float | None,
    classes: tuple[float, ...],
    qrs: tuple[float, float] | None = SHORT,
) -> str:
    scores = wearer.weigh(a_peak(60 * 0.8 * MODEL_FS_HZ, around, classes, qrs), rr_s, 0.0, 1.0)
    assert sum(scores) == pytest.approx(1)
    assert scores[3:] == [0.01, 0.01]
    return "NSVFQ"[scores.index(max(scores))]


def test_a_beat_like_all_others_is_not_v() -> None:
    assert weigh(accustomed(), complex_mv(), 0.8, V_OR_N) == "N"


def test_a_strange_early_beat_is_v() -> None:
    assert weigh(accustomed(), complex_mv(WIDE, -1.5), 0.5, N_OR_V, LONG) == "V"


def test_a_longer_complex_speaks_for_v() -> None:
    around = complex_mv(2.5, 1.0)
    short, long = (accustomed().weigh(a_peak(6144, around, N_OR_V, qrs), 0.55, 0.0, 1.0) for qrs in (SHORT, LONG))
    assert long[2] > short[2] + 0.2


def test_an_early_beat_of_the_usual_shape_is_s() -> None:
    assert weigh(accustomed(), complex_mv(), 0.55, N_OR_S) == "S"
    assert weigh(accustomed(), complex_mv(), 0.8, N_OR_S) == "N"


def test_a_sure_normal_beat_in_time_is_left_alone() -> None:
    peak = a_peak(6144, complex_mv(WIDE), SURE_N, LONG)
    assert accustomed().weigh(peak, 0.8, 0.0, 1.0) == list(SURE_N)


def test_the_sign_of_the_lead_does_not_matter() -> None:
    wearer = Wearer(WEIGHED, 1)
    for i in range(60):
        wearer.weigh(a_peak(i * 102.4, complex_mv(height=-1.0, seed=i), SURE_N), 0.8 if i else None, 0.0, 1.0)
    assert weigh(wearer, complex_mv(height=-1.0), 0.8, V_OR_N) == "N"
    assert weigh(wearer, complex_mv(WIDE, 1.5), 0.5, N_OR_V, LONG) == "V"


@pytest.mark.parametrize("wearer", [accustomed(5), accustomed(limits=WearerLimits(normal=1.0))])
def test_without_a_normal_the_encoder_decides(wearer: Wearer) -> None:
    assert wearer.weigh(a_peak(0, complex_mv(), V_OR_N), 0.8, 0.0, 1.0) == list(V_OR_N)


def test_without_an_rr_interval_or_signal_the_encoder_decides() -> None:
    unknown = np.full((1, 2 * REACH + 1), np.nan, dtype=np.float32)
    for around, rr_s in ((complex_mv(), None), (unknown, 0.8)):
        assert accustomed().weigh(a_peak(6144, around, V_OR_N), rr_s, 0.0, 1.0) == list(V_OR_N)


@pytest.mark.parametrize(("af", "quality"), [(None, 1.0), (0.0, 0.5)])
def test_in_af_and_in_noise_the_encoder_alone_decides(af: float | None, quality: float) -> None:
    wearer = accustomed()
    blocks, sums, count = wearer.blocks, wearer.sums, wearer.count
    assert wearer.weigh(a_peak(6144, complex_mv(WIDE), V_OR_N, LONG), 0.5, af, quality) == list(V_OR_N)
    assert (wearer.blocks, wearer.sums, wearer.count) == (blocks, sums, count), "nothing is learnt from it"
    assert wearer.before == 512, "its RR interval is known to the next one"


def test_switched_off_the_encoder_decides() -> None:
    wearer = accustomed(limits=OFF)
    assert wearer.weigh(a_peak(6144, complex_mv(WIDE), V_OR_N, LONG), 0.5, 0.0, 1.0) == list(V_OR_N)
    assert not wearer.rr


def test_a_long_run_of_s_beats_does_not_become_the_wearers_normal() -> None:
    wearer = accustomed()
    rr = list(wearer.rr)
    for i in range(100):
        peak = a_peak(7000 + i * 60.0, complex_mv(seed=i), SURE_S)
        scores = wearer.weigh(peak, 0.47, 0.0, 1.0)
        assert scores.index(max(scores)) == 1, i
    assert wearer.rr == rr


def test_a_run_of_s_beats_stays_s_through_the_whole_session() -> None:
    script = Script(120).train(0.4, 60, 70).train(60.2, 90, 130, "S").train(90.8, 120, 70)
    beats = [beat for beat in play(script).beats if 60 <= beat.sample / 250 < 89.9]
    assert len(beats) > 60
    assert {beat.type for beat in beats} == {"S"}


def test_what_the_encoder_calls_normal_moves_the_usual_interval() -> None:
    """A pulse that rises is no run of S beats: after sixteen intervals between normal beats it is usual."""
    wearer = accustomed()
    for i in range(20):
        wearer.weigh(a_peak(7000 + i * 64.0, complex_mv(seed=i), SURE_N), 0.5, 0.0, 1.0)
    assert wearer.rr == [512] * 16
    assert weigh(wearer, complex_mv(), 0.5, N_OR_S) == "N"


def test_a_lost_lead_starts_a_new_normal() -> None:
    wearer = accustomed(leads=2)
    one = complex_mv(leads=2)
    one[1, 3] = np.nan
    assert wearer.weigh(a_peak(6144, one, V_OR_N), 0.8, 0.0, 1.0) == list(V_OR_N)
    for i in range(60):
        wearer.weigh(a_peak(6144 + i * 102.4, one, SURE_N), 0.8, 0.0, 1.0)
    assert weigh(wearer, one, 0.8, V_OR_N) == "N"


@pytest.mark.parametrize("leads", [1, 3])
def test_a_saved_state_continues_with_the_same_bits(leads: int) -> None:
    rng = np.random.default_rng(1)
    straight, restored = accustomed(leads=leads), accustomed(leads=leads)
    for i in range(200):
        wide = rng.random() < 0.2
        around = complex_mv(WIDE if wide else NARROW, 1 + 0.2 * rng.normal(), leads, i)
        qrs = (-7 - 3 * rng.random(), 7 + 3 * rng.random()) if i % 7 else None
        peak = a_peak(7000 + i * 100.0, around, N_OR_V if wide else SURE_N, qrs)
        beat = (peak, 0.5 + 0.4 * rng.random(), None if i % 50 > 40 else 0.3 * rng.random(), 1.0)
        again = Wearer(WEIGHED, leads)
        again.load(cbor2.loads(cbor2.dumps(restored.save(), canonical=True)))
        restored = again
        assert straight.weigh(*beat) == restored.weigh(*beat)
        assert straight.save() == restored.save()


def test_the_past_is_forgotten_exactly() -> None:
    states = []
    for height in (1.0, 3.0):
        wearer = Wearer(WEIGHED, 1)
        for i in range(37 if height > 2 else 50):
            wearer.weigh(a_peak(i * 70.0, complex_mv(height=height, seed=i), SURE_N), 0.5, 0.0, 1.0)
        for i in range(400):
            wearer.weigh(a_peak(6000 + i * 102.4, complex_mv(seed=i), SURE_N), 0.8, 0.0, 1.0)
        states.append(wearer.save())
    assert states[0] == states[1]


def test_state_is_bounded() -> None:
    sizes = {beats: len(cbor2.dumps(accustomed(beats, leads=12).save())) for beats in (200, 800)}
    assert max(sizes.values()) < 4300
    assert abs(sizes[800] - sizes[200]) < 20


def test_weights_belong_to_features() -> None:
    assert [len(row) for row in WEIGHTS] == [len(FEATURES)] * 2
    assert len(accustomed().features((1.0, 0.1), 11.0, 0.1, 819, 819, 0.0)) == len(FEATURES)
