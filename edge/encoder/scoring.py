"""From stored samples to `HopScores`: prepare, batch windows across wearers, run the network, keep the hops.

The network weighs leads frame by frame, yet says of all of them together whether they can be read, and a lead that is
nothing but noise can spoil the others. A hop of several leads that is not readable is therefore read again, each lead
alone, and the most readable lead speaks for the hop, if there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.contract import (
    BEAT_CLASSES,
    BEAT_FS_HZ,
    HOP_S,
    MODEL_FS_HZ,
    MORPHOLOGIES,
    PAST_S,
    RHYTHMS,
    TOKEN_DIM,
    TOKEN_FS_HZ,
    WAVES,
    HopScores,
)
from edge.encoder.seconds import Seconds, measure
from edge.encoder.session import Encoder, Outputs
from edge.encoder.windows import AHEAD, HOP, NETWORK_AHEAD_S, PAST, model_span, samples_needed
from edge.signal.prepare import prepare
from edge.signal.quality import peak_to_peak_mv

_QRS = WAVES.index("QRS")
MAX_BATCH_S = 320
"""Most lead-seconds of signal in one call of the network; small batches stay in the cache."""
READABLE = 0.5
"""P(readable) that every second of a hop must reach, of all leads together or else of the lead that speaks for it: a
second becomes readable there (`edge.rhythm.rules.SignalLimits`). Chosen on training and validation records."""
ALIVE_MV = 0.05
"""Peak to peak that a lead must reach in every second to speak for a hop. A lead that fell off lies flat, is readable,
and would hide what the others show: asystole F1 of vfdb falls from 92 to 52 with the second lead flat and no limit."""

Reader = Callable[[int, int], tuple[NDArray[np.int32], NDArray[np.bool_]]]
"""`read(start, end)` returns the recording's samples [start, end), 0 ≤ start: int32 [leads, end − start] with
`MISSING` where nothing is stored, and bool [end − start], True where the device said the electrodes were off."""


@dataclass(frozen=True, slots=True)
class HopJob:
    """Hops [first, stop) of one recording, all of them ready."""

    read: Reader
    uv_per_lsb: tuple[float, ...]
    fs_hz: float
    first: int
    stop: int


@dataclass(slots=True)
class _Window:
    """A stretch of hops that goes through the network in one piece."""

    job: int
    first: int
    stop: int
    ecg: NDArray[np.float32]
    """[leads, time]: all leads, or one."""


@dataclass(slots=True)
class _Prepared:
    """A job's signal, and the scores that have come back so far."""

    job: HopJob
    ecg: NDArray[np.float32]
    """[leads, PAST + hops·HOP + AHEAD]."""
    seconds: Seconds
    recorded: NDArray[np.bool_]
    """[hops] whether the hop has any sample."""
    scores: dict[int, HopScores] = field(default_factory=dict)

    def window(self, first: int, stop: int) -> NDArray[np.float32]:
        return self.ecg[:, (first - self.job.first) * HOP : (stop - self.job.first) * HOP + PAST + AHEAD]

    def hop(self, k: int) -> NDArray[np.float32]:
        start = PAST + (k - self.job.first) * HOP
        return self.ecg[:, start : start + HOP]


def score_hops(encoder: Encoder, jobs: Sequence[HopJob], *, stride_hops: int = 1) -> list[list[HopScores]]:
    """Score every hop of every job; one list per job, in the order of the jobs and of the hops.

    Windows of recordings with equally many leads share a batch. `stride_hops` lets one window hold up to that many
    hops, which saves their common past; take it from `edge.encoder.stride`, which knows when the bits stay the same.
    A hop without a single recorded sample skips the network.
    """
    prepared = [_prepare(job) for job in jobs]
    together = [
        _Window(index, first, stop, one.window(first, stop))
        for index, one in enumerate(prepared)
        for first, stop in _stretches(np.flatnonzero(one.recorded) + one.job.first, stride_hops)
    ]
    for window, hops in _scored(encoder, prepared, together):
        prepared[window.job].scores |= {hop.k: hop for hop in hops}
    alone = [
        _Window(index, first, stop, lead[None])
        for index, one in enumerate(prepared)
        for first, stop in _stretches(_doubtful(one), stride_hops)
        for lead in one.window(first, stop)
        if not np.isnan(lead).all()
    ]
    for window, hops in _scored(encoder, prepared, alone):
        scores = prepared[window.job].scores
        for i, hop in enumerate(hops):
            if _speaks(hop, window.ecg[0, PAST + i * HOP : PAST + (i + 1) * HOP], scores[hop.k]):
                scores[hop.k] = hop
    return [[one.scores.get(k) or _nothing(one, k) for k in range(one.job.first, one.job.stop)] for one in prepared]


def _prepare(job: HopJob) -> _Prepared:
    start, end = samples_needed(job.fs_hz, job.first, job.stop)
    samples, contact_off = job.read(max(start, 0), end)
    n = end - max(start, 0)
    if samples.shape != (len(job.uv_per_lsb), n) or contact_off.shape != (n,):
        raise ValueError(f"read returned {samples.shape} and {contact_off.shape} for {len(job.uv_per_lsb)} leads × {n}")
    if start < 0:
        samples = np.pad(samples, ((0, 0), (-start, 0)), constant_values=MISSING)
        contact_off = np.pad(contact_off, (-start, 0))
    ecg = prepare(samples, start, job.uv_per_lsb, job.fs_hz, *model_span(job.first, job.stop))
    seconds = measure(samples, contact_off, start, job.fs_hz, job.first, job.stop)
    kept = ~np.isnan(ecg[:, PAST : ecg.shape[1] - AHEAD])
    recorded = np.asarray(kept.reshape(ecg.shape[0], -1, HOP).any(axis=(0, 2)))
    return _Prepared(job, ecg, seconds, recorded)


def _stretches(hops: NDArray[np.int64], stride_hops: int) -> list[tuple[int, int]]:
    """Return spans [first, stop) of these hops, none longer than the stride."""
    spans: list[tuple[int, int]] = []
    for k in hops.tolist():
        if spans and spans[-1][1] == k and k - spans[-1][0] < stride_hops:
            spans[-1] = (spans[-1][0], k + 1)
        else:
            spans.append((k, k + 1))
    return spans


def _doubtful(one: _Prepared) -> NDArray[np.int64]:
    """Return the hops of several leads that are not readable."""
    found = sorted(k for k, hop in one.scores.items() if len(one.ecg) > 1 and hop.quality.min() < READABLE)
    return np.array(found, dtype=np.int64)


def _speaks(alone: HopScores, lead: NDArray[np.float32], together: HopScores) -> bool:
    """Return whether what one lead says of a hop, [256] mV, is heard instead of what was said before."""
    alive = peak_to_peak_mv(lead[None], MODEL_FS_HZ) >= ALIVE_MV
    return bool(alive.all()) and alone.quality.min() > max(READABLE, together.quality.min())


def _scored(
    encoder: Encoder, prepared: Sequence[_Prepared], windows: Sequence[_Window]
) -> Iterator[tuple[_Window, list[HopScores]]]:
    """Yield each window with the scores of its hops; windows of one shape share a batch."""
    by_shape: dict[tuple[int, ...], list[_Window]] = defaultdict(list)
    for window in windows:
        by_shape[window.ecg.shape].append(window)
    for (leads, time), alike in by_shape.items():
        size = max(1, MAX_BATCH_S * MODEL_FS_HZ // (leads * time))
        for at in range(0, len(alike), size):
            batch = alike[at : at + size]
            outputs = encoder.run(np.stack([window.ecg for window in batch]))
            for row, window in enumerate(batch):
                yield window, _hops(prepared[window.job], window, outputs, row)


def _hops(one: _Prepared, window: _Window, outputs: Outputs, row: int) -> list[HopScores]:
    """Crop the window's outputs to its hops."""
    hops = range(window.first, window.stop)

    def crop(frames: NDArray[np.float32], fs_hz: int) -> NDArray[np.float32]:
        kept = frames[row, PAST_S * fs_hz : frames.shape[1] - NETWORK_AHEAD_S * fs_hz].copy()
        return kept.reshape(len(hops), HOP_S * fs_hz, *kept.shape[1:])

    r_peak, beat, morphology = (crop(x, BEAT_FS_HZ) for x in (outputs.r_peak, outputs.beat, outputs.morphology))
    rhythm, quality = crop(outputs.rhythm, 1), crop(outputs.quality, 1)
    qrs = crop(outputs.delineation[..., _QRS], MODEL_FS_HZ)
    embedding = crop(outputs.tokens, TOKEN_FS_HZ).mean(axis=1)
    seconds = [slice((k - one.job.first) * HOP_S, (k + 1 - one.job.first) * HOP_S) for k in hops]
    return [
        HopScores(
            k=k,
            ecg=one.hop(k),
            present=one.seconds.present[seconds[i]],
            contact_off=one.seconds.contact_off[seconds[i]],
            clipped=one.seconds.clipped[seconds[i]],
            r_peak=r_peak[i],
            beat=beat[i],
            morphology=morphology[i],
            rhythm=rhythm[i],
            quality=quality[i],
            qrs=qrs[i],
            embedding=embedding[i],
        )
        for i, k in enumerate(hops)
    ]


def _nothing(one: _Prepared, k: int) -> HopScores:
    """Return the scores of a hop in which nothing was recorded."""
    at = slice((k - one.job.first) * HOP_S, (k + 1 - one.job.first) * HOP_S)
    frames = HOP_S * BEAT_FS_HZ
    return HopScores(
        k=k,
        ecg=one.hop(k),
        present=one.seconds.present[at],
        contact_off=one.seconds.contact_off[at],
        clipped=one.seconds.clipped[at],
        r_peak=np.zeros(frames, np.float32),
        beat=np.zeros((frames, len(BEAT_CLASSES)), np.float32),
        morphology=np.zeros((frames, len(MORPHOLOGIES)), np.float32),
        rhythm=np.full((HOP_S, len(RHYTHMS)), np.nan, np.float32),
        quality=np.full(HOP_S, np.nan, np.float32),
        qrs=np.zeros(HOP, np.float32),
        embedding=np.full(TOKEN_DIM, np.nan, np.float32),
    )
