"""`Record`: one annotated recording, prepared exactly as the gateway prepares it, labelled on the model's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
NOT_AF = -2
"""Rhythm of a second of which only this is known: it is not atrial fibrillation."""


@dataclass(frozen=True, slots=True)
class Record:
    """A recording of `seconds` whole seconds at 128 Hz."""

    db: str
    name: str
    ecg: NDArray[np.float32]
    """[leads, seconds · 128] prepared signal, mV, NaN = missing."""
    beat_at: NDArray[np.float32]
    """[beats] R positions in model samples."""
    beat: NDArray[np.int8]
    """[beats] index into `BEAT_CLASSES`, `UNKNOWN` where only the position is known."""
    morphology: NDArray[np.int8]
    """[beats] index into `MORPHOLOGIES`, `UNKNOWN` where the database does not say."""
    beats_known: NDArray[np.bool_]
    """[seconds] every beat of this second is annotated."""
    rhythm: NDArray[np.int8]
    """[seconds] index into `RHYTHMS`, `UNKNOWN` or `NOT_AF`."""
    quality: NDArray[np.int8]
    """[seconds] 1 readable, 0 not, `UNKNOWN`."""
    wave: NDArray[np.int8] | None = None
    """[leads, seconds · 128] index into `WAVES`, `UNKNOWN` where nobody delineated; None without delineation."""

    @property
    def seconds(self) -> int:
        """Length in whole seconds."""
        return int(self.rhythm.size)
