"""The database file: schema, versions, locks, readers."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from schema_kit import GOLDEN, MIGRATIONS, schema_sql
from sqlalchemy import create_engine, insert, select
from sqlalchemy.exc import OperationalError

from edge.errors import AnyecgError
from edge.store import database
from edge.store.database import FILE_NAME, StateLock, StoreError, open_readonly, open_writable
from edge.store.tables import health, metadata


def _set_version(state: Path, version: str) -> None:
    with sqlite3.connect(state / FILE_NAME) as conn:
        conn.execute("UPDATE alembic_version SET version_num = ?", (version,))
    conn.close()


def _columns(sql: str) -> dict[str, list[str]]:
    """Statements without the order of their constraints, which is not the same in Alembic and SQLAlchemy."""
    statements = (s.strip() for s in sql.split(";\n"))
    return {s.splitlines()[0]: sorted(line.strip().rstrip(",") for line in s.splitlines()) for s in statements if s}


def test_an_empty_file_is_migrated_to_the_golden_schema(tmp_path: Path) -> None:
    with open_writable(tmp_path).connect() as conn:
        assert schema_sql(conn) == GOLDEN.read_text(), "run `python tests/schema_kit.py` (and read its docstring)"


def test_migrations_and_tables_agree(tmp_path: Path) -> None:
    with create_engine("sqlite://").connect() as conn:
        metadata.create_all(conn)
        declared = schema_sql(conn)
    assert _columns(GOLDEN.read_text()) == _columns(declared), "edge.store.tables changed without a migration"


def test_the_code_knows_its_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == database.SCHEMA


def test_data_outlives_opening_again(tmp_path: Path) -> None:
    with open_writable(tmp_path).begin() as conn:
        conn.execute(insert(health).values(key="a", value=1, updated_ns=2))
    with open_writable(tmp_path).begin() as conn:
        assert conn.execute(select(health.c.value)).scalar() == 1


def test_pragmas_of_the_writer(tmp_path: Path) -> None:
    with open_writable(tmp_path).connect() as conn:
        found = {p: conn.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous", "page_size")}
    assert found == {"journal_mode": "wal", "synchronous": 2, "page_size": database.PAGE_SIZE}


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with StateLock(state):
        open_writable(state)
    assert state.stat().st_mode & 0o077 == 0
    assert (state / FILE_NAME).stat().st_mode & 0o077 == 0


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    open_writable(tmp_path)
    _set_version(tmp_path, "9999")
    for opened in (open_writable, open_readonly):
        with pytest.raises(StoreError, match=r"newer anyecg \(schema 9999.*upgrade"):
            opened(tmp_path)


def test_readers_ask_for_an_older_schema_to_be_migrated(tmp_path: Path) -> None:
    open_writable(tmp_path)
    _set_version(tmp_path, "0000")
    with pytest.raises(StoreError, match="older schema"):
        open_readonly(tmp_path)


def test_no_database_and_no_database_file_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no database in"):
        open_readonly(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"this is a shopping list" * 1000)
    for opened in (open_readonly, open_writable):
        with pytest.raises(StoreError, match="not a database"):
            opened(tmp_path)


def test_only_one_process_writes(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    with pytest.raises(AnyecgError, match=r"another anyecg process \(pid \d+\)"):
        StateLock(tmp_path)
    lock.close()
    lock.close()
    StateLock(tmp_path).close()


def test_a_reader_cannot_write_and_works_without_a_daemon(tmp_path: Path) -> None:
    open_writable(tmp_path)
    reader = open_readonly(tmp_path)
    with reader.connect() as conn:
        assert conn.execute(select(health)).all() == []
        with pytest.raises(OperationalError, match="readonly"):
            conn.execute(insert(health).values(key="a", value=1, updated_ns=2))
    reader.dispose()
