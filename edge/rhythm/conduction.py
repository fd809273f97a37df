"""How a beat was conducted: narrow, or with a bundle branch block, from how long its QRS complex lasts.

The network's own morphology was learnt from four wearers with a bundle branch block and knows theirs only. How long a
QRS complex lasts is learnt from the 200 people of LUDB and holds for others: a complete block is one of at least
120 ms (AHA/ACCF/HRS recommendations, part III, Surawicz et al. 2009). Which bundle is read from the end of the
complex where a lead's name says what that means: the last part points to V1 in a right and away from it in a left
block, in I, aVL and V6 the other way round. Without such a lead the network's scores for both decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ, MORPHOLOGIES
from edge.rhythm.peaks import Peak
from edge.rhythm.rules import ConductionLimits
from edge.rhythm.state import Part
from edge.rhythm.wearer import REACH

_LEFT, _RIGHT = MORPHOLOGIES.index("LBBB"), MORPHOLOGIES.index("RBBB")
RIGHT_LEADS, LEFT_LEADS = ("V1", "MCL1"), ("I", "AVL", "V6")
LATE = 0.6
"""The last part of a QRS complex begins after this share of it."""


class Conduction(Part):
    """QRS durations and sides of the newest beats that are neither V nor paced."""

    STATE: ClassVar[tuple[str, ...]] = ("newest",)

    def __init__(self, limits: ConductionLimits, leads: Sequence[str]) -> None:
        self._wide = limits.wide_ms * MODEL_FS_HZ / 1000
        self._keep = int(limits.beats)
        names = [name.upper() for name in leads]
        self._right = [i for i, name in enumerate(names) if name in RIGHT_LEADS]
        self._left = [i for i, name in enumerate(names) if name in LEFT_LEADS]
        self.newest: list[list[float]] = []
        """[QRS duration in model-rate samples, 1 for left, −1 for right or 0] of each."""

    def morphology(self, peak: Peak, ectopic: bool) -> str:
        """Take the next beat; return one of `MORPHOLOGIES`. `ectopic`: it is V, F or Q."""
        said = peak.morphology
        if ectopic or said == "paced" or peak.qrs is None:
            return said
        on, off = peak.qrs
        duration = round(16 * (off - on)) / 16
        side = 0 if duration < self._wide else self._side(peak, on, off)
        self.newest = [*self.newest[1 - self._keep :], [duration, side]]
        ranked = sorted(duration for duration, _ in self.newest)
        if ranked[len(ranked) // 2] < self._wide:
            return "narrow"
        return MORPHOLOGIES[_LEFT if sum(side for _, side in self.newest) > 0 else _RIGHT]

    def _side(self, peak: Peak, on: float, off: float) -> int:
        for leads, right in ((self._right, 1.0), (self._left, -1.0)):
            ends = [end for lead in leads if (end := _end_mv(peak.around[lead], on, off))]
            if ends:
                return -1 if right * sum(ends) > 0 else 1
        return 1 if peak.left > peak.right else -1


def _end_mv(lead: NDArray[np.float32], on: float, off: float) -> float:
    """Return the mean of the last part of a QRS complex against the line through its ends; 0 where it is not known."""
    first, last = max(REACH + round(on), 0), min(REACH + round(off), 2 * REACH)
    mv: list[float] = lead[first : last + 1].tolist()
    if len(mv) < 4:
        return 0.0
    late = round(LATE * (len(mv) - 1))
    step = (mv[-1] - mv[0]) / (len(mv) - 1)
    end = sum(mv[i] - mv[0] - step * i for i in range(late, len(mv))) / (len(mv) - late)
    return end if end == end else 0.0
