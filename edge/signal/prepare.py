"""From digital samples to the prepared signal: millivolts at 128 Hz without baseline, NaN where nothing was recorded.

Every output is a pure function of its position: computing a range at once or in pieces gives identical bits. The
sums are made of integers (samples × integer filter taps, moving sums), which are exact in any order, so neither the
length of the call nor the BLAS can change a bit; the few real operations are element by element.

    resample  windowed sinc, low-pass 44 Hz (−6 dB; 34 Hz passes, 54 Hz is stopped by 53 dB), exact rational grid
    baseline  two moving averages of 91 samples (high-pass, −3 dB near 0.8 Hz), over recorded samples only
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.contract import MODEL_FS_HZ

FILTER_S = 0.08
"""Half width of the resampling filter."""
CUTOFF_HZ = 44.0
BRIDGE_S = 0.03
"""Gaps up to this long are interpolated and count as recorded."""
HOLD_S = 0.08
"""How far the last sample before and the first after a longer gap are held, to feed the resampling filter."""
BOX = 91
"""Samples at 128 Hz of each of the two moving averages."""
REACH = BOX - 1
"""Samples at 128 Hz on either side that the two moving averages see."""

_BITS = 14
_MAX_PERIOD = 512
_MIN_BLOCK = 64


@dataclass(frozen=True, slots=True)
class _Bank:
    """Polyphase filter as one matrix: `inputs` samples from `before` ahead of a block give `outputs` samples."""

    step: Fraction
    inputs: int
    outputs: int
    half: int
    bridge: int
    hold: int
    taps: NDArray[np.float64]
    """[inputs + 2·half + 1, outputs], integers that sum to 2**14 per column."""


def step(fs_hz: float) -> Fraction:
    """Return the recording samples per model sample: model sample m sits at recording position m · step."""
    return 1 / Fraction(MODEL_FS_HZ / fs_hz).limit_denominator(_MAX_PERIOD)


def needed(fs_hz: float, a: int, b: int) -> tuple[int, int]:
    """Return [first, end) of the recording samples that model samples [a, b) depend on; first may be negative."""
    bank = _bank(step(fs_hz))
    margin = bank.half + bank.hold + 1
    return (
        int((a - REACH) * bank.step // 1) - margin,
        int((b - 1 + REACH) * bank.step // 1) + margin + 1,
    )


def support(fs_hz: float) -> tuple[int, int]:
    """Return how many recording samples before and after its own position an output depends on, at most."""
    reach = ceil(REACH * step(fs_hz)) + _bank(step(fs_hz)).half + _bank(step(fs_hz)).hold + 2
    return reach, reach


def prepare(
    samples: NDArray[np.int32], first: int, uv_per_lsb: Sequence[float], fs_hz: float, a: int, b: int
) -> NDArray[np.float32]:
    """Return model samples [a, b) in mV, float32 [leads, b − a], NaN where nothing was recorded.

    `samples` [leads, n] are digital values, `samples[:, i]` being recording sample `first + i`; what lies outside
    is missing, what lies outside `needed(fs_hz, a, b)` is not looked at. Absolute amplitude is kept.
    """
    bank = _bank(step(fs_hz))
    m = np.arange(a - REACH, b + REACH, dtype=np.int64)
    low, high = needed(fs_hz, a, b)
    raw, known = _cut(samples, first, low, high)
    value, known = _fill(raw, known, bank)

    resampled = _resample(value, low, m, bank)
    nearest = (2 * m * bank.step.numerator + bank.step.denominator) // (2 * bank.step.denominator)
    recorded = known[:, nearest - low]
    resampled *= recorded

    count = _box(_box(recorded.astype(np.int64)))
    baseline = _box(_box(resampled)) / np.maximum(count, 1)
    inside = slice(REACH, REACH + b - a)
    scale = np.asarray(uv_per_lsb, dtype=np.float64)[:, None] / (1000.0 * 2**_BITS)
    out: NDArray[np.float32] = ((resampled[:, inside] - baseline) * scale).astype(np.float32)
    out[~recorded[:, inside]] = np.nan
    return out


def _cut(samples: NDArray[np.int32], first: int, low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return recording samples [low, high) and which of them are known."""
    raw = np.full((samples.shape[0], high - low), MISSING, dtype=np.int64)
    start, end = max(low, first), min(high, first + samples.shape[1])
    if start < end:
        raw[:, start - low : end - low] = samples[:, start - first : end - first]
    known = raw != MISSING
    raw[~known] = 0
    return raw, known


def _fill(
    value: NDArray[np.int64], known: NDArray[np.bool_], bank: _Bank
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Bridge short gaps linearly and hold the edges of long ones; the mask tells what counts as recorded."""
    if known.all():
        return value, known
    n = value.shape[1]
    index = np.arange(n)
    far = 4 * n + 4 * bank.hold
    before = np.maximum.accumulate(np.where(known, index, -far), axis=1)
    after = np.minimum.accumulate(np.where(known, index, far)[:, ::-1], axis=1)[:, ::-1]
    left, right = index - before, after - index
    left_value = np.take_along_axis(value, np.maximum(before, 0), axis=1)
    right_value = np.take_along_axis(value, np.minimum(after, n - 1), axis=1)
    bridged = ~known & (left + right <= bank.bridge + 1)
    held_left = ~known & ~bridged & (left <= right) & (left <= bank.hold)
    held_right = ~known & ~bridged & (right < left) & (right <= bank.hold)
    filled = np.where(held_left, left_value, np.where(held_right, right_value, value))
    line = left_value + (right_value - left_value) * left // np.maximum(left + right, 1)
    return np.where(bridged, line, filled), known | bridged


def _resample(value: NDArray[np.int64], low: int, m: NDArray[np.int64], bank: _Bank) -> NDArray[np.int64]:
    """Return the samples at positions m · step, scaled by 2**14; value[:, 0] is recording sample `low`."""
    first_block, last_block = int(m[0]) // bank.outputs, int(m[-1]) // bank.outputs
    blocks = last_block - first_block + 1
    start = first_block * bank.inputs - bank.half
    width = bank.taps.shape[0]
    padded = np.zeros((value.shape[0], (blocks - 1) * bank.inputs + width))
    source = slice(max(start - low, 0), min(start - low + padded.shape[1], value.shape[1]))
    target = source.start - (start - low)
    padded[:, target : target + source.stop - source.start] = value[:, source]
    frames = sliding_window_view(padded, width, axis=1)[:, :: bank.inputs]
    out = (np.ascontiguousarray(frames) @ bank.taps).reshape(value.shape[0], -1)
    skip = int(m[0]) - first_block * bank.outputs
    return np.rint(out[:, skip : skip + m.size]).astype(np.int64)


def _box(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the moving sum over `BOX` samples, valid part only."""
    total = np.cumsum(x, axis=1)
    out = total[:, BOX - 1 :].copy()
    out[:, 1:] -= total[:, :-BOX]
    return out


@lru_cache(maxsize=8)
def _bank(ratio: Fraction) -> _Bank:
    fs_hz = float(ratio) * MODEL_FS_HZ
    repeat = ceil(_MIN_BLOCK / ratio.denominator)
    outputs, inputs = ratio.denominator * repeat, ratio.numerator * repeat
    half = ceil(FILTER_S * fs_hz)
    cutoff = min(CUTOFF_HZ, 0.44 * fs_hz) / fs_hz
    position = np.array([float(j * ratio) for j in range(outputs)])
    offset = np.arange(-half, inputs + half + 1)[:, None] - position[None, :]
    window = np.i0(5.0 * np.sqrt(np.clip(1 - (offset / (FILTER_S * fs_hz)) ** 2, 0, None)))
    window[np.abs(offset) >= FILTER_S * fs_hz] = 0
    ideal = 2 * cutoff * np.sinc(2 * cutoff * offset) * window
    taps = np.rint(ideal / ideal.sum(axis=0) * 2**_BITS)
    centre = np.argmin(np.abs(offset), axis=0)
    taps[centre, np.arange(outputs)] += 2**_BITS - taps.sum(axis=0)
    return _Bank(ratio, inputs, outputs, half, int(BRIDGE_S * fs_hz), half, taps)
