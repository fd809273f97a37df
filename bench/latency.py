"""From what was sent, when, and what a subscriber got, when: how long alerts take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from bench.wearers import FS_HZ
from edge.encoder.windows import samples_needed
from edge.store import tables
from edge.store.database import open_readonly

LATE_FOR_S = 5.0
"""A finding may begin this much before or after the truth and still be about it."""
WHOLE_S = 8.0
"""Shortest stretch of a rhythm that must be told."""
TRUTH = {
    "vt": ("vt", ("vt",)),
    "vf": ("vf", ("vf",)),
    "vf, told as vf or vt": ("vf", ("vf", "vt")),
    "asystole": ("asystole", ("asystole",)),
    "pause": ("pause", ("pause",)),
    "lead_off": ("lead_off", ("lead_off",)),
}
"""Row → kind of stretch in the truth, rules whose events tell it."""
WANTED_WITHIN_10_S = ("vt", "vf", "vf, told as vf or vt", "asystole")


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in a few figures, seconds."""

    n: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        if not values:
            return None
        p50, p95, p99 = np.percentile(values, [50, 95, 99])
        return cls(len(values), float(p50), float(p95), float(p99), max(values))


@dataclass(slots=True)
class Alerts:
    """What came of the chunks of one run."""

    chunks: int = 0
    unacknowledged: int = 0
    senders_late_s: float = 0.0
    ack: Spread | None = None
    """Chunk published → end-to-end acknowledgement received."""
    needed_to_event: Spread | None = None
    """Published the last needed sample → `new` received."""
    needed_to_told: Spread | None = None
    """The part of it until the gateway wrote the message."""
    needed_to_any: Spread | None = None
    """The same for every event message: new, update, end."""
    onset: dict[str, Spread | None] = field(default_factory=dict)
    """Rhythm → true onset to its event, windows and look-ahead included."""
    onset_signal: dict[str, Spread | None] = field(default_factory=dict)
    """The part of it until the last needed sample existed: what no machine can make faster."""
    missed: dict[str, str] = field(default_factory=dict)
    """Rhythm → "missed/all" among stretches that should have been told."""
    untold: int = 0
    """Findings in the store that are worth an event and reached no subscriber."""


def judge(
    logs: list[dict[str, Any]],
    came: list[tuple[float, dict[str, Any]]],
    state: Path,
    during: Sequence[tuple[float, float]] = ((0.0, float("inf")),),
) -> Alerts:
    """Compare what the subscriber got with what was sent and with the truth.

    Args:
        logs: of the wearables (`bench.wearers`).
        came: when each message came, seconds since 1970, and the message.
        state: the gateway's folder.
        during: latencies count whose chunk was published within these times; the rest is of the whole run.
    """

    def counts(published_s: float) -> bool:
        return any(start <= published_s < end for start, end in during)

    wearables = {one["wearer"]: one for one in logs}
    found = Alerts()
    found.chunks = sum(len(one["ends"]) for one in wearables.values())
    found.unacknowledged = found.chunks - sum(len(one["acked_s"]) for one in wearables.values())
    found.senders_late_s = max(one["late_s"] for one in wearables.values())
    found.ack = Spread.of(
        [
            acked - sent
            for one in wearables.values()
            for sent, acked in zip(one["published_s"], one["acked_s"], strict=False)
            if counts(sent)
        ]
    )
    rows, revisions = _stored(state)
    live = [row for row in rows.values() if row["wearer"] in wearables]
    told = {row["id"] for row in live if row["severity"] != "info" and row["state"] != "retracted"}
    found.untold = len(told - {message["id"] for _, message in came})
    latencies = defaultdict(list)
    first_told: dict[str, float] = {}
    for at_s, message in came:
        row = rows.get(message["id"])
        if row is None or message["wearer"] not in wearables:
            continue  # a silence: not a finding of the analysis
        first_told[row["id"]] = min(at_s, first_told.get(row["id"], at_s))
        k = row["opened_k"] if message["type"] == "new" else revisions.get((row["id"], message["revision"]))
        if k is None:
            continue
        one = wearables[message["wearer"]]
        chunk = int(np.searchsorted(one["ends"], samples_needed(FS_HZ, k, k + 1)[1]))
        published_s = one["published_s"][chunk]
        if not counts(published_s):
            continue
        latencies["any"].append(at_s - published_s)
        if message["type"] == "new":
            latencies["new"].append(at_s - published_s)
            latencies["told"].append(_epoch_s(message["told"]) - published_s)
    found.needed_to_any = Spread.of(latencies["any"])
    found.needed_to_event = Spread.of(latencies["new"])
    found.needed_to_told = Spread.of(latencies["told"])
    _onsets(found, wearables, list(rows.values()), first_told)
    return found


def _onsets(found: Alerts, wearables: dict[str, Any], rows: list[dict[str, Any]], first_told: dict[str, float]) -> None:
    """Pair every stretch of the truth with the first event of its rule that touches it."""
    of_wearer: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        of_wearer[row["wearer"]].append(row)
    onsets: dict[str, list[float]] = {name: [] for name in TRUTH}
    signal: dict[str, list[float]] = {name: [] for name in TRUTH}
    missed: dict[str, list[bool]] = {name: [] for name in TRUTH}
    slack = LATE_FOR_S * FS_HZ
    for one in wearables.values():
        for name, start, end, rules in _stretches(one):
            about = [
                row
                for row in of_wearer[one["wearer"]]
                if row["rule"] in rules
                and row["id"] in first_told
                and row["start_sample"] < end + slack
                and row["end_sample"] > start - slack
            ]
            missed[name].append(not about)
            if about:
                first = min(about, key=lambda row: first_told[row["id"]])
                onsets[name].append(first_told[first["id"]] - (one["first_s"] + start / FS_HZ))
                needed = samples_needed(FS_HZ, first["opened_k"], first["opened_k"] + 1)[1]
                signal[name].append((needed - start) / FS_HZ)
    found.onset = {name: Spread.of(values) for name, values in onsets.items()}
    found.onset_signal = {name: Spread.of(values) for name, values in signal.items()}
    found.missed = {name: f"{sum(values)}/{len(values)}" for name, values in missed.items()}


def _stretches(one: dict[str, Any]) -> Iterator[tuple[str, int, int, tuple[str, ...]]]:
    """Return (row, start, end, rules) of what is to be told about a wearable, without what the end of the run cut."""
    for kind, start, end in one["spans"]:
        if end - start < WHOLE_S * FS_HZ or end > one["ends"][-1] - 10 * FS_HZ:
            continue
        for name, (of, rules) in TRUTH.items():
            if of == kind:
                yield name, *_true_stretch(kind, start, end, one["beats"]), rules


def _true_stretch(kind: str, start: int, end: int, beats: list[int]) -> tuple[int, int]:
    """Return [start, end) of what is to be told: of a pause, the longest interval without a beat."""
    if kind != "pause":
        return start, end
    inside = [beat for beat in beats if start <= beat < end]
    return max(pairwise(inside), key=lambda pair: pair[1] - pair[0])


def _stored(state: Path) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, int], int]]:
    """Return the findings by id, and the hop of each revision."""
    reader = open_readonly(state)
    revision, finding = tables.finding_revision.c, tables.finding
    try:
        with reader.connect() as conn:
            query = select(finding, tables.recording.c.wearer).join_from(finding, tables.recording)
            rows = {row["id"]: dict(row) for row in conn.execute(query).mappings()}
            earlier = conn.execute(select(revision.finding_id, revision.revision, revision.row)).all()
    finally:
        reader.dispose()
    hops = {(row["id"], row["revision"]): row["told_k"] for row in rows.values()}
    hops |= {(key, number): row["told_k"] for key, number, row in earlier}
    return rows, hops


def _epoch_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
