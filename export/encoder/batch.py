"""Training batches: crops of the training records, spoiled the way wearables spoil them, with their frame targets.

Batch `step` depends on the seed and the step alone, so that a resumed training sees what an unbroken one would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_FS_HZ, MODEL_FS_HZ, RHYTHMS, TOKEN_FS_HZ, WAVES
from export.datasets.record import UNKNOWN, Record
from export.encoder.spoil import Noise, spoil

SHARES = {"mitdb": 0.40, "svdb": 0.22, "vfdb": 0.16, "cinc2017": 0.22, "ludb": 0.40, "ptbxl": 0.15}
"""How much of a batch comes from each database, in proportion."""
TEN_SECONDS = ("ludb", "ptbxl")
"""Databases of 10 s: drawn for the shortest crops only."""
LENGTHS_S = (12, 20, 32)
"""Crop lengths; the whole batch has one of them, the shortest in 40 % of the batches."""
BATCH_S = 480
"""ECG seconds per batch."""
TWO_LEADS, TWELVE_LEADS = 0.25, 0.03
"""Share of batches with two and with twelve leads, the latter from the databases that have them."""

MIXED_LEADS = 0.35
"""Share of crops of two-lead records whose leads are mixed at a random angle: a lead that nobody wore."""

_NEAR_FRAMES = 1.5
_BEAT_STEP = MODEL_FS_HZ // BEAT_FS_HZ
_TOKEN_STEP = MODEL_FS_HZ // TOKEN_FS_HZ
_PRIORITY = np.array([1, 4, 5, 3, 2])
"""Which class names a token that holds two beats: N < Q < F < S < V."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the network should say about a batch; a weight or mask of 0 means that the label is unknown."""

    r_peak: NDArray[np.float32]
    """[batch, time/4] Gaussian bumps of one frame's standard deviation."""
    r_peak_mask: NDArray[np.float32]
    beat: NDArray[np.int64]
    """[batch, time/4], −1 away from R peaks."""
    morphology: NDArray[np.int64]
    """[batch, time/4], −1 away from R peaks and where unknown."""
    rhythm: NDArray[np.int64]
    """[batch, seconds], `UNKNOWN` and `NOT_AF` as in `Record`."""
    quality: NDArray[np.int64]
    """[batch, seconds], −1 unknown."""
    token: NDArray[np.int64]
    """[batch, time/32] 0 = no beat, else class + 1; −1 unknown."""
    wave: NDArray[np.int64]
    """[batch, time] index into `WAVES`, −1 unknown."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`ecg` float32 [batch, lead, time] in mV with NaN, and its targets."""

    ecg: NDArray[np.float32]
    targets: Targets


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop on its way: signal and labels on the same clock."""

    ecg: NDArray[np.float32]
    """[lead, time]."""
    beat_at: NDArray[np.float32]
    beat: NDArray[np.int8]
    morphology: NDArray[np.int8]
    beats_known: NDArray[np.bool_]
    rhythm: NDArray[np.int8]
    quality: NDArray[np.int8]
    wave: NDArray[np.int8]
    """[time]."""


class Sampler:
    """Draws crops from the training records: rare beats, rare rhythms and rare labels more often than they occur."""

    def __init__(self, records: Mapping[str, Sequence[Record]], noise: Noise | None, seed: int = 1):
        self._records = {db: list(found) for db, found in records.items() if found}
        self._noise = noise
        self._seed = seed
        self._rare = {db: [_rare(record) for record in found] for db, found in self._records.items()}
        self._af = [i for i, r in enumerate(self._records.get("cinc2017", [])) if (r.rhythm == 1).any()]
        self._bad = [i for i, r in enumerate(self._records.get("cinc2017", [])) if (r.quality == 0).any()]
        self._shaped = {
            db: [i for i, r in enumerate(self._records.get(db, [])) if (r.morphology > 0).any()] for db in TEN_SECONDS
        }

    def batch(self, step: int) -> Batch:
        """Return batch number `step`."""
        rng = np.random.default_rng((self._seed, step))
        length_s = int(rng.choice(LENGTHS_S, p=(0.4, 0.3, 0.3)))
        twelve = [db for db in TEN_SECONDS if db in self._records]
        draw = rng.random()
        leads = 12 if twelve and draw < TWELVE_LEADS else 2 if draw < TWELVE_LEADS + TWO_LEADS else 1
        dbs = [db for db in self._records if (db not in TEN_SECONDS or length_s == LENGTHS_S[0])]
        if leads == 12:
            length_s, dbs = LENGTHS_S[0], twelve
        share = np.array([SHARES[db] for db in dbs])
        crops = []
        for db in rng.choice(dbs, size=BATCH_S // (length_s * leads), p=share / share.sum()):
            crop = self._crop(rng, str(db), length_s, leads)
            crops.append(crop if self._noise is None else spoil(rng, crop, self._noise))
        return Batch(np.stack([crop.ecg for crop in crops]), _targets(crops, length_s))

    def _crop(self, rng: np.random.Generator, db: str, length_s: int, leads: int) -> Crop:
        i = int(rng.integers(len(self._records[db])))
        draw = rng.random()
        if db == "cinc2017" and self._af and draw < 0.3:
            i = int(rng.choice(self._af))
        elif db == "cinc2017" and self._bad and draw > 0.85:
            i = int(rng.choice(self._bad))
        elif db in TEN_SECONDS and self._shaped[db] and draw < 0.3:
            i = int(rng.choice(self._shaped[db]))
        record, rare = self._records[db][i], self._rare[db][i]
        start = int(rng.integers(-length_s // 4, max(record.seconds - length_s // 2, 1)))
        if rare and rng.random() < 0.5:
            start = int(rng.choice(rare[int(rng.integers(len(rare)))])) - int(rng.integers(0, length_s))
        if rng.random() < 0.03:
            start = -int(rng.integers(0, length_s // 2))
        if db in TEN_SECONDS:
            start = -int(rng.integers(0, 3))
        order = rng.permutation(record.ecg.shape[0])
        crop = crop_of(record, order[:leads], start, length_s, leads)
        mixable = record.wave is None and order.size > 1 and leads <= 2
        if self._noise is not None and mixable and rng.random() < MIXED_LEADS:
            both = crop_of(record, order[:2], start, length_s, 2).ecg
            angle = rng.uniform(0, 2 * np.pi, (leads, 1))
            crop = replace(crop, ecg=(np.cos(angle) * both[:1] + np.sin(angle) * both[1:]).astype(np.float32))
        return crop


def crop_of(record: Record, order: NDArray[np.int64], start: int, length_s: int, leads: int) -> Crop:
    """Cut seconds [start, start + length_s) of the leads in `order`; what lies outside the record is missing."""
    first, last = max(start, 0), min(start + length_s, record.seconds)
    ecg = np.full((leads, length_s * MODEL_FS_HZ), np.nan, dtype=np.float32)
    at = (first - start) * MODEL_FS_HZ
    piece = record.ecg[order, first * MODEL_FS_HZ : last * MODEL_FS_HZ]
    ecg[: piece.shape[0], at : at + piece.shape[1]] = piece
    wave = np.full(ecg.shape[1], UNKNOWN, dtype=np.int8)
    if record.wave is not None:
        wave[at : at + piece.shape[1]] = _majority(record.wave[order, first * MODEL_FS_HZ : last * MODEL_FS_HZ])

    def seconds(values: NDArray[np.int8], outside: int) -> NDArray[np.int8]:
        out = np.full(length_s, outside, dtype=values.dtype)
        out[first - start : last - start] = values[first:last]
        return out

    inside = (record.beat_at >= start * MODEL_FS_HZ) & (record.beat_at < (start + length_s) * MODEL_FS_HZ)
    known = np.zeros(length_s, dtype=bool)
    known[first - start : last - start] = record.beats_known[first:last]
    return Crop(
        ecg=ecg,
        beat_at=record.beat_at[inside] - start * MODEL_FS_HZ,
        beat=record.beat[inside],
        morphology=record.morphology[inside],
        beats_known=known,
        rhythm=seconds(record.rhythm, UNKNOWN),
        quality=seconds(record.quality, UNKNOWN),
        wave=wave,
    )


def _majority(wave: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return what more than half of the leads say of each sample, `UNKNOWN` where they do not agree."""
    votes = np.stack([(wave == i).sum(axis=0) for i in range(len(WAVES))])
    return np.where(2 * votes.max(axis=0) > wave.shape[0], votes.argmax(axis=0), UNKNOWN).astype(np.int8)


def _rare(record: Record) -> list[NDArray[np.int64]]:
    """Return the seconds worth seeing more often: those of ectopic beats, and of each rhythm but N and paced."""
    ectopic = record.beat_at[np.isin(record.beat, (1, 2, 3))] // MODEL_FS_HZ
    found = [ectopic.astype(np.int64)]
    if record.db in ("mitdb", "vfdb"):
        found += [np.flatnonzero(record.rhythm == i) for i, name in enumerate(RHYTHMS) if name not in ("N", "P")]
    return [seconds for seconds in found if seconds.size]


def _targets(crops: Sequence[Crop], length_s: int) -> Targets:
    frames, tokens = length_s * BEAT_FS_HZ, length_s * TOKEN_FS_HZ
    r_peak = np.zeros((len(crops), frames), dtype=np.float32)
    mask = np.zeros_like(r_peak)
    beat = np.full((len(crops), frames), -1, dtype=np.int64)
    morphology = np.full((len(crops), frames), -1, dtype=np.int64)
    token = np.full((len(crops), tokens), -1, dtype=np.int64)
    wave = np.full((len(crops), length_s * MODEL_FS_HZ), UNKNOWN, dtype=np.int64)
    centre = np.arange(frames)
    for row, crop in enumerate(crops):
        known = np.repeat(crop.beats_known, BEAT_FS_HZ)
        mask[row] = known
        wave[row] = crop.wave
        known_token = np.repeat(crop.beats_known, TOKEN_FS_HZ)
        token[row, known_token] = 0
        if crop.beat_at.size == 0:
            continue
        at = (crop.beat_at - (_BEAT_STEP - 1) / 2) / _BEAT_STEP
        nearest = np.abs(centre[:, None] - at[None, :]).argmin(axis=1)
        distance = centre - at[nearest]
        r_peak[row] = np.exp(-(distance**2) / 2)
        near = np.abs(distance) <= _NEAR_FRAMES
        morphology[row, near] = crop.morphology[nearest[near]]
        near &= known
        beat[row, near] = crop.beat[nearest[near]]
        slot = np.minimum((crop.beat_at // _TOKEN_STEP).astype(np.int64), tokens - 1)
        for i in np.argsort(_PRIORITY[crop.beat], kind="stable"):
            if known_token[slot[i]]:
                token[row, slot[i]] = UNKNOWN if crop.beat[i] == UNKNOWN else crop.beat[i] + 1
    return Targets(
        r_peak=r_peak,
        r_peak_mask=mask,
        beat=beat,
        morphology=morphology,
        rhythm=np.stack([crop.rhythm for crop in crops]).astype(np.int64),
        quality=np.stack([crop.quality for crop in crops]).astype(np.int64),
        token=token,
        wave=wave,
    )
