"""The only writer of the database: one thread, one connection, grouped commits.

| outcome | what the caller sees | counter |
|---|---|---|
| committed | the future has the job's result, after COMMIT (synchronous=FULL) returned | `jobs`, `commits` |
| the job raises | its savepoint is rolled back, its future has the exception, the others commit | `failed_jobs` |
| queue full | `submit` raises `WriterBusyError` at once | `refused` |
| database locked, full, damaged | all futures of the group fail (`StoreError`); the thread goes on | `failed_commits` |
| closed | `submit` raises `AnyecgError`; what was queued before is done | |
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from edge.errors import AnyecgError
from edge.store.database import FILE_NAME, WAL_LIMIT_BYTES, StateLock, StoreError, open_writable, truncate_wal

T = TypeVar("T")

DAMAGED = "database damaged"
TRUNCATE_EVERY_S = 5.0
TRUNCATE_WAIT_S = 0.1
"""How long a WAL that has outgrown its limit may hold up writing while readers finish."""


class WriterBusyError(AnyecgError):
    """The write queue is full; nothing was queued."""


@dataclass(slots=True)
class _Job:
    run: Callable[[Connection], Any]
    future: Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs jobs in the order submitted, many to a transaction, each in a savepoint of its own.

    A job gets the connection and must neither commit nor roll back. State that jobs keep in memory mirrors the
    database only while `generation` stays the same: it grows whenever committed work may differ from what ran.
    """

    def __init__(
        self,
        state: Path,
        *,
        max_queue: int = 4096,
        max_batch: int = 500,
        batch_s: float = 0.2,
        spacing_s: float = 0.05,
    ) -> None:
        """Lock `state`, create or migrate its database and start the thread.

        `max_queue` jobs may wait; a transaction takes at most `max_batch` of them and starts no further one after
        `batch_s`; commits are `spacing_s` apart, so a lone job commits at once and a stream of them in groups
        (fewer fsyncs: less wear on flash). Raises `AnyecgError` if another process writes `state`.
        """
        self._lock = StateLock(state)
        try:
            self._engine = open_writable(state)
        except BaseException:
            self._lock.close()
            raise
        self._wal = state / f"{FILE_NAME}-wal"
        self._queue: queue.Queue[_Job | None] = queue.Queue(max_queue)
        self._max_batch = max_batch
        self._batch_s = batch_s
        self._spacing_s = spacing_s
        self._closing = threading.Lock()
        self._closed = False
        self._stop = False
        self._truncated_s = 0.0
        self._busy_since_s: float | None = None
        self._cut_now = False
        self.generation = 0
        self.trouble = ""
        """Why the last commit failed; empty once one has succeeded."""
        self.damage = ""
        """What SQLite said when it called the file damaged; stays until the next start."""
        self.counters = {"jobs": 0, "commits": 0, "failed_jobs": 0, "failed_commits": 0, "refused": 0}
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Jobs waiting."""
        return self._queue.qsize()

    def busy_s(self) -> float:
        """Return for how long the transaction that runs now has been running; 0 between transactions."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def submit(self, job: Callable[[Connection], T]) -> Future[T]:
        """Queue `job`; its future resolves after the commit. Raises `WriterBusyError` if the queue is full."""
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise AnyecgError("the database is closed: the daemon is stopping")
            try:
                self._queue.put_nowait(_Job(job, future))
            except queue.Full:
                self.counters["refused"] += 1
                raise WriterBusyError(
                    f"{self._queue.maxsize} writes are waiting for the disk: try again when it has caught up"
                ) from None
        return future

    def invalidate(self) -> None:
        """Say, from a job, that it changed what others remember of the database."""
        self.generation += 1

    def empty_wal(self, patience_s: float = 10.0) -> None:
        """Bring everything into the database file. Raises `StoreError` if readers are in the way for `patience_s`."""
        deadline_s = time.monotonic() + patience_s
        while self._wal.exists() and self._wal.stat().st_size:
            if time.monotonic() > deadline_s:
                raise StoreError(f"{self._wal} could not be emptied in {patience_s:g} s: somebody keeps reading")
            self._cut_now = True
            self.submit(lambda conn: None).result()
            time.sleep(0.05)

    def close(self) -> None:
        """Finish what is queued, checkpoint, release the lock; closing twice does nothing."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._engine.dispose()
        self._lock.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _serve(self) -> None:
        conn: Connection | None = None
        last_commit_s = 0.0
        while not self._stop:
            first = self._queue.get()
            if first is None:
                break
            wait_s = last_commit_s + self._spacing_s - time.monotonic()
            if wait_s > 0 and not self._closed:
                time.sleep(wait_s)
            batch = [first]
            self._busy_since_s = time.monotonic()
            try:
                if conn is None:
                    conn = self._engine.connect()
                self._run_batch(conn, batch)
            except Exception as error:
                self.generation += 1
                self.counters["failed_commits"] += 1
                self.trouble = str(_as_store_error(error))
                self._note_damage(self.trouble)
                for job in batch:
                    _resolve(job.future, None, job.error or _as_store_error(error))
                if conn is not None:
                    _discard(conn)
                    conn = None
            self._cut_wal(conn)
            last_commit_s, self._busy_since_s = time.monotonic(), None
        if conn is not None:
            with contextlib.suppress(sqlite3.Error):
                truncate_wal(_driver(conn), TRUNCATE_WAIT_S)
            conn.close()

    def _run_batch(self, conn: Connection, batch: list[_Job]) -> None:
        """Run `batch` and what else is queued, which is added to it, in one transaction."""
        conn.begin()
        driver = _driver(conn)
        deadline_s = time.monotonic() + self._batch_s
        self._run_job(conn, driver, batch[0])
        while len(batch) < self._max_batch and time.monotonic() < deadline_s:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._stop = True
                break
            batch.append(job)
            self._run_job(conn, driver, job)
        conn.commit()
        self.counters["commits"] += 1
        self.trouble = ""
        for job in batch:
            self.counters["jobs" if job.error is None else "failed_jobs"] += 1
            _resolve(job.future, job.result, job.error)

    def _run_job(self, conn: Connection, driver: sqlite3.Connection, job: _Job) -> None:
        driver.execute("SAVEPOINT job")
        try:
            job.result = job.run(conn)
        except Exception as error:
            if not driver.in_transaction:  # disk full and I/O errors make SQLite roll back the whole transaction
                raise
            driver.execute("ROLLBACK TO job")
            job.error = _as_store_error(error)
            self._note_damage(str(job.error))
        driver.execute("RELEASE job")

    def _note_damage(self, said: str) -> None:
        if said.startswith(DAMAGED):
            self.damage = said

    def _cut_wal(self, conn: Connection | None) -> None:
        now_s = time.monotonic()
        is_wanted, self._cut_now = self._cut_now, False
        if conn is None or not (is_wanted or now_s - self._truncated_s >= TRUNCATE_EVERY_S):
            return
        self._truncated_s = now_s
        with contextlib.suppress(OSError, sqlite3.Error):
            if is_wanted or self._wal.stat().st_size > WAL_LIMIT_BYTES:
                truncate_wal(_driver(conn), TRUNCATE_WAIT_S)


def _driver(conn: Connection) -> sqlite3.Connection:
    driver = conn.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _discard(conn: Connection) -> None:
    """Close a connection whose transaction failed; what it had not committed is gone with it."""
    with contextlib.suppress(Exception):
        conn.invalidate()
    with contextlib.suppress(Exception):
        conn.close()


def _resolve(future: Future[Any], result: Any, error: BaseException | None) -> None:
    if not future.set_running_or_notify_cancel():
        return  # whoever waited has gone; the work stands
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _as_store_error(error: Exception) -> Exception:
    if isinstance(error, OperationalError):
        return StoreError(f"database not writable: {error.orig}")
    if isinstance(error, DatabaseError) and type(error) is DatabaseError:
        return StoreError(f"{DAMAGED}: {error.orig}")
    if type(error) is sqlite3.DatabaseError:
        return StoreError(f"{DAMAGED}: {error}")
    if isinstance(error, sqlite3.OperationalError):
        return StoreError(f"database not writable: {error}")
    return error
