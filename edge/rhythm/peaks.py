"""Beats from the R-peak score: found at 32 Hz, placed on the 128 Hz signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES, BEAT_FS_HZ, HOP_S, MODEL_FS_HZ, MORPHOLOGIES, HopScores
from edge.rhythm.rules import BeatLimits
from edge.rhythm.state import Part
from edge.rhythm.wearer import REACH

STEP = MODEL_FS_HZ // BEAT_FS_HZ
_FRAMES = HOP_S * BEAT_FS_HZ
_CLASS_REACH = 2
"""Frames on each side whose classes are averaged, weighted by their R-peak score."""
_SEARCH = 8
"""Model-rate samples on each side of a peak of the score in which its R peak is sought (62 ms)."""
_PRIOR = np.exp(-0.5 * (np.arange(-_SEARCH, _SEARCH + 1) / 5.0) ** 2)
"""Of several waves in reach the one nearest to the score's peak is preferred; 5 samples = 39 ms."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A peak of the R-peak score."""

    frame_position: float
    """Middle of its frame, in model-rate samples: decides in which second and order it counts."""
    position: float
    """The R peak in model-rate samples, with fraction."""
    score: float
    faint: bool
    """Too faint for a beat."""
    beat: tuple[float, ...]
    morphology: str
    around: NDArray[np.float32]
    """[leads, 2·REACH + 1] signal around the R peak, NaN where it is not known."""


class BeatFinder(Part):
    """Finds peaks in order. A frame is decided once a refractory period beyond it is known."""

    STATE: ClassVar[tuple[str, ...]] = ("first", "decided", "tail", "ecg_tail")

    def __init__(self, limits: BeatLimits, leads: int) -> None:
        self._on, self._faint = limits.on, limits.faint
        self._reach = math.floor(limits.refractory_s * BEAT_FS_HZ)
        self._leads = leads
        self.first = 0
        """Frame number of the first frame in the tail."""
        self.decided = 0
        """Frames below this number are decided."""
        self.tail = b""
        """float32 [frames, 11]: R-peak score, classes, morphologies."""
        self.ecg_tail = b""
        """float32 [leads, 4 · frames]."""

    @property
    def frontier(self) -> int:
        """Model-rate samples below this one are decided."""
        return self.decided * STEP

    def feed(self, hop: HopScores) -> list[Peak]:
        """Return the peaks that this hop decides, in order."""
        scores = np.concatenate((self._scores(), np.column_stack((hop.r_peak, hop.beat, hop.morphology))))
        ecg = np.concatenate((self._ecg(), hop.ecg), axis=1)
        peaks = self._decide(scores, ecg, self.first + len(scores) - self._reach)
        keep = min(len(scores), 2 * self._reach)
        self.first += len(scores) - keep
        self.tail = scores[len(scores) - keep :].astype("<f4").tobytes()
        self.ecg_tail = ecg[:, ecg.shape[1] - keep * STEP :].astype("<f4").tobytes()
        return peaks

    def finish(self) -> list[Peak]:
        """Return the peaks among the frames that were still waiting."""
        scores = self._scores()
        return self._decide(scores, self._ecg(), self.first + len(scores))

    def _scores(self) -> NDArray[np.float32]:
        width = 1 + len(BEAT_CLASSES) + len(MORPHOLOGIES)
        return np.frombuffer(self.tail, dtype="<f4").reshape(-1, width).astype(np.float32, copy=False)

    def _ecg(self) -> NDArray[np.float32]:
        return np.frombuffer(self.ecg_tail, dtype="<f4").reshape(self._leads, -1).astype(np.float32, copy=False)

    def _decide(self, scores: NDArray[np.float32], ecg: NDArray[np.float32], until: int) -> list[Peak]:
        r: list[float] = scores[:, 0].tolist()
        start, stop = self.decided - self.first, until - self.first
        scale = _mean_amplitude(ecg)
        peaks = []
        for i in range(start, stop):
            if r[i] < self._faint:
                continue
            before, after = r[max(0, i - self._reach) : i], r[i : i + self._reach + 1]
            if r[i] >= max(after) and r[i] > max(before, default=-1):
                peaks.append(self._peak(scores, ecg, scale, i))
        self.decided = until
        return peaks

    def _peak(self, scores: NDArray[np.float32], ecg: NDArray[np.float32], scale: list[float], i: int) -> Peak:
        near = scores[max(0, i - _CLASS_REACH) : i + _CLASS_REACH + 1].astype(np.float64)
        weights = near[:, 0] / near[:, 0].sum()
        mixed = (weights @ near[:, 1:]).tolist()
        morphologies = mixed[len(BEAT_CLASSES) :]
        score = float(scores[i, 0])
        middle = i * STEP + (STEP - 1) / 2
        offset = self.first * STEP
        position = _r_position(ecg, scale, middle + STEP * _vertex(scores[:, 0], i))
        return Peak(
            frame_position=offset + middle,
            position=offset + position,
            score=score,
            faint=score < self._on,
            beat=tuple(mixed[: len(BEAT_CLASSES)]),
            morphology=MORPHOLOGIES[morphologies.index(max(morphologies))],
            around=_around(ecg, round(position)),
        )


def _mean_amplitude(ecg: NDArray[np.float32]) -> list[float]:
    """Return the mean absolute amplitude of each lead in mV, 0 for a lead without samples."""
    known = np.isfinite(ecg)
    sums = np.where(known, np.abs(ecg), 0).sum(axis=1, dtype=np.float64)
    means: list[float] = (sums / np.maximum(known.sum(axis=1), 1)).tolist()
    return means


def _r_position(ecg: NDArray[np.float32], scale: list[float], guess: float) -> float:
    """Return where the leads together deflect most around `guess`.

    Each lead counts relative to its mean amplitude, so a lead full of noise, however large, says little.
    """
    centre = round(guess)
    low, high = max(0, centre - _SEARCH), min(ecg.shape[1], centre + _SEARCH + 1)
    deflection = np.zeros(high - low)
    for lead, mean in zip(ecg, scale, strict=True):
        part = lead[low:high]
        if mean > 0 and np.isfinite(part).all():
            deflection += np.abs(part) / mean
    if not deflection.any():
        return guess
    deflection *= _PRIOR[low - centre + _SEARCH : high - centre + _SEARCH]
    top = int(deflection.argmax())
    return low + top + _vertex(deflection, top)


def _around(ecg: NDArray[np.float32], centre: int) -> NDArray[np.float32]:
    low, high = centre - REACH, centre + REACH + 1
    if low >= 0 and high <= ecg.shape[1]:
        return ecg[:, low:high]
    out = np.full((ecg.shape[0], high - low), np.nan, dtype=np.float32)
    inside = slice(max(low, 0), min(high, ecg.shape[1]))
    out[:, inside.start - low : inside.stop - low] = ecg[:, inside]
    return out


def _vertex(values: NDArray[np.floating], i: int) -> float:
    """Return how far the parabola through i − 1, i, i + 1 peaks beside i (−0.5 to 0.5); 0 at the border."""
    if i == 0 or i == len(values) - 1:
        return 0.0
    left, top, right = (float(v) for v in values[i - 1 : i + 2])
    bend = left - 2 * top + right
    return 0.0 if bend >= 0 else min(0.5, max(-0.5, 0.5 * (left - right) / bend))
