"""Frames onto the sample grid: what follows, what was lost, what is a jump of the device's clock. Pure of I/O.

| device stamp of a frame against the one before | what it is |
|---|---|
| off by at most `STEADY_SAMPLES` | the next samples; stamps jitter, samples do not |
| the same stamp, the same samples | a duplicate: dropped |
| later by half a frame or more, and it has had the time to happen | lost frames: missing indices |
| anything else (back, a little forward, a leap ahead) | the device's clock was set: samples go on, new epoch |
| after a reconnect, not where the mapping expects it | the device started anew: new epoch, UTC tells the gap |

Devices without stamps are placed by their count of samples; what they lose within a connection shows only if they
count their frames.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.chunk import ClockReading
from edge.clock import Clock
from edge.sources.ble.clockmap import MAX_DRIFT, WARM_UP_S, ClockMap
from edge.sources.ble.frame import Frame

STEADY_SAMPLES = 1.5
EARLY_S = 0.25
"""Nothing arrives this much before it was taken: such a stamp is a jump, not a loss."""
TRUSTED_S = 5.0
"""Span of a clock mapping that may judge so; before, time between arrivals does."""
RESTART_S = 30.0
"""A first frame after a reconnect that is later than this by its stamp comes from a clock that started anew."""
MAX_LOSS_S = 12 * 3600.0
RATE_SPAN_S = 10.0
"""Least run of samples over which a rate is measured."""
RATE_RUN_S = 600.0
"""The run is this long to twice as long, once it can be: long enough for stamps of whole milliseconds."""
COUNT_DRIFT = 0.02
"""Most a device without stamps may be off its nominal rate."""
KEPT_EPOCHS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Consecutive samples with their place and time."""

    index: int
    """Of the first sample, on the grid of the nominal rate."""
    samples: NDArray[np.int32]
    """[leads, n]."""
    epoch: int
    """Raised whenever the device's clock jumps or starts anew."""
    follows: bool
    """Whether `index` is known against the epoch before; otherwise UTC tells the gap."""
    device_ns: int
    """Device clock at the first sample, as the device says it; made of the count of samples if it has none."""
    clock: ClockReading
    utc_ns: int
    """Of the first sample, by the mapping."""
    received_ns: int
    """Wall time of arrival."""
    contact: bool | None

    @property
    def n(self) -> int:
        return int(self.samples.shape[1])

    @property
    def end(self) -> int:
        return self.index + self.n

    def goes_on_in(self, after: Piece) -> bool:
        """Whether `after` can be joined to it."""
        return (self.end, self.epoch, self.contact) == (after.index, after.epoch, after.contact)


def joined(pieces: Sequence[Piece]) -> Piece:
    """Return pieces that go on in each other as one."""
    first, last = pieces[0], pieces[-1]
    if first is last:
        return first
    samples = np.concatenate([piece.samples for piece in pieces], axis=1)
    return replace(first, samples=samples, received_ns=last.received_ns)


@dataclass(slots=True)
class Epoch:
    """One run of the device's clock: where it began, and what was measured in it."""

    number: int
    index: int
    device_ns: int
    utc_ns: int
    reason: str
    rate_hz: float | None = None
    drift_ppm: float = 0.0
    samples: int = 0
    lost: int = 0

    def as_json(self) -> dict[str, Any]:
        rate_hz = None if self.rate_hz is None else round(self.rate_hz, 4)
        return {
            "first_index": self.index,
            "device_ns": self.device_ns,
            "utc_ns": self.utc_ns,
            "reason": self.reason,
            "rate_hz": rate_hz,
            "drift_ppm": round(self.drift_ppm, 1),
            "samples": self.samples,
            "lost": self.lost,
        }


class Placer:
    """Places the frames of one device; lives as long as the device is bound, across connections."""

    def __init__(self, fs_hz: float, clock: Clock, *, stamped: bool) -> None:
        self.fs_hz = fs_hz
        self.counters: Counter[str] = Counter(samples=0, lost_samples=0, duplicates=0, clock_jumps=0, clock_restarts=0)
        self.epochs: deque[Epoch] = deque(maxlen=KEPT_EPOCHS)
        self._clock = clock
        self._stamped = stamped
        self._map = self._new_map(None)
        self._index = 0
        self._reconnected = True
        self._last_ns: int | None = None
        self._last_samples: NDArray[np.int32] | None = None
        self._arrived_s = 0.0
        self._counted = 0
        self._runs: deque[tuple[int, int]] = deque()
        self._rate_hz: float | None = None
        self.late_s = 0.0
        """How long after it was taken the newest frame arrived, above the least latency seen; 0 without stamps."""

    @property
    def rate_hz(self) -> float | None:
        """Samples per second of device time, as measured; None before the first `RATE_SPAN_S`."""
        return self._rate_hz

    @property
    def drift_ppm(self) -> float:
        """How much faster host time passes than device time."""
        return self._map.drift_ppm

    def connected(self) -> None:
        """A new connection stands: the device may have started anew."""
        self._reconnected = True
        self.late_s = 0.0

    def place(self, frame: Frame, contact: bool | None) -> Piece | None:
        """Place a frame that has just arrived; None for a duplicate."""
        now_s, now_ns = self._clock.monotonic_s(), self._clock.utc_ns()
        n = frame.samples.shape[1]
        period_ns = 1e9 / (self._rate_hz or self.fs_hz)
        last_ns = self._last_stamp(frame, n, period_ns)
        lost, reason = self._judge(frame, last_ns, n, period_ns, now_s)
        if lost is None:
            self.counters["duplicates"] += 1
            return None
        self._map.observe(last_ns, now_s)
        self.late_s = max(self._map.late_s(last_ns, now_s), 0.0) if self._stamped else 0.0
        first_ns = last_ns - round((n - 1) * period_ns)
        utc_ns = now_ns + round((self._map.host_s(first_ns) - now_s) * 1e9)
        self._index += lost
        if reason:
            number = self.epochs[-1].number + 1 if self.epochs else 0
            self.epochs.append(Epoch(number, self._index, first_ns, utc_ns, reason))
        piece = Piece(
            index=self._index,
            samples=frame.samples,
            epoch=self.epochs[-1].number,
            follows=self.epochs[-1].reason == "jump",
            device_ns=first_ns,
            clock=self._reading(first_ns),
            utc_ns=utc_ns,
            received_ns=now_ns,
            contact=contact if frame.contact is None else frame.contact,
        )
        self._index += n
        self._last_ns, self._last_samples, self._arrived_s = last_ns, frame.samples, now_s
        self._reconnected = False
        self._measure(last_ns, new_clock=bool(reason))
        self._count(n, lost)
        return piece

    def _reading(self, first_ns: int) -> ClockReading:
        known = self._map.span_s >= WARM_UP_S
        return ClockReading(first_ns if self._stamped else None, self._rate_hz, self.drift_ppm if known else None)

    def _last_stamp(self, frame: Frame, n: int, period_ns: float) -> int:
        if frame.last_ns is not None:
            return frame.last_ns
        if frame.first_ns is not None:
            return frame.first_ns + round((n - 1) * period_ns)
        self._counted += frame.lost * n + n
        return round(self._counted * 1e9 / self.fs_hz)

    def _judge(self, frame: Frame, last_ns: int, n: int, period_ns: float, now_s: float) -> tuple[int | None, str]:
        """Return (lost samples, why a new epoch begins or ""); (None, "") for a duplicate."""
        if self._last_ns is None:
            return 0, "first"
        if not self._stamped:
            if not self._reconnected:
                return frame.lost * n, ""
            self._map = self._new_map(self._map)
            return 0, "restart"
        off = (last_ns - self._last_ns) / period_ns - n
        late_s = self._map.late_s(last_ns, now_s)
        if self._reconnected and (off < -STEADY_SAMPLES or not -EARLY_S <= late_s <= RESTART_S):
            self.counters["clock_restarts"] += 1
            self._map = self._new_map(self._map)
            return 0, "restart"
        if abs(off) <= STEADY_SAMPLES:
            return 0, ""
        same = self._last_samples is not None and np.array_equal(frame.samples, self._last_samples)
        if last_ns == self._last_ns and same:
            return None, ""
        trusted = self._map.span_s >= TRUSTED_S
        has_happened = late_s >= -EARLY_S if trusted else off * period_ns / 1e9 <= now_s - self._arrived_s + 2.0
        if off >= n / 2 and has_happened and off <= MAX_LOSS_S * self.fs_hz:
            return round(off), ""
        self.counters["clock_jumps"] += 1
        self._map.shift(round(off * period_ns))
        return 0, "jump"

    def _measure(self, last_ns: int, *, new_clock: bool) -> None:
        """Measure the rate by the device's clock."""
        if not self._stamped:
            return
        if new_clock:
            self._runs.clear()
        if not self._runs or last_ns - self._runs[-1][1] >= RATE_RUN_S * 1e9:
            self._runs.append((self._index, last_ns))
            if len(self._runs) > 2:
                self._runs.popleft()
        index, since_ns = self._runs[0]
        if last_ns - since_ns >= RATE_SPAN_S * 1e9:
            self._rate_hz = (self._index - index) * 1e9 / (last_ns - since_ns)

    def _count(self, n: int, lost: int) -> None:
        self.counters["samples"] += n
        self.counters["lost_samples"] += lost
        epoch = self.epochs[-1]
        epoch.samples += n
        epoch.lost += lost
        epoch.rate_hz, epoch.drift_ppm = self._rate_hz, self._map.drift_ppm

    def _new_map(self, before: ClockMap | None) -> ClockMap:
        return ClockMap(MAX_DRIFT if self._stamped else COUNT_DRIFT, before)
