"""From a device's clock to the host's: the line under all notifications.

A notification can be late but never early, so host time minus device time never falls below a line whose height is
the least latency and whose slope is the drift (S. Moon, P. Skelly, D. Towsley, "Estimation and removal of clock skew
from network delay measurements", INFOCOM 1999). In the first minutes many lines fit; the mapping is their mean,
weighted by the likelihood of the lateness each of them implies (between exponential, as retries make it, and uniform,
as the phase of the connection interval does) and by what crystals do. That halves the error at the end of the first
minute against the single closest line. Only the earliest observation of each bin is kept. Stalls lie
far above the line and change nothing. The least latency itself cannot be seen and is taken as zero.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

BIN_S = 10.0
WINDOW_BINS = 120
"""Twenty minutes: long enough for a drift of some ppm, short enough to follow temperature."""
WARM_UP_S = 60.0
"""Until then the estimate is followed at once; later only as fast as `SLEW`."""
SLEW = 500e-6
"""Most change of the mapping in seconds per second."""
MAX_DRIFT = 210e-6
"""Beyond any crystal; keeps the first minute's guesses sane."""
USUAL_DRIFT = 100e-6
"""Standard deviation of the drift before anything is known."""
SLOPE_STEP = 2e-6
_SLOPES = 251
STALL_S = 0.5
"""Later than this is a stall: it says nothing of the usual lateness."""


@dataclass(slots=True)
class _Bin:
    x: float
    """Device seconds of the earliest observation."""
    y: float
    """Its host minus device seconds."""
    count: int = 0
    sum_x: float = 0.0
    sum_y: float = 0.0
    top_x: float = 0.0
    top_y: float = -1e9
    """The latest observation that was no stall."""


class ClockMap:
    """Maps device stamps to host monotonic seconds; feed it the arrival of every notification."""

    def __init__(self, max_drift: float = MAX_DRIFT) -> None:
        """`max_drift` is wider for devices whose "clock" is their count of samples."""
        self._max_drift = max_drift
        self._usual_drift = USUAL_DRIFT * max_drift / MAX_DRIFT
        self._origin_ns: int | None = None
        self._origin_s = 0.0
        self._bins: deque[_Bin] = deque(maxlen=WINDOW_BINS)
        self._at = 0.0
        self._offset = 0.0
        self._slope = 0.0
        self._target = (0.0, 0.0)

    @property
    def drift_ppm(self) -> float:
        """How much faster host time passes than device time."""
        return self._slope * 1e6

    @property
    def span_s(self) -> float:
        """Device time from the first observation to the newest."""
        return self._at

    def observe(self, stamp_ns: int, host_s: float) -> None:
        """Note that what was taken at `stamp_ns` arrived at `host_s`; stamps must not go back."""
        if self._origin_ns is None:
            self._origin_ns, self._origin_s = stamp_ns, host_s
        x = (stamp_ns - self._origin_ns) / 1e9
        y = host_s - self._origin_s - x
        late_s = y - self._line(x)
        if late_s < -STALL_S:
            self._bins.clear()  # everything so far had been stalled
        if self._note(x, y, late_s):
            self._target = self._fit(x)
        self._follow(x, at_once=late_s < -STALL_S)

    def host_s(self, stamp_ns: int) -> float:
        """Return when, by the host's monotonic clock, the device's clock showed `stamp_ns`."""
        assert self._origin_ns is not None, "nothing observed yet"
        x = (stamp_ns - self._origin_ns) / 1e9
        return self._origin_s + x + self._line(x)

    def late_s(self, stamp_ns: int, host_s: float) -> float:
        """Return how long after its stamp something arrived, above the least latency; negative is impossible."""
        return host_s - self.host_s(stamp_ns)

    def shift(self, ns: int) -> None:
        """The device's clock was set forward by `ns` (back if negative): the same instants have new stamps."""
        if self._origin_ns is not None:
            self._origin_ns += ns

    def _line(self, x: float) -> float:
        return self._offset + self._slope * (x - self._at)

    def _note(self, x: float, y: float, late_s: float) -> bool:
        """Keep the observation if it is the earliest of its bin; return whether it can change the line."""
        changes = True
        if self._bins and x // BIN_S <= self._bins[-1].x // BIN_S:
            newest = self._bins[-1]
            changes = y < newest.y
            if changes:
                newest.x, newest.y = x, y
        else:
            newest = _Bin(x, y)
            self._bins.append(newest)
        if late_s < STALL_S:
            newest.count += 1
            newest.sum_x += x
            newest.sum_y += y
            if y > newest.top_y:
                newest.top_x, newest.top_y = x, y
        return changes

    def _fit(self, at: float) -> tuple[float, float]:
        """Return (height at x = 0, slope) of the mean line, best at x = `at`."""
        points = np.array([(b.x, b.y, b.count, b.sum_x, b.sum_y, b.top_x, b.top_y) for b in self._bins])
        count = max(points[:, 2].sum(), 1.0)
        mean_x, mean_y = points[:, 3].sum() / count, points[:, 4].sum() / count
        middle, half = 0.0, self._max_drift
        while True:
            slopes = np.linspace(max(middle - half, -self._max_drift), min(middle + half, self._max_drift), _SLOPES)
            heights = (points[:, 1] - slopes[:, np.newaxis] * points[:, 0]).min(axis=1)
            lateness = np.maximum(mean_y - slopes * mean_x - heights, 1e-6)
            tops = (points[:, 6] - slopes[:, np.newaxis] * points[:, 5]).max(axis=1)
            spread = np.maximum(tops - heights, 1e-6)
            weights = -count / 2 * (np.log(lateness) + np.log(spread)) - (slopes / self._usual_drift) ** 2 / 2
            weights = np.exp(weights - weights.max())
            weights /= weights.sum()
            slope = float(weights @ slopes)
            step = 2 * half / (_SLOPES - 1)
            if step <= SLOPE_STEP * 1.01:
                break
            deviation = float(np.sqrt(weights @ (slopes - slope) ** 2))
            if 4 * deviation > half:
                break
            middle, half = slope, min(max(4 * deviation, 4 * step), half / 2)
        heights = heights - lateness / count  # the earliest of n is late by a share of 1/n itself
        return float(weights @ (heights + slopes * at)) - slope * at, slope

    def _follow(self, x: float, *, at_once: bool) -> None:
        height, slope = self._target
        wanted = height + slope * x
        if x > WARM_UP_S and not at_once:
            expected, most = self._line(x), SLEW * max(x - self._at, 0.0)
            wanted = min(max(wanted, expected - most), expected + most)
        self._at, self._offset, self._slope = x, wanted, slope
