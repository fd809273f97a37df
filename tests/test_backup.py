"""Backups are sound or do not count; a damaged database is moved aside and restored; a migration keeps a copy first."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from schema_kit import MIGRATIONS
from sqlalchemy import Connection, insert, select

from edge.errors import AnyecgError, BadInputError
from edge.store import backup, queries, rescue, tables
from edge.store.database import FILE_NAME, SCHEMA, StateLock, StoreError, open_readonly
from edge.store.waveform import read, write
from edge.store.writer import Writer

NOW_NS = 1_790_000_000 * 10**9


@pytest.fixture
def own_state(state: Path, tmp_path: Path) -> Path:
    """A copy of the scripted state that a test may damage, with an hour of signal in its first recording."""
    target = tmp_path / "state"
    target.mkdir()
    shutil.copy(state / FILE_NAME, target / FILE_NAME)
    (target / "config.toml").write_text('[gateway]\nid = "home"\n')
    with Writer(target, spacing_s=0.0) as writer:
        writer.submit(_hour_of_signal).result()
    return target


def _hour_of_signal(conn: Connection) -> None:
    (first, *_) = queries.recordings(conn)
    samples = np.cumsum(np.random.default_rng(3).normal(0, 30, (1, round(3600 * first.fs_hz))), axis=1).astype(np.int32)
    for table in (tables.block, tables.gap):
        conn.execute(table.delete())
    write(conn, first.id, 0, samples)
    end = tables.recording.update().values(end_sample=0)
    conn.execute(end)
    conn.execute(end.where(tables.recording.c.id == first.id).values(end_sample=samples.shape[1]))


def _content(state: Path) -> dict[str, list[tuple[object, ...]]]:
    reader = open_readonly(state)
    with reader.connect() as conn:
        found = {
            table.name: sorted((tuple(map(str, row)) for row in conn.execute(select(table))), key=str)
            for table in tables.metadata.sorted_tables
        }
    reader.dispose()
    return found


def _signal(state: Path) -> np.ndarray:
    reader = open_readonly(state)
    with reader.connect() as conn:
        (first, *_) = queries.recordings(conn)
        samples = read(conn, first.id, 0, round(3600 * first.fs_hz)).samples
    reader.dispose()
    return samples


def _page_of(state: Path, table: str, which: int) -> tuple[int, int]:
    """Return (page number, page size) of a leaf of a table, by asking SQLite where it is."""
    with sqlite3.connect(state / FILE_NAME) as conn:
        size = conn.execute("PRAGMA page_size").fetchone()[0]
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = conn.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno", (table,)
        ).fetchall()
    conn.close()
    return pages[which][0], size


def _destroy(state: Path, page: int, size: int) -> None:
    with (state / FILE_NAME).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


def test_a_backup_taken_while_the_gateway_writes_is_one_moment_of_it(own_state: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    with Writer(own_state, spacing_s=0.0) as writer:

        def keep_writing() -> None:
            n = 0
            while not stop.is_set():
                row = {"asked_ns": n, "wearer": None, "question": f"q{n}", "answer": {}}
                writer.submit(lambda conn, row=row: conn.execute(insert(tables.question).values(row)) and None).result()
                n += 1

        thread = threading.Thread(target=keep_writing)
        thread.start()
        try:
            made = [backup.make_backup(own_state, tmp_path / "b", keep=9, now_ns=NOW_NS + i * 10**9) for i in range(3)]
        finally:
            stop.set()
            thread.join()
    for one in made:
        assert one.damaged_blocks == 0
        backup.verify_backup(backup.read_manifest(one.folder))
        with sqlite3.connect(one.folder / FILE_NAME) as conn:
            assert (
                conn.execute("SELECT count(*), max(asked_ns) + 1 FROM question").fetchone()[0] == one.rows["question"]
            )
        conn.close()
        assert {path.name for path in one.folder.iterdir()} == {FILE_NAME, "config.toml", "backup.json"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in one.folder.iterdir())


def test_restored_is_what_was_backed_up_and_the_old_database_is_kept(own_state: Path, tmp_path: Path) -> None:
    before = _content(own_state)
    made = backup.make_backup(own_state, tmp_path / "b", keep=1, now_ns=NOW_NS)
    with Writer(own_state) as writer:
        writer.submit(lambda conn: conn.execute(tables.finding_revision.delete()) and None).result()
        writer.submit(lambda conn: conn.execute(tables.block.delete()) and None).result()
    lock = StateLock(own_state)
    with pytest.raises(AnyecgError, match="being written by another"):
        backup.restore(own_state, made.folder, with_config=False, now_ns=NOW_NS)
    lock.close()
    done = backup.restore(own_state, made.folder, with_config=False, now_ns=NOW_NS)
    assert _content(own_state) == before
    assert (Path(done["aside"]) / FILE_NAME).exists()
    assert done["also"] == []
    Writer(own_state).close()


@pytest.mark.parametrize("name", [FILE_NAME, "config.toml"])
def test_a_backup_that_is_not_what_was_written_is_refused(own_state: Path, tmp_path: Path, name: str) -> None:
    made = backup.make_backup(own_state, tmp_path / "b", keep=1, now_ns=NOW_NS)
    path = made.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = _content(own_state)
    with pytest.raises(StoreError, match="not what was written"):
        backup.restore(own_state, made.folder, with_config=True, now_ns=NOW_NS)
    assert _content(own_state) == before
    with pytest.raises(BadInputError, match="is no backup"):
        backup.restore(own_state, tmp_path, with_config=True, now_ns=NOW_NS)


def test_damaged_signal_is_noticed_and_older_backups_stay(own_state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    backup.make_backup(own_state, folder, keep=1, now_ns=NOW_NS)
    backup.make_backup(own_state, folder, keep=1, now_ns=NOW_NS + 10**9)
    assert len(backup.backups(folder)) == 1
    with sqlite3.connect(own_state / FILE_NAME) as conn:
        conn.execute("UPDATE block SET data = zeroblob(100) WHERE block_no IN (3, 7)")
    conn.close()
    made = backup.make_backup(own_state, folder, keep=1, now_ns=NOW_NS + 2 * 10**9)
    assert made.damaged_blocks >= 2
    assert len(backup.backups(folder)) == 2


def test_without_room_nothing_is_left_behind(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        backup.make_backup(own_state, tmp_path / "b", keep=1, now_ns=NOW_NS)
    assert list((tmp_path / "b").iterdir()) == []


def test_a_destroyed_page_of_signal_comes_back_from_the_backup(own_state: Path, tmp_path: Path) -> None:
    signal = _signal(own_state)
    backup.make_backup(own_state, tmp_path / "b", keep=1, now_ns=NOW_NS)
    with Writer(own_state) as writer:
        later = {"asked_ns": 1, "wearer": None, "question": "later", "answer": {}}
        writer.submit(lambda conn: conn.execute(insert(tables.question).values(later)) and None).result()
    content = _content(own_state)
    _destroy(own_state, *_page_of(own_state, "block", 5))
    done = rescue.rescue(own_state, tmp_path / "b", NOW_NS)
    assert done is not None
    assert done.lost_s == 0
    assert np.array_equal(_signal(own_state), signal)
    assert {name: rows for name, rows in _content(own_state).items() if name != "inbox"} == {
        name: rows for name, rows in content.items() if name != "inbox"
    }
    assert json.loads((Path(done.aside) / rescue.REPORT).read_text())["backup"] == done.backup
    assert rescue.past_rescues(own_state) == [done]
    assert rescue.rescue(own_state, tmp_path / "b", NOW_NS + 1) is None


def test_without_a_backup_what_can_be_read_stays_and_the_rest_is_a_gap(own_state: Path, tmp_path: Path) -> None:
    signal = _signal(own_state)
    page, size = _page_of(own_state, "block", 5)
    _destroy(own_state, page, size)
    done = rescue.rescue(own_state, tmp_path / "none", NOW_NS)
    assert done is not None
    assert done.backup is None
    assert 10 <= done.lost_s <= 300
    after = _signal(own_state)
    lost = (after != signal).any(axis=0)
    assert (after[:, lost] == np.iinfo(np.int32).min).all()
    reader = open_readonly(own_state)
    with reader.connect() as conn:
        (first, *_) = queries.recordings(conn)
        holes = np.zeros(lost.size, bool)
        for a, b in queries.gaps(conn, first.id, 0, lost.size):
            holes[a:b] = True
        assert holes[lost].all()
        assert lost.sum() / first.fs_hz <= done.lost_s
    reader.dispose()
    Writer(own_state).close()


def test_a_file_that_is_no_database_any_more_is_the_backup_alone(own_state: Path, tmp_path: Path) -> None:
    backup.make_backup(own_state, tmp_path / "b", keep=1, now_ns=NOW_NS)
    content = _content(own_state)
    for end in ("-wal", "-shm"):
        (own_state / f"{FILE_NAME}{end}").unlink(missing_ok=True)
    (own_state / FILE_NAME).write_bytes(b"this is a shopping list" * 1000)
    done = rescue.rescue(own_state, tmp_path / "b", NOW_NS)
    assert done is not None
    assert done.salvaged_rows == 0
    found = _content(own_state)
    assert {k: v for k, v in found.items() if k not in ("inbox", "outbox")} == {
        k: v for k, v in content.items() if k not in ("inbox", "outbox")
    }


def test_a_sound_database_is_left_alone(own_state: Path, tmp_path: Path) -> None:
    data = (own_state / FILE_NAME).read_bytes()
    assert rescue.rescue(own_state, tmp_path, NOW_NS) is None
    assert (own_state / FILE_NAME).read_bytes() == data


def test_a_migration_keeps_a_copy_that_can_be_restored(tmp_path: Path) -> None:
    """A real file of the first schema: made by the first migration alone, with a wearer in it."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{tmp_path / FILE_NAME}")
    with engine.begin() as conn:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
        conn.execute(insert(tables.wearer).values(id="anna", timezone="UTC", created_ns=1))
    engine.dispose()
    Writer(tmp_path).close()
    copy = tmp_path / "before-migration-from-0001.sqlite"
    assert backup.verify_database(copy, None) == 0
    with sqlite3.connect(copy) as old:
        assert old.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        assert old.execute("SELECT id FROM wearer").fetchone() == ("anna",)
    old.close()
    backup.restore(tmp_path, copy, with_config=False, now_ns=NOW_NS)
    Writer(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as now:
        assert now.execute("SELECT version_num FROM alembic_version").fetchone() == (SCHEMA,)
    now.close()


def test_the_scripted_state_is_rich_enough(state: Path) -> None:
    """What is compared above would prove nothing on empty tables."""
    content = _content(state)
    assert {name for name in ("finding", "beats", "trend", "recording", "block") if content[name]} == {
        "finding",
        "beats",
        "trend",
        "recording",
        "block",
    }
