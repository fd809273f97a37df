"""What a passage leaves in the database: appended, replaced, pruned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, insert, select

from edge.rhythm.events import Beat, Finding
from edge.store import findings, tables
from edge.store.beats import unpack_beats
from edge.store.findings import Checkpoint, Passage, Told, commit_passage

FS_HZ = 100.0


@pytest.fixture
def conn() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    tables.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(tables.wearer).values(id="anna", timezone="UTC", created_ns=0))
        connection.execute(
            insert(tables.recording).values(
                id=1,
                key="k",
                wearer="anna",
                device="d",
                leads=["I"],
                fs_hz=FS_HZ,
                uv_per_lsb=[1.0],
                source="live",
                start_ns=0,
                end_sample=0,
                last_received_ns=0,
            )
        )
        names = ("encoder", "weights_sha256", "rules_hash", "code_version", "provider")
        findings.ensure_analysis(connection, dict.fromkeys(names, "x"), 0)
        yield connection
    engine.dispose()


def passage(k0: int, k1: int, beats_from: int = 0, **more: Any) -> Passage:
    return Passage(1, k0, k1, beats_from, 1, "x", **more)


def finding(state: str, start: int, end: int, *, key: str = "f1", rule: str = "pause", **evidence: Any) -> Finding:
    return Finding(key, rule, "urgent", state, start, end, start, end, evidence)  # type: ignore[arg-type]


def commit(conn: Connection, what: Passage) -> list[tuple[str, str, int]]:
    changes = commit_passage(conn, what, to_utc_ns=lambda s: s * 10_000_000, fs_hz=FS_HZ, now_ns=5)
    return [(change.type, change.row["id"], change.row["revision"]) for change in changes]


def rows(conn: Connection) -> dict[str, dict[str, Any]]:
    return {row["id"]: dict(row) for row in conn.execute(select(tables.finding)).mappings()}


def beat_samples(conn: Connection) -> list[int]:
    data = conn.execute(select(tables.beats.c.data).order_by(tables.beats.c.minute)).scalars()
    return [int(sample) for blob in data for sample in unpack_beats(blob)["sample"]]


def test_a_finding_opens_changes_and_ends_with_its_history(conn: Connection) -> None:
    assert commit(conn, passage(0, 5, told=[Told(3, finding("open", 100, 300))])) == [("new", "f1", 1)]
    assert commit(conn, passage(5, 9, told=[Told(6, finding("open", 100, 500))])) == [("update", "f1", 2)]
    assert commit(conn, passage(9, 12, told=[Told(10, finding("closed", 100, 700))])) == [("end", "f1", 3)]
    history = conn.execute(select(tables.finding_revision.c.revision, tables.finding_revision.c.row)).all()
    assert [(revision, row["end_sample"]) for revision, row in history] == [(1, 300), (2, 500)]


def test_a_short_finding_is_told_from_beginning_to_end(conn: Connection) -> None:
    assert commit(conn, passage(0, 5, told=[Told(3, finding("closed", 100, 300))])) == [
        ("new", "f1", 1),
        ("end", "f1", 2),
    ]


def test_the_same_passage_again_is_no_news(conn: Connection) -> None:
    told = [Told(3, finding("open", 100, 300)), Told(4, finding("closed", 100, 700, bpm=40))]
    beats = [Beat(150, "N", 0.5, "narrow"), Beat(6500, "V", 0.25, "other")]
    assert commit(conn, passage(0, 35, told=told, beats=beats)) == [("new", "f1", 1), ("end", "f1", 2)]
    assert commit(conn, passage(0, 35, told=told, beats=beats)) == []
    assert beat_samples(conn) == [150, 6500]


def test_late_data_retracts_and_names_the_heir(conn: Connection) -> None:
    commit(conn, passage(0, 40, told=[Told(3, finding("open", 100, 300)), Told(9, finding("closed", 100, 700))]))
    conn.execute(
        insert(tables.mark).values(wearer="anna", finding_id="f1", kind="note", note="coughed", at_ns=0, written_ns=0)
    )
    again = passage(0, 40, told=[Told(5, finding("closed", 400, 650, key="f2"))])
    assert commit(conn, again) == [("new", "f2", 1), ("end", "f2", 2), ("retracted", "f1", 3)]
    old = rows(conn)["f1"]
    assert (old["state"], old["superseded_by"]) == ("retracted", "f2")
    assert conn.execute(select(tables.mark.c.finding_id)).scalar() == "f2"


def test_late_data_takes_back_only_what_it_changed(conn: Connection) -> None:
    """A finding told before the repaired hops returns to what was known then."""
    commit(conn, passage(0, 10, told=[Told(3, finding("open", 100, 300))]))
    commit(conn, passage(10, 40, told=[Told(20, finding("closed", 100, 2000))]))
    assert commit(conn, passage(10, 40)) == [("update", "f1", 3)]
    assert (rows(conn)["f1"]["state"], rows(conn)["f1"]["end_sample"]) == ("open", 300)


def test_beats_are_replaced_between_the_unchanged_ones(conn: Connection) -> None:
    commit(conn, passage(0, 40, beats=[Beat(s, "N", 0.5, "narrow") for s in (100, 200, 300, 6100, 6200)]))
    again = passage(1, 20, beats_from=201, beats=[Beat(250, "V", 0.5, "other")], beats_end=6150)
    commit(conn, again)
    assert beat_samples(conn) == [100, 200, 250, 6200]


def test_a_repair_that_came_to_a_stored_state_leaves_the_later_word(conn: Connection) -> None:
    """A gap that closed long after the repaired hops must not be open again because they told it open."""
    commit(conn, passage(0, 10, told=[Told(5, finding("open", 100, 300))]))
    commit(conn, passage(10, 99, told=[Told(90, finding("closed", 100, 8000))]))
    assert commit(conn, passage(0, 30, told=[Told(5, finding("open", 100, 250))], beats_end=5000)) == []
    assert (rows(conn)["f1"]["state"], rows(conn)["f1"]["end_sample"]) == ("closed", 8000)


def test_old_checkpoints_thin_out(conn: Connection) -> None:
    day = findings.CHECKPOINTS_EVERY_MINUTE
    for k0 in range(0, day + 3600, 1800):
        marks = [Checkpoint(k, b"s", k) for k in range(k0 + 30, k0 + 1801, 30)]
        commit(conn, passage(k0, k0 + 1800, checkpoints=marks))
    kept = list(conn.execute(select(tables.checkpoint.c.k).order_by(tables.checkpoint.c.k)).scalars())
    newest = kept[-1]
    old = [k for k in kept if k < newest - day]
    assert old == list(range(1800, newest - day, 1800))
    assert len(kept) - len(old) == day // 30 + 1
