"""The outbox table: order, bounds, what the limit drops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine

from edge.store import outbox, tables
from edge.store.outbox import Message

NOW_NS = 1_700_000_000_000_000_000


@pytest.fixture
def conn() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    tables.metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def event(name: str, *, severity: str = "advisory", retain: bool = False, expires_ns: int | None = None) -> Message:
    return Message("t", f'{{"name":"{name}","severity":"{severity}"}}', retain, expires_ns, NOW_NS)


def names(conn: Connection) -> list[str]:
    return [row.message.payload.split('"')[3] for row in outbox.pending(conn, 1000)]


def test_rows_come_back_whole_and_in_order(conn: Connection) -> None:
    messages = [event("a"), event("b", retain=True), event("c", expires_ns=NOW_NS + 5)]
    assert outbox.add(conn, messages, now_ns=NOW_NS) == 0
    rows = outbox.pending(conn, 10)
    assert [row.message for row in rows] == messages
    assert outbox.pending(conn, 1, after_id=rows[0].id) == [rows[1]]
    outbox.remove(conn, [rows[1].id])
    assert outbox.pending(conn, 10) == [rows[0], rows[2]]
    assert outbox.count(conn) == 2


def test_ids_are_never_used_again(conn: Connection) -> None:
    outbox.add(conn, [event("a")], now_ns=NOW_NS)
    first = outbox.pending(conn, 1)[0].id
    outbox.remove(conn, [first])
    outbox.add(conn, [event("b")], now_ns=NOW_NS)
    assert outbox.pending(conn, 1)[0].id > first


def test_topics_can_be_left_out(conn: Connection) -> None:
    outbox.add(conn, [Message("x", "{}", False, None, 0), Message("y", "{}", False, None, 0)], now_ns=NOW_NS)
    assert [row.message.topic for row in outbox.pending(conn, 10, except_topics={"x"})] == ["y"]


def test_the_limit_drops_expired_then_state_then_old_but_critical_last(conn: Connection) -> None:
    stored = [
        event("critical", severity="critical"),
        event("old"),
        event("state", retain=True),
        event("expired", severity="critical", expires_ns=NOW_NS - 1),
        event("young"),
    ]
    assert outbox.add(conn, stored, now_ns=NOW_NS, max_rows=5) == 0
    order = []
    for number in range(5):
        before = names(conn)
        assert outbox.add(conn, [event(f"{number}", severity="critical")], now_ns=NOW_NS, max_rows=5) == 1
        order += [name for name in before if name not in names(conn)]
    assert order == ["expired", "state", "old", "young", "critical"]


def test_holes_do_not_count(conn: Connection) -> None:
    outbox.add(conn, [event(str(n)) for n in range(10)], now_ns=NOW_NS)
    outbox.remove(conn, [row.id for row in outbox.pending(conn, 10)[1:]])
    assert outbox.add(conn, [event("new")], now_ns=NOW_NS, max_rows=5) == 0
    assert names(conn) == ["0", "new"]


def test_a_message_is_bounded() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        Message("t", "x" * 20_000, False, None, 0)
