"""MQTT messages that commit with what they tell; a row goes only when the broker has confirmed it.

Rows leave in the order of their ids. At most `MAX_ROWS` wait; beyond that, in this order: rows past their expiry,
retained rows (state that a newer one replaces), the oldest that are not critical, the oldest. What is dropped is
returned to be counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, case, delete, func, insert, select

from edge.store.tables import outbox

MAX_ROWS = 100_000
"""A day without a broker at one event a second; about 100 MB."""
MAX_PAYLOAD_BYTES = 16_384
MAX_TOPIC_BYTES = 256

_SEVERE = '%"severity":"critical"%'


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT message to be published with QoS 1."""

    topic: str
    payload: str
    """JSON without blanks."""
    retain: bool
    expires_ns: int | None
    """UTC after which nobody is to get it; None: never."""
    created_ns: int
    """UTC of writing."""

    def __post_init__(self) -> None:
        if len(self.topic.encode()) > MAX_TOPIC_BYTES or len(self.payload.encode()) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"message on {self.topic[:80]!r} exceeds {MAX_TOPIC_BYTES} + {MAX_PAYLOAD_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Row:
    """A message that waits for the broker."""

    id: int
    message: Message


def add(conn: Connection, messages: Sequence[Message], *, now_ns: int, max_rows: int = MAX_ROWS) -> int:
    """Append messages in the caller's transaction; return how many rows the limit dropped."""
    if not messages:
        return 0
    conn.execute(
        insert(outbox),
        [
            {
                "topic": message.topic,
                "payload": message.payload,
                "retain": message.retain,
                "expires_ns": message.expires_ns,
                "created_ns": message.created_ns,
            }
            for message in messages
        ],
    )
    first, last = conn.execute(select(func.min(outbox.c.id), func.max(outbox.c.id))).one()
    if last - first < max_rows:  # cheaper than counting, and never less than the count
        return 0
    excess = count(conn) - max_rows
    if excess <= 0:
        return 0
    dropped_first = case(
        (outbox.c.expires_ns < now_ns, 0), (outbox.c.retain, 1), (outbox.c.payload.not_like(_SEVERE), 2), else_=3
    )
    oldest = select(outbox.c.id).order_by(dropped_first, outbox.c.id).limit(excess)
    return conn.execute(delete(outbox).where(outbox.c.id.in_(oldest))).rowcount


def pending(conn: Connection, limit: int, *, after_id: int = 0, except_topics: Collection[str] = ()) -> list[Row]:
    """Return at most `limit` waiting rows with an id above `after_id`, oldest first."""
    query = select(outbox).where(outbox.c.id > after_id).order_by(outbox.c.id).limit(limit)
    if except_topics:
        query = query.where(outbox.c.topic.not_in(sorted(except_topics)))
    return [
        Row(row.id, Message(row.topic, row.payload, row.retain, row.expires_ns, row.created_ns))
        for row in conn.execute(query)
    ]


def newest(conn: Connection) -> int:
    """Return the id of the row that was added last."""
    return int(conn.execute(select(func.max(outbox.c.id))).scalar_one())


def is_waiting(conn: Connection, row_id: int) -> bool:
    """Return whether a row still waits for the broker."""
    return conn.execute(select(outbox.c.id).where(outbox.c.id == row_id)).first() is not None


def remove(conn: Connection, ids: Collection[int]) -> None:
    """Delete rows the broker has confirmed, or that are past their expiry."""
    conn.execute(delete(outbox).where(outbox.c.id.in_(sorted(ids))))


def count(conn: Connection) -> int:
    """Number of waiting rows."""
    return int(conn.execute(select(func.count()).select_from(outbox)).scalar_one())
