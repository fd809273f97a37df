"""What can be measured of each beat in a clip, so that the model that looks need not know the wearer.

Encoder scores carry the people they were learnt from; width, deflections, prematurity and likeness to the clip's own
usual beat carry over to strangers. All of it comes from the encoder's scores and the signal of this clip alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_FS_HZ, MODEL_FS_HZ, WAVES
from edge.encoder.session import Outputs
from edge.rhythm.conduction import LATE, LEFT_LEADS, RIGHT_LEADS

NAMES = (
    "is a beat",
    "QRS width, units of 100 ms",
    "share of the QRS area on its smaller side, largest of the leads",
    "the same, mean of the leads",
    *(
        f"{part} third of the QRS, signed area, of the lead with the largest QRS"
        for part in ("first", "middle", "last")
    ),
    "log of RR before / median RR",
    "log of RR after / median RR",
    "median RR, s",
    "P wave before the QRS, units of 100 ms",
    "likeness to the clip's median beat, correlation of QRS",
    "the same, QRS to T",
    "R-peak score",
    "end of the QRS towards V1 (or MCL1), share of its area",
    "the same towards I, aVL and V6, mean of those",
    "QRS width, median of the clip, units of 100 ms",
)
MEASURES = len(NAMES)
ON = 0.5
"""R-peak score of a beat."""
_STEP = MODEL_FS_HZ // BEAT_FS_HZ
_REFRACTORY = 7
"""Frames of 31 ms; two peaks nearer than this are one beat."""
_QRS = slice(-24, 32)
"""Where the QRS lies around its R peak, model samples: −190 to 250 ms."""
_NARROW, _WIDE = slice(-13, 20), slice(-20, 52)
"""Windows of the two likenesses: −100 to 155 ms, −155 to 405 ms."""
_LAGS = range(-4, 5)
_P = slice(-40, -6)
_MIN_BEATS = 3


def find(r_peak: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the frames [beats] of the peaks of an R-peak score [frames], ascending."""
    inner = np.concatenate([[-1.0], r_peak, [-1.0]])
    at = np.flatnonzero((r_peak >= ON) & (r_peak > inner[:-2]) & (r_peak >= inner[2:]))
    kept: list[int] = []
    for frame in at.tolist():
        if kept and frame - kept[-1] < _REFRACTORY:
            if r_peak[frame] > r_peak[kept[-1]]:
                kept[-1] = frame
        else:
            kept.append(frame)
    return np.array(kept, dtype=np.int64)


def measure(
    outputs: Outputs, ecg: NDArray[np.float32], at: NDArray[np.int64], leads: Sequence[str] = ()
) -> NDArray[np.float32]:
    """Return the measures [beats, MEASURES] of the beats at frames `at`; unknown is 0.

    `outputs` of one window, `ecg` [leads, time] its signal in mV, NaN = missing; `leads` their names, if known.
    """
    out = np.zeros((at.size, MEASURES), dtype=np.float32)
    if not at.size:
        return out
    reach = 64
    signal = np.pad(np.nan_to_num(ecg), ((0, 0), (reach, reach)))
    wave = np.pad(outputs.delineation[0], ((reach, reach), (0, 0)))
    centre = at * _STEP + 2 + reach
    out[:, 0] = 1
    qrs = _windows(wave[None, :, WAVES.index("QRS")], centre, _QRS)[0]
    out[:, 1] = qrs.sum(axis=1) / MODEL_FS_HZ / 0.1
    names = [name.upper() for name in leads]
    sides = [[n for n, name in enumerate(names) if name in side] for side in (RIGHT_LEADS, LEFT_LEADS)]
    told = _deflections(_windows(signal, centre, _QRS), qrs > ON, sides)
    out[:, 2:7], out[:, 14:16] = told[:, :5], told[:, 5:]
    out[:, 16] = np.median(out[:, 1])
    if at.size > 1:
        rr = np.diff(at) / BEAT_FS_HZ
        median = float(np.median(rr))
        out[1:, 7] = np.log(rr / median)
        out[:-1, 8] = np.log(rr / median)
        out[:, 9] = min(median, 3.0)
    out[:, 10] = _windows(wave[None, :, WAVES.index("P")], centre, _P)[0].sum(axis=1) / MODEL_FS_HZ / 0.1
    if at.size >= _MIN_BEATS:
        out[:, 11] = _likeness(signal, centre, _NARROW)
        out[:, 12] = _likeness(signal, centre, _WIDE)
    out[:, 13] = outputs.r_peak[0][at]
    return np.clip(out, -4, 4)


def _windows(signal: NDArray[np.floating], centre: NDArray[np.int64], part: slice) -> NDArray[np.floating]:
    """Return the windows [leads, beats, time] of a signal [leads, time] around the centres."""
    return signal[:, centre[:, None] + np.arange(part.start, part.stop)[None, :]]


def _deflections(
    around: NDArray[np.floating], inside: NDArray[np.bool_], sides: Sequence[Sequence[int]]
) -> NDArray[np.float32]:
    """Return shares of area within the QRS, [beats, 5 + sides].

    `around` [leads, beats, time], `inside` [beats, time], `sides` the leads whose end of the QRS is told apart.
    """
    size = inside.sum(axis=1)
    place = np.where(inside, np.cumsum(inside, axis=1) - 1, 0)
    first = inside.argmax(axis=1)
    last = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    beats = np.arange(inside.shape[0])
    begin, end = around[:, beats, first], around[:, beats, last]
    share = place / np.maximum(size - 1, 1)[:, None]
    level = begin[:, :, None] * (1 - share) + end[:, :, None] * share
    y = np.where(inside, around - level, 0)
    area = np.abs(y).sum(axis=2)
    smaller = np.minimum(np.maximum(y, 0).sum(axis=2), np.maximum(-y, 0).sum(axis=2)) / np.maximum(area, 1e-3)
    largest = area.argmax(axis=0)
    chosen = y[largest, beats]
    third = np.minimum((3 * share).astype(np.int64), 2)
    parts = np.stack([np.where(third == n, chosen, 0).sum(axis=1) for n in range(3)], axis=1)
    sign = np.where(parts.sum(axis=1) < 0, -1, 1)
    parts *= (sign / np.maximum(area[largest, beats], 1e-3))[:, None]
    late = (y * (share >= LATE)).sum(axis=2) / np.maximum(area, 1e-3)
    ends = [late[list(side)].mean(axis=0) if side else np.zeros(late.shape[1]) for side in sides]
    told = np.stack([smaller.max(axis=0), smaller.mean(axis=0), *parts.T, *ends], axis=1)
    return np.where((size >= 4)[:, None], told, 0).astype(np.float32)


def _likeness(signal: NDArray[np.floating], centre: NDArray[np.int64], part: slice) -> NDArray[np.float32]:
    """Return each beat's correlation [beats] with the clip's median beat, at the best of a few lags, mean of leads."""
    usual = np.median(_windows(signal, centre, part), axis=1)
    usual = usual - usual.mean(axis=1, keepdims=True)
    size = np.sqrt((usual**2).sum(axis=1))
    best = np.full(centre.size, -1.0)
    for lag in _LAGS:
        one = _windows(signal, centre + lag, part)
        one = one - one.mean(axis=2, keepdims=True)
        norm = np.sqrt((one**2).sum(axis=2)) * size[:, None]
        best = np.maximum(best, ((one * usual[:, None]).sum(axis=2) / np.maximum(norm, 1e-4)).mean(axis=0))
    return best.astype(np.float32)
