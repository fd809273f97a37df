"""What wearables do to an ECG: noise, gain, polarity, hum, other rates, missing spans, dead leads, flat lines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES, MODEL_FS_HZ, RHYTHMS
from edge.signal.prepare import prepare, step
from export.datasets.reader import digital
from export.datasets.record import UNKNOWN

if TYPE_CHECKING:
    from export.encoder.batch import Crop

UNREADABLE_SNR_DB = -3.0
"""Below it a second counts as unreadable and its beats as unknown; up to `READABLE_SNR_DB` quality is undecided."""
READABLE_SNR_DB = 3.0
STANDSTILL_S = 4.0
"""CinC 2015: asystole is no QRS for at least four seconds."""
_FILTER_P = 0.4
_FLAT_P, _VF_P, _BLOCK_P, _NOISE_P, _STRETCH_P, _MISSING_P, _HUM_P, _QUANTISE_P = (
    0.06,
    0.02,
    0.08,
    0.45,
    0.3,
    0.12,
    0.1,
    0.25,
)


@dataclass(frozen=True, slots=True)
class Noise:
    """Prepared noise recordings: baseline wander, electrode motion, muscle; each [2, time] in mV."""

    recordings: tuple[NDArray[np.float32], ...]

    @staticmethod
    def first_halves() -> Noise:
        """Read the first halves of nstdb's bw, em and ma; the second halves are kept for tests."""
        found = []
        for name in ("bw", "em", "ma"):
            samples, uv_per_lsb, fs_hz = digital("nstdb", name)
            half = int(samples.shape[1] / float(step(fs_hz))) // 2
            found.append(prepare(samples, 0, uv_per_lsb, fs_hz, 0, half))
        return Noise(tuple(found))


def spoil(rng: np.random.Generator, crop: Crop, noise: Noise) -> Crop:
    """Return the crop as a wearable might have sent it."""
    if rng.random() < _STRETCH_P:
        crop = _stretch(crop, float(rng.uniform(0.9, 1.1)))
    gain = np.exp(rng.uniform(np.log(0.5), np.log(2.0), (crop.ecg.shape[0], 1)))
    sign = np.where(rng.random((crop.ecg.shape[0], 1)) < 0.15, -1, 1)
    crop = replace(crop, ecg=(crop.ecg * gain * sign).astype(np.float32))
    if rng.random() < _FILTER_P:
        crop = replace(crop, ecg=_filtered(rng, crop.ecg))
    if rng.random() < _FLAT_P:
        crop = _flat(rng, crop)
    elif rng.random() < _VF_P:
        crop = _fibrillating(rng, crop)
    elif rng.random() < _BLOCK_P:
        crop = _blocked(rng, crop)
    if rng.random() < _NOISE_P:
        crop = _noisy(rng, crop, noise)
    if rng.random() < _HUM_P:
        crop = _hum(rng, crop)
    if rng.random() < _QUANTISE_P:
        lsb_mv = float(rng.choice((0.001, 0.005, 0.01)))
        crop = replace(crop, ecg=(np.rint(crop.ecg / lsb_mv) * lsb_mv).astype(np.float32))
    if rng.random() < _MISSING_P:
        crop = _missing(rng, crop)
    if crop.ecg.shape[0] > 1 and rng.random() < 0.15:
        ecg = crop.ecg.copy()
        dead = int(rng.integers(ecg.shape[0]))
        ecg[dead] = np.nan if rng.random() < 0.5 else np.float32(0)
        crop = replace(crop, ecg=ecg)
    return crop


def _filtered(rng: np.random.Generator, ecg: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur or sharpen, and take away slow waves, as other front ends do."""
    blur = np.hanning(int(rng.choice((5, 7, 9))))
    slow = np.ones(int(rng.integers(40, 128)))
    detail, drift = float(rng.uniform(-0.8, 0.6)), float(rng.uniform(0, 0.7))
    out = np.empty_like(ecg)
    for lead, values in enumerate(ecg):
        missing = np.isnan(values)
        x = np.where(missing, np.float32(0), values)
        smooth = np.convolve(x, blur / blur.sum(), "same")
        out[lead] = x + detail * (x - smooth) - drift * np.convolve(x, slow / slow.size, "same")
        out[lead, missing] = np.nan
    return out


def _stretch(crop: Crop, factor: float) -> Crop:
    """Play the crop faster or slower around its start; a strap's clock and other hearts at once."""
    time = crop.ecg.shape[1]
    source = np.arange(time) * factor
    ecg = np.stack([np.interp(source, np.arange(time), lead, right=np.nan) for lead in crop.ecg])
    second = np.minimum(((np.arange(crop.rhythm.size) + 0.5) * factor).astype(int), crop.rhythm.size)
    beyond = second >= crop.rhythm.size
    second[beyond] = 0
    at = crop.beat_at / np.float32(factor)
    keep = at < time
    nearest = np.minimum(np.rint(source).astype(int), time - 1)
    return replace(
        crop,
        ecg=ecg.astype(np.float32),
        wave=np.where(source < time, crop.wave[nearest], UNKNOWN).astype(np.int8),
        beat_at=at[keep],
        beat=crop.beat[keep],
        morphology=crop.morphology[keep],
        beats_known=np.where(beyond, False, crop.beats_known[second]),
        rhythm=np.where(beyond, UNKNOWN, crop.rhythm[second]).astype(np.int8),
        quality=np.where(beyond, UNKNOWN, crop.quality[second]).astype(np.int8),
    )


def _flat(rng: np.random.Generator, crop: Crop) -> Crop:
    """Let the heart stop from some second on: nothing but a little noise is left."""
    seconds = crop.rhythm.size
    start, end = _from_some_second(rng, seconds)
    ecg = crop.ecg.copy()
    span = slice(start * MODEL_FS_HZ, end * MODEL_FS_HZ)
    level = float(rng.choice((0.0, 0.003, 0.01, 0.025)))
    slow = np.convolve(rng.normal(0, 1, (end - start) * MODEL_FS_HZ), np.ones(24) / 24**0.5, "same")
    recorded = ~np.isnan(ecg[:, span])
    ecg[:, span] = np.where(recorded, level * (slow + rng.normal(0, 0.5, slow.size)), np.nan)
    crop = _silenced(crop, ecg, start, end, RHYTHMS.index("ASYS"))
    crop.beats_known[start:end] = True
    return crop


def _fibrillating(rng: np.random.Generator, crop: Crop) -> Crop:
    """Let the ventricles fibrillate from some second on: a few waves of 3-7 Hz, waxing, waning and drifting."""
    start, end = _from_some_second(rng, crop.rhythm.size)
    t = np.arange((end - start) * MODEL_FS_HZ) / MODEL_FS_HZ
    centre = float(rng.uniform(3.0, 7.0))
    wave = np.zeros((crop.ecg.shape[0], t.size))
    for _ in range(int(rng.integers(2, 6))):
        hz = centre * float(rng.uniform(0.7, 1.3)) + float(rng.uniform(0.1, 0.8)) * np.sin(
            2 * np.pi * float(rng.uniform(0.05, 0.4)) * t + float(rng.uniform(0, 6.28))
        )
        swell = 1 + float(rng.uniform(0.2, 0.9)) * np.sin(
            2 * np.pi * float(rng.uniform(0.1, 0.7)) * t + float(rng.uniform(0, 6.28))
        )
        projection = rng.normal(0, 1, (crop.ecg.shape[0], 1))
        wave += projection * swell * np.sin(2 * np.pi * np.cumsum(hz) / MODEL_FS_HZ + float(rng.uniform(0, 6.28)))
    amplitude = np.exp(rng.uniform(np.log(0.15), np.log(1.0)))
    wave *= amplitude / np.maximum(np.abs(wave).max(axis=1, keepdims=True), 1e-6)
    ecg = crop.ecg.copy()
    span = slice(start * MODEL_FS_HZ, end * MODEL_FS_HZ)
    ecg[:, span] = np.where(np.isnan(ecg[:, span]), np.nan, wave + rng.normal(0, 0.01, wave.shape))
    return _silenced(crop, ecg, start, end, RHYTHMS.index("VF"))


def _blocked(rng: np.random.Generator, crop: Crop) -> Crop:
    """Let P waves stand alone: QRS and T of some beats, every second one or all of a span are taken out.

    Standstill of 4 s or more is asystole, whatever the atria do.
    """
    span = np.flatnonzero(crop.beats_known[np.minimum(crop.beat_at // MODEL_FS_HZ, crop.rhythm.size - 1).astype(int)])
    span = span[(crop.beat[span] == BEAT_CLASSES.index("N")) & (crop.beat_at[span] > MODEL_FS_HZ)]
    if span.size < 4:
        return crop
    how = rng.random()
    if how < 0.4:
        lost = span[int(rng.integers(2)) :: 2]
    elif how < 0.7:
        lost = rng.choice(span, size=int(rng.integers(1, 3)), replace=False)
    else:
        first = int(rng.integers(span.size - 3))
        lost = span[first : first + int(rng.integers(3, 12))]
    ecg = crop.ecg.copy()
    before, after = round(0.07 * MODEL_FS_HZ), round(0.4 * MODEL_FS_HZ)
    for at in crop.beat_at[lost].astype(int):
        start, end = at - before, min(at + after, ecg.shape[1] - 1)
        ramp = np.linspace(0, 1, end - start, dtype=np.float32)
        ecg[:, start:end] = ecg[:, start, None] * (1 - ramp) + ecg[:, end, None] * ramp
    gone = np.isin(np.arange(crop.beat_at.size), lost)
    wave = np.full_like(crop.wave, UNKNOWN)
    left = replace(
        crop,
        ecg=ecg,
        beat_at=crop.beat_at[~gone],
        beat=crop.beat[~gone],
        morphology=crop.morphology[~gone],
        wave=wave,
    )
    edges = np.concatenate([[-np.inf], left.beat_at, [np.inf]]) / MODEL_FS_HZ
    second = np.arange(crop.rhythm.size) + 0.5
    i = np.searchsorted(edges, second)
    still = np.minimum(edges[i], crop.rhythm.size) - np.maximum(edges[i - 1], 0) >= STANDSTILL_S
    inside = still & (second - 0.5 > edges[i - 1]) & (second + 0.5 < edges[i]) & crop.beats_known
    return replace(left, rhythm=np.where(inside, RHYTHMS.index("ASYS"), crop.rhythm).astype(np.int8))


def _from_some_second(rng: np.random.Generator, seconds: int) -> tuple[int, int]:
    """Return a span of at least 2 s; half of them last until the end."""
    start = int(rng.integers(0, seconds - 2))
    return start, seconds if rng.random() < 0.5 else int(rng.integers(start + 2, seconds + 1))


def _silenced(crop: Crop, ecg: NDArray[np.floating], start: int, end: int, rhythm: int) -> Crop:
    """Return the crop with another rhythm and no beats in seconds [start, end), and doubt beside them."""
    inside = (crop.beat_at >= (start - 0.3) * MODEL_FS_HZ) & (crop.beat_at < (end + 0.3) * MODEL_FS_HZ)
    seconds = np.arange(crop.rhythm.size)
    within = (seconds >= start) & (seconds < end)
    beside = (seconds == start - 1) | (seconds == end)
    wave = crop.wave.copy()
    wave[max(start - 1, 0) * MODEL_FS_HZ : (end + 1) * MODEL_FS_HZ] = UNKNOWN
    return replace(
        crop,
        ecg=ecg.astype(np.float32),
        beat_at=crop.beat_at[~inside],
        beat=crop.beat[~inside],
        morphology=crop.morphology[~inside],
        beats_known=crop.beats_known & ~within & ~beside,
        rhythm=np.where(within, rhythm, crop.rhythm).astype(np.int8),
        quality=np.where(within, UNKNOWN, crop.quality).astype(np.int8),
        wave=wave,
    )


def _noisy(rng: np.random.Generator, crop: Crop, noise: Noise) -> Crop:
    """Add real noise at a random signal-to-noise ratio to the crop or to a part of it."""
    seconds = crop.rhythm.size
    snr_db = float(rng.uniform(-10, 24))
    start, end = 0, seconds
    if rng.random() < 0.5:
        start = int(rng.integers(0, seconds - 2))
        end = int(rng.integers(start + 2, seconds + 1))
    added = np.zeros_like(crop.ecg)
    for lead in range(crop.ecg.shape[0]):
        recording = noise.recordings[int(rng.integers(len(noise.recordings)))]
        length = (end - start) * MODEL_FS_HZ
        at = int(rng.integers(0, recording.shape[1] - length))
        piece = recording[int(rng.integers(recording.shape[0])), at : at + length]
        rms = float(np.sqrt(np.mean(piece**2))) + 1e-6
        # nst(1): the power of an ECG is an eighth of its squared peak-to-peak QRS amplitude
        signal = _amplitude_mv(crop.ecg[lead]) / 8**0.5
        added[lead, start * MODEL_FS_HZ : end * MODEL_FS_HZ] = piece * (signal / rms * 10 ** (-snr_db / 20))
    touched = np.zeros(seconds, dtype=bool)
    touched[start:end] = True
    quality, known = crop.quality, crop.beats_known
    if snr_db < READABLE_SNR_DB:
        worse = 0 if snr_db < UNREADABLE_SNR_DB else UNKNOWN
        quality = np.where(touched & (quality == 1), worse, quality).astype(np.int8)
    rhythm = crop.rhythm
    if snr_db < UNREADABLE_SNR_DB:
        known = known & ~touched
        rhythm = np.where(touched, UNKNOWN, rhythm).astype(np.int8)
    wave = crop.wave
    if snr_db < READABLE_SNR_DB:
        wave = np.where(np.repeat(touched, MODEL_FS_HZ), UNKNOWN, wave).astype(np.int8)
    return replace(crop, ecg=crop.ecg + added, quality=quality, beats_known=known, rhythm=rhythm, wave=wave)


def _amplitude_mv(lead: NDArray[np.float32]) -> float:
    """Return the median of the seconds' peak-to-peak values, at least 0.1 mV."""
    each = lead[: lead.size // MODEL_FS_HZ * MODEL_FS_HZ].reshape(-1, MODEL_FS_HZ)
    each = each[~np.isnan(each).any(axis=1)]
    return max(float(np.median(np.ptp(each, axis=1))), 0.1) if each.size else 0.1


def _hum(rng: np.random.Generator, crop: Crop) -> Crop:
    """Add what the preparation leaves of powerline hum."""
    t = np.arange(crop.ecg.shape[1]) / MODEL_FS_HZ
    hum = np.sin(2 * np.pi * float(rng.choice((50.0, 60.0))) * t + rng.uniform(0, 6.28))
    return replace(crop, ecg=(crop.ecg + rng.uniform(0, 0.05) * hum).astype(np.float32))


def _missing(rng: np.random.Generator, crop: Crop) -> Crop:
    """Lose a span, or everything before some sample as at the start of a recording."""
    ecg, time = crop.ecg.copy(), crop.ecg.shape[1]
    if rng.random() < 0.4:
        lost = slice(0, int(rng.integers(time // 2)))
    else:
        start = int(rng.integers(time))
        lost = slice(start, start + int(MODEL_FS_HZ * np.exp(rng.uniform(np.log(0.1), np.log(6)))))
    ecg[:, lost] = np.nan
    first, last = lost.start / MODEL_FS_HZ, min(lost.stop, time) / MODEL_FS_HZ
    second = np.arange(crop.rhythm.size)
    gone = (second + 1 > first) & (second < last)
    wave = crop.wave.copy()
    wave[max(lost.start - MODEL_FS_HZ // 4, 0) : lost.stop + MODEL_FS_HZ // 4] = UNKNOWN
    margin = (crop.beat_at < (first - 0.1) * MODEL_FS_HZ) | (crop.beat_at >= (last + 0.1) * MODEL_FS_HZ)
    return replace(
        crop,
        ecg=ecg,
        beat_at=crop.beat_at[margin],
        beat=crop.beat[margin],
        morphology=crop.morphology[margin],
        rhythm=np.where(gone, UNKNOWN, crop.rhythm).astype(np.int8),
        quality=np.where(gone, UNKNOWN, crop.quality).astype(np.int8),
        wave=wave,
    )
