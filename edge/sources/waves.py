"""What a simulated electrode sees, in mV: the waves of beats, fibrillation and noise.

Beats are sums of Gaussians as on the limit cycle of ECGSYN (McSharry et al., IEEE Trans Biomed Eng 2003;50:289-94),
written in closed form: one Gaussian per wave at its time from the R peak, P and T scaled with the square root of the
RR interval. Ventricular beats are wide with a discordant T and no P.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge.sources.heartbeats import Beat

Signal = NDArray[np.float64]

_NORMAL_QRS = ((-0.036, -0.12, 0.009), (0.0, 1.05, 0.0115), (0.034, -0.24, 0.010))
"""Offset from R in s, amplitude in mV, standard deviation in s."""
_NORMAL_P = (-0.17, 0.13, 0.022)
_NORMAL_T = ((0.25, 0.14, 0.05), (0.285, 0.20, 0.032))
_WIDE_QRS = ((-0.05, 0.25, 0.025), (0.0, 1.45, 0.034), (0.075, 0.25, 0.03), (0.13, -0.35, 0.03))
_WIDE_T = ((0.30, -0.42, 0.055),)
_RESPIRATION_HZ = 0.25


def beats_mv(beats: Iterable[Beat], n: int, fs_hz: float) -> Signal:
    """Return the sum of all beats' waves [n]."""
    signal = np.zeros(n)
    for beat in beats:
        stretch = float(np.clip(np.sqrt(beat.rr_s), 0.55, 1.25))
        late = [(o * stretch, a, s * stretch) for o, a, s in (_NORMAL_T if beat.kind == "N" else _WIDE_T)]
        waves = [*(_NORMAL_QRS if beat.kind == "N" else _WIDE_QRS), *late]
        if beat.has_p:
            offset, amplitude, sd = _NORMAL_P
            waves.append((offset * stretch, amplitude, sd))
        breath = 1 + 0.04 * np.sin(2 * np.pi * _RESPIRATION_HZ * beat.time_s)
        for offset, amplitude, sd in waves:
            centre = beat.time_s + offset
            low = max(0, int((centre - 5 * sd) * fs_hz))
            high = max(low, min(n, int((centre + 5 * sd) * fs_hz) + 2))
            t = np.arange(low, high) / fs_hz - centre
            signal[low:high] += breath * amplitude * np.exp(-0.5 * (t / sd) ** 2)
    return signal


def f_waves_mv(rng: np.random.Generator, n: int, fs_hz: float, f_hz: float) -> Signal:
    """Return atrial fibrillatory waves [n]: a sawtooth of three harmonics whose rate and size drift.

    Model of Stridh & Sörnmo, IEEE Trans Biomed Eng 2001;48:105-11, here with random instead of sinusoidal drift.
    """
    phase = 2 * np.pi * np.cumsum(f_hz + 0.4 * slow(rng, n, fs_hz, 0.3)) / fs_hz
    size = 0.07 * (1 + 0.3 * slow(rng, n, fs_hz, 0.2))
    return np.asarray(-size * (np.sin(phase) + np.sin(2 * phase) / 2 + np.sin(3 * phase) / 3))


def fibrillation_mv(rng: np.random.Generator, n: int, fs_hz: float, f_hz: float, mv: float) -> Signal:
    """Return ventricular fibrillation [n]: disorganised oscillation at 3 to 6 Hz that waxes and wanes.

    In 26 people out of hospital the dominant frequency was 4.6 ± 1.0 Hz (defibrillated) or 3.3 ± 1.6 Hz and the
    amplitude 1.33 ± 0.44 or 1.15 ± 0.69 mV (Chest 1997;111:584-9).
    """
    total = np.zeros(n)
    for share, detune in ((1.0, 0.0), (0.6, 0.8), (0.4, -0.9)):
        rate = np.clip(f_hz + detune + 0.7 * slow(rng, n, fs_hz, 0.8), 3.0, 6.0)
        phase = 2 * np.pi * (np.cumsum(rate) / fs_hz + rng.random())
        total += share * (1 + 0.5 * slow(rng, n, fs_hz, 0.7)) * np.sin(phase)
    return np.asarray(total * mv / 2 / (np.sqrt(2) * total.std() or 1.0))


def noise_mv(
    rng: np.random.Generator, n: int, fs_hz: float, emg_mv: float, wander_mv: float, motion_mv: float
) -> Signal:
    """Return muscle noise (white, standard deviation `emg_mv`), baseline wander and electrode motion [n].

    Motion is steps of random size, about one in two seconds, that decay within 0.4 s.
    """
    steps = (rng.random(n) < 0.5 / fs_hz) * rng.standard_normal(n) * motion_mv
    decay = np.exp(-np.arange(int(2 * fs_hz)) / (0.4 * fs_hz))
    motion = np.convolve(steps, decay)[:n]
    return np.asarray(emg_mv * rng.standard_normal(n) + wander_mv * slow(rng, n, fs_hz, 0.3) + motion)


def slow(rng: np.random.Generator, n: int, fs_hz: float, bandwidth_hz: float) -> Signal:
    """Return noise of about unit standard deviation without anything much faster than `bandwidth_hz` [n]."""
    step = fs_hz / (2 * bandwidth_hz)
    knots = rng.standard_normal(int(n / step) + 3)
    at = np.arange(n) / step
    left = at.astype(np.intp)
    blend = 0.5 - 0.5 * np.cos(np.pi * (at - left))
    return np.asarray(1.15 * (knots[left] * (1 - blend) + knots[left + 1] * blend))
