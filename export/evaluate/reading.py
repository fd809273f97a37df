"""A recording as the gateway reads it: encoder and rhythm session of `edge`, so that what is scored is what ships."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.contract import BEAT_CLASSES, RHYTHMS, HopScores
from edge.encoder.scoring import HopJob, score_hops
from edge.encoder.session import Encoder
from edge.encoder.windows import hops_in
from edge.rhythm.events import Beat, Finding, RhythmSpan
from edge.rhythm.rules import Rules
from edge.rhythm.session import RhythmSession
from export.datasets.reader import digital, lead_names
from export.evaluate.beats import Beats

LONG_HOPS = 60
_BLOCK_HOPS = 600


@dataclass(frozen=True, slots=True)
class Reading:
    """What the gateway said about a recording."""

    fs_hz: float
    beats: Beats
    rhythm: NDArray[np.int64]
    """[seconds] index into `RHYTHMS`, −1 where nothing was readable."""
    rhythm_scores: NDArray[np.float32]
    """[seconds, 8] the encoder's own probabilities."""
    quality: NDArray[np.float32]
    """[seconds]."""
    findings: list[Finding]
    """Last state of each."""
    marks: list[Beat]
    """The beats as the rhythm session told them, morphology included."""


def read(encoder: Encoder, db: str, name: str, leads: Sequence[int], rules: Rules) -> Reading:
    """Read the given leads of a recording, in long strides."""
    samples, uv_per_lsb, fs_hz = digital(db, name)
    called = lead_names(db, name)
    chosen = samples[list(leads)]
    return read_samples(encoder, chosen, [uv_per_lsb[i] for i in leads], fs_hz, rules, [called[i] for i in leads])


def read_samples(
    encoder: Encoder,
    samples: NDArray[np.int32],
    uv_per_lsb: Sequence[float],
    fs_hz: float,
    rules: Rules,
    leads: Sequence[str] | None = None,
) -> Reading:
    """Read samples [leads, n]; `leads`: their names, if they are known."""
    return fold(score(encoder, samples, uv_per_lsb, fs_hz), samples.shape[1], fs_hz, rules, leads)


def score(
    encoder: Encoder, samples: NDArray[np.int32], uv_per_lsb: Sequence[float], fs_hz: float
) -> Iterator[HopScores]:
    """Yield what the encoder says about every hop of samples [leads, n]."""
    hops = hops_in(fs_hz, samples.shape[1])
    for first in range(0, hops, _BLOCK_HOPS):
        job = HopJob(samples_reader(samples), tuple(uv_per_lsb), fs_hz, first, min(first + _BLOCK_HOPS, hops))
        yield from score_hops(encoder, [job], stride_hops=LONG_HOPS)[0]


def fold(hops: Iterable[HopScores], n: int, fs_hz: float, rules: Rules, leads: Sequence[str] | None = None) -> Reading:
    """Return what a rhythm session makes of the scores of a recording of `n` samples."""
    session: RhythmSession | None = None
    beats: list[Beat] = []
    spans: list[RhythmSpan] = []
    findings: dict[str, Finding] = {}
    scores, quality = [], []
    for hop in hops:
        session = session or RhythmSession("evaluate", fs_hz, leads or ["unknown"] * len(hop.ecg), rules)
        scores.append(hop.rhythm)
        quality.append(hop.quality)
        result = session.feed(hop)
        beats += result.beats
        spans += result.spans
        findings |= {finding.id: finding for finding in result.findings}
    if session is None:
        raise ValueError("a recording without a sample cannot be read")
    last = session.finish(n)
    beats += last.beats
    spans += last.spans
    findings |= {finding.id: finding for finding in last.findings}
    seconds = int(n / fs_hz)
    return Reading(
        fs_hz=fs_hz,
        beats=Beats(
            np.array([beat.sample / fs_hz for beat in beats]),
            np.array([BEAT_CLASSES.index(beat.type) for beat in beats], dtype=np.int64),
        ),
        rhythm=_per_second(spans, seconds, fs_hz),
        rhythm_scores=np.concatenate(scores)[:seconds],
        quality=np.concatenate(quality)[:seconds],
        findings=list(findings.values()),
        marks=beats,
    )


def samples_reader(samples: NDArray[np.int32]) -> Callable[[int, int], tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Return a `Reader` over samples in memory; what lies behind the end is missing."""

    def read_(start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        out = np.full((samples.shape[0], end - start), MISSING, dtype=np.int32)
        piece = samples[:, start : min(end, samples.shape[1])]
        out[:, : piece.shape[1]] = piece
        return out, np.zeros(end - start, dtype=np.bool_)

    return read_


def _per_second(spans: Sequence[RhythmSpan], seconds: int, fs_hz: float) -> NDArray[np.int64]:
    """Return the rhythm at the middle of each second."""
    out = np.full(seconds, -1, dtype=np.int64)
    middle = (np.arange(seconds) + 0.5) * fs_hz
    for span in spans:
        if span.rhythm:
            out[(middle >= span.start_sample) & (middle < span.end_sample)] = RHYTHMS.index(span.rhythm)
    return out
