"""Events, trends and beats as CSV: UTF-8, commas, one header line, times in UTC (ISO 8601)."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from edge.assistant.localtime import iso_utc
from edge.encoder.contract import BEAT_CLASSES
from edge.exchange.disguise import Disguise
from edge.exchange.selection import events
from edge.store import marks, queries

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to a spreadsheet."""


def write_csv(conn: Connection, wearer: str, start_ns: int, end_ns: int, folder: Path, hide: Disguise) -> list[Path]:
    """Write `events.csv`, `trends.csv`, `beats.csv` and `marks.csv` into `folder`; return them."""
    devices = {r.id: hide.device(r.device) for r in queries.recordings(conn, wearer, ecg_only=False)}
    head = ["wearer", "device"]

    def event_rows() -> Iterable[list[Any]]:
        for row in events(conn, wearer, start_ns, end_ns):
            evidence = hide.evidence(row["evidence"])
            yield [
                hide.wearer,
                devices[row["recording_id"]],
                hide.event(row["id"]),
                row["rule"],
                row["severity"],
                *(iso_utc(hide.time(row[name])) for name in ("start_ns", "end_ns")),
                (row["end_ns"] - row["start_ns"]) / queries.NS,
                row["verdict"] or "",
                " ".join(f"{name}={value}" for name, value in sorted(evidence.items())),
            ]

    rates = ["hr_bpm", "hr_min_bpm", "hr_max_bpm"]
    varies = ["rmssd_ms", "sdnn_ms"]

    def trend_rows() -> Iterable[list[Any]]:
        for row in queries.trends(conn, wearer, start_ns, end_ns):
            yield [
                hide.wearer,
                devices[row["recording_id"]],
                iso_utc(hide.time(row["utc_ns"])),
                *("" if row[name] is None else round(row[name], 2) for name in rates),
                *(row["beats"].get(kind, 0) for kind in BEAT_CLASSES),
                round(row["recorded_s"], 3),
                round(row["readable_s"], 3),
                row["rhythm"],
                round(row["af_s"], 3),
                *("" if row[name] is None else round(row[name], 2) for name in varies),
                round(row["pulse_s"], 3),
            ]

    def beat_rows() -> Iterable[list[Any]]:
        for recording in queries.recordings(conn, wearer):
            for first, last in recording.sample_spans(start_ns, end_ns):
                for beat in marks.corrected_beats(conn, recording, first, last):
                    at_ns = hide.time(recording.to_utc_ns(int(beat["sample"])))
                    kind = BEAT_CLASSES[int(beat["type"])]
                    yield [
                        hide.wearer,
                        devices[recording.id],
                        iso_utc(at_ns),
                        kind,
                        round(float(beat["confidence"]), 3),
                    ]

    def mark_rows() -> Iterable[list[Any]]:
        for mark in marks.in_period(conn, wearer, start_ns, end_ns, undone=True):
            event = hide.event(mark.finding_id) if mark.finding_id else ""
            note, author = hide.text(mark.note), hide.text(mark.author)
            undone = mark.undone_ns is not None
            yield [hide.wearer, event, mark.kind, iso_utc(hide.time(mark.at_ns)), note, author, "yes" if undone else ""]

    times = ["start_utc", "end_utc", "duration_s"]
    covered = ["recorded_s", "readable_s", "rhythm", "af_s"]
    return [
        _write(
            folder / "events.csv", [*head, "event", "rule", "severity", *times, "verdict", "evidence"], event_rows()
        ),
        _write(
            folder / "trends.csv",
            [*head, "minute_utc", *rates, *BEAT_CLASSES, *covered, *varies, "pulse_s"],
            trend_rows(),
        ),
        _write(folder / "beats.csv", [*head, "utc", "type", "confidence"], beat_rows()),
        _write(folder / "marks.csv", ["wearer", "event", "kind", "at_utc", "note", "author", "undone"], mark_rows()),
    ]


def _write(path: Path, header: list[str], rows: Iterable[list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)
    return path


def _cell(value: Any) -> Any:
    """Return text that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
