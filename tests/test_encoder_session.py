"""One encoder, many callers: the shipped weights on real ECG give the same bits whoever asks, in whatever company."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from encoder_kit import tiny_card
from numpy.typing import NDArray

from edge.encoder.card import Card
from edge.encoder.contract import MODEL_FS_HZ, OUTPUTS
from edge.encoder.scoring import HopJob, score_hops
from edge.encoder.session import Encoder
from edge.encoder.stride import LONG_HOPS, choose_stride
from edge.encoder.windows import AHEAD, HOP, PAST
from edge.signal.prepare import prepare
from edge.sources.record import Record, read_record


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Card.load(), provider="cpu")


@pytest.fixture(scope="module", params=["mitdb/200", "vfdb/422"])
def record(request: pytest.FixtureRequest, ecg_data: Path) -> Record:
    return read_record(ecg_data / request.param)


def windows(record: Record, n: int) -> NDArray[np.float32]:
    """Single-hop windows of consecutive hops, [n, leads, 20 s]."""
    length = PAST + HOP + AHEAD
    ecg = prepare(
        record.samples, 0, record.uv_per_lsb, record.fs_hz, 600 * MODEL_FS_HZ, 600 * MODEL_FS_HZ + n * HOP + length
    )
    return np.stack([ecg[:, i * HOP : i * HOP + length] for i in range(n)])


def test_batch_size_changes_no_bit(encoder: Encoder, record: Record) -> None:
    ecg = windows(record, 33)
    alone = [encoder.run(ecg[i : i + 1]) for i in range(33)]
    for size in (2, 7, 33):
        for at in range(0, 33, size):
            together = encoder.run(ecg[at : at + size])
            for name in OUTPUTS:
                for row, i in enumerate(range(at, min(at + size, 33))):
                    assert np.array_equal(getattr(alone[i], name)[0], getattr(together, name)[row]), (name, size, i)


@pytest.mark.parametrize("stride", [2, 7, 30, LONG_HOPS])
def test_long_windows_change_no_bit(encoder: Encoder, record: Record, stride: int) -> None:
    def read(start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        return record.samples[:, start:end], np.zeros(end - start, np.bool_)

    job = HopJob(read, record.uv_per_lsb, record.fs_hz, 40, 40 + LONG_HOPS + 5)
    (short,), (long,) = score_hops(encoder, [job]), score_hops(encoder, [job], stride_hops=stride)
    for a, b in zip(short, long, strict=True):
        for name in ("r_peak", "beat", "morphology", "rhythm", "quality", "embedding"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), (name, a.k)


def test_shipped_weights_allow_long_windows(encoder: Encoder) -> None:
    stride = choose_stride(encoder)
    assert stride.hops == LONG_HOPS, stride.reason


def test_a_network_whose_bits_depend_on_the_window_runs_hop_by_hop(tmp_path: Path) -> None:
    stride = choose_stride(Encoder(tiny_card(tmp_path, look_further=True), provider="cpu"))
    assert stride.hops == 1
    assert "change bits of" in stride.reason


def test_threads_share_one_encoder(encoder: Encoder, record: Record) -> None:
    ecg = windows(record, 24)
    expected = [encoder.run(ecg[i : i + 1]) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda i: encoder.run(ecg[i % 24 : i % 24 + 1]), range(96)))
    for i, outputs in enumerate(said):
        assert all(np.array_equal(getattr(outputs, n), getattr(expected[i % 24], n)) for n in OUTPUTS)


@pytest.mark.parametrize("shape", [(1, 2560), (1, 1, 2500)])
def test_windows_of_the_wrong_shape_are_bugs(encoder: Encoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiple of 128"):
        encoder.run(np.zeros(shape, np.float32))


def test_only_float32(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="float32"):
        encoder.run(np.zeros((1, 1, 2560)))  # type: ignore[arg-type]
