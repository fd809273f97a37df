"""Window arithmetic on a recording's own sample grid: which samples a hop needs, and when they are there.

Hop k is model samples [k·256, (k+1)·256). The network reads [k·256 − 16 s, (k+1)·256 + 2 s); the preparation of the
last of them reaches less than 1 s further, so nothing lies beyond `AHEAD_S` after the hop. Samples before the first
of a recording are missing, like a gap.
"""

from __future__ import annotations

from edge.encoder.contract import AHEAD_S, HOP_S, MODEL_FS_HZ, PAST_S
from edge.signal.prepare import needed, step

PREPARE_AHEAD_S = 1
"""The part of `AHEAD_S` that belongs to the filters of the preparation."""
NETWORK_AHEAD_S = AHEAD_S - PREPARE_AHEAD_S
HOP = HOP_S * MODEL_FS_HZ
PAST = PAST_S * MODEL_FS_HZ
AHEAD = NETWORK_AHEAD_S * MODEL_FS_HZ


def model_span(first: int, stop: int) -> tuple[int, int]:
    """Return the model samples [a, b) that the network reads to score hops [first, stop)."""
    return first * HOP - PAST, stop * HOP + AHEAD


def samples_needed(fs_hz: float, first: int, stop: int) -> tuple[int, int]:
    """Return the recording samples [start, end) that hops [first, stop) depend on; `start` may be negative."""
    return needed(fs_hz, *model_span(first, stop))


def hops_ready(fs_hz: float, decided: int) -> int:
    """Return how many hops, from hop 0, are ready once every recording sample below `decided` is stored or missed."""
    ready = max(0, int(decided / (HOP * step(fs_hz))) - 1)
    while ready > 0 and samples_needed(fs_hz, ready - 1, ready)[1] > decided:
        ready -= 1
    return ready


def hops_in(fs_hz: float, n: int) -> int:
    """Return how many hops a finished recording of `n` samples has; the last one may reach beyond its end."""
    return -int(-n // (HOP * step(fs_hz)))


def first_sample(fs_hz: float, k: int) -> int:
    """Return the recording sample at which hop k begins: the first at or after model sample k·256."""
    return -int(-k * HOP * step(fs_hz) // 1)


def hop_of(fs_hz: float, sample: int) -> int:
    """Return the hop that recording sample `sample` belongs to."""
    return int(sample // (HOP * step(fs_hz)))


def hops_touched(fs_hz: float, start: int, end: int) -> tuple[int, int]:
    """Return the hops [first, stop) whose scores depend on recording samples [start, end): what late data re-opens."""
    first = max(0, hop_of(fs_hz, start))
    while first > 0 and samples_needed(fs_hz, first - 1, first)[1] > start:
        first -= 1
    stop = hop_of(fs_hz, end - 1) + 1
    while samples_needed(fs_hz, stop, stop + 1)[0] < end:
        stop += 1
    return first, stop
