"""The wearer's own normal: what is like it is N, what is not is V, early is S; without it the encoder decides."""

from __future__ import annotations

import cbor2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.rules import Rules, WearerLimits
from edge.rhythm.wearer import FEATURES, REACH, WEIGHTS, Wearer

WEIGHED = WearerLimits(encoder_weight=0.5, own_weight=1)
SURE_N = (0.94, 0.02, 0.02, 0.01, 0.01)
V_OR_N = (0.42, 0.02, 0.54, 0.01, 0.01)
N_OR_V = (0.54, 0.02, 0.42, 0.01, 0.01)
N_OR_S = (0.60, 0.36, 0.02, 0.01, 0.01)
NARROW, WIDE = 1.7, 6.0


def complex_mv(width: float = NARROW, height: float = 1.0, leads: int = 1, seed: int = 0) -> NDArray[np.float32]:
    m = np.arange(-REACH, REACH + 1)
    noise = np.random.default_rng(seed).normal(0, 0.01, (leads, m.size))
    return (height * np.exp(-0.5 * (m / width) ** 2) + noise).astype(np.float32)


def accustomed(beats: int = 60, leads: int = 1, limits: WearerLimits | None = None, rr_s: float = 0.8) -> Wearer:
    """Return a wearer of `beats` narrow beats at 75 bpm."""
    wearer = Wearer(limits or WEIGHED, leads)
    for i in range(beats):
        around = complex_mv(leads=leads, seed=i)
        wearer.weigh(i * rr_s * MODEL_FS_HZ, around, rr_s if i else None, 0.9, SURE_N, False, 1.0)
    return wearer


def weigh(
    wearer: Wearer, around: NDArray[np.float32], rr_s: float | None, classes: tuple[float, ...], af: bool = False
) -> str:
    scores = wearer.weigh(60 * 0.8 * MODEL_FS_HZ, around, rr_s, 0.9, classes, af, 1.0)
    assert sum(scores) == pytest.approx(1)
    assert scores[3:] == [0.01, 0.01]
    return "NSVFQ"[scores.index(max(scores))]


def test_a_beat_like_all_others_is_not_v() -> None:
    assert weigh(accustomed(), complex_mv(), 0.8, V_OR_N) == "N"


def test_a_strange_early_beat_is_v() -> None:
    assert weigh(accustomed(), complex_mv(WIDE, -1.5), 0.5, N_OR_V) == "V"


def test_an_early_beat_of_the_usual_shape_is_s() -> None:
    assert weigh(accustomed(), complex_mv(), 0.55, N_OR_S) == "S"
    assert weigh(accustomed(), complex_mv(), 0.8, N_OR_S) == "N"


def test_the_sign_of_the_lead_does_not_matter() -> None:
    wearer = Wearer(WEIGHED, 1)
    for i in range(60):
        wearer.weigh(i * 102.4, complex_mv(height=-1.0, seed=i), 0.8 if i else None, 0.9, SURE_N, False, 1.0)
    assert weigh(wearer, complex_mv(height=-1.0), 0.8, V_OR_N) == "N"
    assert weigh(wearer, complex_mv(WIDE, 1.5), 0.5, N_OR_V) == "V"


@pytest.mark.parametrize(
    "wearer", [accustomed(5), accustomed(limits=WearerLimits(encoder_weight=0.5, own_weight=1, normal=1.0))]
)
def test_without_a_normal_the_encoder_decides(wearer: Wearer) -> None:
    assert wearer.weigh(0, complex_mv(), 0.8, 0.9, V_OR_N, False, 1.0) == list(V_OR_N)


def test_without_an_rr_interval_or_signal_the_encoder_decides() -> None:
    unknown = np.full((1, 2 * REACH + 1), np.nan, dtype=np.float32)
    for around, rr_s in ((complex_mv(), None), (unknown, 0.8)):
        assert accustomed().weigh(6144, around, rr_s, 0.9, V_OR_N, False, 1.0) == list(V_OR_N)


@pytest.mark.parametrize(("af", "quality"), [(True, 1.0), (False, 0.5)])
def test_in_af_and_in_noise_the_encoder_alone_decides(af: bool, quality: float) -> None:
    wearer = accustomed()
    blocks, sums, count = wearer.blocks, wearer.sums, wearer.count
    assert wearer.weigh(6144, complex_mv(WIDE), 0.5, 0.9, SURE_N, af, quality) == list(SURE_N)
    assert (wearer.blocks, wearer.sums, wearer.count) == (blocks, sums, count), "nothing is learnt from it"
    assert wearer.rr[-1] == 512, "its RR interval counts"


def test_weight_zero_leaves_the_encoder_alone() -> None:
    wearer = accustomed(limits=Rules().wearer)
    assert wearer.weigh(6144, complex_mv(WIDE), 0.5, 0.9, V_OR_N, False, 1.0) == list(V_OR_N)


def test_a_lost_lead_starts_a_new_normal() -> None:
    wearer = accustomed(leads=2)
    one = complex_mv(leads=2)
    one[1, 3] = np.nan
    assert wearer.weigh(6144, one, 0.8, 0.9, V_OR_N, False, 1.0) == list(V_OR_N)
    for i in range(60):
        wearer.weigh(6144 + i * 102.4, one, 0.8, 0.9, SURE_N, False, 1.0)
    assert weigh(wearer, one, 0.8, V_OR_N) == "N"


@pytest.mark.parametrize("leads", [1, 3])
def test_a_saved_state_continues_with_the_same_bits(leads: int) -> None:
    rng = np.random.default_rng(1)
    straight, restored = accustomed(leads=leads), accustomed(leads=leads)
    for i in range(200):
        wide = rng.random() < 0.2
        around = complex_mv(WIDE if wide else NARROW, 1 + 0.2 * rng.normal(), leads, i)
        beat = (7000 + i * 100.0, around, 0.5 + 0.4 * rng.random(), 0.9, N_OR_V if wide else SURE_N, i % 50 > 40, 1.0)
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
            wearer.weigh(i * 70.0, complex_mv(height=height, seed=i), 0.5, 0.9, SURE_N, False, 1.0)
        for i in range(150):
            wearer.weigh(6000 + i * 102.4, complex_mv(seed=i), 0.8, 0.9, SURE_N, False, 1.0)
        states.append(wearer.save())
    assert states[0] == states[1]


def test_state_is_bounded() -> None:
    sizes = {beats: len(cbor2.dumps(accustomed(beats, leads=12).save())) for beats in (200, 800)}
    assert max(sizes.values()) < 4200
    assert abs(sizes[800] - sizes[200]) < 20


def test_weights_belong_to_features() -> None:
    assert [len(row) for row in WEIGHTS] == [len(FEATURES)] * 2
    assert len(accustomed().features((1.0, 0.1), 0.8, False) or []) == len(FEATURES)
