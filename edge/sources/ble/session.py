"""One bound device from bytes' meaning to chunks: frames, beats, battery and motion come in, deliveries go out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.chunk import Delivery
from edge.clock import Clock
from edge.intervals import Intervals
from edge.sources.ble.anchor import Anchor
from edge.sources.ble.frame import Frame, FrameError, Heart, Motion
from edge.sources.ble.interval_track import IntervalTrack
from edge.sources.ble.outlet import Outlet
from edge.sources.ble.placer import Piece, Placer, joined
from edge.sources.stream import Stream

CHUNK_S = 0.5
"""Frames are joined until a chunk has this much signal."""
KEPT_RR = 256
LATE_S = 10.0
"""A radio that stalls delivers all at once afterwards; only a queue that grows makes the newest data this late."""
MOTION_SHARE = 0.02
"""Weight of a new sample in the mean direction of gravity (about 2 s at 25 Hz)."""


class Session:
    """State of one device on one wearer across connections."""

    def __init__(
        self,
        stream: Stream,
        clock: Clock,
        *,
        stamped: bool,
        offer: Callable[[Delivery], bool],
        offer_intervals: Callable[[Intervals], bool],
        soon: Callable[[Callable[[], None]], object],
        queue_s: float,
        track: IntervalTrack | None = None,
    ) -> None:
        """`track`: of a device without ECG, whose RR intervals are kept."""
        self.stream = stream
        self.placer = Placer(stream.fs_hz, clock, stamped=stamped)
        self.outlet = Outlet(Anchor(stream), offer, soon, queue_s)
        self.bad: Counter[str] = Counter()
        """Notifications that could not be read, by reason."""
        self.heart: Heart | None = None
        self.rr_s: deque[float] = deque(maxlen=KEPT_RR)
        self.battery: int | None = None
        self.dropped_reports = 0
        """Batches of RR intervals (5 s each) that the store did not take in time."""
        self.gravity_mg: tuple[float, float, float] | None = None
        self.activity_mg: float | None = None
        self.contact: bool | None = None
        self.frames = 0
        self.data = 0
        """Notifications that brought what is kept of this device: samples or, without ECG, heartbeats."""
        self._track = track
        self._offer_intervals = offer_intervals
        self._held: list[Piece] = []

    def connected(self) -> None:
        """A connection begins."""
        self.placer.connected()

    def disconnected(self) -> None:
        """A connection has ended: what is held goes out."""
        self._flush()
        if self._track is not None:
            self._keep(self._track.end())
        self.contact = None
        self.gravity_mg = self.activity_mg = None

    def on_frame(self, frame: Frame) -> None:
        """Take the samples of a notification."""
        self.frames += 1
        self.data += 1
        piece = self.placer.place(frame, self.contact)
        if piece is None:
            return
        if frame.contact is not None:
            self.contact = frame.contact
        held = self._held[-1] if self._held else None
        if held is not None and not held.goes_on_in(piece):
            self._flush()
        self._held.append(piece)
        if piece.end - self._held[0].index >= CHUNK_S * self.stream.fs_hz:
            self._flush()

    def on_heart(self, heart: Heart) -> None:
        """Take a heart rate measurement: contact, and RR where there is no ECG."""
        self.heart = heart
        self.contact = heart.contact
        self.rr_s.extend(heart.rr_s)
        if self._track is not None:
            self.data += 1
            self._keep(self._track.take(heart))

    def on_battery(self, percent: int) -> None:
        self.battery = percent

    def on_motion(self, motion: Motion) -> None:
        """Take accelerometer samples: a mean direction of gravity (posture) and the mean deviation from it."""
        mean = motion.mg.mean(axis=0)
        weight = min(1.0, MOTION_SHARE * len(motion.mg))
        before = np.array(self.gravity_mg) if self.gravity_mg is not None else mean
        gravity = before + weight * (mean - before)
        deviation = float(np.linalg.norm(motion.mg - gravity, axis=1).mean())
        self.gravity_mg = (float(gravity[0]), float(gravity[1]), float(gravity[2]))
        self.activity_mg = (
            deviation if self.activity_mg is None else self.activity_mg + weight * (deviation - self.activity_mg)
        )

    def on_bad(self, error: FrameError) -> None:
        """Count a notification that could not be read."""
        self.bad[error.reason] += 1

    @property
    def behind(self) -> str:
        """What does not keep up, in words; empty while everything does."""
        outlet, late_s = self.outlet, self.placer.late_s
        if late_s > LATE_S:
            return f"data arrive {late_s:.0f} s after they were taken: the radio or this machine does not keep up"
        if not outlet.is_behind:
            return ""
        waits = f"{outlet.waiting_s:.0f} s of signal wait for the disk"
        return f"{waits}; beyond {outlet.limit_s:g} s the oldest are dropped ({outlet.counters['dropped']} so far)"

    def snapshot(self) -> dict[str, Any]:
        """State and counters for `status`."""
        placer, outlet = self.placer, self.outlet
        taken = placer.counters["samples"] + placer.counters["lost_samples"]
        return {
            "fs_hz": self.stream.fs_hz,
            "rate_hz": None if placer.rate_hz is None else round(placer.rate_hz, 4),
            "drift_ppm": round(placer.drift_ppm, 1),
            "loss": round(placer.counters["lost_samples"] / taken, 6) if taken else None,
            "frames": self.frames,
            "bad": dict(self.bad),
            **placer.counters,
            **({} if self._track is None else self._track.counters),
            "dropped_reports": self.dropped_reports,
            "contact": self.contact,
            "battery": self.battery,
            "hr_bpm": None if self.heart is None else self.heart.hr_bpm,
            "rr_s": [round(rr, 4) for rr in list(self.rr_s)[-8:]],
            "gravity_mg": None if self.gravity_mg is None else [round(axis) for axis in self.gravity_mg],
            "activity_mg": None if self.activity_mg is None else round(self.activity_mg, 1),
            "late_s": round(placer.late_s, 2),
            "waiting_s": round(outlet.waiting_s, 2),
            **outlet.counters,
            "commit_ms": outlet.commit_ms(),
            "commit_lags": {"counts": list(outlet.lags), "sum_s": round(outlet.lag_sum_s, 3)},
            "clock_segments": [epoch.as_json() for epoch in list(placer.epochs)[-4:]],
        }

    def _keep(self, done: list[Intervals]) -> None:
        for intervals in done:
            if not self._offer_intervals(intervals):
                self.dropped_reports += 1

    def _flush(self) -> None:
        if not self._held:
            return
        held, self._held = self._held, []
        self.outlet.put(joined(held))
