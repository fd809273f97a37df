"""The chain of beats: RR intervals through whole readable signal, and the silence since the last sign of a beat."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.state import Part

RECENT = 10
"""RR intervals that are remembered."""
_RATE_RR = 5
_STALE_S = 30.0
"""Intervals that lie further apart do not make one rate."""
_FRESH_S = 15.0


class Heart(Part):
    """What the newest beats say. A break (gap, noise) or a faint peak ends the chain."""

    STATE: ClassVar[tuple[str, ...]] = (
        *("last", "kind", "ends", "rr_s", "silent_from", "after", "asystole", "silent_s"),
    )

    def __init__(self) -> None:
        self.last: float | None = None
        """The newest beat, if nothing has broken the chain since; model-rate samples."""
        self.kind = ""
        """AAMI class of the newest beat."""
        self.ends: list[float] = []
        """Where the newest RR intervals ended."""
        self.rr_s: list[float] = []
        self.silent_from: float | None = None
        """Since when readable signal has shown no sign of a beat."""
        self.after = ""
        """What that silence began with: "beat", "ventricular" (a second of VT or VF) or "" (unknown)."""
        self.asystole = 0.0
        """Sum of P(ASYS) over the whole seconds of the silence."""
        self.silent_s = 0
        """How many these are."""

    def break_at(self, position: float | None) -> None:
        """End the chain; silence starts anew at `position`, or is unknown (None)."""
        self.last = None
        self.hush(position)

    def hush(self, position: float | None, after: str = "") -> None:
        """Start the silence anew without ending the chain."""
        self.silent_from, self.after, self.asystole, self.silent_s = position, after, 0.0, 0

    def hear(self, score: float) -> None:
        """Count one more second of silence with its P(ASYS)."""
        self.asystole += score
        self.silent_s += 1

    def beat(self, position: float) -> float | None:
        """Add a beat; return its RR interval in seconds if the chain holds."""
        rr_s = None if self.last is None else (position - self.last) / MODEL_FS_HZ
        if rr_s is not None:
            self.ends = [*self.ends[-RECENT + 1 :], position]
            self.rr_s = [*self.rr_s[-RECENT + 1 :], rr_s]
        self.last = position
        self.hush(position, after="beat")
        return rr_s

    def rate_bpm(self) -> float | None:
        """Return the rate by the median of the newest 5 RR intervals."""
        if len(self.rr_s) < _RATE_RR or self.ends[-1] - self.ends[-_RATE_RR] > _STALE_S * MODEL_FS_HZ:
            return None
        return 60 / sorted(self.rr_s[-_RATE_RR:])[_RATE_RR // 2]

    def regular(self, limit: float) -> bool:
        """Return whether the newest RR intervals are known and vary by less than `limit` (RMSSD over mean)."""
        if len(self.rr_s) < RECENT or self.ends[-1] - self.ends[0] > _STALE_S * MODEL_FS_HZ:
            return False
        steps = [(b - a) ** 2 for a, b in itertools.pairwise(self.rr_s)]
        mean = sum(self.rr_s) / len(self.rr_s)
        return math.sqrt(sum(steps) / len(steps)) < limit * mean

    def current_bpm(self, now: float) -> float | None:
        """Return the mean rate of the remembered RR intervals that ended within the newest 15 s."""
        rr_s = [rr for end, rr in zip(self.ends, self.rr_s, strict=True) if end > now - _FRESH_S * MODEL_FS_HZ]
        return 60 * len(rr_s) / sum(rr_s) if rr_s else None
