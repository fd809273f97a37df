"""Measures of the prepared signal, second by second, that need no model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
