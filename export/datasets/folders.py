"""Where recordings lie: one folder per database, laid out as on PhysioNet."""

from __future__ import annotations

import os
from pathlib import Path

_RECORDS = {"ludb": "ludb/data", "ptbxl": "ptbxl_500/records100/00000"}


def data_folder() -> Path:
    """Return the folder of all databases: `$ECG_DATA`, else `~/.cache/anyecg/data`."""
    return Path(os.environ.get("ECG_DATA") or Path.home() / ".cache" / "anyecg" / "data")


def records_folder(db: str) -> Path:
    """Return the folder that holds the headers of a database."""
    return data_folder() / _RECORDS.get(db, db)


def tables_folder(db: str) -> Path:
    """Return the folder that holds a database's tables (labels, statements)."""
    return data_folder() / _RECORDS.get(db, db).split("/")[0]
