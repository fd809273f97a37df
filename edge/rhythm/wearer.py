"""What is normal for this wearer, learnt without labels, and what it says about the class of the next beat.

The encoder judges a beat by what it has seen in other people. Here a beat is compared with the same person's own
newest normal ones: how early it comes (RR intervals), and how far its QRS complex is from theirs (template). Three
classes, N, S and V, are weighed anew by

    log-odds = `encoder_weight` · the encoder's log-odds + `own_weight` · (weights · features),

a multinomial logistic regression on the features alone, fitted on the training records (`export/encoder/wearer.py`);
fitted together with the encoder it would learn to trust an encoder that knows those records by heart.
Prematurity and distance from the wearer's own normal beat are the features of de Chazal et al. 2004 and of
patient-adapting classifiers since.

Everything is bounded and forgets exactly: the template is made of blocks of 10 s on the grid of the recording, so that
two states that have seen the same newest beats are equal. Signal is counted in whole µV, of which sums are exact in any
order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from operator import mul
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.rules import WearerLimits
from edge.rhythm.state import Part

REACH = 14
"""Model-rate samples on each side of an R peak that a comparison needs (109 ms)."""
_LAGS = 5
"""Positions tried, the R peak being uncertain by two samples."""
_WIDTH = 2 * REACH + 1 - (_LAGS - 1)
_BAND = np.array([[0 <= i - k < _WIDTH for k in range(_LAGS)] for i in range(2 * REACH + 1)], dtype=np.float64)
"""Ones where sample i belongs to the comparison at lag k."""
_CENTRE = slice(_LAGS // 2, _LAGS // 2 + _WIDTH)
_UV_PER_MV = np.float64(1000)
_LIMIT_UV = 32000
_BLOCK = 10 * MODEL_FS_HZ
_MIN_BEATS = 4
"""Normal beats that a block must hold."""
_BLOCKS = 4
_SPREADS = 16
_RR = 16
_MIN_RR = 8
_STEPS = 12
"""RR intervals whose steps tell how regular the pulse is."""
_RR_UNITS = 1024
"""RR intervals are kept in 1/1024 s, at most 16 bits of them."""
_N, _S, _V = range(3)

FEATURES = (
    *("early", "very_early", "late", "unlike", "log_unlike", "distance", "irregular", "early_before", "late_before"),
    *("early_regular", "unlike_regular", "strange", "af", "early_af", "early_twice", "one"),
)
WEIGHTS: tuple[tuple[float, ...], tuple[float, ...]] = (
    (38.42, -22.41, -3.00, 1.66, -0.02, -3.05, 1.16, -3.61, 3.53, -0.44, 2.31, 1.22, 1.68, -12.43, -8.83, -2.63),
    (25.44, -13.87, -2.90, -4.74, 1.12, 1.18, 2.77, -0.60, 5.30, 1.63, -0.45, 3.80, 0.14, -5.01, -9.85, -2.71),
)
"""For S and for V against N. Written by hand from what `python -m export.encoder.wearer` prints."""


class Wearer(Part):
    """The wearer's newest normal beats and RR intervals."""

    STATE: ClassVar[tuple[str, ...]] = ("leads", "blocks", "block", "sums", "count", "spreads", "rr", "before")

    def __init__(self, limits: WearerLimits, leads: int) -> None:
        self._limits, self._n_leads = limits, leads
        self._made_of = b""
        self._shifted = np.zeros((leads, 2 * REACH + 1, _LAGS))
        self._sums = np.zeros((leads, _WIDTH))
        self._norms: list[tuple[int, float]] = []
        self.leads = 0
        """Bits of the leads that the template is made of."""
        self.blocks = b""
        """int16 [blocks, leads, width]: mean normal beats in µV, oldest first."""
        self.block = -1
        """Number of the block that is being filled."""
        self.count = 0
        """Beats in the block that is being filled."""
        self.spreads: list[int] = []
        """Distances of normal beats from the template, in thousandths of its norm."""
        self.rr: list[int] = []
        """Newest RR intervals."""
        self.before = 0
        """The RR interval before the next one, 0 if the chain was broken."""

    @property
    def sums(self) -> bytes:
        """int32 [leads, width]: sum of the block that is being filled, in µV."""
        return self._sums.astype("<i4").tobytes()

    @sums.setter
    def sums(self, value: bytes) -> None:
        self._sums = np.frombuffer(value, dtype="<i4").reshape(self._n_leads, _WIDTH).astype(np.float64)

    def weigh(
        self,
        position: float,
        around: NDArray[np.float32],
        rr_s: float | None,
        score: float,
        classes: Sequence[float],
        af: bool,
        quality: float,
    ) -> list[float]:
        """Take the next beat; return its class probabilities (N S V F Q), those of F and Q as they were.

        position  of its R peak in model-rate samples
        around  [leads, 2·REACH + 1] the prepared signal around its R peak in mV, NaN where unknown
        rr_s    since the beat before, None when the chain was broken
        score   R-peak score
        af      whether the rhythm is, or looks like, atrial fibrillation or flutter
        quality  P(readable) of its second: what is not clear is neither weighed nor learnt from
        """
        if self._limits.own_weight == 0 and self._limits.encoder_weight == 1:
            return list(classes)
        asked = quality >= self._limits.quality and not (af and self._limits.in_af < 1)
        if not asked:
            self._count_rr(rr_s)
            return list(classes)
        signal = np.rint(around * _UV_PER_MV)
        squares = ((signal * signal) @ _BAND).tolist()
        shape = self._shape(signal, squares) if self._same_leads(signal, squares) else None
        found = None if shape is None else self.features(shape, rr_s, af)
        self._count_rr(rr_s)
        if self.leads and classes[_N] * score >= self._limits.normal and classes[_N] == max(classes):
            self._learn(position, signal, shape)
        return list(classes) if found is None else self._weighed(classes, found)

    def _count_rr(self, rr_s: float | None) -> None:
        if rr_s is None:
            self.before = 0
        else:
            self.before = min(round(rr_s * _RR_UNITS), 2**16 - 1)
            self.rr = [*self.rr[1 - _RR :], self.before]

    def features(self, shape: tuple[float, float], rr_s: float | None, af: bool) -> list[float] | None:
        """Return the values of `FEATURES` for a beat of this shape, None while too little is known."""
        if rr_s is None or len(self.rr) < _MIN_RR:
            return None
        usual = _median(self.rr)
        newest = self.rr[-_STEPS:]
        irregular = min(_median([abs(b - a) for a, b in itertools.pairwise(newest)]) / usual, 0.5)
        regular = math.exp(-irregular / 0.08)
        ahead = -math.log(rr_s * _RR_UNITS / usual)
        before = -math.log(self.before / usual) if self.before else 0.0
        early, early_before = min(max(ahead, 0.0), 0.6), min(max(before, 0.0), 0.6)
        likeness, distance = shape
        unlike = min(1 - likeness, 1.0)
        typical = _median(self.spreads) / 1000 if self.spreads else distance
        return [
            early,
            min(max(ahead - 0.12, 0.0), 0.5),
            min(max(-ahead, 0.0), 0.4),
            unlike,
            math.log(unlike + 0.005),
            min(distance, 2.0),
            irregular,
            early_before,
            min(max(-before, 0.0), 0.5),
            early * regular,
            unlike * regular,
            min(max(math.log((distance + 0.02) / (typical + 0.02)), -2.0), 3.0),
            float(af),
            early * af,
            early * early_before,
            1.0,
        ]

    def _same_leads(self, signal: NDArray[np.float64], squares: list[list[float]]) -> bool:
        """Return whether there is a template of the leads that are known here; forget the one of other leads.

        Leads with unknown samples are set to zero in `signal`; their `squares` are NaN.
        """
        known = [row[0] == row[0] for row in squares]
        leads = sum(1 << i for i, there in enumerate(known) if there)
        if not all(known):
            signal[[not there for there in known]] = 0
        if leads != self.leads:
            self.leads, self.blocks, self.count, self.spreads = leads, b"", 0, []
            self._sums[:] = 0
        return bool(self.blocks)

    def _shape(self, signal: NDArray[np.float64], squares: list[list[float]]) -> tuple[float, float] | None:
        """Return correlation with the template and distance from it in units of its norm, mean over leads, where the
        correlation is highest."""
        if self._made_of != self.blocks:
            self._refresh()
        dots = (signal[:, None] @ self._shifted).tolist()
        best, at = -math.inf, 0
        for k in range(_LAGS):
            alike = sum(dots[i][0][k] / (norm * (math.sqrt(squares[i][k]) + 1)) for i, norm in self._norms)
            if alike > best:
                best, at = alike, k
        apart = sum(
            math.sqrt(max(squares[i][at] - 2 * dots[i][0][at] + norm * norm, 0)) / norm for i, norm in self._norms
        )
        present = len(self._norms)
        return (best / present, apart / present) if present else None

    def _refresh(self) -> None:
        """Make the template from the blocks: the mean of the middle two, of three the middle one."""
        blocks = np.sort(np.frombuffer(self.blocks, dtype="<i2").reshape(-1, self._n_leads, _WIDTH), axis=0)
        middle = (len(blocks) - 1) // 2, len(blocks) // 2
        template = (blocks[middle[0]].astype(np.float64) + blocks[middle[1]]) / 2
        self._norms = [(i, math.sqrt(power)) for i, power in enumerate((template**2).sum(axis=1).tolist()) if power]
        for k in range(_LAGS):
            self._shifted[:, k : k + _WIDTH, k] = template
        self._made_of = self.blocks

    def _learn(self, position: float, signal: NDArray[np.float64], shape: tuple[float, float] | None) -> None:
        """Take a normal beat into the template."""
        if shape is not None:
            self.spreads = [*self.spreads[1 - _SPREADS :], min(round(shape[1] * 1000), 2**16 - 1)]
        block = int(position // _BLOCK)
        if block != self.block:
            if self.count >= _MIN_BEATS:
                size = 2 * self._sums.size
                mean = (self._sums // self.count).clip(-_LIMIT_UV, _LIMIT_UV)
                self.blocks = self.blocks[-(_BLOCKS - 1) * size :] + mean.astype("<i2").tobytes()
            self._sums[:] = 0
            self.block, self.count = block, 0
        self._sums += signal[:, _CENTRE]
        self.count += 1

    def _weighed(self, classes: Sequence[float], features: Sequence[float]) -> list[float]:
        logs = [math.log(max(p, 1e-3)) for p in classes[: _V + 1]]
        odds = [0.0]
        for i, weights in enumerate(WEIGHTS, start=1):
            own = sum(map(mul, weights, features))
            odds.append(self._limits.encoder_weight * (logs[i] - logs[0]) + self._limits.own_weight * own)
        top = max(odds)
        raised = [math.exp(value - top) for value in odds]
        share = sum(classes[: _V + 1]) / sum(raised)
        return [value * share for value in raised] + list(classes[_V + 1 :])


def _median(values: Sequence[float]) -> float:
    ranked, half = sorted(values), len(values) // 2
    return ranked[half] if len(values) % 2 else (ranked[half - 1] + ranked[half]) / 2
