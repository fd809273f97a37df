"""Recordings from PhysioNet, into the layout that the readers expect."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import wfdb

from edge.errors import BadInputError

PTBXL_RECORDS = 500


@dataclass(frozen=True, slots=True)
class Source:
    """Where a database lies on PhysioNet."""

    slug: str
    files: Callable[[], list[str]] | None = None
    """Files to take; None: every record with its annotations."""
    archive: str = ""
    """Zip file among them whose records go straight into the folder."""


def _afdb() -> list[str]:
    return [f"{name}.{kind}" for name in wfdb.get_record_list("afdb") for kind in ("hea", "atr", "qrs")]


def _ptbxl() -> list[str]:
    records = [f"records100/00000/{n:05d}_lr.{kind}" for n in range(1, PTBXL_RECORDS + 1) for kind in ("hea", "dat")]
    return ["ptbxl_database.csv", "scp_statements.csv", "LICENSE.txt", *records]


SOURCES = {
    **{name: Source(name) for name in ("mitdb", "svdb", "vfdb", "nstdb", "ludb")},
    "afdb_ann": Source("afdb", _afdb),
    "cinc2015": Source("challenge-2015", lambda: ["training.zip"], "training.zip"),
    "cinc2017": Source("challenge-2017", lambda: ["training2017.zip", "REFERENCE-v3.csv"], "training2017.zip"),
    "ptbxl_500": Source("ptb-xl", _ptbxl),
}


def fetch(name: str, folder: Path) -> None:
    """Download a database into `folder`; what is there already is not loaded again."""
    source = SOURCES[name]
    folder.mkdir(parents=True, exist_ok=True)
    if source.files is None:
        wfdb.dl_database(source.slug, str(folder))
        return
    wfdb.dl_files(source.slug, str(folder), source.files())
    if source.archive:
        unpack(folder / source.archive, folder)


def unpack(archive: Path, folder: Path) -> None:
    """Put the files of a zip archive into `folder`, whatever folders they lie in there."""
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                name = Path(member.filename).name
                if name and not member.is_dir():
                    (folder / name).write_bytes(packed.read(member))
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{archive} cannot be unpacked: {error}; delete it and fetch again") from None
