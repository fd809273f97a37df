"""Copies of the database and the configuration that were read back before they count.

A backup is a folder `<UTC>` with `anyecg.sqlite`, `config.toml`, `devices.toml` and the manifest `backup.json`. It is
taken beside a running gateway, from one snapshot, and never blocks it. Verified means: SQLite's integrity check, every
foreign key, the row counts of the snapshot, and the checksum of every block of signal; the manifest then holds the
sha256 of each file. Secrets (passwords, keys, tokens) are not in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from edge import __version__
from edge.errors import AnyecgError, BadInputError
from edge.store import codec
from edge.store.database import FILE_NAME, StateLock, StoreError
from edge.store.tables import metadata

MANIFEST = "backup.json"
ALONG = ("config.toml", "devices.toml")
PARTIAL = ".partial-"
MAX_MANIFEST_BYTES = 1_000_000
MB = 2**20


@dataclass(frozen=True, slots=True)
class Backup:
    """What a manifest says."""

    folder: Path
    created_ns: int
    version: str
    schema: str
    rows: dict[str, int]
    damaged_blocks: int
    """Blocks of signal that were unreadable already when the copy was taken."""
    sha256: dict[str, str] = field(default_factory=dict)
    """File → digest."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def make_backup(state: Path, folder: Path, *, keep: int, now_ns: int) -> Backup:
    """Copy the database of `state` into a new folder below `folder`, verify it, and let go of all but `keep` backups.

    Older ones stay if the new one holds damaged blocks. Raises `StoreError` if there is no database, no room, or the
    copy is not what was copied; nothing is left of such an attempt.
    """
    source = state / FILE_NAME
    if not source.exists():
        raise StoreError(f"no database in {state}: start the gateway (`anyecg run`) or choose another --state")
    name = datetime.fromtimestamp(now_ns / 1e9, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    partial, final = folder / f"{PARTIAL}{name}", folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(left)
        if final.exists():
            raise AnyecgError(f"{final} exists already: wait a second")
        _check_room(source, folder)
        partial.mkdir(mode=0o700)
        rows = copy_database(source, partial / FILE_NAME)
        damaged = verify_database(partial / FILE_NAME, rows)
        for along in ALONG:
            if (state / along).is_file():
                shutil.copyfile(state / along, partial / along)
        schema = _schema(partial / FILE_NAME)
        digests = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
        found = Backup(final, now_ns, __version__, schema, rows, damaged, digests)
        (partial / MANIFEST).write_text(json.dumps(found.as_json(), indent=1) + "\n")
        for path in partial.iterdir():
            path.chmod(0o600)
            _sync(path)
        partial.rename(final)
        _sync(folder)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"backup of {source} to {folder} failed: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not damaged:
        for old in backups(folder)[keep:]:
            shutil.rmtree(old.folder)
    return found


def backups(folder: Path) -> list[Backup]:
    """Return the backups below `folder` by their manifests, newest first; what is none is left out."""
    found = []
    for path in folder.glob(f"*/{MANIFEST}"):
        try:
            found.append(read_manifest(path.parent))
        except AnyecgError:
            continue
    return sorted(found, key=lambda backup: backup.created_ns, reverse=True)


def read_manifest(folder: Path) -> Backup:
    """Return what the manifest of a backup says. Raises `BadInputError` if there is none that can be read."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError("too large")
        values = json.loads(path.read_text())
        return Backup(**{**values, "folder": folder})
    except (OSError, ValueError, TypeError) as error:
        raise BadInputError(f"{folder} is no backup: {path.name} cannot be read ({error})") from None


def verify_backup(backup: Backup) -> None:
    """Read a backup back. Raises `StoreError` naming the file that is not what was written."""
    for name, digest in backup.sha256.items():
        path = backup.folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise StoreError(f"{path} is missing or not what was written: take an older backup")
    verify_database(backup.folder / FILE_NAME, backup.rows)


def restore(state: Path, source: Path, *, with_config: bool, now_ns: int) -> dict[str, Any]:
    """Put a backup (its folder, or a bare SQLite file) in the place of the database; the old one is moved aside.

    The gateway must be stopped. Raises `AnyecgError` if it runs or the backup is damaged; nothing has changed then.
    """
    bare = source.is_file()
    if bare:
        if verify_database(source, None):
            raise StoreError(f"{source} holds damaged signal: take another backup")
    else:
        verify_backup(read_manifest(source))
    with StateLock(state):
        fresh = state / f".restoring-{FILE_NAME}"
        try:
            shutil.copyfile(source if bare else source / FILE_NAME, fresh)
            fresh.chmod(0o600)
            _sync(fresh)
            aside = set_aside(state, "replaced", now_ns)
            fresh.rename(state / FILE_NAME)
            copied = []
            for name in ALONG if not bare else ():
                if (source / name).is_file() and (with_config or not (state / name).exists()):
                    shutil.copyfile(source / name, state / name)
                    copied.append(name)
            _sync(state)
        except OSError as error:
            raise StoreError(f"cannot restore into {state}: {error}") from None
        finally:
            fresh.unlink(missing_ok=True)
    return {"restored": str(source), "aside": None if aside is None else str(aside), "also": copied}


def set_aside(state: Path, kind: str, now_ns: int) -> Path | None:
    """Move the database with its WAL into a folder `<kind>-<UTC>`; return it, None if there was no database."""
    files = [path for end in ("", "-wal", "-shm") if (path := state / f"{FILE_NAME}{end}").exists()]
    if not files:
        return None
    folder = state / f"{kind}-{datetime.fromtimestamp(now_ns / 1e9, UTC).strftime('%Y-%m-%dT%H-%M-%S.%fZ')}"
    folder.mkdir(mode=0o700)
    for path in files:
        path.rename(folder / path.name)
    return folder


def copy_database(source: Path, target: Path) -> dict[str, int]:
    """Copy a database that may be in use from one snapshot; return the rows of each table in it."""
    with closing(sqlite3.connect(f"file:{source.absolute().as_posix()}?mode=ro", uri=True)) as reader:
        reader.isolation_level = None
        reader.execute("BEGIN")
        rows = _rows(reader)  # begins the snapshot
        with closing(sqlite3.connect(target, isolation_level=None)) as writer:
            reader.backup(writer)
            writer.execute("PRAGMA journal_mode=DELETE")  # one file, no WAL beside it
    target.chmod(0o600)
    return rows


def verify_database(path: Path, rows: dict[str, int] | None) -> int:
    """Check a database nobody uses; return how many blocks of signal in it are damaged.

    rows: of each table, None: not known. Raises `StoreError` if the file is not sound.
    """
    try:
        with closing(sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=ro&immutable=1", uri=True)) as conn:
            said = [row[0] for row in conn.execute("PRAGMA integrity_check(3)")]
            if said != ["ok"]:
                raise StoreError(f"{path} is damaged: {said[0]}")
            if (orphan := conn.execute("PRAGMA foreign_key_check").fetchone()) is not None:
                raise StoreError(f"{path} is damaged: a row of {orphan[0]} belongs to no {orphan[2]}")
            found = _rows(conn)
            if "recording" not in found:
                raise StoreError(f"{path} is a database, but none of this gateway")
            if rows is not None and found != rows:
                raise StoreError(f"{path} has other rows than what was copied: {found}, not {rows}")
            return sum(not is_sound(data) for (data,) in conn.execute("SELECT data FROM block"))
    except sqlite3.Error as error:
        raise StoreError(f"{path} is damaged: {error}") from None


def is_sound(block: object) -> bool:
    """Return whether a block of signal decodes to what its checksum says."""
    try:
        codec.decode(block if isinstance(block, bytes) else b"")
    except StoreError:
        return False
    return True


def _rows(conn: sqlite3.Connection) -> dict[str, int]:
    there = {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    tables = [table for table in metadata.sorted_tables if table.name in there]
    counts = {table.name: str(select(func.count()).select_from(table)) for table in tables}
    return {name: int(conn.execute(count).fetchone()[0]) for name, count in counts.items()}


def _schema(path: Path) -> str:
    with closing(sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=ro", uri=True)) as conn:
        return str(conn.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _check_room(source: Path, folder: Path) -> None:
    needed = sum(path.stat().st_size for path in source.parent.glob(f"{source.name}*"))
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < needed + 16 * MB:
        raise StoreError(
            f"no room for a backup in {folder}: {needed / MB:.0f} MB needed, {free / MB:.0f} MB free; "
            "set backup.folder to another disk"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
