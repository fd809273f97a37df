"""Findings that analysis does not make: of links, batteries and the gateway itself, and symptoms a person noted.

They lie in the same table as the others. `told_k` is −1, so no reading of the signal ever touches them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update

from edge import __version__
from edge.store import tables
from edge.store.findings import Change, current, ensure_analysis, revise

NO_HOP = -1


def write(conn: Connection, recording_id: int, row: dict[str, Any], now_ns: int) -> Change | None:
    """Write a finding as it now stands; return what changed, None if nothing did.

    `row` has the columns of `finding` from `id` to `evidence`, as `edge.alerts.liveness` makes them. One that ends
    without ever having been written is no news.
    """
    known = current(conn, row["id"])
    if known is None and row["state"] == "closed" and not row.get("whole"):
        return None
    if known is not None and known["state"] == row["state"] == "open":
        return None
    version = {
        "encoder": "gateway",
        "weights_sha256": "",
        "rules_hash": "",
        "code_version": __version__,
        "provider": "",
    }
    new = {
        "recording_id": recording_id,
        "opened_sample": row["start_sample"],
        "end_sample": row["start_sample"],
        "superseded_by": None,
        "opened_k": NO_HOP,
        "told_k": NO_HOP,
        **{name: value for name, value in row.items() if name in tables.finding.c},
        "revision": 1,
        "analysis_id": ensure_analysis(conn, version, now_ns),
    }
    changes: list[Change] = []
    revise(conn, new, known, now_ns, changes)
    if not changes:
        return None
    detected_ns = row.get("detected_ns", row["start_ns"])
    change = changes[0]
    kind = change.type
    if kind == "new" and new["state"] == "closed":
        kind = "end"
    elif kind == "update" and known is not None and known["state"] != "open":
        kind = "new"  # the same silence once more
    return Change(kind, change.row | {"detected_ns": detected_ns})


def recording_id(conn: Connection, key: str) -> int | None:
    """Return the id of the recording with this key, None if it is gone."""
    found = conn.execute(select(tables.recording.c.id).where(tables.recording.c.key == key)).scalar()
    return None if found is None else int(found)


def retract(conn: Connection, finding_id: str, now_ns: int) -> Change:
    """Take a finding back."""
    row = current(conn, finding_id)
    assert row is not None, "found before"
    changes: list[Change] = []
    revise(conn, {**row, "state": "retracted"}, row, now_ns, changes)
    return changes[0]


def touch(conn: Connection, finding_id: str, now_ns: int) -> Change:
    """Give a finding a new revision because a person said something of it."""
    row = current(conn, finding_id)
    assert row is not None, "found before"
    conn.execute(
        insert(tables.finding_revision).values(
            finding_id=finding_id, revision=row["revision"], row=row, written_ns=now_ns
        )
    )
    row = row | {"revision": row["revision"] + 1}
    mine = tables.finding.c.id == finding_id
    conn.execute(update(tables.finding).where(mine).values(revision=row["revision"]))
    return Change("update" if row["state"] == "open" else "end", row)
