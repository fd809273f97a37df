"""Simple measures of the recorded signal, second by second: what needs no model to be seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MISSING

FLAT_MV = 0.02
"""A second whose prepared signal stays within this peak-to-peak range shows no heart and no electrode noise."""


def clipped_share(samples: NDArray[np.int32], lowest: int, highest: int) -> float:
    """Return the share of recorded samples at or beyond the digital range; 0 if nothing was recorded.

    `samples` [leads, n] digital, `lowest` and `highest` the extremes of the device's range.
    """
    recorded = samples != MISSING
    total = int(np.count_nonzero(recorded))
    if total == 0:
        return 0.0
    beyond = recorded & ((samples <= lowest) | (samples >= highest))
    return int(np.count_nonzero(beyond)) / total


def peak_to_peak_mv(ecg: NDArray[np.float32], fs_hz: int) -> NDArray[np.float32]:
    """Return the largest minus the smallest value of each whole second, float32 [leads, seconds].

    `ecg` is float32 [leads, n] in mV with NaN = missing; a second with less than half of its samples is NaN.
    """
    seconds = ecg.shape[1] // fs_hz
    each = ecg[:, : seconds * fs_hz].reshape(ecg.shape[0], seconds, fs_hz)
    missing = np.isnan(each)
    high = np.where(missing, -np.inf, each).max(axis=2)
    low = np.where(missing, np.inf, each).min(axis=2)
    enough = missing.mean(axis=2) <= 0.5
    out = np.full(high.shape, np.nan, dtype=np.float32)
    out[enough] = (high[enough] - low[enough]).astype(np.float32)
    return out


def flat(ecg: NDArray[np.float32], fs_hz: int) -> NDArray[np.bool_]:
    """Return which seconds of the prepared signal [leads, n] are flat in every lead that was recorded, [seconds]."""
    span = peak_to_peak_mv(ecg, fs_hz)
    recorded = ~np.isnan(span)
    return np.asarray(recorded.any(axis=0) & ~(recorded & (span > FLAT_MV)).any(axis=0))
