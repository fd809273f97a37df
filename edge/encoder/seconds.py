"""What is known about each second of a recording before any model looks at it: recorded, off the body, clipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.contract import HOP_S, MODEL_FS_HZ, PAST_S
from edge.signal.prepare import step

CLIPPED_RUN = 3
"""Equal consecutive samples at the extreme of the range that make a clip rather than a peak."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Measures of `2·hops` consecutive seconds."""

    present: NDArray[np.float32]
    """[seconds] share of the second in which at least one lead was recorded."""
    contact_off: NDArray[np.bool_]
    """[seconds] the device said during some part of the second that the electrodes were off the body."""
    clipped: NDArray[np.float32]
    """[seconds] share of clipped samples in the least clipped recorded lead; 0 where nothing was recorded."""


def bounds(fs_hz: float, first: int, stop: int) -> NDArray[np.int64]:
    """Return the recording samples at which seconds [first, stop] of the model's grid begin, [stop − first + 1]."""
    ratio = step(fs_hz)
    second = np.arange(first, stop + 1, dtype=np.int64)
    return -(-second * (MODEL_FS_HZ * ratio.numerator) // ratio.denominator)


def measure(
    samples: NDArray[np.int32], contact_off: NDArray[np.bool_], start: int, fs_hz: float, first_hop: int, stop_hop: int
) -> Seconds:
    """Measure the seconds of hops [first_hop, stop_hop).

    samples      [leads, n] digital values of recording samples [start, start + n), which must reach from `PAST_S`
                 before the first hop to at least `CLIPPED_RUN` samples after the last
    contact_off  [n]

    A device's digital range is seldom known, so the extremes are those of the window: the highest and the lowest
    value of a lead from `PAST_S` before a hop to its end. A sample is clipped when it equals one of them within a
    run of at least `CLIPPED_RUN` equal samples. A lead that is constant over the whole window is flat, not clipped.
    """
    first_s, stop_s = first_hop * HOP_S, stop_hop * HOP_S
    edges = bounds(fs_hz, first_s - PAST_S, stop_s) - start
    if edges[0] < 0 or edges[-1] + CLIPPED_RUN > samples.shape[1]:
        raise ValueError(f"samples [{start}, {start + samples.shape[1]}) do not cover hops [{first_hop}, {stop_hop})")
    inner = edges[PAST_S:]
    lengths = np.diff(inner)

    any_lead = np.asarray((samples != MISSING).any(axis=0))
    present = _sums(any_lead, inner) / lengths
    off = _sums(contact_off, inner) > 0

    best = np.full(lengths.size, np.inf)
    for lead in samples:
        recorded = lead != MISSING
        low = np.minimum.reduceat(np.where(recorded, lead, np.iinfo(np.int32).max), edges[:-1])
        # MISSING is the smallest int32, so it never wins a maximum.
        high = np.maximum.reduceat(lead[: edges[-1]], edges[:-1])
        low, high = _per_hop(low, np.minimum), _per_hop(high, np.maximum)
        span = slice(int(inner[0]), int(inner[-1]))
        low, high = np.repeat(low, lengths), np.repeat(high, lengths)
        value = lead[span]
        clipped = ((value == low) | (value == high)) & (low < high) & _in_run(lead, span)
        here = inner - inner[0]
        n = _sums(recorded[span], here)
        share = _sums(clipped & recorded[span], here) / np.maximum(n, 1)
        best = np.where(n > 0, np.minimum(best, share), best)
    best[np.isinf(best)] = 0
    return Seconds(present.astype(np.float32), off, best.astype(np.float32))


def _sums(flags: NDArray[np.bool_], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many flags are set between consecutive edges."""
    return np.add.reduceat(flags[: edges[-1]], edges[:-1], dtype=np.int64)


def _per_hop(extreme: NDArray[np.int32], best: np.ufunc) -> NDArray[np.int32]:
    """Turn the extremes of seconds into those of windows, one per second of a hop; [PAST_S + s] → [s]."""
    windows = np.lib.stride_tricks.sliding_window_view(extreme, PAST_S + HOP_S)[::HOP_S]
    return np.repeat(best.reduce(windows, axis=1), HOP_S)


def _in_run(lead: NDArray[np.int32], span: slice) -> NDArray[np.bool_]:
    """Return which samples of `span` lie in a run of at least `CLIPPED_RUN` equal ones."""
    reach = CLIPPED_RUN - 1
    around = lead[span.start - reach : span.stop + reach]
    same = around[1:] == around[:-1]
    n = span.stop - span.start
    last = same.size - reach + 1
    runs = same[:last].copy()
    for shift in range(1, reach):
        runs &= same[shift : last + shift]
    result = np.zeros(n, dtype=np.bool_)
    for shift in range(CLIPPED_RUN):
        result |= runs[shift : shift + n]
    return result
