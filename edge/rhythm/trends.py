"""Per-minute figures of a recording.

Heart rate variability over one minute: RMSSD and SDNN of NN intervals (Task Force of the ESC and the NASPE, Circulation
93:1043, 1996). An RR interval is NN if both its beats are N, not in AF, it lasts 0.4 to 2.0 s and differs by no more
than 20 % from the mean of the five intervals between N beats before it (the report's filter looks ahead as well).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from edge.encoder.contract import BEAT_CLASSES, MODEL_FS_HZ
from edge.rhythm.events import TrendMinute
from edge.rhythm.label import AF
from edge.rhythm.seconds import Second
from edge.rhythm.state import Part

_MIN_RR = 5
_SETTLE = 16
"""Model-rate samples by which an R peak can lie before its frame: a minute waits for them."""
_MIN_NN = 20
_AROUND = 5
_DEVIATION = 0.2
_SHORTEST_S, _LONGEST_S = 0.4, 2.0
_N, _SUM, _NEWEST, _LOW, _HIGH, _BEATS, _READABLE, _RECORDED, _RHYTHMS, _AF, _NN, _STEPS = range(12)
"""`_NN` is [count, sum, sum of squares] in seconds, `_STEPS` [count, sum of squares] of their differences."""


class TrendMeter(Part):
    """Adds beats, RR intervals and seconds up to minutes and gives each minute once, in order."""

    STATE: ClassVar[tuple[str, ...]] = ("next_minute", "minutes", "before", "nn")

    def __init__(self, minute_of: Callable[[float], int]) -> None:
        self._minute_of = minute_of
        self.next_minute = 0
        self.minutes: dict[int, list[Any]] = {}
        self.before: list[float] = []
        """The newest intervals between N beats of the unbroken chain, at most five."""
        self.nn = 0.0
        """The newest of them if it was an NN interval, else 0."""

    def beat(self, position: float, type_: str, rr_s: float | None, normal: bool = False) -> None:
        """Take a beat, the RR interval that ends with it, and whether that lies between N beats of no AF."""
        minute = self._minute(self._minute_of(position))
        self._vary(minute, rr_s if normal else None)
        minute[_BEATS][BEAT_CLASSES.index(type_)] += 1
        if rr_s is None:
            return
        minute[_N] += 1
        minute[_SUM] += rr_s
        minute[_NEWEST] = [*minute[_NEWEST][-_MIN_RR + 1 :], rr_s]
        if minute[_N] >= _MIN_RR:
            mean = sum(minute[_NEWEST]) / _MIN_RR
            minute[_LOW], minute[_HIGH] = min(minute[_LOW], mean), max(minute[_HIGH], mean)

    def _vary(self, minute: list[Any], interval_s: float | None) -> None:
        if interval_s is None:
            self.before, self.nn = [], 0.0
            return
        around_s = sum(self.before) / len(self.before) if self.before else interval_s
        self.before = [*self.before[1 - _AROUND :], interval_s]
        is_nn = _SHORTEST_S <= interval_s <= _LONGEST_S and abs(interval_s - around_s) <= _DEVIATION * around_s
        if is_nn:
            count, total, squares = minute[_NN]
            minute[_NN] = [count + 1, total + interval_s, squares + interval_s**2]
            if self.nn:
                steps, squares = minute[_STEPS]
                minute[_STEPS] = [steps + 1, squares + (interval_s - self.nn) ** 2]
        self.nn = interval_s if is_nn else 0.0

    def second(self, second: Second, rhythm: str) -> None:
        """Take a second and the rhythm in force."""
        minute = self._minute(second.number // 60)
        minute[_RECORDED] += second.present_s
        if not second.readable:
            return
        minute[_READABLE] += second.present_s
        if rhythm:
            minute[_RHYTHMS][rhythm] = minute[_RHYTHMS].get(rhythm, 0) + 1
        if rhythm in AF:
            minute[_AF] += second.present_s

    def complete(self, frontier: float) -> list[TrendMinute]:
        """Return the minutes that end well before `frontier`, up to which all beats are known."""
        done = []
        while frontier >= (self.next_minute + 1) * 60 * MODEL_FS_HZ + _SETTLE:
            done.append(self._close())
        return done

    def finish(self) -> list[TrendMinute]:
        """Return the minutes that were begun."""
        done = []
        while any(minute >= self.next_minute for minute in self.minutes):
            done.append(self._close())
        return done

    def _minute(self, number: int) -> list[Any]:
        if number not in self.minutes:
            self.minutes[number] = [
                0,
                0.0,
                [],
                1e9,
                0.0,
                [0] * len(BEAT_CLASSES),
                0.0,
                0.0,
                {},
                0.0,
                [0, 0.0, 0.0],
                [0, 0.0],
            ]
        return self.minutes[number]

    def _close(self) -> TrendMinute:
        number = self.next_minute
        row = self._minute(number)
        del self.minutes[number]
        self.next_minute += 1
        known = row[_N] >= _MIN_RR
        hr_bpm = 60 * row[_N] / row[_SUM] if known else None
        (nn, total_s, squares), (steps, step_squares) = row[_NN], row[_STEPS]
        varies = nn >= _MIN_NN and steps > 0
        return TrendMinute(
            minute=number,
            hr_bpm=hr_bpm,
            hr_min_bpm=min(60 / row[_HIGH], hr_bpm) if hr_bpm else None,
            hr_max_bpm=max(60 / row[_LOW], hr_bpm) if hr_bpm else None,
            beats=dict(zip(BEAT_CLASSES, row[_BEATS], strict=True)),
            readable_s=row[_READABLE],
            recorded_s=row[_RECORDED],
            rhythm=max(sorted(row[_RHYTHMS]), key=row[_RHYTHMS].__getitem__, default=""),
            af_s=row[_AF],
            rmssd_ms=1000 * math.sqrt(step_squares / steps) if varies else None,
            sdnn_ms=1000 * math.sqrt(max(squares - total_s**2 / nn, 0.0) / (nn - 1)) if varies else None,
        )
