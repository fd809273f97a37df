"""The writer: commit before result, isolation of jobs, bounds, failures it must survive."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select

from edge.errors import AnyecgError
from edge.store.database import FILE_NAME, WAL_LIMIT_BYTES, StoreError, open_readonly
from edge.store.tables import health
from edge.store.writer import Writer, WriterBusyError


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with Writer(tmp_path, batch_s=20, spacing_s=0.0) as writer:
        yield writer


def put(conn: Connection, key: str, value: object = 0) -> str:
    conn.execute(insert(health).values(key=key, value=value, updated_ns=0))
    return key


def keys(state: Path) -> list[str]:
    engine = open_readonly(state)
    with engine.connect() as conn:
        found = [str(key) for key in conn.execute(select(health.c.key).order_by(health.c.key)).scalars()]
    engine.dispose()
    return found


def hold(writer: Writer) -> tuple[threading.Event, Future[bool]]:
    """Keep the writer's thread inside a job until the event is set."""
    started, release = threading.Event(), threading.Event()

    def job(_conn: Connection) -> bool:
        started.set()
        return release.wait(20)

    future = writer.submit(job)
    assert started.wait(20)
    return release, future


def test_futures_resolve_only_after_commit(writer: Writer) -> None:
    log: list[str] = []

    def trace(conn: Connection) -> None:
        driver = conn.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(
            lambda sql: log.append(sql.split()[0]) if sql.startswith(("COMMIT", "BEGIN")) else None
        )

    writer.submit(trace).result(20)
    log.clear()
    release, held = hold(writer)
    said = threading.Event()
    futures = [writer.submit(lambda conn, k=f"k{i}": put(conn, k)) for i in range(20)]
    for i, future in enumerate(futures):
        future.add_done_callback(lambda _, i=i: log.append(f"done {i}"))
    futures[-1].add_done_callback(lambda _: said.set())
    release.set()
    for future in (held, *futures):
        future.result(20)
    assert said.wait(20)  # results arrive before callbacks are called
    assert log == ["BEGIN", "COMMIT", *(f"done {i}" for i in range(20))]


def test_a_result_is_visible_to_readers_when_it_arrives(writer: Writer, tmp_path: Path) -> None:
    writer.submit(lambda conn: put(conn, "a")).result(20)
    assert keys(tmp_path) == ["a"]


def test_a_failing_job_takes_nothing_with_it(writer: Writer, tmp_path: Path) -> None:
    def half(conn: Connection) -> None:
        put(conn, "half")
        raise ValueError("on purpose")

    release, _ = hold(writer)
    before = writer.submit(lambda conn: put(conn, "before"))
    failing = writer.submit(half)
    twice = writer.submit(lambda conn: put(conn, "before"))
    after = writer.submit(lambda conn: put(conn, "after"))
    release.set()
    assert (before.result(20), after.result(20)) == ("before", "after")
    with pytest.raises(ValueError, match="on purpose"):
        failing.result(20)
    assert "UNIQUE" in str(twice.exception(20))
    assert keys(tmp_path) == ["after", "before"]
    assert writer.counters["failed_jobs"] == 2
    assert writer.counters["commits"] == 1


def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    with Writer(tmp_path, max_queue=3, spacing_s=0.0) as writer:
        release, _ = hold(writer)
        futures = [writer.submit(lambda conn, k=k: put(conn, k)) for k in "abc"]
        assert writer.depth == 3
        with pytest.raises(WriterBusyError, match="3 writes are waiting"):
            writer.submit(lambda conn: put(conn, "d"))
        assert writer.counters["refused"] == 1
        release.set()
        assert [f.result(20) for f in futures] == ["a", "b", "c"]
    assert keys(tmp_path) == ["a", "b", "c"]


def test_close_finishes_what_is_queued_and_refuses_more(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    futures = [writer.submit(lambda conn, i=i: put(conn, f"{i:03}")) for i in range(200)]
    writer.close()
    writer.close()
    assert all(f.done() for f in futures)
    assert len(keys(tmp_path)) == 200
    with pytest.raises(AnyecgError, match="closed"):
        writer.submit(lambda conn: put(conn, "late"))


def test_two_writers_are_refused(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(AnyecgError, match="another anyecg process"):
        Writer(tmp_path)


def test_batches_are_bounded_in_number(tmp_path: Path) -> None:
    with Writer(tmp_path, max_batch=10, batch_s=20, spacing_s=0.0) as writer:
        release, _ = hold(writer)
        futures = [writer.submit(lambda conn, i=i: put(conn, f"{i}")) for i in range(29)]
        release.set()
        for future in futures:
            future.result(20)
        assert writer.counters["commits"] == 3


def test_a_full_disk_fails_the_jobs_and_the_writer_goes_on(writer: Writer, tmp_path: Path) -> None:
    def limit(conn: Connection) -> None:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar()
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    writer.submit(limit).result(20)
    release, held = hold(writer)
    big = writer.submit(lambda conn: put(conn, "big", "x" * 10**6))
    small = writer.submit(lambda conn: put(conn, "small"))
    release.set()
    with pytest.raises(StoreError, match="full"):
        big.result(20)
    with pytest.raises(StoreError, match="full"):  # SQLite rolled the whole transaction back: its jobs were not kept
        held.result(20)
    assert writer.generation == 1
    assert small.result(20) == "small"
    assert keys(tmp_path) == ["small"]


def test_a_locked_database_fails_the_jobs_and_the_writer_goes_on(writer: Writer, tmp_path: Path) -> None:
    def impatient(conn: Connection) -> None:
        conn.exec_driver_sql("PRAGMA busy_timeout=50")

    writer.submit(impatient).result(20)
    other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        writer.submit(lambda conn: put(conn, "a")).result(20)
    assert writer.counters["failed_commits"] == 1
    assert writer.generation == 1
    other.execute("ROLLBACK")
    other.close()
    assert writer.submit(lambda conn: put(conn, "b")).result(20) == "b"
    assert keys(tmp_path) == ["b"]


def test_readers_are_not_blocked_by_a_long_write(writer: Writer, tmp_path: Path) -> None:
    writer.submit(lambda conn: put(conn, "before")).result(20)
    written, release = threading.Event(), threading.Event()

    def slow(conn: Connection) -> bool:
        put(conn, "during")
        written.set()
        return release.wait(60)

    future = writer.submit(slow)
    assert written.wait(20)
    assert keys(tmp_path) == ["before"]
    assert not future.done()
    release.set()
    assert future.result(20), "the write took longer than the reading"


def test_a_long_reader_neither_blocks_the_writer_nor_leaves_a_grown_wal(tmp_path: Path) -> None:
    wal = tmp_path / f"{FILE_NAME}-wal"
    with Writer(tmp_path, spacing_s=0.0) as writer:
        writer.submit(lambda conn: put(conn, "seen")).result(20)
        engine = open_readonly(tmp_path)
        with engine.connect() as conn:
            assert conn.execute(select(func.count()).select_from(health)).scalar() == 1
            for i in range(30):
                writer.submit(lambda conn, i=i: put(conn, f"{i}", "x" * 10**6)).result(20)
            assert conn.execute(select(func.count()).select_from(health)).scalar() == 1
            assert wal.stat().st_size > WAL_LIMIT_BYTES
        engine.dispose()
        writer.submit(lambda conn: None).result(20)  # the attempt behind the commit before, with the reader, is over
        writer._truncated_s = 0.0
        for key in ("after", "after 2"):
            writer.submit(lambda conn, key=key: put(conn, key)).result(20)
        assert wal.stat().st_size <= WAL_LIMIT_BYTES
