"""From a device's clock to the host's: the line under all notifications.

A notification can be late but never early, so host time minus device time never falls below a line whose height is
the least latency and whose slope is the drift (S. Moon, P. Skelly, D. Towsley, "Estimation and removal of clock skew
from network delay measurements", INFOCOM 1999). In the first minutes many lines fit. The mapping is their mean,
weighted by how likely each makes what was seen, under the two laws that lateness comes close to: uniform over an
unknown range (the phase of the connection interval) and exponential of an unknown mean (retries), and by what crystals
do. Each law has the weight of its own evidence, so that the wrong one does not pull. Of each bin only the earliest and
the latest observation and the mean are kept. Stalls lie far above the line and change nothing. The least latency
itself cannot be seen and is taken as zero.

What is left to chance: under uniform lateness of 150 ms and two notifications a second the mean of the lines has a
standard deviation of 2.5 ms at the end of the first minute and 1.5 ms at the end of the second.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BIN_S = 10.0
WINDOW_BINS = 120
"""Twenty minutes: long enough for a drift of some ppm, short enough to follow temperature."""
WARM_UP_S = 60.0
"""From then on the drift is worth telling."""
SETTLED_S = 600.0
"""Until then the estimate is followed at once; later only as fast as `SLEW`."""
SLEW = 500e-6
"""Most change of the mapping in seconds per second."""
MAX_DRIFT = 210e-6
"""Beyond any crystal; keeps the first minute's guesses sane."""
USUAL_DRIFT = 100e-6
"""Standard deviation of the drift before anything is known."""
KNOWN_DRIFT = 20e-6
"""The same of a device whose clock has started anew, around what was measured before: temperature has changed."""
SLOPE_STEP = 2e-6
_SLOPES = 251
REFIT_S = 2.0
"""While the map settles, what is no surprise is fitted so often; later once a bin."""
STALL_S = 0.5
"""Later than this is a stall: it says nothing of the usual lateness."""
_LEAST_S = 1e-6
"""Lateness is never taken to be less; a strap whose every notification came in time would have infinite weight."""


@dataclass(slots=True)
class _Bin:
    x: float
    """Device seconds of the earliest observation."""
    y: float
    """Its host minus device seconds."""
    count: int = 0
    """Observations that were no stall; what follows is of these."""
    sum_x: float = 0.0
    sum_y: float = 0.0
    top_x: float = 0.0
    """Device seconds of the latest one."""
    top_y: float = -math.inf


class ClockMap:
    """Maps device stamps to host monotonic seconds; feed it the arrival of every notification."""

    def __init__(self, max_drift: float = MAX_DRIFT, before: ClockMap | None = None) -> None:
        """`max_drift` is wider for devices whose "clock" is their count of samples; `before`: of the same device."""
        self._max_drift = max_drift
        self._expected_drift = 0.0
        self._usual_drift = USUAL_DRIFT * max_drift / MAX_DRIFT
        if before is not None and before.span_s >= WARM_UP_S:
            self._expected_drift = before.drift_ppm * 1e-6
            self._usual_drift = KNOWN_DRIFT * max_drift / MAX_DRIFT
        self._origin_ns: int | None = None
        self._origin_s = 0.0
        self._bins: deque[_Bin] = deque(maxlen=WINDOW_BINS)
        self._at = 0.0
        self._offset = 0.0
        self._slope = self._expected_drift
        self._target = (0.0, 0.0)
        self._fitted = 0.0

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
            self._target, self._fitted = self._fit(x), x
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
        """Keep what an observation says in its bin; return whether it is time to fit again."""
        tilt = self._slope
        opens = not self._bins or x // BIN_S > self._bins[-1].x // BIN_S
        if opens:
            self._bins.append(_Bin(x, y))
        newest = self._bins[-1]
        lower = y - tilt * x < newest.y - tilt * newest.x
        if lower:
            newest.x, newest.y = x, y
        higher = late_s < STALL_S and y - tilt * x > newest.top_y - tilt * newest.top_x
        if higher:
            newest.top_x, newest.top_y = x, y
        if late_s < STALL_S:
            newest.count += 1
            newest.sum_x += x
            newest.sum_y += y
        return opens or late_s < 0 or ((lower or higher) and self._fitted + REFIT_S <= x < SETTLED_S)

    def _fit(self, at: float) -> tuple[float, float]:
        """Return (height at x = 0, slope) of the mean line, best at x = `at`."""
        points = np.array([(b.x, b.y, b.count, b.sum_x, b.sum_y, b.top_x, b.top_y) for b in self._bins])
        middle, half = 0.0, self._max_drift
        while True:
            slopes = np.linspace(max(middle - half, -self._max_drift), min(middle + half, self._max_drift), _SLOPES)
            heights, weights = self._lines(points, slopes)
            per_slope = weights.sum(axis=0)
            slope = float(per_slope @ slopes)
            step = 2 * half / (_SLOPES - 1)
            if step <= SLOPE_STEP * 1.01:
                break
            deviation = float(np.sqrt(per_slope @ (slopes - slope) ** 2))
            if 4 * deviation > half:
                break
            middle, half = slope, min(max(4 * deviation, 4 * step), half / 2)
        return float((weights * (heights + slopes * at)).sum()) - slope * at, slope

    def _lines(self, points: NDArray[np.float64], slopes: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return heights at x = 0 and weights, both [2, slopes]: under exponential and under uniform lateness.

        Of n observations with mean lateness m over the lowest line and range r of it, the likelihood of a slope with
        height and scale integrated out is Γ(n) (n m)^-(n-1) / n(n-1) and r^-(n-1) / n(n-1); the mean of the height is
        m / (n - 2) and r / (n - 2) below the lowest line.
        """
        x, y, counts, sum_x, sum_y, top_x, top_y = points.T
        lowest = (y - slopes[:, np.newaxis] * x).min(axis=1)
        n = float(counts.sum())
        prior = -(((slopes - self._expected_drift) / self._usual_drift) ** 2) / 2
        if n < 3:
            weights = np.exp(prior - prior.max())
            return np.stack((lowest, lowest)), np.stack((weights, weights)) / (2 * weights.sum())
        mean = np.maximum((sum_y.sum() - slopes * sum_x.sum()) / n - lowest, _LEAST_S)
        usual = counts > 0
        spread = (top_y[usual] - slopes[:, np.newaxis] * top_x[usual]).max(axis=1) - lowest
        spread = np.maximum(spread, _LEAST_S)
        exponential = math.lgamma(n) - (n - 1) * np.log(n * mean)
        uniform = -(n - 1) * np.log(spread)
        logs = np.stack((exponential, uniform)) + prior
        weights = np.exp(logs - logs.max())
        return lowest - np.stack((mean, spread)) / (n - 2), weights / weights.sum()

    def _follow(self, x: float, *, at_once: bool) -> None:
        height, slope = self._target
        wanted = height + slope * x
        if x > SETTLED_S and not at_once:
            expected, most = self._line(x), SLEW * max(x - self._at, 0.0)
            wanted = min(max(wanted, expected - most), expected + most)
        self._at, self._offset, self._slope = x, wanted, slope
