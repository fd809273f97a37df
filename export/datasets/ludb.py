"""LUDB: P, QRS and T delineated by cardiologists in each of twelve leads, with diagnoses per recording.

Only the middle cycles of a recording are annotated; outside them waves and beats are unknown. Beats have a position
but no AAMI class. Diagnoses come from ludb.csv: complete bundle branch blocks and ventricular pacing name the QRS
shape of the whole recording; incomplete blocks, unspecified delays, unspecified pacing and ventricular extrasystoles
leave it unknown.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray

from edge.encoder.contract import MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS, WAVES
from export.datasets.folders import records_folder, tables_folder
from export.datasets.record import UNKNOWN, Record

_SYMBOL = {"p": "P", "N": "QRS", "t": "T"}
_ATRIAL = {"Atrial fibrillation": "AFIB", "Atrial flutter": "AFL"}
_BLOCKS = {"Complete left bundle branch block": "LBBB", "Complete right bundle branch block": "RBBB"}
_UNSURE = ("ncomplete", "Non-specific intravintricular", "Aberrant")


def record(name: str, ecg: NDArray[np.float32], fs_hz: float, leads: list[str]) -> Record:
    """Label one recording; `ecg` [leads, time] prepared, `leads` the names that the annotation files end with."""
    seconds = ecg.shape[1] // MODEL_FS_HZ
    wave = np.full(ecg.shape, UNKNOWN, dtype=np.int8)
    peaks: list[NDArray[np.float64]] = []
    spans: list[tuple[float, float]] = []
    for row, lead in enumerate(leads):
        found = wfdb.rdann(str(records_folder("ludb") / name), lead.lower())
        at = np.asarray(found.sample) * (MODEL_FS_HZ / fs_hz)
        wave[row, int(at[0]) : int(at[-1])] = WAVES.index("none")
        symbols = list(found.symbol)
        for i, symbol in enumerate(symbols):
            if symbol in _SYMBOL and symbols[max(i - 1, 0)] == "(" and symbols[min(i + 1, len(symbols) - 1)] == ")":
                # sample k stands for [k − ½, k + ½): a wave covers the samples whose centres lie within it
                wave[row, int(np.ceil(at[i - 1])) : int(np.floor(at[i + 1])) + 1] = WAVES.index(_SYMBOL[symbol])
        peaks.append(at[np.array(symbols) == "N"])
        spans.append((float(at[0]), float(at[-1])))
    beat_at = _median_peaks(peaks)
    first, last = max(start for start, _ in spans), min(end for _, end in spans)
    second = np.arange(seconds)
    rhythm, morphology = _diagnosis(tables_folder("ludb") / "ludb.csv", name)
    return Record(
        db="ludb",
        name=name,
        ecg=ecg,
        beat_at=beat_at.astype(np.float32),
        beat=np.full(beat_at.size, UNKNOWN, dtype=np.int8),
        morphology=np.full(beat_at.size, morphology, dtype=np.int8),
        beats_known=(second * MODEL_FS_HZ >= first) & ((second + 1) * MODEL_FS_HZ <= last),
        rhythm=np.full(seconds, rhythm, dtype=np.int8),
        quality=np.ones(seconds, dtype=np.int8),
        wave=wave,
    )


def _median_peaks(peaks: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the median over the leads of each QRS peak that at least half of the leads have."""
    every = np.sort(np.concatenate(peaks))
    groups = np.split(every, np.flatnonzero(np.diff(every) > 0.15 * MODEL_FS_HZ) + 1)
    return np.array([np.median(group) for group in groups if 2 * group.size >= len(peaks)])


def _diagnosis(path: Path, name: str) -> tuple[int, int]:
    """Return rhythm and morphology of a recording."""
    row = _rows(path)[name]
    pacing = row["Cardiac pacing"].strip()
    if pacing:
        ventricular = "ventricular pacing" in pacing or "P-synchrony" in pacing
        paced = (RHYTHMS.index("P"), MORPHOLOGIES.index("paced"))
        return paced if ventricular else (UNKNOWN, UNKNOWN)
    conduction = row["Conduction abnormalities"]
    rhythm = next((to for said, to in _ATRIAL.items() if said in row["Rhythms"]), "N")
    morphology = next((MORPHOLOGIES.index(to) for said, to in _BLOCKS.items() if said in conduction), None)
    if morphology is None:
        unsure = any(said in conduction + row["Rhythms"] for said in _UNSURE)
        morphology = UNKNOWN if unsure or "Ventricular" in row["Extrasystolies"] else MORPHOLOGIES.index("narrow")
    return RHYTHMS.index(rhythm), morphology


@cache
def _rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["ID"].strip(): row for row in csv.DictReader(file)}
