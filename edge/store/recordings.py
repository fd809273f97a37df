"""Wearers and recordings: creating them, and a recording's identity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from edge.store.tables import recording, wearer


def recording_key(wearer_id: str, device: str, start_ns: int, leads: Sequence[str], fs_hz: float) -> str:
    """Return the 16 hex digits that name a recording in every finding id."""
    text = "\0".join((wearer_id, device, str(start_ns), *leads, repr(float(fs_hz))))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def ensure_wearer(conn: Connection, wearer_id: str, timezone: str, now_ns: int) -> None:
    """Create the wearer with `timezone` (an IANA name) if it is new."""
    if conn.execute(select(wearer.c.id).where(wearer.c.id == wearer_id)).first() is None:
        conn.execute(insert(wearer).values(id=wearer_id, timezone=timezone, created_ns=now_ns))


def free_key(
    conn: Connection, wearer_id: str, device: str, start_ns: int, leads: Sequence[str], fs_hz: float
) -> tuple[str, int]:
    """Return (key, start_ns) no recording has yet: the start moves by nanoseconds where another has the same."""
    while True:
        key = recording_key(wearer_id, device, start_ns, leads, fs_hz)
        if conn.execute(select(recording.c.id).where(recording.c.key == key)).first() is None:
            return key, start_ns
        start_ns += 1


def create_recording(
    conn: Connection,
    *,
    wearer_id: str,
    device: str,
    leads: Sequence[str],
    fs_hz: float,
    uv_per_lsb: Sequence[float],
    source: str,
    start_ns: int,
    received_ns: int,
) -> int:
    """Create an empty recording of an existing wearer; return its id. `source` is "live" or "import"."""
    key, start_ns = free_key(conn, wearer_id, device, start_ns, leads, fs_hz)
    result = conn.execute(
        insert(recording).values(
            key=key,
            wearer=wearer_id,
            device=device,
            leads=list(leads),
            fs_hz=float(fs_hz),
            uv_per_lsb=[float(uv) for uv in uv_per_lsb],
            source=source,
            start_ns=start_ns,
            end_sample=0,
            last_received_ns=received_ns,
        )
    )
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])
