"""What each second of signal is good for: gap, lead_off, flat, unreadable or readable."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import numpy as np

from edge.encoder.contract import HOP_S, MODEL_FS_HZ, RHYTHMS, HopScores
from edge.rhythm.rules import SignalLimits
from edge.rhythm.state import Part
from edge.signal.quality import peak_to_peak_mv

SIGNALS = ("readable", "unreadable", "flat", "lead_off", "gap")
_ASYS = RHYTHMS.index("ASYS")
_AFIB, _AFL = RHYTHMS.index("AFIB"), RHYTHMS.index("AFL")
_VT, _VF = RHYTHMS.index("VT"), RHYTHMS.index("VF")
_NOTHING = (0.0,) * len(RHYTHMS)


class Second(NamedTuple):
    """One judged second: model-rate samples [128·number, 128·(number + 1))."""

    number: int
    signal: str
    """One of `SIGNALS`."""
    whole: bool
    """Readable and complete: an RR interval may run through it."""
    doubtful: bool
    """Readable so far, but without life: it may turn out to be the beginning of a flat line."""
    present_s: float
    quality: float | None
    rhythm: tuple[float, ...]
    """Scores in the order of `RHYTHMS`; zeros where nothing was recorded."""

    @property
    def start(self) -> int:
        """First model-rate sample."""
        return self.number * MODEL_FS_HZ

    @property
    def end(self) -> int:
        """Model-rate sample after the last."""
        return self.start + MODEL_FS_HZ

    @property
    def readable(self) -> bool:
        """Whether anything may be concluded from it."""
        return self.signal == "readable"

    @property
    def asystole(self) -> float:
        """P(ASYS)."""
        return self.rhythm[_ASYS]

    @property
    def af(self) -> float:
        """P(AFIB) + P(AFL)."""
        return self.rhythm[_AFIB] + self.rhythm[_AFL]

    @property
    def ventricular(self) -> float:
        """P(VT) + P(VF)."""
        return self.rhythm[_VT] + self.rhythm[_VF]


class SignalJudge(Part):
    """Judges seconds in order; carries the hysteresis of quality and the length of a low line."""

    STATE: ClassVar[tuple[str, ...]] = ("good", "low_s", "dead_s", "flat")

    def __init__(self, limits: SignalLimits) -> None:
        self._limits = limits
        self.good = False
        self.low_s = 0
        """Seconds in a row below `flat_mv`."""
        self.dead_s = 0
        """Seconds in a row below `dead_mv`."""
        self.flat = False

    def seconds(self, hop: HopScores) -> list[Second]:
        """Return the seconds of a hop."""
        measures = (hop.present.tolist(), hop.quality.tolist(), _spans_mv(hop), hop.clipped.tolist())
        rows: list[list[float]] = hop.rhythm.tolist()
        off: list[bool] = hop.contact_off.tolist()
        return [self._second(hop.k * HOP_S + i, *each) for i, each in enumerate(zip(rows, off, *measures, strict=True))]

    def _second(
        self, number: int, row: list[float], off: bool, present: float, quality: float, span_mv: float, clipped: float
    ) -> Second:
        rhythm = _NOTHING if math.isnan(sum(row)) else tuple(row)
        signal = self._signal(off, present, quality, span_mv, clipped, rhythm[_ASYS])
        return Second(
            number=number,
            signal=signal,
            doubtful=signal == "readable" and self.dead_s > 0,
            whole=signal == "readable" and present >= self._limits.whole_present,
            present_s=present,
            quality=None if math.isnan(quality) else quality,
            rhythm=rhythm,
        )

    def _signal(
        self, off: bool, present: float, quality: float, span_mv: float, clipped: float, asystole: float
    ) -> str:
        limits = self._limits
        if present < limits.min_present or math.isnan(quality):
            self.good, self.low_s, self.dead_s, self.flat = False, 0, 0, False
            return "gap"
        self.good = quality >= (limits.quality_off if self.good else limits.quality_on)
        self._follow_flat(span_mv, asystole)
        if off:
            return "lead_off"
        if self.flat:
            return "flat"
        if not self.good or clipped > limits.max_clipped:
            return "unreadable"
        return "readable"

    def _follow_flat(self, span_mv: float, asystole: float) -> None:
        limits = self._limits
        if span_mv >= limits.flat_mv:
            self.low_s, self.dead_s, self.flat = 0, 0, False
            return
        self.low_s += 1
        self.dead_s = self.dead_s + 1 if span_mv < limits.dead_mv else 0
        if self.dead_s >= limits.flat_s or (self.low_s >= limits.flat_s and asystole < limits.asystole_score):
            self.flat = True


def _spans_mv(hop: HopScores) -> list[float]:
    """Return the largest peak-to-peak amplitude of any lead per second; 0 when there is none."""
    each = hop.ecg.reshape(-1, HOP_S, MODEL_FS_HZ)
    spans: list[float] = np.maximum.reduce(np.maximum.reduce(each, 2) - np.minimum.reduce(each, 2)).tolist()
    if math.isnan(sum(spans)):  # something is missing: measure what there is
        spans = np.nan_to_num(np.fmax.reduce(peak_to_peak_mv(hop.ecg, MODEL_FS_HZ), axis=0)).tolist()
    return spans
