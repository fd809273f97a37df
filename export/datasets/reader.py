"""Reads annotated WFDB recordings into `Record`s and keeps the prepared ones outside the repository."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.contract import MODEL_FS_HZ, RHYTHMS
from edge.errors import BadInputError
from edge.signal.prepare import prepare, step
from export.datasets import ludb, ptbxl
from export.datasets.folders import data_folder, records_folder
from export.datasets.labels import BEAT, DOUBTED, MORPHOLOGY, RHYTHM
from export.datasets.record import NOT_AF, UNKNOWN, Record
from export.datasets.splits import Part, part

_CACHE_VERSION = 3
_INVALID = {"16": -(2**15), "61": -(2**15), "24": -(2**23), "32": -(2**31), "212": -(2**11), "80": -(2**7)}
"""WFDB's code for a sample that was not recorded, per storage format (header(5))."""
_ARRAYS = ("ecg", "beat_at", "beat", "morphology", "beats_known", "rhythm", "quality")


def names(db: str, which: Part) -> list[str]:
    """Return the records of a database that are present and belong to a part of the split, sorted."""
    folder = records_folder(db)
    if not folder.is_dir():
        raise BadInputError(f"no recordings in {folder}: fetch them with `python -m export.datasets fetch {db}`")
    found = sorted(path.stem for path in folder.glob("*.hea"))
    return [name for name in found if part(db, name) == which]


def load(db: str, which: Part) -> list[Record]:
    """Return every record of a part, from the cache when it has been prepared before."""
    cache = Path.home() / ".cache" / "anyecg" / "prepared" / f"{db}-{which}-v{_CACHE_VERSION}.npz"
    wanted = names(db, which)
    if cache.exists():
        records = list(_unpack(cache, db))
        if [record.name for record in records] == wanted:
            return records
    references = _references(db)
    records = [read(db, name, references) for name in wanted]
    cache.parent.mkdir(parents=True, exist_ok=True)
    _pack(cache, records)
    return records


def digital(db: str, name: str) -> tuple[NDArray[np.int32], list[float], float]:
    """Return samples [leads, n] with digital 0 = 0 mV, µV per LSB, and the sampling rate."""
    read_ = wfdb.rdrecord(str(records_folder(db) / name), physical=False)
    raw = np.asarray(read_.d_signal).T.astype(np.int64)
    invalid = np.array([_INVALID[fmt] for fmt in read_.fmt])[:, None]
    samples = raw - np.array(read_.baseline)[:, None]
    samples[raw == invalid] = MISSING
    return samples.astype(np.int32), [1000.0 / gain for gain in read_.adc_gain], float(read_.fs)


def lead_names(db: str, name: str) -> list[str]:
    """Return what the leads of a recording are called."""
    return list(wfdb.rdheader(str(records_folder(db) / name)).sig_name)


def read(db: str, name: str, references: dict[str, str] | None = None) -> Record:
    """Read, prepare and label one recording."""
    samples, uv_per_lsb, fs_hz = digital(db, name)
    seconds = int(samples.shape[1] / float(step(fs_hz))) // MODEL_FS_HZ
    ecg = prepare(samples, 0, uv_per_lsb, fs_hz, 0, seconds * MODEL_FS_HZ)
    if db == "cinc2017":
        return _cinc2017(name, ecg, seconds, (references or _references(db))[name])
    if db == "ptbxl":
        return ptbxl.record(name, ecg)
    if db == "ludb":
        return ludb.record(name, ecg, fs_hz, wfdb.rdheader(str(records_folder(db) / name)).sig_name)
    notes = wfdb.rdann(str(data_folder() / db / name), "atr")
    at = np.asarray(notes.sample) / float(step(fs_hz))
    symbols = list(notes.symbol)
    is_beat = np.array([symbol in BEAT for symbol in symbols], dtype=bool)
    beats = [symbol for symbol in symbols if symbol in BEAT]
    rhythm, noisy = _rhythms(at, symbols, list(notes.aux_note), seconds)
    if doubted := DOUBTED.get((db, name)):
        rhythm[rhythm == RHYTHM[doubted]] = UNKNOWN
    known = np.full(seconds, db != "vfdb")
    if db == "vfdb":
        known |= rhythm == RHYTHMS.index("ASYS")
    for start, end in _flutter(at, symbols, seconds):
        known[int(start) : int(end) + 1] = False
    inside = at[is_beat] < seconds * MODEL_FS_HZ
    return Record(
        db=db,
        name=name,
        ecg=ecg,
        beat_at=at[is_beat][inside].astype(np.float32),
        beat=np.array([BEAT[s] for s in beats], dtype=np.int8)[inside],
        morphology=np.array([_morphology(db, s) for s in beats], dtype=np.int8)[inside],
        beats_known=known,
        rhythm=rhythm,
        quality=np.where(noisy, 0, 1).astype(np.int8),
    )


def _morphology(db: str, symbol: str) -> int:
    return UNKNOWN if db == "svdb" and symbol == "N" else MORPHOLOGY.get(symbol, UNKNOWN)


def _rhythms(
    at: NDArray[np.float64], symbols: list[str], aux: list[str], seconds: int
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Return rhythm and noise per second, decided at the middle of each second."""
    rhythm = np.full(seconds, UNKNOWN, dtype=np.int8)
    noisy = np.zeros(seconds, dtype=bool)
    middle = (np.arange(seconds) + 0.5) * MODEL_FS_HZ
    for i, symbol in enumerate(symbols):
        name = aux[i].strip("\0 ")
        if symbol != "+" or not name.startswith("("):
            continue
        after = middle >= at[i]
        rhythm[after] = RHYTHM.get(name[1:], UNKNOWN)
        noisy[after] = name == "(NOISE"
    return rhythm, noisy


def _flutter(at: NDArray[np.float64], symbols: list[str], seconds: int) -> Iterator[tuple[float, float]]:
    """Yield the spans between `[` and `]` in seconds."""
    start: float | None = None
    for i, symbol in enumerate(symbols):
        if symbol == "[":
            start = at[i] / MODEL_FS_HZ
        elif symbol == "]" and start is not None:
            yield start, at[i] / MODEL_FS_HZ
            start = None
    if start is not None:
        yield start, float(seconds)


def _references(db: str) -> dict[str, str]:
    """Return the record labels of cinc2017, nothing for the others."""
    if db != "cinc2017":
        return {}
    with (data_folder() / db / "REFERENCE-v3.csv").open(newline="") as file:
        return {row[0]: row[1] for row in csv.reader(file) if row}


def _cinc2017(name: str, ecg: NDArray[np.float32], seconds: int, label: str) -> Record:
    rhythm = {"N": RHYTHMS.index("N"), "A": RHYTHMS.index("AFIB"), "O": NOT_AF, "~": UNKNOWN}[label]
    nothing = np.zeros(0, dtype=np.int8)
    return Record(
        db="cinc2017",
        name=name,
        ecg=ecg,
        beat_at=np.zeros(0, dtype=np.float32),
        beat=nothing,
        morphology=nothing,
        beats_known=np.zeros(seconds, dtype=bool),
        rhythm=np.full(seconds, rhythm, dtype=np.int8),
        quality=np.full(seconds, 0 if label == "~" else 1, dtype=np.int8),
    )


def _pack(path: Path, records: list[Record]) -> None:
    """Write records as a few long arrays; ecg is stored lead after lead."""
    sizes = np.array([[r.ecg.shape[0], r.seconds, r.beat.size] for r in records])
    arrays = {key: np.concatenate([getattr(r, key).ravel() for r in records]) for key in _ARRAYS}
    part_path = path.with_suffix(f".{os.getpid()}.npz")  # several trainings may prepare at once
    waves = [r.wave.ravel() for r in records if r.wave is not None]
    if waves:
        arrays["wave"] = np.concatenate(waves)
    all_names = np.array([r.name for r in records])
    np.savez(part_path, allow_pickle=False, names=all_names, sizes=sizes, **arrays)
    part_path.replace(path)


def _unpack(path: Path, db: str) -> Iterator[Record]:
    with np.load(path) as stored:
        all_names, sizes = stored["names"], stored["sizes"]
        arrays = {key: stored[key] for key in _ARRAYS}
        waves = stored.get("wave", None)
    at = dict.fromkeys(_ARRAYS, 0)
    for name, (leads, seconds, beats) in zip(all_names, sizes.tolist(), strict=True):
        cut = {}
        for key in _ARRAYS:
            size = leads * seconds * MODEL_FS_HZ if key == "ecg" else beats if key in _ARRAYS[1:4] else seconds
            cut[key] = arrays[key][at[key] : at[key] + size]
            at[key] += size
        if waves is not None:
            cut["wave"] = waves[at["ecg"] - cut["ecg"].size : at["ecg"]].reshape(leads, -1)
        cut["ecg"] = cut["ecg"].reshape(leads, -1)
        yield Record(db=db, name=str(name), **cut)
