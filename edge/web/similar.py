"""Episodes that look alike: the nearest of the stored embeddings (cosine), one hop of 2 s each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from edge.encoder.contract import HOP_S, TOKEN_DIM
from edge.encoder.windows import first_sample, hop_of
from edge.store import queries
from edge.store.tables import embedding
from edge.web import wire
from edge.web.live import event_row

PAST_S = 7 * 86_400
"""How far around the event is searched: half a million hops at most."""
EVENT_HOPS = 15
APART_S = 30.0
SHOWN = 8
_AT_ONCE = 20_000


def similar(conn: Connection, event_id: str) -> dict[str, Any]:
    """Return the places in the wearer's week around an event whose hops are nearest to the event's own.

    `places`: time, cosine similarity (-1 to 1), and the event that lies there, if one does. Places are `APART_S`
    apart from each other and from the event. `searched` counts the hops compared.
    """
    row = queries.find_finding(conn, event_id)
    recording = queries.find_recording(conn, row["recording_id"])
    k = hop_of(recording.fs_hz, row["start_sample"])
    last = min(hop_of(recording.fs_hz, row["end_sample"]), k + EVENT_HOPS)
    own = conn.execute(
        select(embedding.c.encoder, embedding.c.vector)
        .where(embedding.c.recording_id == recording.id, embedding.c.k >= k, embedding.c.k <= last)
        .order_by(embedding.c.encoder.desc())
    ).all()
    if not own:
        return {"places": [], "searched": 0}
    encoder = own[0].encoder
    target = _unit(_vectors([r.vector for r in own if r.encoder == encoder]).mean(axis=0, keepdims=True))[0]
    near: list[tuple[float, int]] = []
    searched = 0
    around = (row["start_ns"] - PAST_S * queries.NS, row["start_ns"] + PAST_S * queries.NS)
    for other in queries.recordings(conn, row["wearer"]):
        for first, end in other.sample_spans(*around):
            found, count = _nearest(conn, other, encoder, target, first, end)
            near += found
            searched += count
    places: list[dict[str, Any]] = []
    taken = [(row["start_ns"], row["end_ns"])]
    for score, at_ns in sorted(near, reverse=True):
        if all(at_ns < a - APART_S * queries.NS or at_ns > b + APART_S * queries.NS for a, b in taken):
            taken.append((at_ns, at_ns))
            hop_ns = round(HOP_S * queries.NS)
            there = queries.findings(conn, wearer=row["wearer"], start_ns=at_ns, end_ns=at_ns + hop_ns, limit=5)
            same = sorted(there, key=lambda r: (r["rule"] != row["rule"], r["end_ns"] - r["start_ns"]))
            place = {"t_ms": wire.ms(at_ns), "similarity": round(score, 3)}
            places.append(place | {"event": event_row(same[0]) if same else None})
            if len(places) == SHOWN:
                break
    return {"places": places, "searched": searched}


def _nearest(
    conn: Connection, recording: queries.Recording, encoder: str, target: NDArray[np.float32], first: int, end: int
) -> tuple[list[tuple[float, int]], int]:
    """Return the best (similarity, UTC) of each `_AT_ONCE` hops of a span, and how many were compared."""
    k, stop = hop_of(recording.fs_hz, first), hop_of(recording.fs_hz, end - 1) + 1
    found: list[tuple[float, int]] = []
    searched = 0
    for low in range(k, stop, _AT_ONCE):
        rows = conn.execute(
            select(embedding.c.k, embedding.c.vector).where(
                embedding.c.recording_id == recording.id,
                embedding.c.encoder == encoder,
                embedding.c.k >= low,
                embedding.c.k < min(low + _AT_ONCE, stop),
            )
        ).all()
        if not rows:
            continue
        scores = _unit(_vectors([r.vector for r in rows])) @ target
        scores[~np.isfinite(scores)] = -1.0
        searched += len(rows)
        best = np.argsort(scores)[::-1][:500]
        found += [(float(scores[n]), recording.to_utc_ns(first_sample(recording.fs_hz, rows[n].k))) for n in best]
    return found, searched


def _vectors(packed: list[bytes]) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(packed), "<f2").reshape(-1, TOKEN_DIM).astype(np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: NDArray[np.float32] = vectors / length
    return unit
