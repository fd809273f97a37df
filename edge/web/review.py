"""What the review page asks: a period at a glance, beats, waveform, one event with its evidence, and its neighbours."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import Connection, select

from edge.alerts.words import NAMES
from edge.config import Config
from edge.encoder.contract import BEAT_CLASSES
from edge.errors import BadInputError
from edge.rhythm.rules import Rule
from edge.store import marks, queries, tables, waveform
from edge.store.queries import NS
from edge.web import wire
from edge.web.live import event_row

MS = 1_000_000
MAX_OVERVIEW_S = 8 * 86_400
MAX_BEATS_S = 3_600
MAX_WAVE_S = 60
MAX_EVENTS = 2_000
MAX_REVISIONS = 50


def overview(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> dict[str, Any]:
    """Return trends per minute (in columns), events, marks and recorded spans that overlap a period."""
    _check(start_ns, end_ns, MAX_OVERVIEW_S)
    queries.find_wearer(conn, wearer)
    minutes = queries.trends(conn, wearer, start_ns, end_ns)
    rows = queries.findings(conn, wearer=wearer, start_ns=start_ns, end_ns=end_ns, newest_first=True, limit=MAX_EVENTS)
    events = marks.correct_findings(conn, rows)
    spans = queries.recorded_spans(conn, wearer, start_ns, end_ns)
    people = marks.human_episodes(conn, wearer, start_ns, end_ns)
    return {
        "start_ms": wire.ms(start_ns),
        "end_ms": wire.ms(end_ns),
        "minutes": {
            "t": [row["utc_ns"] // MS for row in minutes],
            "hr": [_rounded(row["hr_bpm"]) for row in minutes],
            "min": [_rounded(row["hr_min_bpm"]) for row in minutes],
            "max": [_rounded(row["hr_max_bpm"]) for row in minutes],
            "v": [row["beats"].get("V", 0) + row["beats"].get("F", 0) for row in minutes],
            "s": [row["beats"].get("S", 0) for row in minutes],
            "n": [sum(row["beats"].values()) for row in minutes],
            "readable": [round(row["readable_s"]) for row in minutes],
            "recorded": [round(row["recorded_s"]) for row in minutes],
            "rhythm": [row["rhythm"] for row in minutes],
            "af": [round(row["af_s"]) for row in minutes],
        },
        "events": [event_row(row) | {"verdict": row["verdict"]} for row in [*events, *people]],
        "marks": [
            {"id": m.id, "kind": m.kind, "note": m.note, "t_ms": wire.ms(m.at_ns), "author": m.author}
            for m in marks.in_period(conn, wearer, start_ns, end_ns, kinds=("symptom", "note"))
        ][:MAX_EVENTS],
        "spans": [[wire.ms(a), wire.ms(b)] for a, b in spans[:MAX_EVENTS]],
    }  # fmt: skip


def beats(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Return the corrected beats of each recording in a period of at most an hour, with their times."""
    _check(start_ns, end_ns, MAX_BEATS_S)
    found = []
    for recording in queries.recordings(conn, wearer):
        for first, last in recording.sample_spans(start_ns, end_ns):
            inside = marks.corrected_beats(conn, recording, first, last)
            times = [wire.ms(recording.to_utc_ns(int(sample))) for sample in inside["sample"]]
            types = "".join(BEAT_CLASSES[kind] for kind in inside["type"])
            found.append({"recording": recording.id, "t": times, "types": types})
    return found


def wave(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Return the samples and beats of each recording in a period of at most a minute, all leads."""
    _check(start_ns, end_ns, MAX_WAVE_S)
    found = []
    for recording in queries.recordings(conn, wearer):
        for first, last in recording.sample_spans(start_ns, end_ns):
            data = waveform.read(conn, recording.id, first, last)
            piece = wire.wave(recording, first, data, list(range(len(recording.leads))))
            corrected = marks.corrected_beats(conn, recording, first, last)
            found.append(piece | {"device": recording.device, "beats": wire.beats(corrected)})
    return found


def event(conn: Connection, event_id: str, config: Config) -> dict[str, Any]:
    """Return everything known of an event. Raises `BadInputError` if there is none.

    An episode that only a person saw has neither analysis nor revisions.
    """
    row = marks.find_episode(conn, event_id)
    recording = queries.find_recording(conn, row["recording_id"])
    by_person = row["id"].startswith(marks.HUMAN_ID)
    right = row if by_person else marks.correct_findings(conn, [row])[0]
    said = marks.of_episode(conn, row["id"])
    analysis = conn.execute(select(tables.analysis).where(tables.analysis.c.id == row.get("analysis_id"))).mappings()
    inside = queries.beats(
        conn,
        recording,
        row["start_sample"],
        min(row["end_sample"], row["start_sample"] + 3600 * round(recording.fs_hz)),
    )
    confidence = float(inside["confidence"].mean()) if inside.size else None
    revisions = conn.execute(
        select(tables.finding_revision)
        .where(tables.finding_revision.c.finding_id == row["id"])
        .order_by(tables.finding_revision.c.revision.desc())
        .limit(MAX_REVISIONS)
    ).mappings()
    return event_row(row) | {
        "device": row["device"],
        "recording": recording.id,
        "fs_hz": recording.fs_hz,
        "start_sample": row["start_sample"],
        "end_sample": row["end_sample"],
        "by_person": by_person,
        "detected_ms": None if by_person else wire.ms(recording.to_utc_ns(row["detected_sample"])),
        "superseded_by": row.get("superseded_by"),
        "verdict": right["verdict"],
        "right": event_row(right) | {"start_sample": right["start_sample"], "end_sample": right["end_sample"]},
        "evidence": row["evidence"],
        "beats": {
            "count": int(inside.size),
            "by_class": {name: int((inside["type"] == n).sum()) for n, name in enumerate(BEAT_CLASSES)},
            "mean_confidence": None if confidence is None else round(confidence, 3),
        },
        "rule_table": rule_table(row["rule"], row["wearer"], config),
        "analysis": next(
            ({name: a[name] for name in ("encoder", "rules_hash", "code_version", "provider")} for a in analysis), None
        ),
        "revisions": [
            {"revision": r["revision"], "written_ms": wire.ms(r["written_ns"]), "state": r["row"]["state"],
             "severity": r["row"]["severity"], "evidence": r["row"]["evidence"]}
            for r in revisions
        ],
        "marks": [
            {"id": m.id, "kind": m.kind, "note": m.note, "author": m.author, "value": m.value,
             "written_ms": wire.ms(m.written_ns), "undone_by": m.undone_by if m.undone_ns else None}
            for m in said
        ],
    }  # fmt: skip


def rule_table(rule: str, wearer: str, config: Config) -> dict[str, Any] | None:
    """Return what opens a finding of this rule, with the thresholds in force; None for rules without a table."""
    group = dict(config.rules_of(wearer).groups()).get(rule)
    if not isinstance(group, Rule):
        return None
    return {
        "meaning": group.meaning,
        "source": group.source,
        "thresholds": [
            {
                "name": item.name,
                "value": getattr(group, item.name),
                "unit": item.metadata["unit"],
                "text": item.metadata["text"],
            }
            for item in dataclasses.fields(group)
            if "unit" in item.metadata
        ],
    }


def names() -> dict[str, str]:
    """Return every rule with its plain name."""
    return dict(NAMES)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _check(start_ns: int, end_ns: int, longest_s: int) -> None:
    if not 0 <= start_ns < end_ns < 2**62:
        raise BadInputError("a period begins before it ends")
    if end_ns - start_ns > longest_s * NS:
        raise BadInputError(f"a period of more than {longest_s} s: ask for less")
