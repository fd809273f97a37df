"""What the encoder takes and gives: shared by training, export, inference and rhythm.

The network is shift-equivariant: an output frame depends only on the samples within `PAST_S` before and
`AHEAD_S` after its hop, never on where a window began. Running many hops in one long window is therefore the
same computation as running them one by one.

ONNX graph
    in   `ecg`         float32 [batch, lead, time]   prepared signal, mV at 128 Hz, NaN = missing;
                                                     time is a multiple of 128
    out  `r_peak`      float32 [batch, time/4]       P(an R peak lies in this frame's neighbourhood), Gaussian bump
         `beat`        float32 [batch, time/4, 5]    class probabilities, `BEAT_CLASSES`
         `morphology`  float32 [batch, time/4, 5]    `MORPHOLOGIES`
         `rhythm`      float32 [batch, time/128, 8]  `RHYTHMS`, per second
         `quality`     float32 [batch, time/128]     P(readable), per second
         `delineation` float32 [batch, time, 4]       `WAVES`, per sample
         `tokens`      float32 [batch, time/32, 192] pooled over present leads
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MODEL_FS_HZ = 128
BEAT_FS_HZ = 32
TOKEN_FS_HZ = 4
TOKEN_DIM = 192

PAST_S = 16
HOP_S = 2
AHEAD_S = 3
"""Look-ahead of a window, filters of the preparation included; hop + ahead ≤ 5 s."""

BEAT_CLASSES = ("N", "S", "V", "F", "Q")
"""AAMI EC57 classes."""
RHYTHMS = ("N", "AFIB", "AFL", "SVTA", "VT", "VF", "P", "ASYS")
"""WFDB rhythm names; N is sinus and every other organised rhythm, VF includes VFL, P is paced."""
MORPHOLOGIES = ("narrow", "LBBB", "RBBB", "paced", "other")
WAVES = ("none", "P", "QRS", "T")

OUTPUTS_HZ = {
    "r_peak": BEAT_FS_HZ,
    "beat": BEAT_FS_HZ,
    "morphology": BEAT_FS_HZ,
    "rhythm": 1,
    "quality": 1,
    "delineation": MODEL_FS_HZ,
    "tokens": TOKEN_FS_HZ,
}
"""The graph's outputs in their order, with their frame rates."""
OUTPUTS = tuple(OUTPUTS_HZ)


@dataclass(frozen=True, slots=True)
class HopScores:
    """Everything known about one hop: model-rate samples [k·256, (k+1)·256) of a recording."""

    k: int
    ecg: NDArray[np.float32]
    """[leads, 256] prepared signal in mV, NaN = missing."""
    present: NDArray[np.float32]
    """[2] share of each second in which at least one lead was recorded."""
    contact_off: NDArray[np.bool_]
    """[2] the device said the electrodes were off the body during this second."""
    clipped: NDArray[np.float32]
    """[2] share of each second's samples at the extreme of the recording's digital range."""
    r_peak: NDArray[np.float32]
    """[64]; zeros where nothing was recorded."""
    beat: NDArray[np.float32]
    """[64, 5]."""
    morphology: NDArray[np.float32]
    """[64, 5]."""
    rhythm: NDArray[np.float32]
    """[2, 8]; NaN where nothing was recorded."""
    quality: NDArray[np.float32]
    """[2]; NaN where nothing was recorded."""
    qrs: NDArray[np.float32]
    """[256] P(QRS complex) per model sample, from `delineation`; zeros where nothing was recorded."""
    embedding: NDArray[np.float32]
    """[192] mean of the hop's tokens; NaN when nothing was recorded."""
