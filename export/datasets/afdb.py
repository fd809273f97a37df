"""MIT-BIH AF without its signals: where the beats are and which rhythm they belong to, 250 hours of 25 people.

For what follows from RR intervals alone. `python -m export.datasets regular` checks with it the limit below which the
gateway takes a pulse for regular and reads AFIB as N (`rules.rhythm.regular`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray

from edge.encoder.contract import RHYTHMS
from edge.errors import BadInputError
from edge.rhythm.heart import RECENT
from export.datasets.folders import records_folder
from export.datasets.labels import RHYTHM
from export.datasets.record import UNKNOWN

DB = "afdb_ann"
_LONGEST_RR_S = 3.0


@dataclass(frozen=True, slots=True)
class Pulse:
    """The beats of one record."""

    name: str
    at_s: NDArray[np.float64]
    """[beats], ascending."""
    rhythm: NDArray[np.int8]
    """[beats] index into `RHYTHMS`, `UNKNOWN` before the first mark and in junctional rhythm."""


def names() -> list[str]:
    """Return the records that are present, sorted. Raises `BadInputError` when there are none."""
    found = sorted(path.stem for path in records_folder(DB).glob("*.qrs"))
    if not found:
        raise BadInputError(
            f"no records in {records_folder(DB)}: fetch them with `python -m export.datasets fetch {DB}`"
        )
    return found


def read(name: str) -> Pulse:
    """Read one record: beats from the `.qrs` file, rhythm from the marks of the `.atr` file, which carry forward."""
    path = str(records_folder(DB) / name)
    beats, marks = wfdb.rdann(path, "qrs"), wfdb.rdann(path, "atr")
    fs_hz = float(wfdb.rdheader(path).fs)
    rhythm = np.full(len(beats.sample), UNKNOWN, dtype=np.int8)
    for at, aux in zip(marks.sample, marks.aux_note, strict=True):
        rhythm[np.searchsorted(beats.sample, at) :] = RHYTHM.get(aux.strip("\0 ").removeprefix("("), UNKNOWN)
    return Pulse(name, np.asarray(beats.sample) / fs_hz, rhythm)


def irregularity(pulse: Pulse) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return RMSSD / mean of every ten RR intervals in a row, and their rhythm, where all of one are of one."""
    rr_s = np.diff(pulse.at_s)
    windows = np.lib.stride_tricks.sliding_window_view(rr_s, RECENT)
    steps = np.diff(windows, axis=1)
    ratio = np.sqrt((steps**2).mean(axis=1)) / windows.mean(axis=1)
    of = np.lib.stride_tricks.sliding_window_view(pulse.rhythm, RECENT + 1)
    whole = (of == of[:, :1]).all(axis=1) & (of[:, 0] != UNKNOWN) & (windows.max(axis=1) <= _LONGEST_RR_S)
    return ratio[whole], of[whole, 0]


def regular(limit: float) -> Mapping[str, Any]:
    """Return the share of AF windows that `limit` takes for regular, and of others, in all and per record."""
    each = {}
    totals = np.zeros(4, dtype=np.int64)
    for name in names():
        ratio, rhythm = irregularity(read(name))
        is_af = rhythm == RHYTHMS.index("AFIB")
        below = ratio < limit
        counts = np.array([(below & is_af).sum(), is_af.sum(), (below & ~is_af).sum(), (~is_af).sum()])
        each[name] = counts.tolist()
        totals += counts
    af, all_af, other, all_other = totals.tolist()
    return {
        "limit": limit,
        "af_windows": all_af,
        "af_taken_for_regular": af / max(all_af, 1),
        "other_windows": all_other,
        "other_taken_for_regular": other / max(all_other, 1),
        "per_record": each,
    }
