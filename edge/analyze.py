"""One whole recording in memory, from samples to beats, rhythms and findings: what the daemon does live, at once."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import edge
from edge.chunk import MISSING
from edge.encoder.contract import HopScores
from edge.encoder.scoring import HopJob, score_hops
from edge.encoder.session import Encoder
from edge.encoder.stride import Stride, choose_stride
from edge.encoder.windows import first_sample, hops_in
from edge.rhythm.events import Beat, Finding, HopResult, RhythmSpan
from edge.rhythm.label import extend_spans
from edge.rhythm.rules import Rules, rules_hash
from edge.rhythm.session import RhythmSession
from edge.sources.record import Record

BLOCK_HOPS = 240
"""Hops per task of a worker: 8 minutes, an eighth of which is the common past of its windows."""
MAX_WORKERS = 8
SWITCH_S = 0.0001
"""How long the rhythm may keep the interpreter from a worker that wants it back between two kernels. A block needs it
some hundred times: at Python's 5 ms workers would wait longer than they compute (a quarter of the wall time)."""

Progress = Callable[[float], None]
"""Called with the seconds of recording that were just finished."""


@dataclass(slots=True)
class Analysis:
    """What was found in one recording; all positions are its samples."""

    record: Record
    beats: list[Beat] = field(default_factory=list)
    rhythms: list[RhythmSpan] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """Each in its last state, by start."""
    signals: list[tuple[int, str]] = field(default_factory=list)
    """(first sample, signal state) wherever the state changes, to the hop; see `edge.rhythm.seconds.SIGNALS`."""
    embeddings: list[NDArray[np.float16]] = field(default_factory=list)
    """One per hop, NaN where nothing was recorded."""
    readable_s: float = 0.0
    timing: dict[str, float] = field(default_factory=dict)

    @property
    def readable_fraction(self) -> float:
        """Readable share of the whole duration; gaps count as not readable."""
        return min(1.0, self.readable_s / self.record.duration_s)


class Analyzer:
    """An encoder, the rules and how to use the machine; one for any number of recordings."""

    def __init__(self, encoder: Encoder, rules: Rules | None = None, *, workers: int | None = None) -> None:
        """`workers` threads score at the same time; results do not depend on it. None: one per core, at most 8."""
        self.encoder = encoder
        self.rules = Rules() if rules is None else rules
        self.stride: Stride = choose_stride(encoder)
        self.workers = min(MAX_WORKERS, len(os.sched_getaffinity(0))) if workers is None else workers

    @property
    def identity(self) -> dict[str, str]:
        """What the results depend on, for whoever wants to repeat them."""
        return {
            "code": edge.__version__,
            "checkpoint": self.encoder.card.checkpoint,
            "weights_sha256": self.encoder.card.sha256,
            "rules": rules_hash(self.rules),
            "provider": self.encoder.choice.name,
            "provider_reason": self.encoder.choice.reason,
            "stride_reason": self.stride.reason,
            "runtime": self.encoder.runtime,
        }

    def analyze(self, record: Record, progress: Progress = lambda seconds: None) -> Analysis:
        """Analyze a recording whose samples are all there; its name is the recording part of the findings' ids."""
        began = time.perf_counter()
        analysis = Analysis(record)
        session = RhythmSession(record.name, record.fs_hz, record.leads, self.rules)
        latest: dict[str, Finding] = {}
        rhythm_s = 0.0
        hops = hops_in(record.fs_hz, record.n)
        with _switching_within(SWITCH_S):
            for scores in self.scored(record, hops):
                at = time.perf_counter()
                for hop in scores:
                    analysis.embeddings.append(hop.embedding.astype(np.float16))
                    self._add(analysis, latest, session.feed(hop), hop.k)
                rhythm_s += time.perf_counter() - at
                progress(len(scores) * record.duration_s / hops)
        self._add(analysis, latest, session.finish(record.n), None)
        analysis.findings = sorted(latest.values(), key=lambda finding: (finding.start_sample, finding.rule))
        took_s = time.perf_counter() - began
        analysis.timing = {
            "analyze_s": took_s,
            "rhythm_s": rhythm_s,
            "realtime_factor": record.duration_s / took_s,
            "workers": self.workers,
        }
        return analysis

    def scored(self, record: Record, hops: int) -> Iterator[list[HopScores]]:
        """Yield the scores of consecutive blocks, scored by the workers a few blocks ahead of the reader."""
        read = _reader(record.samples)

        def score(first: int) -> list[HopScores]:
            job = HopJob(read, record.uv_per_lsb, record.fs_hz, first, min(first + BLOCK_HOPS, hops))
            return score_hops(self.encoder, [job], stride_hops=self.stride.hops)[0]

        with ThreadPoolExecutor(self.workers, thread_name_prefix="encoder") as pool:
            ahead: deque[Future[list[HopScores]]] = deque()
            try:
                for first in range(0, hops, BLOCK_HOPS):
                    ahead.append(pool.submit(score, first))
                    if len(ahead) > 2 * self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _add(self, analysis: Analysis, latest: dict[str, Finding], result: HopResult, k: int | None) -> None:
        analysis.beats += result.beats
        extend_spans(analysis.rhythms, result.spans)
        analysis.readable_s += sum(minute.readable_s for minute in result.trends)
        latest.update((finding.id, finding) for finding in result.findings)
        if k is not None and (not analysis.signals or analysis.signals[-1][1] != result.current.signal):
            analysis.signals.append((first_sample(analysis.record.fs_hz, k), result.current.signal))


@contextmanager
def _switching_within(seconds: float) -> Iterator[None]:
    """Let Python's threads take turns within this time, where they do not already."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(min(seconds, before_s))
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


def _reader(samples: NDArray[np.int32]) -> Callable[[int, int], tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Return a reader over an array; what lies beyond its end is missing. Files know nothing of contact."""

    def read(start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        inside = samples[:, start:end]
        beyond = end - start - inside.shape[1]
        if beyond:
            inside = np.pad(inside, ((0, 0), (0, beyond)), constant_values=MISSING)
        return inside, np.zeros(end - start, dtype=np.bool_)

    return read
