"""Per-minute figures of a recording."""

from __future__ import annotations

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
_N, _SUM, _NEWEST, _LOW, _HIGH, _BEATS, _READABLE, _RECORDED, _RHYTHMS, _AF = range(10)


class TrendMeter(Part):
    """Adds beats, RR intervals and seconds up to minutes and gives each minute once, in order."""

    STATE: ClassVar[tuple[str, ...]] = ("next_minute", "minutes")

    def __init__(self, minute_of: Callable[[float], int]) -> None:
        self._minute_of = minute_of
        self.next_minute = 0
        self.minutes: dict[int, list[Any]] = {}

    def beat(self, position: float, type_: str, rr_s: float | None) -> None:
        """Take a beat and the RR interval that ends with it."""
        minute = self._minute(self._minute_of(position))
        minute[_BEATS][BEAT_CLASSES.index(type_)] += 1
        if rr_s is None:
            return
        minute[_N] += 1
        minute[_SUM] += rr_s
        minute[_NEWEST] = [*minute[_NEWEST][-_MIN_RR + 1 :], rr_s]
        if minute[_N] >= _MIN_RR:
            mean = sum(minute[_NEWEST]) / _MIN_RR
            minute[_LOW], minute[_HIGH] = min(minute[_LOW], mean), max(minute[_HIGH], mean)

    def second(self, second: Second, rhythm: str) -> None:
        """Take a second and the rhythm in force."""
        minute = self._minute(second.index // 60)
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
            self.minutes[number] = [0, 0.0, [], 1e9, 0.0, [0] * len(BEAT_CLASSES), 0.0, 0.0, {}, 0.0]
        return self.minutes[number]

    def _close(self) -> TrendMinute:
        number = self.next_minute
        row = self._minute(number)
        del self.minutes[number]
        self.next_minute += 1
        known = row[_N] >= _MIN_RR
        hr_bpm = 60 * row[_N] / row[_SUM] if known else None
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
        )
