"""Beats of one minute as bytes and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES, MORPHOLOGIES
from edge.rhythm.events import Beat

BEAT_DTYPE = np.dtype([("sample", "<i8"), ("type", "u1"), ("morphology", "u1"), ("confidence", "<f4")])
"""`type` indexes `BEAT_CLASSES`, `morphology` indexes `MORPHOLOGIES`."""


def pack_beats(beats: Sequence[Beat]) -> bytes:
    """Return the beats as little-endian `BEAT_DTYPE` records."""
    rows = [(b.sample, BEAT_CLASSES.index(b.type), MORPHOLOGIES.index(b.morphology), b.confidence) for b in beats]
    return np.array(rows, dtype=BEAT_DTYPE).tobytes()


def unpack_beats(data: bytes) -> NDArray[np.void]:
    """Return a `BEAT_DTYPE` array."""
    return np.frombuffer(data, dtype=BEAT_DTYPE)
