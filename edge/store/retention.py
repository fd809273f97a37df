"""What goes when: raw signal, embeddings, trends and findings, each by age; raw signal and embeddings by disk use.

| tier | tables | by age | to make room |
|---|---|---|---|
| raw | block, checkpoint | `raw_days` | first, oldest first, whoever's it is, down to `keep_hours` |
| embeddings | embedding | `embeddings_days` | second |
| trends | beats, trend | `trends_days` | never |
| findings | finding and its revisions, question | `findings_days` | never |

The strip of a kept finding is the signal around it, and it stays when the rest of the raw signal goes. Kept are, per
recording and day, the most extreme, the longest and the second longest finding of each rule (Holter practice), every
symptom, and whatever a person confirmed, corrected or noted. Signal that was not analysed yet never goes. Findings
that a person marked never go by age.

Every function is one job of the writer, small enough not to hold up a chunk; they return how many rows went.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, or_, select, tuple_
from sqlalchemy.dialects.sqlite import insert as upsert

from edge.encoder.windows import first_sample, samples_needed
from edge.store import queries, strips, tables
from edge.store.queries import AFTER_ALL, NS, Recording, sample_at, utc_at
from edge.store.waveform import block_len

SLICE_BLOCKS = 180
"""Blocks of 10 s in one job: half an hour of one recording."""
SLICE_ROWS = 500
VACUUM_PAGES = 256
"""Pages given back to the disk in one job: 2 MB."""
STRIP_BEFORE_S = 30.0
STRIP_S = 90.0
"""Of a finding's strip: from 30 s before it, 90 s of it at most, 30 s after (a symptom strip is 90 s in all)."""
DAY_NS = 86_400 * NS
LASTING_MARKS = ("confirm", "note", "symptom", "beat", "episode")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the database takes, in bytes."""

    used: int
    """Pages with something in them."""
    free: int
    """Pages to be used again."""


def usage(conn: Connection) -> Usage:
    """Return how much of the file is used, and how much free."""
    size, pages, free = (
        int(conn.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_size", "page_count", "freelist_count")
    )
    return Usage((pages - free) * size, free * size)


def vacuum(conn: Connection) -> int:
    """Give `VACUUM_PAGES` free pages back to the disk; return how many are left.

    The file shrinks at the next checkpoint.
    """
    driver = conn.connection.driver_connection
    assert driver is not None
    for _ in range(min(VACUUM_PAGES, _free_pages(conn))):
        driver.execute("PRAGMA incremental_vacuum(1)").fetchall()  # Python stops at the first page
    return _free_pages(conn)


def _free_pages(conn: Connection) -> int:
    return int(conn.exec_driver_sql("PRAGMA freelist_count").scalar_one())


def expired_until(conn: Connection, recording_id: int) -> int:
    """Return the sample below which raw signal may be gone."""
    column = tables.expiry.c.until_sample
    return int(conn.execute(select(column).where(tables.expiry.c.recording_id == recording_id)).scalar() or 0)


def expire_raw(conn: Connection, before_ns: int) -> int:
    """Delete the oldest half hour of raw signal taken before `before_ns`; return how many blocks went or were passed.

    0 means that nothing more may go: what is left is younger, not analysed yet, or a strip.
    """
    oldest: tuple[int, Recording, int] | None = None
    for recording in queries.recordings(conn, since_sample=AFTER_ALL):
        until = _may_go_until(conn, recording, before_ns)
        first = -(-expired_until(conn, recording.id) // block_len(recording.fs_hz))
        if until > first:
            at_ns = utc_at(conn, recording, first * block_len(recording.fs_hz))
            if oldest is None or at_ns < oldest[0]:
                oldest = (at_ns, recording, until)
    if oldest is None:
        return 0
    _, recording, until = oldest
    length = block_len(recording.fs_hz)
    first = -(-expired_until(conn, recording.id) // length)
    stored = select(tables.block.c.block_no).where(
        tables.block.c.recording_id == recording.id, tables.block.c.block_no >= first, tables.block.c.block_no < until
    )
    numbers = list(conn.execute(stored.order_by(tables.block.c.block_no).limit(SLICE_BLOCKS)).scalars())
    stop = until if len(numbers) < SLICE_BLOCKS else numbers[-1] + 1
    _sweep(conn, recording, first, stop)
    row = {"recording_id": recording.id, "until_sample": stop * length}
    conn.execute(upsert(tables.expiry).values(row).on_conflict_do_update(index_elements=["recording_id"], set_=row))
    return max(len(numbers), 1)


def expire_embeddings(conn: Connection, before_ns: int) -> int:
    """Delete a slice of the embeddings of hops taken before `before_ns`."""
    table = tables.embedding
    for recording in queries.recordings(conn, since_sample=AFTER_ALL):
        sample = sample_at(conn, recording, before_ns)
        last_k = int(sample // (2 * recording.fs_hz))
        where = (table.c.recording_id == recording.id) & (table.c.k < last_k)
        if gone := _delete_some(conn, table, where, (table.c.recording_id, table.c.encoder, table.c.k)):
            return gone
    return 0


def expire_trends(conn: Connection, before_ns: int) -> int:
    """Delete a slice of the beats and trend minutes before `before_ns`."""
    for recording in queries.recordings(conn, ecg_only=False, since_sample=AFTER_ALL):
        minute = int(sample_at(conn, recording, before_ns) // (60 * recording.fs_hz))
        gone = 0
        for table in (tables.beats, tables.trend):
            where = (table.c.recording_id == recording.id) & (table.c.minute < minute)
            gone += _delete_some(conn, table, where, (table.c.recording_id, table.c.minute))
        if gone:
            return gone
    return 0


def expire_findings(conn: Connection, before_ns: int) -> int:
    """Delete a slice of the findings that ended before `before_ns`, with strips and revisions, and of old questions.

    What is still open, and what a person marked, stays.
    """
    finding, mark = tables.finding, tables.mark
    marked = select(mark.c.finding_id).where(mark.c.finding_id.is_not(None))
    where = (finding.c.end_ns < before_ns) & (finding.c.state != "open") & finding.c.id.not_in(marked)
    rows = conn.execute(select(finding).where(where).order_by(finding.c.end_ns).limit(SLICE_ROWS)).mappings().all()
    ids = [row["id"] for row in rows]
    conn.execute(delete(tables.finding_revision).where(tables.finding_revision.c.finding_id.in_(ids)))
    conn.execute(delete(finding).where(finding.c.id.in_(ids)))
    for recording_id in {row["recording_id"] for row in rows}:
        recording = queries.find_recording(conn, recording_id, since_sample=AFTER_ALL)
        length = block_len(recording.fs_hz)
        until = expired_until(conn, recording_id) // length
        for row in rows:
            if row["recording_id"] == recording_id:
                first, end = _strip(recording, row)
                _sweep(conn, recording, max(first // length, 0), min(-(-end // length), until))
    question = tables.question
    gone = _delete_some(conn, question, question.c.asked_ns < before_ns, (question.c.id,))
    return len(ids) + gone


def kept_strips(conn: Connection, recording: Recording, start_sample: int, end_sample: int) -> list[tuple[int, int]]:
    """Return the sample spans [first, end) within [start_sample, end_sample) that stay, merged and ascending."""
    finding, mark = tables.finding, tables.mark
    day = round(86_400 * recording.fs_hz)  # whose findings choose among themselves
    near = select(finding).where(
        finding.c.recording_id == recording.id,
        finding.c.start_sample < end_sample + day,
        finding.c.start_sample > start_sample - day,
        finding.c.superseded_by.is_(None),
        finding.c.state != "retracted",
        finding.c.rule.not_in(strips.NO_STRIP),
    )
    rows = [dict(row) for row in conn.execute(near).mappings()]
    said = conn.execute(
        select(mark.c.finding_id, mark.c.kind).where(
            mark.c.finding_id.in_(select(finding.c.id).where(finding.c.recording_id == recording.id)),
            mark.c.undone_ns.is_(None),
        )
    ).all()
    lasting = {finding_id for finding_id, kind in said if kind in LASTING_MARKS}
    false = {finding_id for finding_id, kind in said if kind == "false"} - lasting
    spans = [_strip(recording, row) for row in _chosen(rows, lasting, false)]
    spans += [_strip(recording, {"start_sample": s, "end_sample": e}) for s, e in _marked(conn, recording)]
    return [
        (max(a, start_sample), min(b, end_sample))
        for a, b in queries.merge(spans)
        if a < end_sample and b > start_sample
    ]


def _chosen(rows: list[dict[str, Any]], lasting: set[str], false: set[str]) -> list[dict[str, Any]]:
    """Return the findings whose strips stay: marked ones, symptoms, and the Holter rule's three a day and rule."""
    kept = {
        row["id"]: row for row in rows if row["id"] in lasting or row["rule"] == "symptom" or row["state"] == "open"
    }
    by_day: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["id"] not in false:
            by_day.setdefault(row["start_ns"] // DAY_NS, []).append(row)
    for group in by_day.values():
        ids = strips.kept(group)
        kept.update((row["id"], row) for row in group if row["id"] in ids)
    return list(kept.values())


def _marked(conn: Connection, recording: Recording) -> list[tuple[int, int]]:
    """Return the spans a person marked without a finding: corrected beats, own episodes, symptoms and notes."""
    mark = tables.mark
    mine = or_(mark.c.recording_id == recording.id, (mark.c.wearer == recording.wearer) & mark.c.recording_id.is_(None))
    rows = conn.execute(
        select(mark.c.recording_id, mark.c.start_sample, mark.c.end_sample, mark.c.at_ns).where(
            mine, mark.c.kind.in_(LASTING_MARKS), mark.c.undone_ns.is_(None), mark.c.finding_id.is_(None)
        )
    )
    begins_ns = utc_at(conn, recording, 0)
    spans = []
    for row in rows:
        if row.start_sample is not None:
            spans.append((int(row.start_sample), int(row.end_sample or row.start_sample + 1)))
        elif begins_ns - DAY_NS < row.at_ns:
            at = sample_at(conn, recording, row.at_ns)
            spans.append((at, at + 1))
    return spans


def _strip(recording: Recording, row: Any) -> tuple[int, int]:
    before, longest = round(STRIP_BEFORE_S * recording.fs_hz), round(STRIP_S * recording.fs_hz)
    start, end = int(row["start_sample"]), int(row["end_sample"])
    return max(start - before, 0), min(max(end, start + 1), start + longest) + before


def _may_go_until(conn: Connection, recording: Recording, before_ns: int) -> int:
    """Return the block up to which a recording's signal is old enough and no longer needed by analysis."""
    length = block_len(recording.fs_hz)
    row = conn.execute(select(tables.recording).where(tables.recording.c.id == recording.id)).one()
    next_k = conn.execute(
        select(tables.cursor.c.next_k).where(tables.cursor.c.recording_id == recording.id)
    ).scalar_one_or_none()
    if next_k is None or row.changed_from_sample is not None:
        return 0
    analysed = min(samples_needed(recording.fs_hz, next_k, next_k + 1)[0], first_sample(recording.fs_hz, next_k))
    return max(min(sample_at(conn, recording, before_ns), analysed, recording.end_sample) // length, 0)


def _sweep(conn: Connection, recording: Recording, first: int, stop: int) -> None:
    """Delete blocks [first, stop) but for kept strips, and the checkpoints that nobody can start from any more."""
    if stop <= first:
        return
    length = block_len(recording.fs_hz)
    block, checkpoint = tables.block, tables.checkpoint
    kept: set[int] = set()
    for a, b in kept_strips(conn, recording, first * length, stop * length):
        kept.update(range(a // length, -(-b // length)))
    numbers = [n for n in range(first, stop) if n not in kept]
    for span_first, span_stop in runs(numbers):
        conn.execute(
            delete(block).where(
                block.c.recording_id == recording.id, block.c.block_no >= span_first, block.c.block_no < span_stop
            )
        )
    past_k = int(stop * length // (2 * recording.fs_hz))
    conn.execute(delete(checkpoint).where(checkpoint.c.recording_id == recording.id, checkpoint.c.k < past_k))


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as runs [first, stop)."""
    found: list[list[int]] = []
    for n in numbers:
        if found and found[-1][1] == n:
            found[-1][1] = n + 1
        else:
            found.append([n, n + 1])
    return [(a, b) for a, b in found]


def _delete_some(
    conn: Connection, table: Table, where: ColumnElement[bool], key: tuple[ColumnElement[Any], ...]
) -> int:
    some = select(*key).where(where).limit(SLICE_ROWS)
    return conn.execute(delete(table).where(tuple_(*key).in_(some))).rowcount
