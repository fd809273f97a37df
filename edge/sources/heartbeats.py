"""When a simulated heart beats, and how: one list of beats per segment of a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edge.sources.script import Segment

FIRST_BEAT_S = 0.4
"""Earliest beat after a stretch without any."""
PVC_COUPLING = 0.6
"""A premature beat comes after this share of the sinus interval, and a full compensatory pause follows it."""
_TACHOGRAM_HZ = 4.0
_REFRACTORY_S = 0.3


class Beat(NamedTuple):
    """One beat of the simulated heart."""

    time_s: float
    """Of the R peak, from the start of the simulation."""
    kind: str
    """N or V."""
    rr_s: float
    """Interval to the beat before, which sets the duration of the QT."""
    has_p: bool


def tachogram(
    rng: np.random.Generator, seconds: float, mean_s: float, sd_s: float, lf_hf: float
) -> Callable[[float], float]:
    """Return the sinus RR interval as a function of time.

    Its spectrum has a low-frequency (0.1 Hz, Mayer) and a high-frequency (0.25 Hz, respiratory) peak of 0.01 Hz
    width with power ratio `lf_hf` and random phases (McSharry et al., IEEE Trans Biomed Eng 2003;50:289-94).
    """
    n = max(64, int(2 ** np.ceil(np.log2((seconds + 10) * _TACHOGRAM_HZ))))
    f = np.fft.rfftfreq(n, 1 / _TACHOGRAM_HZ)
    power = lf_hf * np.exp(-0.5 * ((f - 0.1) / 0.01) ** 2) + np.exp(-0.5 * ((f - 0.25) / 0.01) ** 2)
    series = np.fft.irfft(np.sqrt(power) * np.exp(2j * np.pi * rng.random(f.size)), n)
    series *= sd_s / (series.std() or 1.0)
    times = np.arange(n) / _TACHOGRAM_HZ
    return lambda t: float(np.clip(mean_s + np.interp(t, times, series), _REFRACTORY_S, 4.0))


def beats_of(segment: Segment, start_s: float, last_s: float, rng: np.random.Generator) -> list[Beat]:
    """Return the beats of a segment that begins at `start_s`, the last beat before it being at `last_s`."""
    end_s = start_s + segment.seconds
    p = segment.parameters
    if segment.kind in ("vf", "asystole", "lead_off"):
        return []
    mean_s = 60 / p["hr_bpm"]
    if segment.kind == "vt":
        return _steady(start_s, end_s, last_s, "V", lambda: mean_s * (1 + 0.02 * rng.standard_normal()), coupling=0.6)
    if segment.kind == "af":
        sigma = np.sqrt(np.log1p(p["rr_cv"] ** 2))
        return _steady(
            start_s, end_s, last_s, "N", lambda: max(_REFRACTORY_S, mean_s * rng.lognormal(-(sigma**2) / 2, sigma))
        )
    interval = tachogram(rng, segment.seconds, mean_s, p["rr_sd_s"], p["lf_hf"])
    return _sinus(segment, start_s, end_s, last_s, interval, rng)


def _steady(
    start_s: float, end_s: float, last_s: float, kind: str, interval_s: Callable[[], float], coupling: float = 1.0
) -> list[Beat]:
    beats: list[Beat] = []
    rr_s = interval_s()
    time_s = max(last_s + rr_s * coupling, start_s + (FIRST_BEAT_S if start_s - last_s > 2 else 0))
    while time_s < end_s:
        beats.append(Beat(time_s, kind, rr_s, has_p=False))
        rr_s = interval_s()
        time_s += rr_s
    return beats


def _sinus(
    segment: Segment,
    start_s: float,
    end_s: float,
    last_s: float,
    interval: Callable[[float], float],
    rng: np.random.Generator,
) -> list[Beat]:
    beats: list[Beat] = []
    rr_s = interval(0)
    time_s = max(last_s + rr_s, start_s + (FIRST_BEAT_S if start_s - last_s > 2 else 0))
    pause_s = segment.parameters.get("pause_s")
    normals = 0
    while time_s < end_s:
        beats.append(Beat(time_s, "N", rr_s, has_p=True))
        normals += 1
        rr_s = interval(time_s - start_s)
        if pause_s is not None and time_s - start_s > (segment.seconds - pause_s) / 2:
            time_s += pause_s
            pause_s = None
            continue
        if _ectopic_follows(segment, normals, rng):
            normals = 0
            premature_s = time_s + PVC_COUPLING * rr_s * (1 + 0.03 * rng.standard_normal())
            if premature_s < end_s:
                beats.append(Beat(premature_s, "V", rr_s, has_p=False))
            time_s += rr_s  # the sinus beat that is blocked
        time_s += rr_s
    return beats


def _ectopic_follows(segment: Segment, normals: int, rng: np.random.Generator) -> bool:
    if segment.kind == "bigeminy":
        return True
    return (
        segment.kind == "pvcs" and normals > 1 and rng.random() < 1 / max(1.0, segment.parameters["beats_between"] - 1)
    )
