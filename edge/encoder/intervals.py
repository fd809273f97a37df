"""P, QRS and T of every beat, and what follows from them: PR, QRS, QT and QTc.

Pure arithmetic on the encoder's `delineation` (probabilities per sample at 128 Hz) and on R peaks. A wave lasts from
where its probability rises above one half to where it falls below, found between two samples by a straight line, so
the grid of 7.8 ms is no limit of precision.

Fridericia 1920: QTc = QT / RR^(1/3); Bazett 1920: QTc = QT / RR^(1/2), RR in seconds. No correction where RR varies
much (AHA/ACCF/HRS recommendations, part IV, Rautaharju et al. 2009), which is where a formula means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ, WAVES

Formula = Literal["fridericia", "bazett"]
FORMULAS: dict[Formula, float] = {"fridericia": 1 / 3, "bazett": 1 / 2}
"""Exponent of RR."""

Span = tuple[float, float]
"""Onset and offset in model samples, with fraction."""

HALF = 0.5
JOIN_MS = 24.0
"""Two pieces of a wave this close are one."""
LEAST_MS = {"P": 30.0, "QRS": 40.0, "T": 60.0}
"""A shorter piece is no wave."""
R_REACH_MS = 100.0
"""A QRS that lies further from the R peak belongs to another beat."""
P_REACH_MS = 400.0
"""How long before the QRS a P wave can begin and still be conducted."""
T_REACH_MS = 640.0
"""How long after the QRS a T wave can end."""
PLAUSIBLE_MS = {"pr": (80.0, 400.0), "qrs": (40.0, 240.0), "qt": (200.0, 700.0)}
"""What lies outside was not measured but mistaken."""
MIN_BEATS = 3
MIN_SHARE = 0.5
"""So many of the beats must show an interval, or it is not told: in a few something else may look like it."""
MAX_RR_SPREAD = 0.2
"""Interquartile range over median of RR above which QT is not corrected."""


@dataclass(frozen=True, slots=True)
class Waves:
    """The waves of one beat in model samples, None where there is none."""

    r_peak: float
    p: Span | None
    qrs: Span | None
    t: Span | None
    rr_s: float | None = None
    """Since the beat before, None at the first."""

    @property
    def pr_ms(self) -> float | None:
        """Onset of P to onset of QRS."""
        return _plausible("pr", None if self.p is None or self.qrs is None else _ms(self.qrs[0] - self.p[0]))

    @property
    def qrs_ms(self) -> float | None:
        """Duration of QRS."""
        return _plausible("qrs", None if self.qrs is None else _ms(self.qrs[1] - self.qrs[0]))

    @property
    def qt_ms(self) -> float | None:
        """Onset of QRS to offset of T."""
        return _plausible("qt", None if self.t is None or self.qrs is None else _ms(self.t[1] - self.qrs[0]))

    def qtc_ms(self, formula: Formula = "fridericia") -> float | None:
        """QT corrected by the RR interval before the beat."""
        qt_ms = self.qt_ms
        return None if qt_ms is None or self.rr_s is None else qt_ms / self.rr_s ** FORMULAS[formula]


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval over a clip."""

    median_ms: float | None
    """None: not told, and `reason` says why."""
    spread_ms: float | None
    """Interquartile range."""
    beats: int
    """How many beats showed it."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Intervals:
    """The intervals of a clip, medians over its beats."""

    beats: int
    """Beats that were looked at."""
    pr: Interval
    qrs: Interval
    qt: Interval
    qtc: Interval
    formula: Formula


def spans(probability: NDArray[np.floating], name: str) -> list[Span]:
    """Return where a wave is more likely than not, in rows of `probability`: pieces joined, short ones left out.

    name  one of `WAVES` but "none"
    """
    column = probability[:, WAVES.index(name)].astype(np.float64)
    p = np.concatenate(([0.0], np.nan_to_num(column), [0.0]))
    above = p >= HALF
    change = np.flatnonzero(above[1:] != above[:-1])
    crossing = (change + (HALF - p[change]) / (p[change + 1] - p[change]) - 1).tolist()
    joined: list[Span] = []
    for on, off in zip(crossing[::2], crossing[1::2], strict=True):
        if joined and on - joined[-1][1] <= _samples(JOIN_MS):
            joined[-1] = (joined[-1][0], off)
        else:
            joined.append((on, off))
    return [(on, off) for on, off in joined if off - on >= _samples(LEAST_MS[name])]


def delineate(
    probability: NDArray[np.floating], r_peaks: Sequence[float], first: float = 0.0, *, gap_s: float = 3.0
) -> list[Waves]:
    """Return the waves of every beat.

    probability  [time, 4] in the order of `WAVES`; row 0 is model sample `first`
    r_peaks      of all beats in model samples, ascending, whatever their class: each bounds its neighbours' waves
    gap_s        a longer RR interval is none: something was not readable in between
    """
    if probability.ndim != 2 or probability.shape[1] != len(WAVES):
        raise ValueError(f"delineation must be [time, {len(WAVES)}], got {probability.shape}")
    runs = {name: spans(probability, name) for name in ("P", "QRS", "T")}
    at = [r - first for r in r_peaks]
    found = []
    for i, r in enumerate(at):
        qrs = _nearest(runs["QRS"], r)
        before = at[i - 1] if i else -np.inf
        after = at[i + 1] if i + 1 < len(at) else np.inf
        p = t = None
        if qrs is not None:
            p = _longest(runs["P"], max(before, qrs[0] - _samples(P_REACH_MS)), qrs[0] + 1)
            t = _longest(runs["T"], qrs[1] - 1, min(after, qrs[1] + _samples(T_REACH_MS)))
        rr_s = (r - before) / MODEL_FS_HZ
        found.append(
            Waves(r + first, _moved(p, first), _moved(qrs, first), _moved(t, first), rr_s if rr_s <= gap_s else None)
        )
    return found


def intervals(beats: Sequence[Waves], formula: Formula = "fridericia") -> Intervals:
    """Return medians over beats, which may come from several clips: those of normal conduction, chosen by the caller.

    An interval is told if at least `MIN_BEATS` beats and half of them show it.
    """
    rr_s = [beat.rr_s for beat in beats if beat.rr_s is not None]
    qtc = [beat.qtc_ms(formula) for beat in beats]
    spread = _spread(rr_s) / float(np.median(rr_s)) if rr_s else 0.0
    if spread > MAX_RR_SPREAD:
        n = sum(value is not None for value in qtc)
        corrected = Interval(None, None, n, f"RR intervals vary by {100 * spread:.0f} %, too much to correct QT for")
    else:
        corrected = _median(qtc)
    return Intervals(
        beats=len(beats),
        pr=_median([beat.pr_ms for beat in beats]),
        qrs=_median([beat.qrs_ms for beat in beats]),
        qt=_median([beat.qt_ms for beat in beats]),
        qtc=corrected,
        formula=formula,
    )


def _moved(span: Span | None, by: float) -> Span | None:
    return None if span is None else (span[0] + by, span[1] + by)


def _nearest(runs: Sequence[Span], r: float) -> Span | None:
    """Return the span that holds the R peak, or else lies nearest to it within reach."""
    apart = [(max(on - r, r - off, 0.0), (on, off)) for on, off in runs]
    best = min(apart, default=None)
    return best[1] if best is not None and best[0] <= _samples(R_REACH_MS) else None


def _longest(runs: Sequence[Span], low: float, high: float) -> Span | None:
    """Return the longest span within [low, high]."""
    inside = [(on, off) for on, off in runs if on >= low and off <= high]
    return max(inside, key=lambda span: span[1] - span[0], default=None)


def _median(values: Sequence[float | None]) -> Interval:
    known = [value for value in values if value is not None]
    if len(known) < MIN_BEATS:
        return Interval(None, None, len(known), f"measured in {len(known)} of {len(values)} beats, {MIN_BEATS} needed")
    if len(known) < MIN_SHARE * len(values):
        return Interval(None, None, len(known), f"measured in only {len(known)} of {len(values)} beats")
    return Interval(float(np.median(known)), _spread(known), len(known))


def _spread(values: Sequence[float]) -> float:
    low, high = np.percentile(values, [25, 75])
    return float(high - low)


def _plausible(name: str, value_ms: float | None) -> float | None:
    low, high = PLAUSIBLE_MS[name]
    return value_ms if value_ms is not None and low <= value_ms <= high else None


def _ms(samples: float) -> float:
    return 1000 * samples / MODEL_FS_HZ


def _samples(ms: float) -> float:
    return ms * MODEL_FS_HZ / 1000
