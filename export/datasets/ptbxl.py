"""PTB-XL: twelve leads of 10 s with SCP-ECG statements for the whole recording, none per beat.

Statements name the rhythm and, for complete bundle branch blocks, pacing and otherwise unremarkable conduction, the
QRS shape of every beat. Beat positions are those on which two detectors' leads agree (xqrs of wfdb, II and V5): they
carry the shape, and are never taught as positions. A T wave passes at times, xqrs having 10 s to learn in: it does no
harm, for shapes are read at R peaks only.
"""

from __future__ import annotations

import ast
import csv
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wfdb.processing import xqrs_detect

from edge.encoder.contract import MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS
from export.datasets.folders import tables_folder
from export.datasets.record import UNKNOWN, Record

_RHYTHM = {
    "PACE": "P",
    "AFIB": "AFIB",
    "AFLT": "AFL",
    "SVTAC": "SVTA",
    **dict.fromkeys(("SR", "SARRH", "SBRAD", "STACH"), "N"),
}
_MORPHOLOGY = {"PACE": "paced", "CLBBB": "LBBB", "CRBBB": "RBBB"}
_UNSURE = frozenset(("PVC", "IRBBB", "ILBBB", "IVCD", "WPW", "PACE"))
_AGREE_S = 0.08


def record(name: str, ecg: NDArray[np.float32]) -> Record:
    """Label one recording; `ecg` [12, time] prepared, in the order of PTB-XL (II is row 1, V5 row 10)."""
    seconds = ecg.shape[1] // MODEL_FS_HZ
    said = statements(name)
    beat_at = _agreed(ecg[1], ecg[10])
    rhythm = next((RHYTHMS.index(to) for code, to in _RHYTHM.items() if code in said), UNKNOWN)
    narrow = UNKNOWN if _UNSURE & said.keys() else MORPHOLOGIES.index("narrow")
    morphology = next((MORPHOLOGIES.index(to) for code, to in _MORPHOLOGY.items() if code in said), narrow)
    return Record(
        db="ptbxl",
        name=name,
        ecg=ecg,
        beat_at=beat_at,
        beat=np.full(beat_at.size, UNKNOWN, dtype=np.int8),
        morphology=np.full(beat_at.size, morphology if "PVC" not in said else UNKNOWN, dtype=np.int8),
        beats_known=np.zeros(seconds, dtype=bool),
        rhythm=np.full(seconds, rhythm, dtype=np.int8),
        quality=np.ones(seconds, dtype=np.int8),
    )


def statements(name: str) -> dict[str, float]:
    """Return the SCP-ECG codes of a recording with their likelihood in per cent (0 = not given)."""
    found: dict[str, float] = ast.literal_eval(rows(tables_folder("ptbxl"))[name]["scp_codes"])
    return found


@cache
def rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return ptbxl_database.csv by the file name of the 100 Hz record."""
    with (folder / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["filename_lr"]).name: row for row in csv.DictReader(file)}


def _agreed(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the R positions of `one` that lie within 80 ms of one of `other`."""
    mine, theirs = (
        np.array(xqrs_detect(np.nan_to_num(lead).astype(np.float64), MODEL_FS_HZ, verbose=False), dtype=np.float32)
        for lead in (one, other)
    )
    if not mine.size or not theirs.size:
        return np.zeros(0, dtype=np.float32)
    near: NDArray[np.bool_] = np.abs(mine[:, None] - theirs[None, :]).min(axis=1) <= _AGREE_S * MODEL_FS_HZ
    return mine[near]
