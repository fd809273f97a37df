"""Heart rate measurements into runs of RR intervals: what follows without a hole, and when it was.

The link delivers late, never early and in order, so within a connection the sum of the intervals is the strap's own
clock. Where a strap leaves out intervals (a bad contact, a doubtful beat) that sum falls behind the arrivals for good:
a new run begins, and the hole is as long as UTC says. Intervals themselves are never changed.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque

from edge.clock import Clock
from edge.intervals import TICKS_HZ, Intervals
from edge.sources.ble.frame import Heart

FLUSH_S = 5.0
"""Reports are joined for this long."""
RR_RANGE_S = (0.2, 5.0)
"""An interval outside is no heartbeat: it ends the run."""
HOLE_S = 1.5
"""Every one of the newest `RECENT` reports is later than this above the least lateness: intervals were left out."""
RECENT = 8
ENVELOPE = 60
"""Reports, about a minute: short enough to follow the drift of the strap's clock."""


class IntervalTrack:
    """The heartbeats of one device on one wearer; lives across connections."""

    def __init__(self, wearer: str, device: str, clock: Clock) -> None:
        self.counters: Counter[str] = Counter(intervals=0, implausible_intervals=0, interval_runs=0)
        self._wearer, self._device, self._clock = wearer, device, clock
        self._flushed_s = clock.monotonic_s()
        self._rr: list[int] = []
        self._bpm: list[int] = []
        self._contact: bool | None = None
        self._begin()

    def take(self, heart: Heart) -> list[Intervals]:
        """Take a report that has just arrived; return what is complete."""
        self._contact = heart.contact
        now_s = self._clock.monotonic_s()
        if heart.contact is False:
            return self.end() if now_s - self._flushed_s >= FLUSH_S or self._rr else []
        done: list[Intervals] = []
        if heart.hr_bpm:
            self._bpm.append(heart.hr_bpm)
        for rr_s in heart.rr_s:
            if RR_RANGE_S[0] <= rr_s <= RR_RANGE_S[1]:
                self._rr.append(round(rr_s * TICKS_HZ))
                self._end_ticks += self._rr[-1]
                self.counters["intervals"] += 1
            else:
                self.counters["implausible_intervals"] += 1
                done += self.end()
        if heart.rr_s:
            self._late_s.append(now_s - self._end_ticks / TICKS_HZ)
            newest = list(self._late_s)[-RECENT:]
            if len(self._late_s) >= 2 * RECENT and min(newest) - min(self._late_s) > HOLE_S:
                done += self.end()
        if now_s - self._flushed_s >= FLUSH_S:
            done += self._flush()
        return done

    def end(self) -> list[Intervals]:
        """End the run: the connection is gone, or the electrodes are off. Return what is left of it."""
        done = self._flush()
        self._begin()
        return done

    def _begin(self) -> None:
        self._run = secrets.randbits(62)
        self._end_ticks = 0
        self._late_s: deque[float] = deque(maxlen=ENVELOPE)
        self.counters["interval_runs"] += 1

    def _flush(self) -> list[Intervals]:
        now_s, now_ns = self._clock.monotonic_s(), self._clock.utc_ns()
        self._flushed_s = now_s
        if not self._rr and not self._bpm and self._contact is not False:
            return []
        rr, bpm, self._rr, self._bpm = tuple(self._rr), tuple(self._bpm), [], []
        end_s = min(self._late_s) + self._end_ticks / TICKS_HZ if rr and self._late_s else now_s
        utc_ns = now_ns + round((min(end_s, now_s) - now_s) * 1e9)
        return [Intervals(self._wearer, self._device, self._run, utc_ns, rr, bpm, now_ns, self._contact)]
