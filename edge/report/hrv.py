"""Heart rate variability of normal-to-normal intervals.

Measures as defined by the Task Force of the ESC and the NASPE (Heart rate variability: standards of measurement,
physiological interpretation and clinical use. Circulation 93:1043-1065, 1996), time domain. Which intervals are NN
follows the filter of the PhysioNet HRV toolkit (Mietus and Goldberger, `filt 0.2 20 -x 0.4 2.0`): 0.4 to 2.0 s, and
within 20 % of the mean of the 20 intervals before and the 20 after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHORTEST_S, LONGEST_S = 0.4, 2.0
AROUND = 20
DEVIATION = 0.2
LEAST = 20
"""Fewer NN intervals than this say nothing."""
BIN_S = 1 / 128
"""Bins of the triangular index (Task Force, table 1)."""
SEGMENT_S = 300
SEGMENT_LEAST_S = 150
"""A 5-minute segment counts if its NN intervals add up to half of it."""


@dataclass(frozen=True, slots=True)
class Hrv:
    """One period; milliseconds unless the name says otherwise. None: too few intervals."""

    nn: int
    """Number of NN intervals."""
    hours: float
    """What they add up to."""
    mean_nn_ms: float | None = None
    sdnn_ms: float | None = None
    sdann_ms: float | None = None
    sdnn_index_ms: float | None = None
    rmssd_ms: float | None = None
    pnn50_percent: float | None = None
    triangular_index: float | None = None


def measure(utc_s: NDArray[np.float64], interval_s: NDArray[np.float64], normal: NDArray[np.bool_]) -> Hrv:
    """Return the measures of a beat series.

    Args:
        utc_s: [n] ascending times of the beats.
        interval_s: [n] RR interval that ends at each beat, NaN where it is not known.
        normal: [n] whether that interval lies between two normal beats of sinus rhythm.
    """
    nn_at = np.flatnonzero(normal & np.isfinite(interval_s) & (interval_s >= SHORTEST_S) & (interval_s <= LONGEST_S))
    nn_at = nn_at[_steady(interval_s[nn_at])]
    nn = interval_s[nn_at] * 1000
    total_s = float(nn.sum()) / 1000
    if nn.size < LEAST:
        return Hrv(int(nn.size), total_s / 3600)
    follows = np.diff(nn_at) == 1
    steps = np.diff(nn)[follows]
    segment = (utc_s[nn_at] // SEGMENT_S).astype(np.int64)
    means, deviations = [], []
    for part in np.split(nn, np.flatnonzero(np.diff(segment)) + 1):
        if part.sum() >= SEGMENT_LEAST_S * 1000:
            means.append(part.mean())
            deviations.append(part.std(ddof=1))
    bins = np.bincount(np.floor(nn / 1000 / BIN_S).astype(np.int64))
    return Hrv(
        nn=int(nn.size),
        hours=total_s / 3600,
        mean_nn_ms=float(nn.mean()),
        sdnn_ms=float(nn.std(ddof=1)),
        sdann_ms=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        sdnn_index_ms=float(np.mean(deviations)) if deviations else None,
        rmssd_ms=float(np.sqrt(np.mean(steps**2))) if steps.size else None,
        pnn50_percent=float(100 * np.mean(np.abs(steps) > 50)) if steps.size else None,
        triangular_index=float(nn.size / bins.max()),
    )


def _steady(intervals_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each interval lies within `DEVIATION` of the mean of its neighbours, itself left out."""
    n = intervals_s.size
    sums = np.concatenate(([0.0], np.cumsum(intervals_s)))
    low = np.maximum(np.arange(n) - AROUND, 0)
    high = np.minimum(np.arange(n) + AROUND + 1, n)
    others = np.maximum(high - low - 1, 1)
    mean = (sums[high] - sums[low] - intervals_s) / others
    return np.asarray(np.abs(intervals_s - mean) <= DEVIATION * mean)
