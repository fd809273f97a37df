"""Places that look alike: the nearest of the stored embeddings (cosine), one hop of 2 s each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from edge.encoder.contract import HOP_S, TOKEN_DIM
from edge.encoder.windows import HOP, first_sample, hop_of
from edge.signal.prepare import step
from edge.store import queries
from edge.store.tables import analysis, cursor, embedding

SEED_HOPS = 15
"""At most so many hops of what is searched for are averaged."""
APART_S = 30.0
_AT_ONCE = 20_000
_BEST = 500


@dataclass(frozen=True, slots=True)
class Similar:
    """What was found."""

    places: tuple[tuple[int, float], ...]
    """(UTC of a hop, cosine similarity -1 to 1), the most similar first."""
    searched: int
    """Hops compared; 0 where what is searched for has no embedding."""


def nearest(
    conn: Connection, recording: queries.Recording, span: tuple[int, int], around_ns: tuple[int, int], shown: int
) -> Similar:
    """Return the places in a wearer's recordings whose hops are nearest to those of a span.

    Args:
        conn: the database.
        recording: where the span lies.
        span: [first, end) samples of it.
        around_ns: the period searched, UTC.
        shown: at most so many places, `APART_S` apart from each other and from the span.
    """
    k = hop_of(recording.fs_hz, span[0])
    last = min(hop_of(recording.fs_hz, span[1]), k + SEED_HOPS)
    own = conn.execute(
        select(embedding.c.encoder, embedding.c.vector).where(
            embedding.c.recording_id == recording.id, embedding.c.k >= k, embedding.c.k <= last
        )
    ).all()
    if not own:
        return Similar((), 0)
    encoder = _present(conn, recording.id, {r.encoder for r in own})
    target = _unit(_vectors([r.vector for r in own if r.encoder == encoder]).mean(axis=0, keepdims=True))[0]
    near: list[tuple[float, int]] = []
    searched = 0
    for other in queries.recordings(conn, recording.wearer):
        for first, end in other.sample_spans(*around_ns):
            found, count = _nearest(conn, other, encoder, target, first, end)
            near += found
            searched += count
    apart_ns = APART_S * queries.NS
    places: list[tuple[int, float]] = []
    taken: Sequence[tuple[int, int]] = [(recording.to_utc_ns(span[0]), recording.to_utc_ns(span[1]))]
    for score, at_ns in sorted(near, reverse=True):
        if len(places) == shown:
            break
        if all(at_ns < a - apart_ns or at_ns > b + apart_ns for a, b in taken):
            taken = [*taken, (at_ns, at_ns)]
            places.append((at_ns, score))
    return Similar(tuple(places), searched)


HOP_NS = round(HOP_S * queries.NS)


def _present(conn: Connection, recording_id: int, encoders: set[str]) -> str:
    """Return which of several encoders to compare by: the one that reads the recording now, else the newest."""
    at_work = select(analysis.c.encoder).join(cursor, cursor.c.analysis_id == analysis.c.id)
    now = conn.execute(at_work.where(cursor.c.recording_id == recording_id)).scalar()
    if now in encoders:
        return str(now)
    last_new = select(analysis.c.encoder, func.max(analysis.c.created_ns)).group_by(analysis.c.encoder)
    when = {encoder: int(ns) for encoder, ns in conn.execute(last_new)}
    return max(encoders, key=lambda encoder: (when.get(encoder, 0), encoder))


def _nearest(
    conn: Connection, recording: queries.Recording, encoder: str, target: NDArray[np.float32], first: int, end: int
) -> tuple[list[tuple[float, int]], int]:
    """Return the best (similarity, UTC) of each `_AT_ONCE` hops of a span, and how many were compared."""
    found: list[tuple[float, int]] = []
    searched = 0
    for hops, vectors in _hops(conn, recording, encoder, first, end):
        scores = _unit(vectors) @ target
        scores[~np.isfinite(scores)] = -1.0
        searched += len(hops)
        best = np.argsort(scores)[::-1][:_BEST]
        found += [(float(scores[n]), recording.to_utc_ns(first_sample(recording.fs_hz, int(hops[n])))) for n in best]
    return found, searched


def embeddings(
    conn: Connection, wearer: str, start_ns: int, end_ns: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield when hops of a period begin, ns UTC, and their embeddings [n, D], some thousands at a time.

    Of one encoder: the one that reads the newest of the wearer's recordings there.
    """
    spans = [(r, span) for r in queries.recordings(conn, wearer) for span in r.sample_spans(start_ns, end_ns)]
    for newest, _ in reversed(spans):
        known = select(embedding.c.encoder).distinct().where(embedding.c.recording_id == newest.id)
        encoders = set(conn.execute(known).scalars())
        if encoders:
            encoder = _present(conn, newest.id, encoders)
            break
    else:
        return
    for recording, (first, end) in spans:
        for hops, vectors in _hops(conn, recording, encoder, first, end):
            yield _utc_ns(recording, hops), vectors


def _utc_ns(recording: queries.Recording, hops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return when hops begin as `Recording.to_utc_ns` says, to a sample."""
    samples = np.ceil(hops * (HOP * float(step(recording.fs_hz)))).astype(np.int64)
    index0, utc_ns, rate_hz = (np.array(column) for column in zip(*recording.segments, strict=True))
    n = np.maximum(np.searchsorted(index0, samples, side="right") - 1, 0)
    at: NDArray[np.int64] = utc_ns[n] + np.rint((samples - index0[n]) / rate_hz[n] * queries.NS).astype(np.int64)
    return at


def _hops(
    conn: Connection, recording: queries.Recording, encoder: str, first: int, end: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield hops and their embeddings of samples [first, end), `_AT_ONCE` at a time."""
    k, stop = hop_of(recording.fs_hz, first), hop_of(recording.fs_hz, end - 1) + 1
    for low in range(k, stop, _AT_ONCE):
        rows = conn.execute(
            select(embedding.c.k, embedding.c.vector).where(
                embedding.c.recording_id == recording.id,
                embedding.c.encoder == encoder,
                embedding.c.k >= low,
                embedding.c.k < min(low + _AT_ONCE, stop),
            )
        ).all()
        if rows:
            yield np.array([row.k for row in rows]), _vectors([row.vector for row in rows])


def _vectors(packed: list[bytes]) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(packed), "<f2").reshape(-1, TOKEN_DIM).astype(np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: NDArray[np.float32] = vectors / length
    return unit
