"""Scores of a hop are a pure function of its samples, however hops are split, batched and stitched."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from encoder_kit import tiny_card
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.contract import HopScores
from edge.encoder.scoring import HopJob, Reader, score_hops
from edge.encoder.session import Encoder
from edge.encoder.windows import first_sample, samples_needed

rates_hz = st.one_of(st.sampled_from([62.5, 130.0, 250.0, 257.33, 360.0]), st.integers(50, 700).map(float))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_card(tmp_path_factory.mktemp("tiny")), provider="cpu")


def same(a: HopScores, b: HopScores) -> bool:
    names = [field.name for field in dataclasses.fields(HopScores) if field.name != "k"]
    return a.k == b.k and all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in names)


def reader(samples: NDArray[np.int32], off: NDArray[np.bool_] | None = None) -> Reader:
    """Reads an array; fails on samples before the recording."""

    def read(start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        assert 0 <= start < end
        part = np.full((samples.shape[0], end - start), MISSING, np.int32)
        inside = samples[:, start:end]
        part[:, : inside.shape[1]] = inside
        contact_off = np.zeros(end - start, np.bool_)
        if off is not None:
            contact_off[: inside.shape[1]] = off[start:end]
        return part, contact_off

    return read


def ecg_like(leads: int, n: int, seed: int = 0) -> NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 60, (leads, n)).cumsum(axis=1) * 0.2 + rng.normal(0, 20, (leads, n))
    return samples.astype(np.int32)


def job(samples: NDArray[np.int32], fs_hz: float, first: int, stop: int) -> HopJob:
    return HopJob(reader(samples), (5.0,) * samples.shape[0], fs_hz, first, stop)


@settings(max_examples=25)
@given(data=st.data(), fs_hz=rates_hz)
def test_any_split_gives_the_same_bits(data: st.DataObject, fs_hz: float, encoder: Encoder) -> None:
    samples = ecg_like(data.draw(st.integers(1, 3)), int(60 * fs_hz))
    hole = data.draw(st.integers(0, samples.shape[1]))
    samples[:, hole : hole + data.draw(st.integers(0, int(12 * fs_hz)))] = MISSING
    (whole,) = score_hops(encoder, [job(samples, fs_hz, 0, 30)])
    cuts = sorted({0, 30, *data.draw(st.lists(st.integers(1, 29), max_size=6))})
    jobs = [job(samples, fs_hz, a, b) for a, b in pairwise(cuts)]
    order = data.draw(st.permutations(range(len(jobs))))
    parts = score_hops(encoder, [jobs[i] for i in order])
    split = [hop for _, part in sorted(zip(order, parts, strict=True), key=lambda pair: pair[0]) for hop in part]
    assert all(same(a, b) for a, b in zip(whole, split, strict=True))


@settings(max_examples=15)
@given(fs_hz=rates_hz, k=st.integers(0, 20), seed=st.integers(0, 99))
def test_nothing_outside_the_needed_samples_counts(fs_hz: float, k: int, seed: int, encoder: Encoder) -> None:
    start, end = samples_needed(fs_hz, k, k + 1)
    one = ecg_like(1, int(60 * fs_hz))
    other = ecg_like(1, int(60 * fs_hz), seed + 1)
    inside = slice(max(start, 0), end)
    other[:, inside] = one[:, inside]
    ((a,), (b,)) = score_hops(encoder, [job(one, fs_hz, k, k + 1), job(other, fs_hz, k, k + 1)])
    assert same(a, b)


def test_stitched_hops_equal_one_long_pass(encoder: Encoder) -> None:
    samples = ecg_like(2, 60 * 128)
    (hops,) = score_hops(encoder, [job(samples, 128.0, 0, 30)])
    (long,) = score_hops(encoder, [job(samples, 128.0, 0, 30)], stride_hops=30)
    assert [hop.k for hop in hops] == list(range(30))
    for a, b in zip(hops, long, strict=True):
        for name in ("r_peak", "beat", "morphology", "rhythm", "quality", "embedding"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-6)
    assert not np.allclose(hops[10].r_peak, hops[11].r_peak)


def test_wearers_share_batches_and_keep_their_own_scores(encoder: Encoder) -> None:
    wearers = [ecg_like(leads, int(40 * fs), seed) for seed, (leads, fs) in enumerate([(1, 250), (3, 500), (1, 130)])]
    jobs = [job(s, fs, k, k + 2) for s, fs, k in zip(wearers, (250.0, 500.0, 130.0), (3, 0, 9), strict=True)]
    alone = [score_hops(encoder, [one])[0] for one in jobs]
    together = score_hops(encoder, jobs)
    assert [[hop.k for hop in hops] for hops in together] == [[3, 4], [0, 1], [9, 10]]
    assert all(same(a, b) for x, y in zip(alone, together, strict=True) for a, b in zip(x, y, strict=True))


def test_a_hop_without_samples_skips_the_network(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ecg_like(1, 60 * 250)
    samples[:, 10 * 250 : 30 * 250] = MISSING
    seen: list[int] = []
    real = encoder.run
    monkeypatch.setattr(encoder, "run", lambda ecg: (seen.append(ecg.shape[0]), real(ecg))[1])
    (hops,) = score_hops(encoder, [job(samples, 250.0, 0, 30)])
    empty = [hop.k for hop in hops if np.isnan(hop.embedding).all()]
    assert empty == list(range(5, 15))
    assert sum(seen) == 20
    for k in empty:
        hop = hops[k]
        assert not hop.r_peak.any()
        assert not hop.beat.any()
        assert np.isnan(hop.quality).all()
        assert np.isnan(hop.rhythm).all()
        assert np.isnan(hop.ecg).all()
        assert hop.present.tolist() == [0, 0]


def test_beyond_the_end_is_missing(encoder: Encoder) -> None:
    (hops,) = score_hops(encoder, [job(ecg_like(1, 5 * 250), 250.0, 0, 3)])
    assert [hop.present.tolist() for hop in hops] == [[1, 1], [1, 1], [1, 0]]
    assert np.isnan(hops[2].ecg[0, 140:]).all()


def test_a_reader_of_the_wrong_shape_is_a_bug(encoder: Encoder) -> None:
    bad = HopJob(reader(ecg_like(2, 2500)), (5.0,), 250.0, 0, 1)
    with pytest.raises(ValueError, match="read returned"):
        score_hops(encoder, [bad])


def seconds_of(samples: NDArray[np.int32], encoder: Encoder, off: NDArray[np.bool_] | None = None) -> HopScores:
    """Measures of hop 9 (18-20 s) at 250 Hz."""
    read = reader(samples, off)
    ((hop,),) = score_hops(encoder, [HopJob(read, (5.0,) * samples.shape[0], 250.0, 9, 10)])
    return hop


def test_clipping_is_counted_where_the_range_ends(encoder: Encoder) -> None:
    samples = ecg_like(1, 30 * 250)
    first = first_sample(250.0, 9)
    high, low = int(samples[0, : first + 500].max()) + 50, int(samples[0, : first + 500].min()) - 50
    assert seconds_of(samples, encoder).clipped.tolist() == [0, 0]
    samples[0, first + 10 : first + 60] = high
    samples[0, first + 250 : first + 275] = low
    assert seconds_of(samples, encoder).clipped.tolist() == pytest.approx([50 / 250, 25 / 250])
    samples[0, first + 100 : first + 150] = high - 1
    assert seconds_of(samples, encoder).clipped.tolist() == pytest.approx([50 / 250, 25 / 250])
    samples[0, first + 400 : first + 402] = high
    assert seconds_of(samples, encoder).clipped.tolist() == pytest.approx([50 / 250, 25 / 250])


def test_a_clip_across_a_second_counts_on_both_sides(encoder: Encoder) -> None:
    samples = ecg_like(1, 30 * 250)
    first = first_sample(250.0, 9)
    samples[0, first + 249 : first + 252] = 5000
    assert seconds_of(samples, encoder).clipped.tolist() == pytest.approx([1 / 250, 2 / 250])


def test_the_least_clipped_recorded_lead_counts(encoder: Encoder) -> None:
    samples = ecg_like(3, 30 * 250)
    first = first_sample(250.0, 9)
    samples[0, first : first + 500] = 9000
    samples[1, first : first + 100] = 9000
    samples[2, first : first + 500] = MISSING
    hop = seconds_of(samples, encoder)
    assert hop.clipped.tolist() == pytest.approx([100 / 250, 0])
    assert hop.present.tolist() == [1, 1]


def test_flat_is_not_clipped(encoder: Encoder) -> None:
    assert seconds_of(np.zeros((1, 30 * 250), np.int32), encoder).clipped.tolist() == [0, 0]


def test_contact_and_presence_by_second(encoder: Encoder) -> None:
    samples = ecg_like(2, 30 * 250)
    first = first_sample(250.0, 9)
    off = np.zeros(30 * 250, np.bool_)
    off[first + 249] = True
    samples[:, first + 250 : first + 375] = MISSING
    hop = seconds_of(samples, encoder, off)
    assert hop.contact_off.tolist() == [True, False]
    assert hop.present.tolist() == [1, 0.5]
