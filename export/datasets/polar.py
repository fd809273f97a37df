"""The Polar H10 recording (CSV from the R package detectPVC) as a WFDB record: 130 Hz, 1 µV per LSB."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import wfdb

from edge.errors import BadInputError

FS_HZ = 130
RECORD = "polar_h10"


def convert(source: Path, folder: Path) -> Path:
    """Write `polar_h10.dat` and `.hea` into `folder`; return the record's path without extension.

    The CSV has a column `ecg` in mV, one row per sample. `BadInputError` names the row that cannot be read.
    """
    values = []
    with source.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                values.append(float(row["ecg"]))
            except (KeyError, TypeError, ValueError):
                raise BadInputError(
                    f"{source} line {number}: column `ecg` is missing or no number; expected the Polar H10 CSV with "
                    "time (ns) and ecg (mV)"
                ) from None
    if not values:
        raise BadInputError(f"{source} holds no samples")
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        RECORD,
        fs=FS_HZ,
        units=["mV"],
        sig_name=["ECG"],
        d_signal=np.rint(np.array(values) * 1000).astype(np.int64)[:, None],
        fmt=["16"],
        adc_gain=[1000.0],
        baseline=[0],
        comments=["Polar H10, one wearer with PVCs; MIT, package detectPVC"],
        write_dir=str(folder),
    )
    return folder / RECORD
