"""Recordings on disk: WFDB, EDF/EDF+, CSV and Kardia files, as digital integers on one continuous grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.errors import BadInputError

MAX_SAMPLES = 2**28
"""Most samples (all leads together) one record may hold in memory: 1 GiB, 24 h of 12 leads at 250 Hz."""
MAX_REMARKS = 1_000


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person said at a sample, as an export of ours kept it."""

    sample: int
    kind: Literal["symptom", "note"]
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One recording, whole."""

    name: str
    leads: tuple[str, ...]
    fs_hz: float
    uv_per_lsb: tuple[float, ...]
    """Microvolts per digital unit, one per lead, > 0; digital 0 is 0 mV."""
    samples: NDArray[np.int32]
    """[leads, n] digital values, `edge.chunk.MISSING` where nothing was recorded."""
    start_utc_ns: int | None
    """Start as the file says. Neither format knows time zones: the file's clock is read as UTC."""
    path: Path
    """As given, without a WFDB extension."""
    notes: tuple[str, ...] = ()
    """What was left out or rounded, for a person."""
    remarks: tuple[Remark, ...] = ()
    """At most `MAX_REMARKS`, by sample."""

    @property
    def n(self) -> int:
        """Number of samples per lead."""
        return int(self.samples.shape[1])

    @property
    def duration_s(self) -> float:
        return self.n / self.fs_hz


def read_record(path: str | Path, leads: Sequence[str | int] | None = None) -> Record:
    """Read a WFDB record (path without extension), an EDF/EDF+ file, a CSV file (Apple Watch, or with a layout beside
    it, see `edge.sources.csv_file`) or a Kardia ATC file.

    leads: names or indices; None reads every ECG-like signal at the rate of the first. WFDB values and EDF values
    are digitally lossless, except that EDF's offset is rounded to a whole digital unit (error < 0.5 LSB) and WFDB
    segments of different gains are brought to the finest of them. Holes of EDF+D files and of multi-segment records
    and invalid WFDB samples are MISSING. Declared sizes are checked against the file before anything is allocated.
    Raises BadInputError for a missing, truncated or malformed file and for an unknown lead.
    """
    path = Path(path)
    if path.suffix.lower() == ".edf":
        from edge.sources.edf_file import read_edf

        return read_edf(path, leads)
    if path.suffix.lower() == ".csv":
        from edge.sources.csv_file import read_csv

        return read_csv(path, leads)
    if path.suffix.lower() == ".atc":
        from edge.sources.atc_file import read_atc

        return read_atc(path, leads)
    if path.suffix.lower() in (".hea", ".dat", ".mat", ".atr"):
        path = path.with_suffix("")
    if not path.parent.joinpath(path.name + ".hea").is_file():
        if path.is_file():
            raise BadInputError(
                f"{path}: unknown format; give an .edf, .csv or .atc file, or a WFDB record (path without extension)"
            )
        raise BadInputError(f"{path}: no such record (looked for {path.name}.hea; EDF files need their .edf extension)")
    from edge.sources.wfdb_file import read_wfdb

    return read_wfdb(path, leads)
