"""Beats from the R-peak score: found at 32 Hz, placed on the 128 Hz signal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES, BEAT_FS_HZ, HOP_S, MODEL_FS_HZ, MORPHOLOGIES, HopScores
from edge.rhythm.rules import BeatLimits
from edge.rhythm.state import Part
from edge.rhythm.wearer import REACH

STEP = MODEL_FS_HZ // BEAT_FS_HZ
_FRAMES = HOP_S * BEAT_FS_HZ
_WIDTH = 1 + len(BEAT_CLASSES) + len(MORPHOLOGIES)
_CLASSES = slice(1, 1 + len(BEAT_CLASSES))
_SHAPES = slice(_CLASSES.stop, _WIDTH)
_LEFT, _RIGHT = MORPHOLOGIES.index("LBBB"), MORPHOLOGIES.index("RBBB")
_CLASS_REACH = 2
"""Frames on each side whose classes are averaged, weighted by their R-peak score."""
_SEARCH = 8
"""Model-rate samples on each side of a peak of the score in which its R peak is sought (62 ms)."""
_PRIOR: list[float] = np.exp(-0.5 * (np.arange(-_SEARCH, _SEARCH + 1) / 5.0) ** 2).tolist()
"""Of several waves in reach the one nearest to the score's peak is preferred; 5 samples = 39 ms."""
_QRS_REACH = 24
"""Model-rate samples on each side of an R peak in which its QRS complex is followed (187 ms)."""
_QRS_NEAR = 13
"""A QRS complex that begins or ends further from the R peak belongs to another beat (100 ms)."""
_HALF = 0.5


class Peak(NamedTuple):
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
    """What the network says of the shape of the QRS complex."""
    left: float
    """P(LBBB)."""
    right: float
    """P(RBBB)."""
    around: NDArray[np.float32]
    """[leads, 2·REACH + 1] signal around the R peak, NaN where it is not known."""
    qrs: tuple[float, float] | None
    """Where the QRS complex begins and ends, in model-rate samples from the middle of `around`; None: none is seen."""


class BeatFinder(Part):
    """Finds peaks in order. A frame is decided once a refractory period beyond it is known."""

    STATE: ClassVar[tuple[str, ...]] = ("first", "decided", "tail", "signal_tail")

    def __init__(self, limits: BeatLimits, leads: int) -> None:
        self._on, self._faint = limits.on, limits.faint
        self._reach = math.floor(limits.refractory_s * BEAT_FS_HZ)
        self._scores = np.zeros((0, _WIDTH), np.float32)
        self._signal = np.zeros((leads + 1, 0), np.float32)
        """The leads, and P(QRS) as the last row."""
        self.first = 0
        """Frame number of the first frame in the tail."""
        self.decided = 0
        """Frames below this number are decided."""

    @property
    def tail(self) -> bytes:
        """float32 [frames, 11]: R-peak score, classes, morphologies."""
        return self._scores.astype("<f4").tobytes()

    @tail.setter
    def tail(self, value: bytes) -> None:
        self._scores = np.frombuffer(value, dtype="<f4").reshape(-1, _WIDTH).astype(np.float32, copy=False)

    @property
    def signal_tail(self) -> bytes:
        """float32 [leads + 1, 4 · frames]."""
        return self._signal.astype("<f4").tobytes()

    @signal_tail.setter
    def signal_tail(self, value: bytes) -> None:
        signal = np.frombuffer(value, dtype="<f4").reshape(len(self._signal), -1)
        self._signal = signal.astype(np.float32, copy=False)

    @property
    def frontier(self) -> int:
        """Model-rate samples below this one are decided."""
        return self.decided * STEP

    def feed(self, hop: HopScores) -> list[Peak]:
        """Return the peaks that this hop decides, in order."""
        known = len(self._scores)
        scores = np.empty((known + _FRAMES, _WIDTH), np.float32)
        scores[:known] = self._scores
        scores[known:, 0] = hop.r_peak
        scores[known:, _CLASSES] = hop.beat
        scores[known:, _SHAPES] = hop.morphology
        signal = np.empty((len(self._signal), len(scores) * STEP), np.float32)
        signal[:, : known * STEP] = self._signal
        signal[:-1, known * STEP :] = hop.ecg
        signal[-1, known * STEP :] = hop.qrs
        peaks = self._decide(scores, signal, self.first + len(scores) - self._reach)
        keep = min(len(scores), 2 * self._reach)
        self.first += len(scores) - keep
        self._scores = scores[len(scores) - keep :].copy()
        self._signal = signal[:, signal.shape[1] - keep * STEP :].copy()
        return peaks

    def finish(self) -> list[Peak]:
        """Return the peaks among the frames that were still waiting."""
        return self._decide(self._scores, self._signal, self.first + len(self._scores))

    def _decide(self, scores: NDArray[np.float32], signal: NDArray[np.float32], until: int) -> list[Peak]:
        start, stop = self.decided - self.first, until - self.first
        self.decided = until
        r: list[float] = scores[:, 0].tolist()
        tops = [i for i in range(start, stop) if r[i] >= self._faint and self._is_top(r, i)]
        if not tops:
            return []
        near = _Near(scores.astype(np.float64), r, signal)
        return [self._peak(near, i) for i in tops]

    def _is_top(self, r: list[float], i: int) -> bool:
        """Return whether frame i has the highest score within reach, the first of equals."""
        top = r[i]
        if i and r[i - 1] >= top:
            return False
        return top >= max(r[i : i + self._reach + 1]) and top > max(r[max(0, i - self._reach) : i], default=-1)

    def _peak(self, near: _Near, i: int) -> Peak:
        frames = near.scores[max(0, i - _CLASS_REACH) : i + _CLASS_REACH + 1]
        weights = frames[:, 0] / np.add.reduce(frames[:, 0])
        mixed = (weights @ frames[:, 1:]).tolist()
        morphologies = mixed[len(BEAT_CLASSES) :]
        middle = i * STEP + (STEP - 1) / 2
        offset = self.first * STEP
        position = near.r_position(middle + STEP * _vertex(near.r, i))
        centre = round(position)
        return Peak(
            frame_position=offset + middle,
            position=offset + position,
            score=near.r[i],
            faint=near.r[i] < self._on,
            beat=tuple(mixed[: len(BEAT_CLASSES)]),
            morphology=MORPHOLOGIES[morphologies.index(max(morphologies))],
            left=morphologies[_LEFT],
            right=morphologies[_RIGHT],
            around=_around(near.ecg, centre),
            qrs=_qrs(near.qrs, centre),
        )


class _Near:
    """Scores and signal around the frames that are being decided."""

    def __init__(self, scores: NDArray[np.float64], r: list[float], signal: NDArray[np.float32]) -> None:
        self.scores, self.r = scores, r
        self.ecg = signal[:-1]
        self.qrs: list[float] = signal[-1].tolist()
        self._n = signal.shape[1]
        known = np.isfinite(self.ecg)
        all_known = bool(known.all())
        self._scale = _mean_amplitude(self.ecg, None if all_known else known)
        self._whole = self._deflection(self.ecg) if all_known else None

    def r_position(self, guess: float) -> float:
        """Return where the leads together deflect most around `guess`.

        Each lead counts relative to its mean amplitude, so a lead full of noise, however large, says little.
        """
        centre = round(guess)
        low, high = max(0, centre - _SEARCH), min(self._n, centre + _SEARCH + 1)
        deflection = self._deflection(self.ecg[:, low:high]) if self._whole is None else self._whole[low:high]
        values = list(map(mul, deflection.tolist(), _PRIOR[low - centre + _SEARCH :]))
        highest = max(values)
        if highest == 0:
            return guess
        top = values.index(highest)
        return low + top + _vertex(values, top)

    def _deflection(self, ecg: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the sum of all leads that are known throughout `ecg`, each relative to its mean amplitude."""
        total = np.zeros(ecg.shape[1])
        for lead, mean in zip(np.abs(ecg), self._scale, strict=True):
            if mean > 0 and math.isfinite(np.add.reduce(lead)):
                total += lead / mean
        return total


def _mean_amplitude(ecg: NDArray[np.float32], known: NDArray[np.bool_] | None) -> list[float]:
    """Return the mean absolute amplitude of each lead in mV, 0 for a lead without samples; `known` None: all are."""
    amplitude = np.abs(ecg)
    if known is None:
        sums, n = np.add.reduce(amplitude, axis=1, dtype=np.float64), np.float64(ecg.shape[1])
    else:
        sums = np.add.reduce(np.where(known, amplitude, 0), axis=1, dtype=np.float64)
        n = np.maximum(known.sum(axis=1), 1)
    means: list[float] = (sums / n).tolist()
    return means


def _around(ecg: NDArray[np.float32], centre: int) -> NDArray[np.float32]:
    low, high = centre - REACH, centre + REACH + 1
    if low >= 0 and high <= ecg.shape[1]:
        return ecg[:, low:high]
    out = np.full((ecg.shape[0], high - low), np.nan, dtype=np.float32)
    inside = slice(max(low, 0), min(high, ecg.shape[1]))
    out[:, inside.start - low : inside.stop - low] = ecg[:, inside]
    return out


def _qrs(p: Sequence[float], centre: int) -> tuple[float, float] | None:
    """Return where the QRS complex nearest to `centre` begins and ends, from there: where P(QRS) crosses one half."""
    first, last = max(centre - _QRS_REACH, 0), min(centre + _QRS_REACH + 1, len(p)) - 1
    at = centre
    if p[at] < _HALF:
        near = [i for i in range(max(at - _QRS_NEAR, first), min(at + _QRS_NEAR, last) + 1) if p[i] >= _HALF]
        if not near:
            return None
        at = min(near, key=lambda i: abs(i - centre))
    on = off = at
    while on > first and p[on - 1] >= _HALF:
        on -= 1
    while off < last and p[off + 1] >= _HALF:
        off += 1
    before = (p[on] - _HALF) / (p[on] - p[on - 1]) if on > first else 0.0
    after = (p[off] - _HALF) / (p[off] - p[off + 1]) if off < last else 0.0
    return on - before - centre, off + after - centre


def _vertex(values: list[float], i: int) -> float:
    """Return how far the parabola through i − 1, i, i + 1 peaks beside i (−0.5 to 0.5); 0 at the border."""
    if i == 0 or i == len(values) - 1:
        return 0.0
    left, top, right = values[i - 1], values[i], values[i + 1]
    bend = left - 2 * top + right
    return 0.0 if bend >= 0 else min(0.5, max(-0.5, 0.5 * (left - right) / bend))
