"""A device's battery as an event: `battery_low` opens at `LOW_PERCENT` and ends at `FULL_ENOUGH_PERCENT`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edge.alerts.policy import Recorded
from edge.rhythm.events import Severity, finding_id
from edge.store.findings import Change

LOW_PERCENT = 15
FULL_ENOUGH_PERCENT = 25
SEVERITY: Severity = "advisory"


class Battery:
    """Remembers which batteries are low."""

    def __init__(self) -> None:
        self._low: dict[tuple[str, str], dict[str, Any]] = {}

    def restore(self, recording: Recorded, row: Mapping[str, Any]) -> None:
        """Take over an open `battery_low` of the store at the gateway's start."""
        key = (recording.wearer, recording.device)
        self._low[key] = {"id": row["id"], "sample": row["start_sample"], "ns": row["start_ns"]}

    def report(self, recording: Recorded, percent: int, *, sample: int, now_ns: int) -> Change | None:
        """Return what a level in percent opens or ends, None if it is no news.

        Args:
            recording: newest recording of the device.
            percent: battery level.
            sample: index after the recording's last sample; identifies the event.
            now_ns: wall time, UTC.
        """
        key = (recording.wearer, recording.device)
        row = self._low.get(key)
        if row is None and percent <= LOW_PERCENT:
            self._low[key] = row = {
                "id": finding_id(recording.key, "battery_low", sample),
                "sample": sample,
                "ns": now_ns,
            }
            return _change("new", row, percent, now_ns)
        if row is not None and percent >= FULL_ENOUGH_PERCENT:
            return _change("end", self._low.pop(key), percent, now_ns)
        return None


def _change(kind: Literal["new", "end"], row: dict[str, Any], percent: int, now_ns: int) -> Change:
    return Change(
        kind,
        {
            "id": row["id"],
            "revision": 1 if kind == "new" else 2,
            "rule": "battery_low",
            "severity": SEVERITY,
            "state": "open" if kind == "new" else "closed",
            "start_sample": row["sample"],
            "detected_sample": row["sample"],
            "start_ns": row["ns"],
            "end_ns": max(now_ns, row["ns"]),
            "detected_ns": now_ns,
            "evidence": {"battery_percent": percent},
        },
    )
