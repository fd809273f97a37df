"""What the gateway finds by its own clock, on its way into the store: links, batteries, and its own absence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection

from edge.alerts.policy import Recorded
from edge.rhythm.events import Severity, finding_id
from edge.store import queries, system
from edge.store.findings import Change

T = TypeVar("T")
Found = tuple[T, Sequence[tuple[Recorded, Change]]]
"""A result, and the findings that changed on the way to it."""

SEVERITY: Severity = "advisory"
RECENT_NS = 86_400 * queries.NS
"""Who was not heard for so long before the gateway went does not miss it."""


def system_news(news: Sequence[tuple[Recorded, Change]], conn: Connection, now_ns: int) -> Found[None]:
    """Write findings of links and batteries; what the store knew before is no news."""
    changes = []
    for recording, change in news:
        recording_id = system.recording_id(conn, recording.key)
        written = None if recording_id is None else system.write(conn, recording_id, change.row, now_ns)
        if written is not None:
            changes.append((recording, written))
    return None, changes


def absence_news(least_s: float, conn: Connection, now_ns: int) -> Found[None]:
    """Write, for each wearer who was being recorded, that no gateway was running for more than `least_s`."""
    signs = queries.health(conn)
    if "daemon" not in signs:
        return None, []
    last_ns = signs["daemon"][1]
    if now_ns - last_ns <= least_s * 1e9:
        return None, []
    on_purpose = "stopped" in signs and signs["stopped"][1] >= last_ns
    newest: dict[str, queries.Recording] = {}
    for recording in queries.recordings(conn, ecg_only=False, since_sample=queries.AFTER_ALL):
        if recording.source == "live" and recording.last_received_ns > last_ns - RECENT_NS:
            before = newest.get(recording.wearer)
            if before is None or before.last_received_ns <= recording.last_received_ns:
                newest[recording.wearer] = recording
    changes: list[tuple[Recorded, Change]] = []
    for recording in newest.values():
        row: dict[str, Any] = {
            "id": finding_id(recording.key, "gateway_down", last_ns // queries.NS),
            "rule": "gateway_down",
            "severity": SEVERITY,
            "state": "closed",
            "whole": True,
            "start_sample": recording.end_sample,
            "detected_sample": recording.end_sample,
            "start_ns": last_ns,
            "end_ns": now_ns,
            "detected_ns": now_ns,
            "evidence": {"down_s": round((now_ns - last_ns) / 1e9), "stopped_on_purpose": int(on_purpose)},
        }
        written = system.write(conn, recording.id, row, now_ns)
        if written is not None:
            changes.append((recording, written))
    return None, changes
