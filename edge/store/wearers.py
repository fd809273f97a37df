"""Wearers: added, renamed, moved to another time zone, given another's strap, forgotten.

Everything here runs as jobs of the writer. Which wearer a device's data belong to is `Routes`: the topic (or binding)
names one, and from the moment of an assignment on, by the time of the samples, somebody else wears the device.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    Table,
    cast,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from edge.errors import BadInputError
from edge.sources.payload import ID
from edge.store import queries, tables

SLICE_ROWS = 500
BIG = ("block", "embedding", "beats", "trend", "inbox", "checkpoint", "finding_revision", "mark", "outbox")
"""Tables that are emptied slice by slice before the rest goes at once."""

TEXTS = (str, dict, list)

Do = Callable[[Callable[[Connection], Any]], Any]
"""Runs a job in a transaction of the writer and returns its result."""


@dataclass(slots=True)
class Routes:
    """Whose data a device sends."""

    moves: dict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=dict)
    """(wearer as named in the topic, device) → [(since_ns, worn by)], ascending."""

    @classmethod
    def load(cls, conn: Connection) -> Routes:
        table = tables.assignment
        routes = cls()
        for row in conn.execute(select(table).order_by(table.c.since_ns)):
            routes.moves.setdefault((row.wearer, row.device), []).append((row.since_ns, row.worn_by))
        return routes

    def wearer(self, named: str, device: str, at_ns: int) -> str:
        """Return who wore a device when a sample was taken."""
        moves = self.moves.get((named, device))
        if not moves:
            return named
        at = bisect_right(moves, at_ns, key=lambda move: move[0]) - 1
        return named if at < 0 else moves[at][1]


def add(conn: Connection, wearer: str, timezone: str, now_ns: int) -> None:
    """Add a wearer before its first data. Raises `BadInputError` for a bad name, a bad zone, or one that exists."""
    _check_new(conn, wearer)
    _check_zone(timezone)
    conn.execute(insert(tables.wearer).values(id=wearer, timezone=timezone, created_ns=now_ns))


def set_timezone(conn: Connection, wearer: str, timezone: str) -> None:
    """Change the time zone in which days are counted and times shown."""
    queries.find_wearer(conn, wearer)
    _check_zone(timezone)
    conn.execute(update(tables.wearer).where(tables.wearer.c.id == wearer).values(timezone=timezone))


def set_timezones(conn: Connection, zones: dict[str, str]) -> None:
    """Move the wearers that exist to the time zones a configuration names."""
    for wearer, timezone in zones.items():
        conn.execute(update(tables.wearer).where(tables.wearer.c.id == wearer).values(timezone=timezone))


def rename(conn: Connection, old: str, new: str) -> None:
    """Give a wearer another name everywhere; what devices go on sending under the old one goes to the new one."""
    person = conn.execute(select(tables.wearer).where(tables.wearer.c.id == old)).mappings().first()
    if person is None:
        queries.find_wearer(conn, old)  # says who there is
        return
    _check_new(conn, new)
    conn.execute(insert(tables.wearer).values({**person, "id": new}))
    devices = set(conn.execute(select(tables.recording.c.device).where(tables.recording.c.wearer == old)).scalars())
    for table in tables.metadata.sorted_tables:
        if table is tables.assignment:
            conn.execute(update(table).where(table.c.worn_by == old).values(worn_by=new))
            continue
        for column in [] if table is tables.wearer else _wearer_columns(table):
            conn.execute(update(table).where(column == old).values({column.name: new}))
    for device in sorted(devices):
        table = tables.assignment
        if _named(conn, old, device) == old:
            known = select(table.c.device).where(table.c.wearer == old, table.c.device == device, table.c.since_ns == 0)
            if conn.execute(known).first() is None:
                conn.execute(insert(table).values(wearer=old, device=device, since_ns=0, worn_by=new))
    conn.execute(delete(tables.wearer).where(tables.wearer.c.id == old))


def assign(conn: Connection, device: str, *, giver: str, taker: str, since_ns: int) -> dict[str, Any]:
    """Give `giver`'s device to `taker`: samples taken from `since_ns` on are the taker's.

    Raises `BadInputError` for an unknown wearer, or a device the giver never wore.
    """
    queries.find_wearer(conn, taker)
    queries.find_wearer(conn, giver)
    table = tables.assignment
    named = _named(conn, giver, device)
    worn = select(tables.recording.c.id).where(tables.recording.c.wearer == giver, tables.recording.c.device == device)
    if named == giver and conn.execute(worn).first() is None:
        mine = select(tables.recording.c.device).where(tables.recording.c.wearer == giver).distinct()
        known = ", ".join(sorted(conn.execute(mine).scalars())) or "none"
        raise BadInputError(f"{giver} wears no device {device!r}; known: {known}")
    newest = conn.execute(
        select(func.max(table.c.since_ns)).where(table.c.wearer == named, table.c.device == device)
    ).scalar()
    if newest is not None and newest >= since_ns:
        raise BadInputError("the device changed its wearer after that time already: give a later --at")
    conn.execute(insert(table).values(wearer=named, device=device, since_ns=since_ns, worn_by=taker))
    return {"device": device, "named": named, "wearer": taker, "since_ns": since_ns}


def listing(conn: Connection) -> list[dict[str, Any]]:
    """Return every wearer with devices, recordings, hours, events and last data."""
    found = []
    moves = conn.execute(select(tables.assignment)).all()
    for person in queries.wearers(conn):
        recordings = queries.recordings(conn, person.id, ecg_only=False)
        finding = tables.finding.c
        mine = [recording.id for recording in recordings]
        count = select(func.count()).where(finding.recording_id.in_(mine), finding.superseded_by.is_(None))
        found.append(
            {
                "wearer": person.id,
                "timezone": person.timezone,
                "devices": sorted({recording.device for recording in recordings}),
                "recordings": len(recordings),
                "hours": round(sum(r.end_sample / r.fs_hz for r in recordings if r.leads) / 3600, 2),
                "events": int(conn.execute(count.where(finding.state != "retracted")).scalar_one()),
                "last_data_ns": max((r.last_received_ns for r in recordings), default=None),
                "given": [
                    {"device": m.device, "named": m.wearer, "since_ns": m.since_ns}
                    for m in moves
                    if m.worn_by == person.id
                ],
            }
        )
    return found


def forget(do: Do, wearer: str) -> dict[str, int]:
    """Delete everything of a wearer, slice by slice; return how many rows of which table.

    Raises `BadInputError` if there is no such wearer.
    """
    ids: list[int] = do(lambda conn: _recordings_of(conn, wearer))
    gone: dict[str, int] = {}
    for name in BIG:
        table = tables.metadata.tables.get(name)
        while table is not None and (rows := do(partial(_delete_some, table=table, wearer=wearer, ids=ids))):
            gone[name] = gone.get(name, 0) + rows
    for name, rows in do(lambda conn: _delete_rest(conn, wearer, ids)).items():
        gone[name] = gone.get(name, 0) + rows
    return {name: rows for name, rows in gone.items() if rows}


def traces(conn: Connection, wearer: str) -> list[str]:
    """Return the tables in which anything still says a wearer's name: none, if all is forgotten."""
    found = []
    for table in tables.metadata.sorted_tables:
        said = [_says(column, wearer) for column in table.c if column.type.python_type in TEXTS]
        if said and conn.execute(select(func.count()).select_from(table).where(or_(*said))).scalar_one():
            found.append(table.name)
    return found


def _recordings_of(conn: Connection, wearer: str) -> list[int]:
    queries.find_wearer(conn, wearer)
    return list(conn.execute(select(tables.recording.c.id).where(tables.recording.c.wearer == wearer)).scalars())


def _belongs(table: Table, wearer: str, ids: list[int]) -> ColumnElement[bool]:
    """Return which rows of a table are of a wearer, by the columns it has."""
    where: list[ColumnElement[bool]] = [column == wearer for column in _wearer_columns(table)]
    if "recording_id" in table.c:
        where.append(table.c.recording_id.in_(ids))
    if "finding_id" in table.c:
        mine = select(tables.finding.c.id).where(tables.finding.c.recording_id.in_(ids))
        where.append(table.c.finding_id.in_(mine))
    if table in (tables.outbox, tables.question, tables.health):
        where += [_says(column, wearer) for column in table.c if column.type.python_type in TEXTS]
    return or_(*where) if where else false()


def _says(column: ColumnElement[Any], wearer: str) -> ColumnElement[bool]:
    """Return whether a text or JSON value is a wearer's name, or has it between quotes, slashes or blanks."""
    text = cast(column, String)
    return or_(
        text == wearer,
        *(
            text.contains(f"{a}{wearer}{b}", autoescape=True)
            for a, b in (('"', '"'), ("/", "/"), ('"', "/"), (" ", " "), (" ", "?"), (" ", '"'), ('"', " "), (" ", "'"))
        ),
    )


def _wearer_columns(table: Table) -> Iterator[ColumnElement[Any]]:
    for column in table.c:
        refers = any(key.column is tables.wearer.c.id for key in column.foreign_keys)
        if refers or column.name == "wearer" or column is tables.wearer.c.id:
            yield column


def _delete_some(conn: Connection, table: Table, wearer: str, ids: list[int]) -> int:
    key = tuple(table.primary_key.columns)
    chosen = select(*key).where(_belongs(table, wearer, ids)).limit(SLICE_ROWS)
    return conn.execute(delete(table).where(tuple_(*key).in_(chosen))).rowcount


def _delete_rest(conn: Connection, wearer: str, ids: list[int]) -> dict[str, int]:
    return {
        table.name: conn.execute(delete(table).where(_belongs(table, wearer, ids))).rowcount
        for table in reversed(tables.metadata.sorted_tables)
    }


def _named(conn: Connection, worn_by: str, device: str) -> str:
    """Return which wearer the topic of a device names that `worn_by` wears."""
    table = tables.assignment
    moved = select(table.c.wearer).where(table.c.worn_by == worn_by, table.c.device == device)
    found = conn.execute(moved.order_by(table.c.since_ns.desc()).limit(1)).scalar()
    return worn_by if found is None else str(found)


def _check_new(conn: Connection, wearer: str) -> None:
    if not ID.fullmatch(wearer):
        raise BadInputError(f"wearer {wearer[:80]!r} must match {ID.pattern}")
    if conn.execute(select(tables.wearer.c.id).where(tables.wearer.c.id == wearer)).first() is not None:
        raise BadInputError(f"there is a wearer {wearer!r} already")


def _check_zone(timezone: str) -> None:
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise BadInputError(f"{timezone!r} is not a time zone; use an IANA name such as Europe/Berlin") from None
