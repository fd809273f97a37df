"""May one long window stand for many short ones? Asked of the network itself, on the machine it runs on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.contract import MODEL_FS_HZ, HopScores
from edge.encoder.scoring import HopJob, score_hops
from edge.encoder.session import Encoder
from edge.encoder.windows import HOP

LONG_HOPS = 60
"""Hops of a long window: 2 minutes, so that the common past costs 15 % instead of 900 %."""

_SCORES = ("r_peak", "beat", "morphology", "rhythm", "quality", "qrs", "embedding")


@dataclass(frozen=True, slots=True)
class Stride:
    """How many hops one window may hold, and why."""

    hops: int
    reason: str


def choose_stride(encoder: Encoder, *, leads: int = 1) -> Stride:
    """Return `LONG_HOPS` if a trial window gives every bit that single-hop windows give, else 1.

    The network is built so that it does (`edge.encoder.contract`), but sums may be ordered by the length of their
    input in some kernel of some machine, and then live and batch results would differ in their last bits.
    """
    signal = _trial_signal(leads)

    def read(start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        return signal[:, start:end], np.zeros(end - start, dtype=np.bool_)

    def job(first: int, stop: int) -> HopJob:
        return HopJob(read, (5.0,) * leads, MODEL_FS_HZ, first, stop)

    (long,) = score_hops(encoder, [job(0, LONG_HOPS)], stride_hops=LONG_HOPS)
    short = score_hops(encoder, [job(k, k + 1) for k in range(0, LONG_HOPS, 3)])
    pairs = [(one, long[one.k]) for (one,) in short]
    different = sorted({name for a, b in pairs for name in _SCORES if not _same(a, b, name)})
    if different:
        return Stride(
            1, f"single-hop windows: longer ones change bits of {', '.join(different)} on {encoder.choice.name}"
        )
    return Stride(LONG_HOPS, f"windows of {LONG_HOPS} hops: a trial gave the bits of single-hop windows")


def _same(a: HopScores, b: HopScores, name: str) -> bool:
    return np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)


def _trial_signal(leads: int) -> NDArray[np.int32]:
    """Return an ECG-like signal: spikes of changing size and spacing, drift, noise, and a hole."""
    rng = np.random.default_rng(20)
    n = (LONG_HOPS + 4) * HOP
    signal = rng.normal(0, 0.8, (leads, n)).cumsum(axis=1) + rng.normal(0, 4, (leads, n))
    beats = np.cumsum(rng.integers(40, 200, n // 40))
    for at in beats[beats < n - 12]:
        signal[:, at : at + 12] += np.hanning(12) * rng.normal(200, 60, (leads, 1))
    samples = signal.astype(np.int32)
    samples[:, n // 3 : n // 3 + 700] = MISSING
    return samples
