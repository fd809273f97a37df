"""What became of the newest alerts, for `anyecg alerts list`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from edge.store import marks, queries
from edge.store.strips import kept
from edge.store.tables import alert, finding

DAY_NS = 86_400 * queries.NS
_SAID = {"ack": "acknowledged", "false": "false"}


def listing(conn: Connection, wearer: str | None, limit: int) -> list[dict[str, Any]]:
    """Return findings that were told, held or dropped, newest first.

    `alert` is told, acknowledged, false, held or dropped; `reason` why it was held, if it was; `strip` why its strip
    is among those its day keeps, None if it is not.
    """
    columns = (alert, finding.c.state.label("finding_state"), finding.c.severity.label("now"), finding.c.end_ns)
    statement = select(*columns).join(finding, finding.c.id == alert.c.finding_id)
    if wearer is not None:
        statement = statement.where(alert.c.wearer == wearer)
    rows = conn.execute(statement.order_by(alert.c.start_ns.desc(), alert.c.finding_id).limit(limit)).mappings().all()
    days: dict[tuple[str, int], dict[str, str]] = {}
    found = []
    for row in rows:
        day = row["wearer"], row["start_ns"] // DAY_NS
        if day not in days:
            start_ns = day[1] * DAY_NS
            that_day = queries.findings(conn, wearer=day[0], start_ns=start_ns, end_ns=start_ns + DAY_NS)
            days[day] = kept([one for one in that_day if one["start_ns"] >= start_ns])
        found.append(
            {
                "id": row["finding_id"],
                "wearer": row["wearer"],
                "rule": row["rule"],
                "severity": row["now"],
                "state": row["finding_state"],
                "alert": _SAID.get(marks.said(conn, row["finding_id"]) or "", row["state"]),
                "reason": row["reason"],
                "start_ns": row["start_ns"],
                "end_ns": row["end_ns"],
                "told_ns": row["told_ns"] or None,
                "revision": row["revision"],
                "strip": days[day].get(row["finding_id"]),
            }
        )
    return found
