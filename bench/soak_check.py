"""What the database and a subscriber hold at the end of the soak, beside what was sent."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gateway_kit import CONTENT, batch
from sqlalchemy import Connection

from bench.soak_wearers import CHUNK, FS_HZ, Wearable, whole
from edge.chunk import MISSING
from edge.encoder.windows import hops_ready
from edge.store import queries
from edge.store.codec import encode
from edge.store.database import PAGE_SIZE
from edge.store.waveform import block_len, read

BY_THE_GATEWAY = ("link_lost", "recording_stopped", "battery_low", "gateway_down", "symptom")
"""Rules that are no reading of the signal."""
PIECE = round(1800 * FS_HZ)

EMPTY_BYTES = 450_000
EMBEDDING_BYTES = 460
CHECKPOINT_BYTES = 4096
BEATS_BYTES = 14
TREND_BYTES = 220
"""Pages of an empty database; of an embedding (2 s), a rhythm state (1 min), a beat, a trend minute: the formula of
docs/operations.md."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One wearer."""

    wearer: str
    sent: int
    lost: int
    """Samples sent and not stored."""
    changed: int
    """Samples stored with another value than was sent."""
    gaps: int
    """Samples that the wearable gave up, stored as gap."""
    findings: int
    twice: int
    """Current findings of one rule that overlap another of it."""
    as_undisturbed: bool | None
    """Whether the findings are those of a reading in one go; None: not compared (the wearable gave chunks up)."""


def kept(conn: Connection, wearable: Wearable, compare: bool) -> Kept:
    """Compare what is stored of a wearer with what was sent."""
    (recording,) = queries.recordings(conn, wearable.wearer)
    lost = changed = gaps = 0
    for start in range(0, wearable.samples, PIECE):
        stop = min(start + PIECE, wearable.samples)
        stored = read(conn, recording.id, start, stop).samples
        missing = stored == MISSING
        gaps += int(missing.sum())
        changed += int((~missing & (stored != wearable.expected(start, stop))).sum())
    allowed = wearable.given_up * CHUNK
    lost, gaps = max(gaps - allowed, 0), min(gaps, allowed)
    found = [row for row in queries.findings(conn, wearer=wearable.wearer) if row["rule"] not in BY_THE_GATEWAY]
    same = None
    if compare and not wearable.given_up:
        expected, _ = batch(whole(wearable), recording.key, hops_ready(FS_HZ, wearable.samples))
        same = sorted(map(_content, found)) == sorted(_content(asdict(one)) for one in expected.values())
    return Kept(wearable.wearer, wearable.samples, lost, changed, gaps, len(found), _twice(found), same)


def forecast_bytes(wearables: Sequence[Wearable]) -> float:
    """Return what the formula of docs/operations.md says the pages in use are."""
    total = float(EMPTY_BYTES)
    for wearable in wearables:
        minutes = wearable.samples / FS_HZ / 60
        step = block_len(FS_HZ)
        hour = wearable.record.samples
        sizes = [len(encode(hour[:, at : at + step])) for at in range(0, hour.shape[1], step)]
        per_page = (PAGE_SIZE - 40) // (sum(sizes) / len(sizes) + 16)
        total += minutes * 6 * PAGE_SIZE / per_page + minutes * 30 * EMBEDDING_BYTES + minutes * CHECKPOINT_BYTES
        total += minutes * (70 * BEATS_BYTES + TREND_BYTES)
    return total


def _content(row: Any) -> tuple[str, ...]:
    return tuple(json.dumps(row[name], sort_keys=True) for name in CONTENT)


def _twice(found: Sequence[Any]) -> int:
    """Count findings that overlap an earlier one of their rule."""
    count, ends = 0, dict[str, int]()
    for row in sorted(found, key=lambda row: (row["rule"], row["start_sample"])):
        count += row["start_sample"] < ends.get(row["rule"], -1)
        ends[row["rule"]] = max(row["end_sample"], ends.get(row["rule"], -1))
    return count


@dataclass(frozen=True, slots=True)
class Told:
    """What the subscriber received."""

    messages: int
    repeated: int
    """Deliveries of an id and revision that had come before: allowed, they are to be ignored."""
    contradictory: int
    """Ids of which one revision came with two contents."""
    missing: int
    """Events of the database that are told and whose last word did not come."""


def told(conn: Connection, messages: Sequence[dict[str, Any]], severities: Sequence[str]) -> Told:
    """Compare what a subscriber received with what is to be told."""
    texts: dict[tuple[str, int], set[str]] = {}
    counts: Counter[tuple[str, int]] = Counter()
    latest: dict[str, int] = {}
    for message in messages:
        key = (message["id"], message["revision"])
        counts[key] += 1
        texts.setdefault(key, set()).add(json.dumps(message, sort_keys=True))
        latest[message["id"]] = max(message["revision"], latest.get(message["id"], 0))
    wanted = {row["id"]: row["revision"] for row in queries.findings(conn) if row["severity"] in severities}
    missing = sum(latest.get(key, -1) < revision for key, revision in wanted.items())
    repeated = sum(count - 1 for count in counts.values())
    return Told(len(messages), repeated, sum(len(text) > 1 for text in texts.values()), missing)
