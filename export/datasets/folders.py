"""Where recordings lie: one folder per database, laid out as on PhysioNet."""

from __future__ import annotations

from pathlib import Path

from edge.sources.data_folder import data_folder

__all__ = ["data_folder", "records_folder", "tables_folder"]

_RECORDS = {"ludb": "ludb/data", "ptbxl": "ptbxl_500/records100/00000"}


def records_folder(db: str) -> Path:
    """Return the folder that holds the headers of a database."""
    return data_folder() / _RECORDS.get(db, db)


def tables_folder(db: str) -> Path:
    """Return the folder that holds a database's tables (labels, statements)."""
    return data_folder() / _RECORDS.get(db, db).split("/")[0]
