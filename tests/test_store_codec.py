"""Waveform blocks: what goes in comes out, small, and damage is noticed."""

from __future__ import annotations

import contextlib
import struct
import time
import zlib

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edge.chunk import MAX_LEADS, MISSING
from edge.sources.data_folder import data_folder
from edge.store import codec
from edge.store.database import StoreError

DATA = data_folder()

SAMPLES = st.one_of(
    st.integers(-(2**31), 2**31 - 1), st.integers(-50, 50), st.sampled_from([MISSING, MISSING + 1, 2**31 - 1])
)


def blocks(record: str) -> list[NDArray[np.int32]]:
    if not (DATA / f"{record}.dat").exists():
        pytest.skip(f"{record} is not in {DATA}: python -m export.datasets fetch {record.split('/')[0]}")
    read = wfdb.rdrecord(str(DATA / record), physical=False, sampto=360 * 300)
    samples = read.d_signal.T.astype(np.int32)
    length = 10 * read.fs
    return [samples[:, i : i + length] for i in range(0, samples.shape[1] - length + 1, length)]


@settings(max_examples=150)
@given(arrays(np.int32, st.tuples(st.integers(1, 4), st.integers(0, 150)), elements=SAMPLES))
def test_every_array_comes_back(samples: NDArray[np.int32]) -> None:
    assert np.array_equal(codec.decode(codec.encode(samples)), samples)


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 2500, codec.MAX_SAMPLES])
def test_every_length_comes_back(n: int) -> None:
    samples = np.cumsum(np.random.default_rng(n).integers(-9, 10, (1, n)), axis=1).astype(np.int32)
    assert np.array_equal(codec.decode(codec.encode(samples)), samples)


def test_extremes_come_back_without_exploding() -> None:
    noise = np.random.default_rng(1).integers(-(2**31), 2**31, (2, 3000)).astype(np.int32)
    spikes = np.zeros((2, 3000), np.int32)
    spikes[:, ::500] = 2**31 - 1
    for samples in (noise, spikes):
        data = codec.encode(samples)
        assert np.array_equal(codec.decode(data), samples)
        assert len(data) < samples.nbytes * 1.2


def test_nothing_recorded_costs_nothing() -> None:
    assert len(codec.encode(np.full((1, 2500), MISSING, np.int32))) < 50


def test_more_missing_runs_than_the_format_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_RUNS", 3)
    samples = np.full((1, 20), MISSING, np.int32)
    samples[0, ::2] = 7
    assert np.array_equal(codec.decode(codec.encode(samples)), samples)


def test_a_shape_that_does_not_fit_is_a_bug() -> None:
    for shape in ((0, 5), (13, 5), (1, codec.MAX_SAMPLES + 1)):
        with pytest.raises(ValueError, match="a block has 1-12 leads"):
            codec.encode(np.zeros(shape, np.int32))


@pytest.mark.parametrize(
    ("record", "most_bits"), [("mitdb/100", 4.3), ("mitdb/200", 4.8), ("vfdb/422", 5.4), ("svdb/800", 5.3)]
)
def test_size_and_speed_on_recordings(record: str, most_bits: float) -> None:
    pieces = blocks(record)
    began_s = time.process_time()
    coded = [codec.encode(piece) for piece in pieces]
    spent_s = time.process_time() - began_s
    assert all(np.array_equal(codec.decode(data), piece) for data, piece in zip(coded, pieces, strict=True))
    assert 8 * sum(map(len, coded)) / sum(piece.size for piece in pieces) < most_bits
    assert spent_s < 0.01 * len(pieces)  # 10 s of signal in 10 ms, some ten times what it takes


def test_a_day_at_one_microvolt_fits() -> None:
    """250 Hz at 1 µV: `mitdb/200` resampled, with the noise of a 1 µV converter; issue: 24 h ≤ 30 MB."""
    (lead,) = np.concatenate(blocks("mitdb/200"), axis=1)[:1].astype(np.float64) * 5.0
    grid = np.arange(0, len(lead) - 1, 360 / 250)
    noise = np.random.default_rng(0).normal(0, 1, len(grid))
    samples = np.round(np.interp(grid, np.arange(len(lead)), lead) + noise).astype(np.int32)[None]
    size = sum(len(codec.encode(samples[:, i : i + 2500])) for i in range(0, samples.shape[1], 2500))
    assert size * 86400 / (samples.shape[1] / 250) < 24e6


def test_a_newer_version_asks_for_an_upgrade() -> None:
    data = bytearray(codec.encode(np.zeros((1, 10), np.int32)))
    data[1] = codec.VERSION + 1
    with pytest.raises(StoreError, match="upgrade"):
        codec.decode(bytes(data))


def test_a_deflated_bomb_is_cut_short() -> None:
    body = zlib.compress(bytes(10**8))
    header = struct.pack("<BBBBI", codec.MAGIC, codec.VERSION, 1, 1, 100)
    data = header + zlib.crc32(body, zlib.crc32(header)).to_bytes(4, "little") + body
    with pytest.raises(StoreError, match="length differs"):
        codec.decode(data)


def test_damage_inside_the_deflated_part_is_noticed() -> None:
    """As above, but the mutations happen before deflating, so that every check of the parser is reached."""
    rng = np.random.default_rng(21)
    samples = np.full((2, 100), MISSING, np.int32)
    samples[0, 20:80] = rng.integers(-9, 9, 60)
    good = codec.encode(samples)
    raw = zlib.decompress(good[12:])
    for _ in range(2_000):
        mutated = bytearray(raw)
        for at in rng.integers(0, min(len(mutated), 40), rng.integers(1, 3)):
            mutated[at] = rng.integers(256)
        body = zlib.compress(bytes(mutated[: rng.integers(0, len(mutated) + 1)]) if rng.integers(2) else bytes(mutated))
        data = good[:8] + zlib.crc32(body, zlib.crc32(good[:8])).to_bytes(4, "little") + body
        with contextlib.suppress(StoreError):
            assert codec.decode(data).shape == (2, 100)


def test_damage_is_a_clear_error_never_a_crash() -> None:
    """10,000 seeded mutations, half with a checksum made to fit so that the parser itself is reached."""
    rng = np.random.default_rng(20)
    samples = np.cumsum(rng.integers(-20, 21, (2, 400)), axis=1).astype(np.int32)
    samples[1, 50:90] = MISSING
    good = codec.encode(samples)
    head = 8
    refused = 0
    for i in range(10_000):
        data = bytearray(good)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        if i % 4 == 0:
            data = data[: rng.integers(0, len(data) + 1)]
        if i % 2 == 0 and len(data) >= head + 4:
            crc = zlib.crc32(bytes(data[head + 4 :]), zlib.crc32(bytes(data[:head])))
            data[head : head + 4] = crc.to_bytes(4, "little")
        try:
            decoded = codec.decode(bytes(data))
        except StoreError:
            refused += 1
        else:
            assert decoded.dtype == np.int32
            assert decoded.size <= MAX_LEADS * codec.MAX_SAMPLES
    assert refused > 5_000
