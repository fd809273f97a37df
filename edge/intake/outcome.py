"""What intake is allowed to do, and what it says about what it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

OUTCOMES = {
    "stored": "kept, in order or waiting for what comes before it",
    "duplicate": "the same boot and sequence number was done with before; acknowledged again, not stored",
    "conflict": "a duplicate whose content differs; the first wins (noticed while the first is in the inbox)",
    "late": "its hole had been decided; placed into the gap by its stamp, analysis told",
    "overlap": "a late chunk that is partly or wholly where samples are; the first committed win",
    "gap": "a hole was decided: nothing will be waited for there, late data still fits",
    "gap_capped": "UTC says more than a day passed; the gap is a day of samples, the clock segment tells the time",
    "stamp_jump": "device stamps jumped back, or forward beyond a day; contiguous (or sized by UTC), new clock segment",
    "utc_jump": "the sender's UTC moved against its device clock by over a second; new clock segment",
    "utc_implausible": "the sender's UTC is before 2000 or over a day ahead; time of arrival taken instead",
    "utc_backwards": "a new boot began before the old one ended by UTC; placed after it with one missing sample",
    "new_boot": "the sender started again; same recording",
    "new_recording": "first chunk of a device, or other leads, rate or scale than before",
    "rate_mismatch": "device stamps ran over 5 % off the nominal rate for a minute; stored as they came",
    "unknown_lead": "a lead name outside the list; stored as given",
    "malformed": "refused: numbers that contradict each other",
    "oversize": "refused: longer than a chunk may be",
    "too_many_devices": "refused: more devices at once than allowed",
    "too_many_recordings": "refused: a device that keeps changing its leads, rate or scale",
    "hole_abandoned": "more holes than can be remembered; the oldest counts as given up",
    "waited": "the limit of chunks in flight was reached; the source had to wait, nothing was dropped",
    "store_retry": "the database was busy, locked or full; tried again until it took the chunk",
    "failed": "a fault in this software: logged, not stored, not confirmed to the sender",
}
"""Every counter of intake and what it counts (chunks, if nothing else is said)."""


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """Bounds and waits."""

    max_chunk_s: float = 60.0
    max_devices: int = 200
    in_flight: int = 1000
    """Chunks between `accept` and their commit; more wait in `accept`."""
    watermark_s: float = 10.0
    """How long a hole may be filled before it is a gap."""
    max_pending: int = 2000
    """Chunks of a device that may wait behind a hole."""
    max_gap_s: float = 86400.0
    """Longest gap in missing samples; device stamps that jump further are a jump of the clock."""
    max_recordings: int = 64
    """Of one device on one wearer."""
    idle_compact_s: float = 60.0
    """Quiet time after which the last, partial block is written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How far a recording is decided now."""

    recording_id: int
    horizon_sample: int
    """Every sample below is stored or a decided gap."""
    changed_from: int | None
    """Lowest sample that late data filled in below an earlier horizon; the recording row carries the whole span."""


@dataclass(slots=True)
class Outcome:
    """What one job did; told to the event loop after its commit."""

    counts: Counter[str] = field(default_factory=Counter)
    stored: dict[int, Stored] = field(default_factory=dict)
    frontiers: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(wearer, device) → (boot, seq)."""

    def horizon(self, recording_id: int, horizon: int, changed_from: int | None = None) -> None:
        """Note a horizon and possibly a change."""
        before = self.stored.get(recording_id)
        if before is not None and before.changed_from is not None:
            changed_from = before.changed_from if changed_from is None else min(changed_from, before.changed_from)
        self.stored[recording_id] = Stored(recording_id, horizon, changed_from)
