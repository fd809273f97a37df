"""A simulated single-lead wearable: a script as signal and as truth. Same script, seed and rate: same bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.chunk import FS_RANGE_HZ
from edge.errors import BadInputError
from edge.sources import replay
from edge.sources.heartbeats import Beat, beats_of
from edge.sources.pace import Block
from edge.sources.record import Record
from edge.sources.script import Script, Segment
from edge.sources.waves import beats_mv, f_waves_mv, fibrillation_mv, noise_mv

MAX_DURATION_S = 24 * 3600.0
UV_PER_LSB = 1.0
LEAD = "II"
_EVERYDAY_NOISE = {"emg_mv": 0.008, "wander_mv": 0.04, "motion_mv": 0.0}


@dataclass(frozen=True, slots=True)
class Span:
    """A segment of the script as it was played; [start, end) in samples."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """Signal and truth."""

    record: Record
    contact: NDArray[np.bool_]
    """[n] False while the electrodes are off the body."""
    beats: tuple[tuple[int, str], ...]
    """(sample of the R peak, AAMI class N or V) of every beat in the signal."""
    spans: tuple[Span, ...]


def simulate(script: Script, *, seed: int, fs_hz: float = 250.0, duration_s: float | None = None) -> Simulation:
    """Play `script` once, or repeat and cut it to `duration_s`.

    Raises BadInputError for an impossible seed, rate or duration.
    """
    if not FS_RANGE_HZ[0] <= fs_hz <= FS_RANGE_HZ[1]:
        raise BadInputError(f"sampling rate {fs_hz:g} Hz is outside {FS_RANGE_HZ[0]:g}-{FS_RANGE_HZ[1]:g} Hz")
    if not 0 <= seed < 2**63:
        raise BadInputError(f"seed {seed} is not a number from 0 to 2^63 - 1")
    segments = _played(script, duration_s)
    total_s = sum(segment.seconds for segment in segments)
    n = math.floor(total_s * fs_hz + 1e-9)
    signal = np.zeros(n)
    contact = np.ones(n, np.bool_)
    beats: list[Beat] = []
    spans: list[Span] = []
    start_s = 0.0
    for index, segment in enumerate(segments):
        rng = np.random.default_rng([seed, index])
        beats += beats_of(segment, start_s, beats[-1].time_s if beats else -60.0, rng)
        span = Span(segment.kind, round(start_s * fs_hz), min(n, round((start_s + segment.seconds) * fs_hz)))
        signal[span.start : span.end] += _background_mv(segment, rng, span.end - span.start, fs_hz)
        contact[span.start : span.end] = segment.kind != "lead_off"
        spans.append(span)
        start_s += segment.seconds
    signal += beats_mv(beats, n, fs_hz)
    signal[~contact] = 0.0
    samples = np.rint(signal * 1000 / UV_PER_LSB).astype(np.int32)[None]
    record = Record(script.name, (LEAD,), fs_hz, (UV_PER_LSB,), samples, None, Path(script.name))
    truth = ((round(beat.time_s * fs_hz), beat.kind) for beat in beats)
    return Simulation(record, contact, tuple((s, kind) for s, kind in truth if s < n and contact[s]), tuple(spans))


def blocks(simulation: Simulation, chunk_s: float) -> Iterator[Block]:
    """Cut a simulation into chunks of `chunk_s`, and at every change of contact."""
    for start, samples, _ in replay.blocks(simulation.record, chunk_s):
        contact = simulation.contact[start : start + samples.shape[1]]
        edges = [0, *(np.flatnonzero(np.diff(contact)) + 1).tolist(), contact.size]
        for low, high in pairwise(edges):
            yield Block(start + low, samples[:, low:high], bool(contact[low]))


def _played(script: Script, duration_s: float | None) -> list[Segment]:
    if duration_s is None:
        duration_s = sum(segment.seconds for segment in script.segments)
    if not 1 <= duration_s <= MAX_DURATION_S:
        raise BadInputError(f"a simulation of {duration_s:g} s is impossible: 1 to {MAX_DURATION_S:g} s")
    played: list[Segment] = []
    left_s = duration_s
    while left_s > 1e-9:
        segment = script.segments[len(played) % len(script.segments)]
        seconds = min(segment.seconds, left_s)
        played.append(Segment(segment.kind, seconds, segment.parameters))
        left_s -= seconds
    return played


def _background_mv(segment: Segment, rng: np.random.Generator, n: int, fs_hz: float) -> NDArray[np.float64]:
    """Everything but beats."""
    p = segment.parameters
    levels = {key: p.get(key, everyday) for key, everyday in _EVERYDAY_NOISE.items()}
    signal = noise_mv(rng, n, fs_hz, **levels)
    if segment.kind == "af":
        signal += f_waves_mv(rng, n, fs_hz, p["f_hz"])
    elif segment.kind == "vf":
        signal += fibrillation_mv(rng, n, fs_hz, p["f_hz"], p["mv"])
    return signal
