"""Window arithmetic against brute force, at any rate and any split."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.encoder.contract import AHEAD_S, HOP_S, MODEL_FS_HZ, PAST_S
from edge.encoder.windows import (
    AHEAD,
    HOP,
    PAST,
    first_sample,
    hop_of,
    hops_in,
    hops_ready,
    hops_touched,
    model_span,
    samples_needed,
)
from edge.signal.prepare import step

rates_hz = st.one_of(
    st.sampled_from([62.5, 128.0, 130.0, 250.0, 257.33, 333.3, 360.0]), st.integers(50, 2000).map(float)
)
hops = st.integers(0, 50_000)


@given(rates_hz, hops)
def test_a_hop_needs_nothing_beyond_the_look_ahead(fs_hz: float, k: int) -> None:
    start, end = samples_needed(fs_hz, k, k + 1)
    hop_start, hop_end = Fraction(k * HOP) * step(fs_hz), Fraction((k + 1) * HOP) * step(fs_hz)
    second = MODEL_FS_HZ * step(fs_hz)
    assert hop_end < end <= hop_end + AHEAD_S * second
    assert hop_start - (PAST_S + 1) * second <= start <= hop_start - PAST_S * second
    assert HOP_S + AHEAD_S <= 5


@given(rates_hz, hops, st.integers(1, 100), st.integers(1, 100))
def test_a_stretch_needs_what_its_parts_need(fs_hz: float, first: int, n: int, m: int) -> None:
    whole = samples_needed(fs_hz, first, first + n + m)
    left, right = samples_needed(fs_hz, first, first + n), samples_needed(fs_hz, first + n, first + n + m)
    assert whole == (left[0], right[1])
    a, b = model_span(first, first + n)
    assert (b - a) % MODEL_FS_HZ == 0
    assert b - a == n * HOP + PAST + AHEAD


@given(rates_hz, st.integers(0, 10_000_000))
def test_hops_ready_are_those_whose_samples_are_decided(fs_hz: float, decided: int) -> None:
    ready = hops_ready(fs_hz, decided)
    assert ready >= 0
    if ready:
        assert samples_needed(fs_hz, ready - 1, ready)[1] <= decided
    assert samples_needed(fs_hz, ready, ready + 1)[1] > decided


@given(rates_hz, st.integers(1, 10_000_000))
def test_hops_cover_a_recording_without_a_spare_one(fs_hz: float, n: int) -> None:
    count = hops_in(fs_hz, n)
    assert hop_of(fs_hz, n - 1) == count - 1
    assert first_sample(fs_hz, count) >= n > first_sample(fs_hz, count - 1)


@given(rates_hz, hops)
def test_every_sample_belongs_to_one_hop(fs_hz: float, k: int) -> None:
    first, after = first_sample(fs_hz, k), first_sample(fs_hz, k + 1)
    assert hop_of(fs_hz, first) == hop_of(fs_hz, after - 1) == k
    assert first == 0 or hop_of(fs_hz, first - 1) == k - 1


@settings(max_examples=30)
@given(rates_hz, st.integers(0, 200_000), st.integers(1, 20_000))
def test_hops_touched_against_brute_force(fs_hz: float, start: int, length: int) -> None:
    end = start + length
    first, stop = hops_touched(fs_hz, start, end)
    for k in range(max(0, first - 12), stop + 12):
        need_start, need_end = samples_needed(fs_hz, k, k + 1)
        assert (first <= k < stop) == (need_start < end and start < need_end)
