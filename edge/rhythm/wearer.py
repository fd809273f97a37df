"""What is normal for this wearer, learnt without labels, and what it says about the class of the next beat.

The encoder judges a beat by what it has seen in other people. Here a beat is compared with the same person's own
newest normal ones: how early it comes (RR intervals), how far its QRS complex is from theirs (template) and how much
longer it lasts (`edge.rhythm.peaks`). Three classes, N, S and V, are weighed anew by

    log-odds = `encoder_weight` · the encoder's log-odds + `own_weight` · (weights · features),

a multinomial logistic regression on the features alone, fitted on the training records (`export/encoder/wearer.py`);
fitted together with the encoder it would learn to trust an encoder that knows those records by heart.
Prematurity and distance from the wearer's own normal beat are the features of de Chazal et al. 2004 and of
patient-adapting classifiers since.

Only beats that come early or of which the encoder is not sure are weighed: the others would stay what they are. What is
normal is learnt from what the encoder alone calls normal: its RR intervals between two such beats, a few complexes in
every 10 s. So neither a long run of S beats nor an error made here can become the wearer's normal.

Everything is bounded and forgets exactly: the template is made of blocks of 10 s on the grid of the recording, so that
two states that have seen the same newest beats are equal. Signal is counted in whole µV, of which sums are exact in any
order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from operator import mul
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.rules import WearerLimits
from edge.rhythm.state import Part

if TYPE_CHECKING:
    from edge.rhythm.peaks import Peak

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
_BEATS = 4
"""Normal beats that a block must hold, and at most holds."""
_BLOCKS = 4
_SPREADS = 16
_RR = 16
_MIN_RR = 8
_STEPS = 12
"""RR intervals whose steps tell how regular the pulse is."""
_RR_UNITS = 1024
"""RR intervals are kept in 1/1024 s, at most 16 bits of them."""
_NARROW, _WIDE = 0.100 * MODEL_FS_HZ, 0.040 * MODEL_FS_HZ
"""QRS durations are counted from 100 ms, in steps of 40 ms."""
_N, _S, _V = range(3)

FEATURES = (
    *("early", "very_early", "late", "unlike", "log_unlike", "distance", "irregular", "early_before", "late_before"),
    *(
        "early_regular",
        "unlike_regular",
        "strange",
        "af",
        "early_af",
        "early_twice",
        "wide",
        "wider",
        "narrower",
        "one",
    ),
)
WEIGHTS: tuple[tuple[float, ...], tuple[float, ...]] = (
    (
        *(59.44, -31.50, -9.43, 6.42, -0.48, -0.52, -33.25, -4.06, 4.50, -8.42, -5.16),
        *(0.39, 4.68, -12.85, -12.14, -0.40, -1.31, 2.34, -6.36),
    ),
    (
        *(31.95, -8.66, -1.47, -0.94, 0.64, 0.50, -3.81, 0.78, 5.86, -6.45, -2.27),
        *(2.81, 3.92, -11.81, -23.44, 0.64, 4.40, 2.69, -4.89),
    ),
)
"""For S and for V against N. Written by hand from what `python -m export.encoder.wearer` prints."""


class Wearer(Part):
    """The wearer's newest normal beats and RR intervals."""

    STATE: ClassVar[tuple[str, ...]] = (
        *("leads", "blocks", "block", "sums", "count", "spreads", "durations", "rr", "before", "normal"),
    )

    def __init__(self, limits: WearerLimits, leads: int) -> None:
        self._limits, self._n_leads = limits, leads
        self._off = limits.own_weight == 0 and limits.encoder_weight == 1
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
        self.durations: list[float] = []
        """QRS durations of normal beats in model-rate samples."""
        self.rr: list[int] = []
        """Newest RR intervals between two normal beats."""
        self.before = 0
        """The RR interval before the next one, 0 if the chain was broken."""
        self.normal = False
        """Whether the newest beat is normal."""

    @property
    def sums(self) -> bytes:
        """int32 [leads, width]: sum of the block that is being filled, in µV."""
        return self._sums.astype("<i4").tobytes()

    @sums.setter
    def sums(self, value: bytes) -> None:
        self._sums = np.frombuffer(value, dtype="<i4").reshape(self._n_leads, _WIDTH).astype(np.float64)

    def weigh(self, peak: Peak, rr_s: float | None, af: float | None, quality: float) -> list[float]:
        """Take the next beat; return its class probabilities (N S V F Q), those of F and Q as they were.

        rr_s     since the beat before, None when the chain was broken
        af       P(AF) of its second; None in AF, where nothing is weighed and no complex learnt
        quality  P(readable) of its second: what is not clear is neither weighed nor learnt from, its RR interval apart
        """
        classes, limits = peak.beat, self._limits
        if self._off:
            return list(classes)
        sure = peak.score * classes[_N]
        normal = sure >= limits.normal and classes[_N] == max(classes)
        both_normal, self.normal = normal and self.normal, normal
        rr = 0 if rr_s is None else min(round(rr_s * _RR_UNITS), 2**16 - 1)
        before, self.before = self.before, rr
        found = None
        if quality >= limits.quality and af is not None:
            usual = _median(self.rr) if rr and len(self.rr) >= _MIN_RR else 0.0
            ahead = math.log(usual / rr) if usual else 0.0
            asked = usual > 0 and (sure < limits.sure or ahead > limits.early)
            learnt = normal and (self.count < _BEATS or peak.position // _BLOCK != self.block)
            if asked or learnt:
                found = self._compare(peak, asked, learnt, (ahead, before, usual, af))
        if both_normal and rr:
            self.rr = [*self.rr[1 - _RR :], rr]
        return list(classes) if found is None else self._weighed(classes, found)

    def _compare(
        self, peak: Peak, asked: bool, learnt: bool, pulse: tuple[float, float, float, float]
    ) -> list[float] | None:
        """Compare a beat with the template, and take it into it."""
        signal = np.rint(peak.around * _UV_PER_MV)
        squares = ((signal * signal) @ _BAND).tolist()
        shape = self._shape(signal, squares) if self._same_leads(signal, squares) else None
        duration = 0.0 if peak.qrs is None else round(16 * (peak.qrs[1] - peak.qrs[0])) / 16
        found = self.features(shape, duration, *pulse) if asked and shape is not None else None
        if learnt and self.leads:
            self._learn(peak.position, signal, shape)
            if duration:
                self.durations = [*self.durations[1 - _SPREADS :], duration]
        return found

    def features(
        self, shape: tuple[float, float], duration: float, ahead: float, before: float, usual: float, af: float
    ) -> list[float]:
        """Return the values of `FEATURES`.

        shape     correlation with the template and distance from it
        duration  of the QRS complex in model-rate samples, 0 where none is seen
        ahead     log of the usual RR interval over this one
        before    the RR interval before, 0 if unknown
        usual     the median of the newest RR intervals
        af        P(AF)
        """
        newest = self.rr[-_STEPS:]
        irregular = min(_median([abs(b - a) for a, b in itertools.pairwise(newest)]) / usual, 0.5)
        regular = math.exp(-irregular / 0.08)
        ahead_before = math.log(usual / before) if before else 0.0
        early, early_before = min(max(ahead, 0.0), 0.6), min(max(ahead_before, 0.0), 0.6)
        likeness, distance = shape
        unlike = min(1 - likeness, 1.0)
        typical = _median(self.spreads) / 1000 if self.spreads else distance
        longer = (duration - _median(self.durations)) / _WIDE if duration and self.durations else 0.0
        return [
            early,
            min(max(ahead - 0.12, 0.0), 0.5),
            min(max(-ahead, 0.0), 0.4),
            unlike,
            math.log(unlike + 0.005),
            min(distance, 2.0),
            irregular,
            early_before,
            min(max(-ahead_before, 0.0), 0.5),
            early * regular,
            unlike * regular,
            min(max(math.log((distance + 0.02) / (typical + 0.02)), -2.0), 3.0),
            af,
            early * af,
            early * early_before,
            min(max((duration - _NARROW) / _WIDE, 0.0), 2.0),
            min(max(longer, 0.0), 2.0),
            min(max(-longer, 0.0), 1.0),
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
            if self.count >= _BEATS:
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
