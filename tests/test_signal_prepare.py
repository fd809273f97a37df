"""The prepared signal is a bit-exact pure function of position, keeps amplitude and never invents samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.signal import prepare as module
from edge.signal.prepare import needed, prepare, step, support
from edge.sources.data_folder import data_folder

RATES_HZ = (360.0, 250.0, 130.0, 128.0, 300.0, 500.0, 100.0)


def _noise(fs_hz: float, seconds: float, leads: int = 2) -> NDArray[np.int32]:
    rng = np.random.default_rng(7)
    walk = np.cumsum(rng.normal(0, 20, (leads, int(seconds * fs_hz))), axis=1)
    x = (walk + rng.normal(0, 300, walk.shape)).astype(np.int32)
    x[0, int(3 * fs_hz) : int(3.02 * fs_hz)] = MISSING
    x[0, int(5 * fs_hz) : int(5.2 * fs_hz)] = MISSING
    x[1, int(7 * fs_hz) : int(11 * fs_hz)] = MISSING
    x[:, int(15 * fs_hz) : int(15.01 * fs_hz) + 1] = MISSING
    return x


def _pieces(x: NDArray[np.int32], fs_hz: float, b: int, length: int) -> NDArray[np.float32]:
    """Prepare piece by piece, handing over no more than the samples each piece says it needs."""
    gains = [1.5] * x.shape[0]
    out = []
    for a in range(0, b, length):
        end = min(a + length, b)
        low, high = needed(fs_hz, a, end)
        low = max(low, 0)
        out.append(prepare(x[:, low:high], low, gains, fs_hz, a, end))
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize("fs_hz", RATES_HZ)
def test_pieces_are_bit_identical_to_one_go(fs_hz: float) -> None:
    x = _noise(fs_hz, 30)
    b = 128 * 30
    whole = prepare(x, 0, [1.5, 1.5], fs_hz, 0, b)
    for length in (1, 17, 128, 256, 1000):
        if length == 1:
            some = _pieces(x, fs_hz, 700, 1)
            assert some.tobytes() == whole[:, :700].tobytes()
        else:
            assert _pieces(x, fs_hz, b, length).tobytes() == whole.tobytes()


def _recordings() -> list[tuple[str, str]]:
    return [("mitdb", "100"), ("vfdb", "422"), ("svdb", "800"), ("cinc2017", "A00001"), ("ptbxl_500", "records100")]


@pytest.mark.parametrize(("db", "record"), _recordings())
def test_pieces_are_bit_identical_on_real_recordings(db: str, record: str) -> None:
    wfdb = pytest.importorskip("wfdb")
    folder = data_folder() / db
    header = folder / f"{record}.hea"
    if record == "records100":
        header = next(iter(sorted(folder.rglob("*.hea"))), header)
    if not header.exists():
        pytest.skip(f"recordings absent: {header} (python -m export.datasets fetch {db})")
    read = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
    fs_hz = float(read.fs)
    x = read.d_signal.T[:, : int(60 * fs_hz)].astype(np.int32)
    b = int(x.shape[1] / step(fs_hz))
    whole = prepare(x, 0, [1.5] * x.shape[0], fs_hz, 0, b)
    assert np.isfinite(whole).all()
    assert np.array_equal(_pieces(x, fs_hz, b, 256), whole)
    assert np.array_equal(_pieces(x, fs_hz, b, 333), whole)


@settings(max_examples=40)
@given(fs_hz=st.floats(50, 2000), a=st.integers(-300, 4000), length=st.integers(1, 300), seed=st.integers(0, 9))
def test_any_rate_depends_only_on_its_support(fs_hz: float, a: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = needed(fs_hz, a, a + length)
    x = rng.integers(-9000, 9000, (1, high - low + 400)).astype(np.int32)
    x[rng.random(x.shape) < 0.02] = MISSING
    one = prepare(x, low - 200, [1.0], fs_hz, a, a + length)
    x[:, :200] = 77
    x[:, 200 + high - low :] = -5
    other = prepare(x, low - 200, [1.0], fs_hz, a, a + length)
    assert one.tobytes() == other.tobytes()
    before, after = support(fs_hz)
    assert low >= a * float(step(fs_hz)) - before
    assert high - 1 <= (a + length - 1) * float(step(fs_hz)) + after


@pytest.mark.parametrize("fs_hz", RATES_HZ)
def test_support_stays_below_nine_tenths_of_a_second(fs_hz: float) -> None:
    assert max(support(fs_hz)) / fs_hz < 0.9 + 2.0 / fs_hz


@pytest.mark.parametrize("fs_hz", RATES_HZ)
def test_amplitude_and_time_are_kept(fs_hz: float) -> None:
    t = np.arange(int(20 * fs_hz)) / fs_hz
    wave = 1.2 * np.exp(-(((t % 1) - 0.5) ** 2) / (2 * 0.025**2))
    x = np.rint(wave[None] * 1000 + 4000).astype(np.int32)
    out = prepare(x, 0, [1.0], fs_hz, 0, 128 * 20)[0]
    beat = out[128 * 10 : 128 * 11]
    assert abs(int(beat.argmax()) - 64) <= 1
    assert beat.max() == pytest.approx(1.2, abs=0.12)
    assert abs(np.median(out)) < 0.12


def test_a_constant_offset_vanishes_exactly() -> None:
    x = np.full((1, 2500), 123_456, dtype=np.int32)
    assert np.array_equal(prepare(x, 0, [2.0], 250.0, 0, 1280), np.zeros((1, 1280), dtype=np.float32))


def test_full_scale_integers_do_not_overflow() -> None:
    x = np.full((1, 5000), 2**31 - 1, dtype=np.int32)
    x[:, 2500:] = -(2**31) + 1
    out = prepare(x, 0, [0.001], 250.0, 0, 2560)
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 2 * 2**31 * 1e-6 * 1.5
    assert np.abs(out[:, :1100]).max() == 0


def test_missing_is_missing_and_short_gaps_are_bridged() -> None:
    fs_hz = 250.0
    t = np.arange(2500) / fs_hz
    x = np.rint(500 * np.sin(2 * np.pi * 3 * t))[None].astype(np.int32)
    whole = prepare(x, 0, [1.0], fs_hz, 0, 1280)
    x[0, 1000:1005] = MISSING
    x[0, 1500:1750] = MISSING
    out = prepare(x, 0, [1.0], fs_hz, 0, 1280)
    assert np.isfinite(out[0, 500:530]).all()
    assert np.abs(out[0, 505:520] - whole[0, 505:520]).max() < 0.05
    assert np.isnan(out[0, 769:895]).all()
    assert np.isfinite(out[0, 896:]).all()
    assert np.isnan(prepare(x, 0, [1.0], fs_hz, -128, 0)).all()
    assert np.isnan(prepare(x, 0, [1.0], fs_hz, 1290, 1400)).all()


def test_band_is_what_the_docstring_says() -> None:
    def gain(frequency_hz: float) -> float:
        t = np.arange(360 * 20) / 360
        x = np.rint(100_000 * np.sin(2 * np.pi * frequency_hz * t))[None].astype(np.int32)
        return float(np.abs(prepare(x, 0, [1.0], 360.0, 0, 2560)[0, 640:1920]).max() / 100)

    assert gain(0.1) < 0.05
    assert gain(0.8) == pytest.approx(0.71, abs=0.06)
    assert gain(10) == pytest.approx(1, abs=0.03)
    assert gain(30) == pytest.approx(1, abs=0.05)
    assert gain(50) < 0.15
    assert gain(60) < 0.005


def test_module_says_its_constants() -> None:
    assert module.REACH == 90
