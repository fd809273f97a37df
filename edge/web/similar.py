"""Episodes that look alike, for the page."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from edge.report.similar import HOP_NS, nearest
from edge.store import marks, queries
from edge.web import wire
from edge.web.live import event_row

PAST_S = 7 * 86_400
"""How far around the event is searched: half a million hops at most."""
SHOWN = 8


def similar(conn: Connection, event_id: str) -> dict[str, Any]:
    """Return the places in the wearer's week around an event whose hops are nearest to the event's own.

    `places`: time, cosine similarity (-1 to 1), and the event that lies there, if one does. `searched` counts the
    hops compared.
    """
    row = marks.find_episode(conn, event_id)
    recording = queries.find_recording(conn, row["recording_id"])
    around = (row["start_ns"] - PAST_S * queries.NS, row["start_ns"] + PAST_S * queries.NS)
    found = nearest(conn, recording, (row["start_sample"], row["end_sample"]), around, SHOWN)
    places: list[dict[str, Any]] = []
    for at_ns, score in found.places:
        there = queries.findings(conn, wearer=row["wearer"], start_ns=at_ns, end_ns=at_ns + HOP_NS, limit=5)
        same = sorted(there, key=lambda r: (r["rule"] != row["rule"], r["end_ns"] - r["start_ns"]))
        place = {"t_ms": wire.ms(at_ns), "similarity": round(score, 3)}
        places.append(place | {"event": event_row(same[0]) if same else None})
    return {"places": places, "searched": found.searched}
