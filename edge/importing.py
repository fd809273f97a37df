"""A file into the store: the same chunks, intake and analysis as a live wearable, but nobody is alerted."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, func, select

from edge.alerts import people
from edge.chunk import MISSING, Chunk, Delivery
from edge.clock import utc_ns_of
from edge.errors import AnyecgError, BadInputError
from edge.gateway import Gateway
from edge.sources.payload import ID
from edge.sources.record import Record, read_record
from edge.store import marks, queries, tables

CHUNK_S = 10.0
IN_FLIGHT = 64


async def import_record(
    gateway: Gateway,
    *,
    record: str,
    wearer: str,
    device: str | None = None,
    start: str | None = None,
    lead: list[str | int] | None = None,
) -> dict[str, Any]:
    """Store and analyse one WFDB or EDF recording; importing it again changes nothing.

    Args:
        gateway: its `analyse` must be running.
        record: path of the record (no extension for WFDB), as this process sees it.
        wearer: whose it is.
        device: what to call its source; by default made from the record's name and start.
        start: UTC of its first sample, ISO 8601; by default the file's own, else such that it ends now.
        lead: names or indices of the leads to keep; by default all.

    Raises `BadInputError` for a file or an option that makes no sense; nothing is stored then.
    """
    _check_id("wearer", wearer)
    source = await asyncio.to_thread(read_record, record, lead or None)
    start_ns = _start_ns(start, source, gateway.clock.utc_ns())
    boot = int.from_bytes(hashlib.blake2b(source.samples.tobytes(), digest_size=8).digest()) >> 1
    device = device or f"file-{re.sub('[^a-z0-9]+', '-', source.name.lower())[:40]}-{boot & 0xFFFFFF:06x}"
    _check_id("device", device)
    await asyncio.to_thread(_check_free, gateway, wearer, device, boot)
    found: set[int] = set()
    intake = gateway.new_intake("import", lambda stored: found.add(stored.recording_id))
    parts = list(chunks(source, wearer, device, boot, start_ns))
    if not parts:
        raise BadInputError(f"{record} holds no samples: nothing to import")
    for at in range(0, len(parts), IN_FLIGHT):
        now_ns = gateway.clock.utc_ns()
        deliveries = [Delivery(chunk, now_ns, lambda: None) for chunk in parts[at : at + IN_FLIGHT]]
        await asyncio.gather(*(intake.accept(delivery) for delivery in deliveries))
        await intake.tick()  # into blocks as it comes: a day in one piece would hold up live wearers
    kept = intake.counters["stored"] + intake.counters["duplicate"]
    if kept < len(parts):
        refused = {
            name: count for name, count in intake.counters.items() if count and name not in ("stored", "duplicate")
        }
        raise AnyecgError(f"{len(parts) - kept} of {len(parts)} pieces of {record} were not stored: {refused}")
    recording_id, end_sample = await asyncio.to_thread(_recording, gateway, wearer, device)
    await intake.flush(recording_id)
    await gateway.finish(recording_id, end_sample)
    if source.remarks:
        now_ns = gateway.clock.utc_ns()
        said = gateway.writer.submit(lambda conn: _keep_remarks(conn, recording_id, source, now_ns))
        await asyncio.wrap_future(said)
    summary = await asyncio.to_thread(_summary, gateway, recording_id)
    return {**summary, "already": not intake.counters["stored"], "notes": list(source.notes)}


def _keep_remarks(conn: Connection, recording_id: int, source: Record, now_ns: int) -> None:
    """Mark the symptoms and notes that a file brought, each once however often it is imported."""
    recording = queries.find_recording(conn, recording_id)
    for remark in source.remarks:
        at_ns = recording.to_utc_ns(remark.sample)
        there = marks.in_period(conn, recording.wearer, at_ns, at_ns + 1, kinds=(remark.kind,), undone=True)
        if remark.sample < source.n and all(mark.note != remark.text for mark in there):
            request = {"kind": remark.kind, "wearer": recording.wearer, "at_ns": at_ns, "note": remark.text}
            people.perform(conn, request | {"author": "import"}, now_ns)


def chunks(record: Record, wearer: str, device: str, boot: int, start_ns: int) -> Iterator[Chunk]:
    """Cut a record into chunks of `CHUNK_S`; where nothing was recorded there is none, and the stamps say so."""
    length = round(CHUNK_S * record.fs_hz)
    recorded = [at for at in range(0, record.n, length) if (record.samples[:, at : at + length] != MISSING).any()]
    for seq, at in enumerate(recorded):
        offset_ns = round(at * 1e9 / record.fs_hz)
        yield Chunk(
            wearer=wearer,
            device=device,
            leads=record.leads,
            fs_hz=record.fs_hz,
            boot=boot,
            seq=seq,
            oldest=0,
            device_time_ns=offset_ns,
            utc_ns=start_ns + offset_ns,
            samples=record.samples[:, at : at + length],
            uv_per_lsb=record.uv_per_lsb,
        )


def _check_id(what: str, value: str) -> None:
    if not ID.fullmatch(value):
        raise BadInputError(f"{what} {value[:80]!r} must match {ID.pattern}")


def _start_ns(start: str | None, record: Record, now_ns: int) -> int:
    if start is None:
        return record.start_utc_ns if record.start_utc_ns is not None else now_ns - round(record.duration_s * 1e9)
    return utc_ns_of(start)


def _check_free(gateway: Gateway, wearer: str, device: str, boot: int) -> None:
    sender = tables.sender
    mine = [sender.c.wearer == wearer, sender.c.device == device]
    with gateway.reader.connect() as conn:
        known = conn.execute(select(func.count()).select_from(sender).where(*mine)).scalar_one()
        same = conn.execute(select(sender.c.boot).where(*mine, sender.c.boot == boot)).first()
    if known and same is None:
        raise BadInputError(
            f"device {device!r} of wearer {wearer!r} already holds another recording: pass --device NAME"
        )


def _recording(gateway: Gateway, wearer: str, device: str) -> tuple[int, int]:
    recording = tables.recording
    with gateway.reader.connect() as conn:
        row = conn.execute(
            select(recording.c.id, recording.c.end_sample)
            .where(recording.c.wearer == wearer, recording.c.device == device, recording.c.source == "import")
            .order_by(recording.c.id.desc())
        ).one()
    return int(row[0]), int(row[1])


def _summary(gateway: Gateway, recording_id: int) -> dict[str, Any]:
    finding, trend, recording = tables.finding, tables.trend, tables.recording
    with gateway.reader.connect() as conn:
        row = conn.execute(select(recording).where(recording.c.id == recording_id)).mappings().one()
        rules = conn.execute(
            select(finding.c.rule, func.count())
            .where(finding.c.recording_id == recording_id, finding.c.state != "retracted")
            .group_by(finding.c.rule)
            .order_by(finding.c.rule)
        ).all()
        counts = conn.execute(
            select(trend.c.beats, trend.c.readable_s).where(trend.c.recording_id == recording_id)
        ).all()
    return {
        "recording": row["key"],
        "wearer": row["wearer"],
        "device": row["device"],
        "leads": row["leads"],
        "fs_hz": row["fs_hz"],
        "duration_s": round(row["end_sample"] / row["fs_hz"], 3),
        "readable_s": round(sum(readable_s for _, readable_s in counts), 1),
        "beats": sum(sum(beats.values()) for beats, _ in counts),
        "events": {str(rule): int(count) for rule, count in rules},
    }
