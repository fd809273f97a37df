"""Is a peak of the R-peak score steep enough to be a QRS complex? P and T waves of the same wearer are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.rules import BeatLimits
from edge.rhythm.state import Part
from edge.rhythm.wearer import REACH

_NEAR = slice(REACH - 10, REACH + 11)
"""±78 ms around the R peak."""
_NEWEST_S = 10.0
"""Older beats say nothing: an electrode may have moved."""
_MOST = 16
_LEAST = 4
_PER_MV = 10_000


class SlopeGate(Part):
    """Compares the steepest slope of a peak with that of the newest beats, lead by lead.

    After blocked P waves, which the encoder may take for beats (AV block); thresholds on the slope are those of
    Pan & Tompkins 1985, much lower here because only the encoder's doubtful peaks are asked.
    """

    STATE: ClassVar[tuple[str, ...]] = ("newest",)

    def __init__(self, limits: BeatLimits) -> None:
        self._share, self._sure = limits.min_slope, limits.sure
        self.newest: list[list[int]] = []
        """[position, slope of every lead] of the newest beats."""

    def slopes(self, around: NDArray[np.float32]) -> list[int]:
        """Return the steepest slope of every lead in `_PER_MV` per mV and sample, −1 where the signal is not known.

        `around` as in `edge.rhythm.peaks.Peak`.
        """
        near = around[:, _NEAR]
        steepest: list[float] = np.maximum.reduce(np.abs(near[:, 1:] - near[:, :-1]), axis=1).tolist()
        return [-1 if slope != slope else round(slope * _PER_MV) for slope in steepest]

    def is_flat(self, position: float, score: float, slopes: Sequence[int]) -> bool:
        """Return whether a doubtful peak is too flat for a beat in every lead that can be compared."""
        if score >= self._sure:
            return False
        oldest = position - _NEWEST_S * MODEL_FS_HZ
        beats = [slope for at, *slope in self.newest if at > oldest]
        if len(beats) < _LEAST:
            return False
        compared = False
        for lead, slope in enumerate(slopes):
            usual = sorted(beat[lead] for beat in beats if beat[lead] >= 0)
            if slope < 0 or len(usual) < _LEAST:
                continue
            if slope >= self._share * usual[len(usual) // 2]:
                return False
            compared = True
        return compared

    def beat(self, position: float, slopes: Sequence[int]) -> None:
        """Take a beat."""
        self.newest = [*self.newest[1 - _MOST :], [round(position), *slopes]]
