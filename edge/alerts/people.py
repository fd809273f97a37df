"""What a person says becomes an alert's state: acknowledged, false, snoozed, or a symptom with its strip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from edge.rhythm.events import finding_id
from edge.store import marks, queries, system
from edge.store.findings import Change
from edge.store.queries import Recording
from edge.store.strips import SYMPTOM_S

_ABOUT_AN_EVENT = ("ack", "false", "confirm")
_HALF_NS = SYMPTOM_S // 2 * queries.NS


@dataclass(slots=True)
class Word:
    """A mark and the findings it changed."""

    mark: dict[str, Any]
    changes: list[tuple[Recording, Change]] = field(default_factory=list)


def perform(conn: Connection, request: dict[str, Any], now_ns: int) -> Word:
    """Do what the control command `mark` asks (`edge.store.marks.perform`), in the caller's transaction.

    An event that somebody acknowledged, called false or confirmed gets a new revision; a symptom becomes an event of
    90 s around it, and one that is undone is retracted. Raises `BadInputError` for anything else.
    """
    word = Word(marks.perform(conn, request, now_ns))
    kind, event = word.mark["kind"], word.mark["finding_id"]
    if kind in _ABOUT_AN_EVENT and event is not None:
        change = system.touch(conn, event, now_ns)
        change = Change(change.type, change.row | {"said": marks.said(conn, event)})
        word.changes.append((queries.find_recording(conn, change.row["recording_id"]), change))
    elif kind == "symptom":
        undone = word.mark["undone_ns"] is not None
        word.changes += _retracted(conn, word.mark, now_ns) if undone else _symptom(conn, word.mark, now_ns)
    return word


def _symptom(conn: Connection, mark: dict[str, Any], now_ns: int) -> list[tuple[Recording, Change]]:
    """Write the strip around a symptom as a finding, where something was recorded around it."""
    at_ns = mark["at_ns"]
    for recording in reversed(queries.recordings(conn, mark["wearer"])):
        spans = recording.sample_spans(at_ns - _HALF_NS, at_ns + _HALF_NS)
        if not spans:
            continue
        first = spans[-1][0]
        at = first + round((at_ns - recording.to_utc_ns(first)) * recording.fs_hz / queries.NS)
        half = round(SYMPTOM_S / 2 * recording.fs_hz)
        start, end = max(at - half, 0), at + half
        row = {
            "id": finding_id(recording.key, "symptom", at),
            "rule": "symptom",
            "severity": "advisory",
            "state": "closed",
            "whole": True,
            "opened_sample": max(at, 0),
            "start_sample": start,
            "end_sample": end,
            "detected_sample": end,
            "start_ns": recording.to_utc_ns(start),
            "end_ns": recording.to_utc_ns(end),
            "detected_ns": at_ns,
            "evidence": {"mark": mark["id"]},
        }
        change = system.write(conn, recording.id, row, now_ns)
        return [] if change is None else [(recording, change)]
    return []


def _retracted(conn: Connection, mark: dict[str, Any], now_ns: int) -> list[tuple[Recording, Change]]:
    span = mark["at_ns"] - _HALF_NS, mark["at_ns"] + _HALF_NS
    for row in queries.findings(conn, wearer=mark["wearer"], rules=["symptom"], start_ns=span[0], end_ns=span[1]):
        if row["evidence"].get("mark") == mark["id"]:
            return [(queries.find_recording(conn, row["recording_id"]), system.retract(conn, row["id"], now_ns))]
    return []
