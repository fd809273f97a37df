"""The database file: opening, migrating, locking.

One SQLite file in WAL mode. The daemon is the only writer (`StateLock`, `Writer`); everyone else opens it read-only
and is never blocked: a reader sees the last commit before its first statement until it closes its connection.
While a reader holds such a snapshot the WAL cannot be reset, so readers keep a connection for one question, not for
their lifetime; the writer checkpoints and truncates the WAL as soon as they let it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, pool
from sqlalchemy.exc import DatabaseError

from edge.errors import AnyecgError, BadInputError

FILE_NAME = "anyecg.sqlite"
SCHEMA = "0006"
"""The newest migration in `edge/store/migrations`: the schema this code reads and writes."""

PAGE_SIZE = 8192
"""Bytes. Three blocks of a 250 Hz lead at 1 µV fit a page; with 4096 each would fill one alone (`docs/store.md`)."""
WAL_CHECKPOINT_PAGES = 512
WAL_LIMIT_BYTES = 16 * 2**20
"""The WAL file is cut back to at most this after a checkpoint."""


class StoreError(AnyecgError):
    """The database refused (locked, full, damaged); nothing of the failed work was kept."""


OURS = {FILE_NAME, "lock", "config.toml", "devices.toml", "web-tokens.json", "models", "backups"}
"""Any of these tells that a folder is a state folder."""


def _make_private(state: Path) -> None:
    """Close a folder of ours to others; `BadInputError` for one that holds other things too."""
    if not state.stat().st_mode & 0o077:
        return
    names = {path.name for path in state.iterdir()}
    if names and not names & OURS:
        raise BadInputError(
            f"{state} is open to other users and holds other files: chmod 700 {state}, or choose another --state"
        )
    state.chmod(0o700)


class StateLock:
    """The exclusive right to write a state folder, held until `close` or the end of the process."""

    def __init__(self, state: Path) -> None:
        """Take the lock or raise `AnyecgError` naming the holder."""
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(state)
            self._fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BadInputError(
                f"cannot use {state} as state folder: {error.strerror}; choose another --state"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise AnyecgError(
                f"{state} is being written by another anyecg process (pid {holder}): "
                "stop it, or let it do the work (commands use its control socket)"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let go; closing twice does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> StateLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_writable(state: Path) -> Engine:
    """Create or migrate the database in `state`; return an engine whose transactions take the write lock at once.

    The caller holds the `StateLock`. Raises `StoreError` for a file that is damaged, no database, or from a newer
    version of this software.
    """
    path = state / FILE_NAME
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from None
    engine = create_engine(f"sqlite:///{path}", poolclass=pool.NullPool, connect_args={"isolation_level": None})
    event.listen(engine, "connect", _prepare_writer)
    event.listen(engine, "begin", _begin_immediate)
    try:
        with engine.connect() as conn:
            if _version(conn) != SCHEMA:
                _refuse_newer(conn, path)
                _keep_before_upgrade(conn, path)
                _upgrade(conn)
                conn.commit()
    except DatabaseError as error:
        raise StoreError(f"cannot open {path}: {error.orig}") from None
    return engine


def open_readonly(state: Path) -> Engine:
    """Return an engine for readers, in this process or another. Raises `StoreError` if there is nothing to read."""
    path = state / FILE_NAME
    if not path.exists():
        raise StoreError(
            f"no database in {state}: start the gateway (`anyecg run`), import a recording, or choose another --state"
        )
    url = f"sqlite:///file:{path.absolute().as_posix()}?mode=ro&uri=true"
    engine = create_engine(url, connect_args={"isolation_level": None, "timeout": 5.0})
    event.listen(engine, "begin", _begin_deferred)
    try:
        with engine.connect() as conn:
            if _version(conn) != SCHEMA:
                _refuse_newer(conn, path)
                raise StoreError(f"{path} has an older schema: start the gateway once (`anyecg run`) to migrate it")
    except DatabaseError as error:
        engine.dispose()
        raise StoreError(f"cannot read {path}: {error.orig}") from None
    return engine


def truncate_wal(connection: sqlite3.Connection, wait_s: float) -> bool:
    """Bring the WAL into the database and empty it; False if a reader was in the way for `wait_s`."""
    connection.execute(f"PRAGMA busy_timeout={round(wait_s * 1000)}")
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute("PRAGMA busy_timeout=5000")
    return not busy


def _prepare_writer(connection: sqlite3.Connection, _record: Any) -> None:
    for pragma in (
        "busy_timeout=5000",
        f"page_size={PAGE_SIZE}",  # has effect only before the first table, as has auto_vacuum
        "auto_vacuum=INCREMENTAL",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",  # what is deleted is gone from the file, too
        f"wal_autocheckpoint={WAL_CHECKPOINT_PAGES}",
        f"journal_size_limit={WAL_LIMIT_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN")


def _version(conn: Connection) -> str | None:
    if not conn.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").first():
        return None
    version = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if version is None else str(version)


def _refuse_newer(conn: Connection, path: Path) -> None:
    version = _version(conn)
    if version is not None and version > SCHEMA:
        raise StoreError(
            f"{path} was written by a newer anyecg (schema {version}, this one knows {SCHEMA}): "
            "upgrade anyecg-edge, or restore a backup made by this version"
        )


def _keep_before_upgrade(conn: Connection, path: Path) -> None:
    """Copy the file as it is before its schema changes; `anyecg restore` takes the copy. None of it, no migration."""
    version = _version(conn)
    if version is None:
        return
    copy = path.parent / f"before-migration-from-{version}.sqlite"
    fresh = copy.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    try:
        url = f"file:{path.absolute().as_posix()}?mode=ro"
        with (
            closing(sqlite3.connect(url, uri=True)) as source,
            closing(sqlite3.connect(fresh, isolation_level=None)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
            said = target.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise StoreError(f"{path} is not migrated: its copy is not sound ({said}); restore a backup")
        fresh.chmod(0o600)
        os.replace(fresh, copy)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"{path} is not migrated from schema {version}: no copy of it could be made first ({error}); free the disk"
        ) from None
    finally:
        fresh.unlink(missing_ok=True)


def _upgrade(conn: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
