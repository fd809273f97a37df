"""The health page: the state of gateway and wearers as `anyecg status` sees it, the disk, and recent faults."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from edge.report.status import read_status
from edge.store import queries
from edge.store.database import FILE_NAME

QUIET = {
    "intake": {"stored", "duplicate", "new_boot", "new_recording", "waited", "gap"},
    "writer": {"jobs", "commits", "depth"},
    "analysis": {"hops", "beats", "findings", "repairs", "repaired_hops", "lag_s", "is_idle", "last_failure"},
}
"""Counters that count ordinary work; any other one that is not zero is a fault worth showing."""


def read_health(conn: Connection, state: Path, now_ns: int) -> dict[str, Any]:
    """Return what the page shows."""
    status = read_status(conn, now_ns)
    return status.as_json() | {"disk": _disk(conn, state, now_ns), "faults": faults(status.health)}


def faults(health: dict[str, Any]) -> list[dict[str, Any]]:
    """Return counters of what went wrong since the daemon started, and its last failure."""
    found = []
    for room, quiet in QUIET.items():
        for name, value in (health.get(room) or {}).items():
            if name not in quiet and isinstance(value, int | float) and not isinstance(value, bool) and value:
                found.append({"where": room, "what": name, "count": value})
    failure = (health.get("analysis") or {}).get("last_failure")
    if failure:
        found.append({"where": "analysis", "what": str(failure), "count": None})
    source = (health.get("broker") or {}).get("source") or {}
    for reason, count in (source.get("rejected") or {}).items():
        found.append({"where": "mqtt", "what": f"rejected: {reason}", "count": count})
    return found


def _disk(conn: Connection, state: Path, now_ns: int) -> dict[str, Any]:
    """Return size, free space, and, from bytes per recorded second and the last day's hours, days until it is full."""
    size = sum(path.stat().st_size for path in state.glob(f"{FILE_NAME}*") if path.exists())
    free = shutil.disk_usage(state).free
    recorded_s = day_s = 0.0
    for wearer in queries.wearers(conn):
        for recording in queries.recordings(conn, wearer.id):
            recorded_s += recording.end_sample / recording.fs_hz
            spans = recording.sample_spans(now_ns - 86_400 * queries.NS, now_ns)
            day_s += sum(last - first for first, last in spans) / recording.fs_hz
    per_day = size / recorded_s * day_s if recorded_s > 600 else None
    return {
        "database_bytes": size,
        "free_bytes": free,
        "bytes_per_day": None if per_day is None else round(per_day),
        "days_left": None if not per_day else round(free / per_day),
    }
