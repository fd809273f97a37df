"""What analysis leaves behind: beats, trends, embeddings, findings with their revisions, and the cursor.

A `Passage` is one recording's analysed stretch of hops. The forward case appends; a passage over hops that were
analysed before (late data) replaces what those hops had said: findings that come out again keep their history as
revisions, findings that do not are retracted, paired with their successor by rule and overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from edge.encoder.windows import first_sample, hops_touched
from edge.rhythm.events import Beat, Finding, TrendMinute
from edge.store import tables
from edge.store.beats import pack_beats, unpack_beats

ChangeType = Literal["new", "update", "end", "retracted"]


@dataclass(frozen=True, slots=True)
class Told:
    """A finding as some hop told it."""

    k: int
    finding: Finding


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A rhythm state before hop `k`; every beat told so far lies before `beats_until`."""

    k: int
    state: bytes
    beats_until: int


@dataclass(slots=True)
class Passage:
    """Hops [k0, k1) of one recording, read in order from the state before k0."""

    recording_id: int
    k0: int
    k1: int
    beats_from: int
    """Beats told by earlier hops lie before this sample."""
    analysis_id: int
    encoder: str
    silent_until_k: int = 0
    """Goes with the cursor: hops before it are read again and nobody is told."""
    beats: list[Beat] = field(default_factory=list)
    trends: list[TrendMinute] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    embeddings: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    end: Checkpoint | None = None
    """State after the last hop; None when the rest of the recording stays as it was analysed before."""
    beats_end: int | None = None
    """Beats from this sample on stay as they were; None: nothing follows."""
    stays_before: int = 0
    """Findings that began before this sample stay as they were: the signal they were read from has expired."""


@dataclass(frozen=True, slots=True)
class Change:
    """A finding that became news, as its row now stands."""

    type: ChangeType
    row: dict[str, Any]


CHECKPOINTS_EVERY_MINUTE = 43_200
"""Hops (a day) within which every checkpoint is kept: about 3 MB."""
CHECKPOINT_SPACING = 1_800
"""Hops (an hour) between the older ones: data a day late costs an hour's analysis."""
_CHANGE: dict[str, ChangeType] = {"closed": "end", "retracted": "retracted"}
_CONTENT = ("severity", "state", "start_sample", "end_sample", "detected_sample", "evidence")


def commit_passage(
    conn: Connection,
    passage: Passage,
    *,
    to_utc_ns: Callable[[int], int],
    fs_hz: float,
    now_ns: int,
) -> list[Change]:
    """Write a passage in the caller's transaction and return what changed, in the order it was told.

    Args:
        conn: the writer's connection.
        passage: what the hops said.
        to_utc_ns: sample index of the recording → UTC.
        fs_hz: the recording's rate; minute m of beats and trends covers samples [m·60·fs, (m+1)·60·fs).
        now_ns: wall time, recorded with replaced revisions only.
    """
    _spare_expired(conn, passage, fs_hz)
    _write_beats(conn, passage, fs_hz)
    _write_trends(conn, passage, to_utc_ns, fs_hz)
    write_embeddings(conn, passage)
    changes = _write_findings(conn, passage, to_utc_ns, now_ns)
    _write_cursor(conn, passage)
    return changes


EXPIRY_MARGIN_HOPS = 60
"""Hops after expired signal whose new reading does not count: rhythm has only just begun there."""


def _spare_expired(conn: Connection, passage: Passage, fs_hz: float) -> None:
    """Take out of a passage what it says of signal that retention has deleted: what was said before stands."""
    until = conn.execute(
        select(tables.expiry.c.until_sample).where(tables.expiry.c.recording_id == passage.recording_id)
    ).scalar()
    if until is None:
        return
    first_k = hops_touched(fs_hz, 0, int(until))[1] + EXPIRY_MARGIN_HOPS
    if passage.k0 >= first_k:
        return
    sample = first_sample(fs_hz, first_k)
    passage.k0, passage.beats_from, passage.stays_before = first_k, max(passage.beats_from, sample), sample
    passage.beats = [beat for beat in passage.beats if beat.sample >= sample]
    passage.trends = [trend for trend in passage.trends if trend.minute * 60 * fs_hz >= sample]
    passage.told = [told for told in passage.told if told.k >= first_k and told.finding.start_sample >= sample]
    passage.embeddings = [(k, vector) for k, vector in passage.embeddings if k >= first_k]
    passage.checkpoints = [checkpoint for checkpoint in passage.checkpoints if checkpoint.k >= first_k]


def _write_beats(conn: Connection, passage: Passage, fs_hz: float) -> None:
    minute_samples = 60 * fs_hz
    end = passage.beats_end
    by_minute: dict[int, list[Beat]] = {}
    for beat in passage.beats:
        by_minute.setdefault(int(beat.sample // minute_samples), []).append(beat)
    first = int(passage.beats_from // minute_samples)
    beats = tables.beats
    touched = select(beats.c.minute, beats.c.data).where(
        beats.c.recording_id == passage.recording_id, beats.c.minute >= first
    )
    if end is not None:
        touched = touched.where(beats.c.minute <= int(end // minute_samples))
    kept: dict[int, bytes] = {}
    for minute, data in conn.execute(touched).all():
        old = unpack_beats(data)
        before = old[old["sample"] < passage.beats_from].tobytes()
        after = old[old["sample"] >= end].tobytes() if end is not None else b""
        new = by_minute.pop(minute, [])
        merged = before + pack_beats(new) + after
        if merged != data:
            kept[minute] = merged
    kept.update({minute: pack_beats(new) for minute, new in by_minute.items()})
    for minute, data in kept.items():
        row = {"recording_id": passage.recording_id, "minute": minute, "data": data}
        conn.execute(
            upsert(beats)
            .values(row)
            .on_conflict_do_update(index_elements=["recording_id", "minute"], set_={"data": data})
        )


def _write_trends(conn: Connection, passage: Passage, to_utc_ns: Callable[[int], int], fs_hz: float) -> None:
    for trend in passage.trends:
        utc_ns = to_utc_ns(round(trend.minute * 60 * fs_hz))
        row = {**asdict(trend), "recording_id": passage.recording_id, "utc_ns": utc_ns}
        conn.execute(
            upsert(tables.trend).values(row).on_conflict_do_update(index_elements=["recording_id", "minute"], set_=row)
        )


def write_embeddings(conn: Connection, passage: Passage) -> None:
    """Write the embeddings of a passage; those of other encoders stay."""
    if passage.embeddings:
        rows = [
            {
                "recording_id": passage.recording_id,
                "encoder": passage.encoder,
                "k": k,
                "vector": vector.astype("<f2").tobytes(),
            }
            for k, vector in passage.embeddings
        ]
        statement = upsert(tables.embedding)
        conn.execute(
            statement.on_conflict_do_update(
                index_elements=["recording_id", "encoder", "k"], set_={"vector": statement.excluded.vector}
            ),
            rows,
        )


def _write_cursor(conn: Connection, passage: Passage) -> None:
    key = tables.checkpoint.c.recording_id == passage.recording_id
    conn.execute(
        delete(tables.checkpoint).where(key, tables.checkpoint.c.k > passage.k0, tables.checkpoint.c.k <= passage.k1)
    )
    for checkpoint in passage.checkpoints:
        row = {"recording_id": passage.recording_id, **asdict(checkpoint)}
        conn.execute(
            upsert(tables.checkpoint).values(row).on_conflict_do_update(index_elements=["recording_id", "k"], set_=row)
        )
    if passage.checkpoints:
        old = tables.checkpoint.c.k < passage.k1 - CHECKPOINTS_EVERY_MINUTE
        conn.execute(delete(tables.checkpoint).where(key, old, tables.checkpoint.c.k % CHECKPOINT_SPACING != 0))
    if passage.end is not None:
        row = {
            "recording_id": passage.recording_id,
            "next_k": passage.end.k,
            "state": passage.end.state,
            "beats_until": passage.end.beats_until,
            "silent_until_k": passage.silent_until_k,
            "analysis_id": passage.analysis_id,
        }
        conn.execute(upsert(tables.cursor).values(row).on_conflict_do_update(index_elements=["recording_id"], set_=row))
    elif passage.beats:  # a repair that met a stored state: the cursor may not know of its last beat
        reach = passage.beats[-1].sample + 1
        mine = (tables.cursor.c.recording_id == passage.recording_id) & (tables.cursor.c.beats_until < reach)
        conn.execute(update(tables.cursor).where(mine).values(beats_until=reach))


def _content(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _CONTENT}


def _write_findings(conn: Connection, passage: Passage, to_utc_ns: Callable[[int], int], now_ns: int) -> list[Change]:
    finding = tables.finding
    again = {
        row["id"]: dict(row)
        for row in conn.execute(
            select(finding).where(
                finding.c.recording_id == passage.recording_id,
                finding.c.told_k >= passage.k0,
                finding.c.told_k < passage.k1,
                finding.c.start_sample >= passage.stays_before,
                finding.c.superseded_by.is_(None),
                finding.c.state != "retracted",
            )
        ).mappings()
    }
    changes: list[Change] = []
    said: dict[str, dict[str, Any]] = {}
    last = {told.finding.id: told for told in passage.told}
    for told in passage.told:
        key = told.finding.id
        if key in again and told is not last[key]:
            continue  # told before: only what it comes to can be news
        row = _row(passage, told, to_utc_ns)
        known = said.get(key) or again.get(key) or current(conn, key)
        if passage.end is None and known is not None and known["told_k"] >= passage.k1:
            said[key] = known  # the later word stands: it was told from the state this passage came to again
            continue
        if known is not None:
            row["opened_k"] = min(row["opened_k"], known["opened_k"])
        if known is None and row["state"] == "closed":  # short: whoever is told needs its beginning and its end
            known = revise(conn, {**row, "state": "open"}, None, now_ns, changes)
        said[key] = revise(conn, row, known, now_ns, changes)
    for key in said:
        again.pop(key, None)
    for row in again.values():
        earlier = _as_of(conn, row["id"], passage.k0) if row["opened_k"] < passage.k0 else None
        if earlier is not None:
            revise(conn, earlier, row, now_ns, changes)
            continue
        heir = next(
            (
                new["id"]
                for new in said.values()
                if new["rule"] == row["rule"]
                and new["start_sample"] < row["end_sample"]
                and row["start_sample"] < new["end_sample"]
            ),
            None,
        )
        gone = {**row, "state": "retracted", "superseded_by": heir}
        revise(conn, gone, row, now_ns, changes)
        if heir is not None:
            conn.execute(update(tables.mark).where(tables.mark.c.finding_id == row["id"]).values(finding_id=heir))
    return changes


def _row(passage: Passage, told: Told, to_utc_ns: Callable[[int], int]) -> dict[str, Any]:
    finding = told.finding
    return {
        **asdict(finding),
        "recording_id": passage.recording_id,
        "revision": 1,
        "opened_k": told.k,
        "told_k": told.k,
        "start_ns": to_utc_ns(finding.start_sample),
        "end_ns": to_utc_ns(finding.end_sample),
        "superseded_by": None,
        "analysis_id": passage.analysis_id,
    }


def current(conn: Connection, finding_id: str) -> dict[str, Any] | None:
    """Return a finding as it now stands, None if there is none."""
    row = conn.execute(select(tables.finding).where(tables.finding.c.id == finding_id)).mappings().first()
    return None if row is None else dict(row)


def _as_of(conn: Connection, finding_id: str, k: int) -> dict[str, Any] | None:
    """Return the newest revision told before hop `k`."""
    revisions = conn.execute(
        select(tables.finding_revision.c.row)
        .where(tables.finding_revision.c.finding_id == finding_id)
        .order_by(tables.finding_revision.c.revision.desc())
    ).scalars()
    return next((row for row in revisions if row["told_k"] < k), None)


def revise(
    conn: Connection, row: dict[str, Any], known: dict[str, Any] | None, now_ns: int, changes: list[Change]
) -> dict[str, Any]:
    """Write `row` over `known`, note in `changes` if it says something new, and return the row as it now stands."""
    if known is None:
        conn.execute(insert(tables.finding).values(row))
        changes.append(Change("new", row))
        return row
    same = _content(row) == _content(known)
    row = {**row, "revision": known["revision"] + (not same)}
    conn.execute(update(tables.finding).where(tables.finding.c.id == row["id"]).values(row))
    if not same:
        conn.execute(
            insert(tables.finding_revision).values(
                finding_id=row["id"], revision=known["revision"], row=known, written_ns=now_ns
            )
        )
        changes.append(Change(_CHANGE.get(row["state"], "update"), row))
    return row


def ensure_analysis(conn: Connection, values: dict[str, str], now_ns: int) -> int:
    """Return the id of the analysis with these attributes, writing it if it is new."""
    match = [tables.analysis.c[name] == value for name, value in values.items()]
    found = conn.execute(select(tables.analysis.c.id).where(*match)).scalar()
    if found is not None:
        return int(found)
    statement = insert(tables.analysis).values(**values, created_ns=now_ns).returning(tables.analysis.c.id)
    return int(conn.execute(statement).scalar_one())


@dataclass(frozen=True, slots=True)
class LateData:
    """What late data changed since the last repair."""

    start: int
    end: int
    """Samples [start, end)."""
    insertions: int
    """How often late data came to this recording at all: more of it has come when this has grown."""


def late_data(conn: Connection, recording_id: int) -> LateData | None:
    """Return what late data changed since the last repair, None when nothing."""
    recording = tables.recording.c
    columns = (recording.changed_from_sample, recording.changed_until_sample, recording.late_insertions)
    row = conn.execute(select(*columns).where(recording.id == recording_id)).one()
    return None if row[0] is None else LateData(int(row[0]), int(row[1]), int(row[2]))


def late_insertions(conn: Connection, recording_id: int) -> int:
    """Return how often late data came to a recording."""
    column = tables.recording.c.late_insertions
    return int(conn.execute(select(column).where(tables.recording.c.id == recording_id)).scalar_one())


def settle_late_data(conn: Connection, recording_id: int, late: LateData) -> None:
    """Forget late data that was repaired, unless more has come meanwhile: the next repair takes all of it."""
    recording = tables.recording
    conn.execute(
        update(recording)
        .where(recording.c.id == recording_id, recording.c.late_insertions == late.insertions)
        .values(changed_from_sample=None, changed_until_sample=None)
    )


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where analysis of a recording stands."""

    at: Checkpoint
    silent_until_k: int
    """Hops before it were told by an analysis with other rules: nobody is told again."""


def cursor(conn: Connection, recording_id: int) -> Cursor | None:
    """Return where analysis of a recording stands, None if it has not begun."""
    table = tables.cursor.c
    columns = (table.next_k, table.state, table.beats_until, table.silent_until_k)
    row = conn.execute(select(*columns).where(table.recording_id == recording_id)).first()
    return None if row is None else Cursor(Checkpoint(int(row[0]), row[1], int(row[2])), int(row[3]))


def checkpoint_before(conn: Connection, recording_id: int, k: int) -> Checkpoint:
    """Return the newest checkpoint at or before hop `k`; the beginning of the recording if there is none."""
    table = tables.checkpoint.c
    row = conn.execute(
        select(table.k, table.state, table.beats_until)
        .where(table.recording_id == recording_id, table.k <= k)
        .order_by(table.k.desc())
        .limit(1)
    ).first()
    return Checkpoint(0, b"", 0) if row is None else Checkpoint(int(row[0]), row[1], int(row[2]))


def checkpoint_at(conn: Connection, recording_id: int, k: int) -> Checkpoint | None:
    """Return the checkpoint at hop `k`, None if there is none."""
    at = checkpoint_before(conn, recording_id, k)
    return at if at.k == k and at.state else None
