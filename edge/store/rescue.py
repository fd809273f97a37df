"""A damaged database: noticed, moved aside, restored from the newest sound backup and from what is left of itself.

Noticed at the start (it does not open, or the last daemon left the marker because SQLite had called the file malformed;
a file below `CHECK_MB` is checked at every start). Everything that can still be read in the damaged file is laid over
the backup, row by row, blocks of signal only if their checksum holds. What neither has becomes a gap. The damaged file
stays in `damaged-<UTC>`, with `report.json`, until a person deletes it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, func, select

from edge.errors import AnyecgError
from edge.store import tables
from edge.store.backup import Backup, backups, is_sound, set_aside, verify_backup
from edge.store.database import FILE_NAME, StateLock, StoreError, open_writable
from edge.store.retention import runs
from edge.store.waveform import add_interval, block_len, compact

log = structlog.get_logger(__name__)

MARKER = "database-is-damaged"
REPORT = "report.json"
CHECK_MB = 64
"""Below this size the file is checked at every start: a second at most."""
LINEAR_ROWS = 64
"""After an unreadable row so many are tried one by one, then in growing steps."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """What became of a damaged database."""

    at_ns: int
    reason: str
    aside: str
    backup: str | None
    """The backup that was restored; None: there was none that is sound."""
    salvaged_rows: int
    """Read from the damaged file."""
    lost_s: float
    """Seconds of signal that neither file had; they are gaps now."""


def mark_damaged(state: Path, reason: str) -> None:
    """Ask the next start to look at the database, whatever its size."""
    (state / MARKER).write_text(reason + "\n")


def is_damage(text: str) -> bool:
    """Return whether an error of SQLite means a damaged file, not a full disk or a lock."""
    return any(word in text for word in ("malformed", "database damaged", "not a database"))


def find_damage(state: Path) -> str | None:
    """Return what is wrong with the database of `state`, None if nothing is known to be."""
    path = state / FILE_NAME
    marked = (state / MARKER).exists()
    if not path.exists() or path.stat().st_size == 0 or not (marked or path.stat().st_size < CHECK_MB * 2**20):
        return None
    try:
        with closing(sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=rw", uri=True)) as conn:
            said = str(conn.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        return str(error) if is_damage(str(error)) else None
    return None if said == "ok" else said


def rescue(state: Path, folder: Path, now_ns: int) -> Rescue | None:
    """Repair the database of `state` if it is damaged, with the backups below `folder`; None if nothing was wrong.

    Raises `AnyecgError` if another process writes `state`, or not even an empty database can be made.
    """
    with StateLock(state):
        reason = find_damage(state)
        if reason is None:
            (state / MARKER).unlink(missing_ok=True)
            return None
        log.error("the database is damaged: it is moved aside and restored", reason=reason)
        aside = set_aside(state, "damaged", now_ns)
        assert aside is not None
        backup = _restore_newest(state, folder)
        engine = open_writable(state)
        with engine.connect() as conn:
            driver = conn.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA foreign_keys=OFF")  # not in a transaction, where it would do nothing
            with conn.begin():
                salvaged = _salvage(conn, aside / FILE_NAME)
                lost_s = _note_holes(conn)
                _drop_orphans(conn)
            if (said := conn.exec_driver_sql("PRAGMA integrity_check(1)").scalar()) != "ok":
                raise StoreError(f"the restored database in {state} is not sound: {said}")
        engine.dispose()
        (state / MARKER).unlink(missing_ok=True)
    taken = None if backup is None else str(backup.folder)
    done = Rescue(now_ns, reason, str(aside), taken, salvaged, round(lost_s, 1))
    (aside / REPORT).write_text(json.dumps(asdict(done), indent=1) + "\n")
    log.warning("the database is restored", **asdict(done))
    return done


def past_rescues(state: Path) -> list[Rescue]:
    """Return what was moved aside and is still there, newest first."""
    found = []
    for path in sorted(state.glob(f"damaged-*/{REPORT}"), reverse=True):
        try:
            found.append(Rescue(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return found


def _restore_newest(state: Path, folder: Path) -> Backup | None:
    for backup in backups(folder):
        try:
            verify_backup(backup)
        except AnyecgError as error:
            log.error("a backup is not sound", error=str(error))
            continue
        shutil.copyfile(backup.folder / FILE_NAME, state / FILE_NAME)
        return backup
    return None


def _salvage(conn: Connection, damaged: Path) -> int:
    """Lay what can be read of a damaged database over the one that `conn` writes; return how many rows."""
    for recording_id, end_sample in conn.execute(select(tables.recording.c.id, tables.recording.c.end_sample)).all():
        compact(conn, recording_id, end_sample)  # the backup's inbox: its row ids have been used again since
    conn.execute(tables.inbox.delete())
    conn.execute(tables.outbox.delete())  # delivered long since
    driver = conn.connection.driver_connection
    assert driver is not None
    total = 0
    try:
        with closing(sqlite3.connect(damaged)) as source:
            for table in tables.metadata.sorted_tables:
                try:
                    columns = [row[1] for row in source.execute(f'PRAGMA table_info("{table.name}")')]
                except sqlite3.DatabaseError:
                    return total  # not even the schema can be read
                names = [name for name in columns if name in table.c]
                if not names:
                    continue
                listed = ", ".join(f'"{name}"' for name in names)
                put = f'INSERT OR REPLACE INTO "{table.name}" ({listed}) VALUES ({", ".join("?" * len(names))})'  # noqa: S608
                for row in _readable_rows(source, table.name, listed):
                    if table is tables.block and not is_sound(row[names.index("data")]):
                        continue
                    try:
                        driver.execute(put, row)
                    except sqlite3.Error:
                        continue  # a value that its column does not take
                    total += 1
    except sqlite3.DatabaseError as error:
        log.warning("nothing more can be read of the damaged database", error=str(error))
    return total


def _readable_rows(source: sqlite3.Connection, table: str, columns: str) -> Iterator[Sequence[Any]]:
    """Yield every row that can be read, by rowid, skipping what cannot."""
    query = f'SELECT rowid, {columns} FROM "{table}" WHERE rowid > ? ORDER BY rowid'  # noqa: S608
    at, skip = -1, 0
    while skip < 2**40:
        try:
            for rowid, *row in source.execute(query, (at + skip,)):
                at, skip = rowid, 0
                yield row
            return
        except sqlite3.DatabaseError:
            skip = skip + 1 if skip < LINEAR_ROWS else 2 * skip


def _note_holes(conn: Connection) -> float:
    """Make gaps of the blocks that are gone; return how many seconds were none before."""
    lost_s = 0.0
    recordings = conn.execute(select(tables.recording.c.id, tables.recording.c.fs_hz, tables.recording.c.end_sample))
    for recording_id, fs_hz, end_sample in recordings.all():
        length = block_len(fs_hz)
        block, inbox, expiry = tables.block, tables.inbox, tables.expiry
        there = set(conn.execute(select(block.c.block_no).where(block.c.recording_id == recording_id)).scalars())
        waiting = select(inbox.c.start_sample, inbox.c.n).where(
            inbox.c.recording_id == recording_id, inbox.c.start_sample.is_not(None)
        )
        for start, n in conn.execute(waiting):
            there.update(range(start // length, (start + n - 1) // length + 1))
        expired = conn.execute(select(expiry.c.until_sample).where(expiry.c.recording_id == recording_id)).scalar()
        before = _gap_samples(conn, recording_id)
        numbers = (n for n in range((expired or 0) // length, -(-end_sample // length)) if n not in there)
        for first, stop in runs(numbers):
            add_interval(conn, tables.gap, recording_id, first * length, min(stop * length, end_sample))
        lost_s += (_gap_samples(conn, recording_id) - before) / fs_hz
    return lost_s


def _gap_samples(conn: Connection, recording_id: int) -> int:
    gap = tables.gap.c
    total = func.sum(gap.end_sample - gap.start_sample)
    return int(conn.execute(select(total).where(gap.recording_id == recording_id)).scalar() or 0)


def _drop_orphans(conn: Connection) -> None:
    """Delete rows whose recording, wearer or finding could not be read."""
    for table in reversed(tables.metadata.sorted_tables):
        for key in table.foreign_keys:
            parent = key.column
            orphan = key.parent.is_not(None) & key.parent.not_in(select(parent))
            conn.execute(table.delete().where(orphan))
