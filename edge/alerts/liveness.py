"""Whether a device still delivers, judged by the injected clock; `link_lost` and `recording_stopped` as events.

Their identity is the recording and the first sample that is missing, so a restarted gateway finds the silence that it
told before in the store. Their times are the gateway's wall clock: a link has no sample time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edge.alerts.policy import Recorded
from edge.clock import Clock
from edge.config import Alerts
from edge.rhythm.events import Severity, finding_id
from edge.store.findings import Change

Link = Literal["online", "stale", "offline"]
LINKS: tuple[Link, ...] = ("offline", "stale", "online")
"""From worst to best."""

SEVERITY: Severity = "advisory"


def link_of(silence_s: float, limits: Alerts) -> Link:
    """Return the state of a link that has been silent for so long."""
    if silence_s > limits.link_lost_s:
        return "offline"
    return "stale" if silence_s > limits.stale_s else "online"


def thresholds_s(limits: Alerts) -> Mapping[str, float]:
    """Return after how much silence each rule opens."""
    return {"link_lost": limits.link_lost_s, "recording_stopped": limits.recording_stopped_s}


@dataclass(slots=True)
class Pulse:
    """The signs of life of one device on one wearer."""

    recording: Recorded
    heard_s: float
    """Monotonic time of the last chunk, or of the gateway's start."""
    received_ns: int
    """Wall time of the last chunk."""
    next_sample: int
    """First sample that is missing."""
    dormant: bool = False
    """Silent for so long before the gateway started that it is not told again."""
    silences: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Rule → (first missing sample, revision) of the silence that was told last and is open."""
    ended: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The same of the last one that ended: a silence at the same sample goes on with its revisions."""
    assumed: set[str] = field(default_factory=set)
    """Silences of before the gateway's start: told perhaps, told again if they last."""

    def silence_s(self, clock: Clock) -> float:
        return clock.monotonic_s() - self.heard_s

    def fallen_silent(self, clock: Clock, limits: Alerts) -> list[Change]:
        """Return what this moment's silence opens."""
        if self.dormant:
            return []
        silence_s = self.silence_s(clock)
        changes = []
        for rule, limit_s in thresholds_s(limits).items():
            if silence_s > limit_s and (rule not in self.silences or rule in self.assumed):
                self.assumed.discard(rule)
                at, revision = self.ended.get(rule, (self.next_sample, 0))
                self.silences[rule] = (self.next_sample, revision + 1 if at == self.next_sample else 1)
                changes.append(self._change("new", rule, clock.utc_ns()))
        return changes

    def spoke(self, clock: Clock, next_sample: int) -> list[Change]:
        """Note a chunk and return the silences it ends."""
        now_ns = clock.utc_ns()
        changes = []
        for rule, (sample, revision) in list(self.silences.items()):
            self.silences[rule] = (sample, revision + 1)
            changes.append(self._change("end", rule, now_ns))
            self.ended[rule] = self.silences.pop(rule)
        self.heard_s = clock.monotonic_s()
        self.received_ns = now_ns
        self.next_sample = max(self.next_sample, next_sample)
        self.dormant = False
        self.assumed.clear()
        return changes

    def assume_told(self, clock: Clock, limits: Alerts) -> None:
        """After a restart: what a gateway before this one may have told is ended when the device speaks."""
        silence_s = max(0.0, (clock.utc_ns() - self.received_ns) / 1e9)
        self.dormant = silence_s > limits.recording_stopped_s
        for rule, limit_s in thresholds_s(limits).items():
            if silence_s > limit_s:
                self.silences[rule] = (self.next_sample, 1)
                self.assumed.add(rule)

    def _change(self, kind: Literal["new", "end"], rule: str, now_ns: int) -> Change:
        sample, revision = self.silences[rule]
        row: dict[str, Any] = {
            "id": finding_id(self.recording.key, rule, sample),
            "revision": revision,
            "rule": rule,
            "severity": SEVERITY,
            "state": "open" if kind == "new" else "closed",
            "start_sample": sample,
            "detected_sample": sample,
            "start_ns": self.received_ns,
            "end_ns": max(now_ns, self.received_ns),
            "detected_ns": now_ns,
            "evidence": {"silence_s": round(max(0, now_ns - self.received_ns) / 1e9, 1)},
        }
        return Change(kind, row)
