"""The delineation of stored samples: run when someone asks for intervals, not kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ, PAST_S, WAVES
from edge.encoder.scoring import MAX_BATCH_S, HopJob
from edge.encoder.session import Encoder
from edge.encoder.windows import AHEAD, HOP, PAST, model_span, samples_needed
from edge.signal.prepare import prepare

MAX_HOPS = MAX_BATCH_S // 4


def delineation(encoder: Encoder, job: HopJob) -> NDArray[np.float32]:
    """Return the probabilities of `WAVES` for hops [first, stop), float32 [256 · hops, 4].

    Row 0 is model sample 256 · first. Where no lead was recorded everything is "none".
    """
    pieces = [
        _piece(encoder, job, first, min(first + MAX_HOPS, job.stop)) for first in range(job.first, job.stop, MAX_HOPS)
    ]
    return np.concatenate(pieces)


def _piece(encoder: Encoder, job: HopJob, first: int, stop: int) -> NDArray[np.float32]:
    start, end = samples_needed(job.fs_hz, first, stop)
    samples, _ = job.read(max(start, 0), end)
    ecg = prepare(samples, max(start, 0), job.uv_per_lsb, job.fs_hz, *model_span(first, stop))
    recorded = ~np.isnan(ecg[:, PAST : ecg.shape[1] - AHEAD]).all(axis=0)
    out = np.zeros(((stop - first) * HOP, len(WAVES)), np.float32)
    if recorded.any():
        out[:] = encoder.run(ecg[None]).delineation[0, PAST_S * MODEL_FS_HZ : -AHEAD]
    out[~recorded] = np.eye(1, len(WAVES), WAVES.index("none"), dtype=np.float32)
    return out
