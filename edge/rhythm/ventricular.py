"""Ventricular tachycardia and fibrillation, from beats and from the rhythm of seconds."""

from __future__ import annotations

import itertools
from typing import ClassVar

from edge.encoder.contract import MODEL_FS_HZ, RHYTHMS
from edge.rhythm.book import FindingBook
from edge.rhythm.events import Severity
from edge.rhythm.rules import VfRule, VtRule
from edge.rhythm.seconds import Second
from edge.rhythm.state import Part
from edge.rhythm.stretch import Stretch

_VT, _VF = RHYTHMS.index("VT"), RHYTHMS.index("VF")
_LOOK_BACK = 4 * MODEL_FS_HZ
_BOUT_BREAK = 2 * MODEL_FS_HZ
_BRIDGE = MODEL_FS_HZ
"""A bout of VT seconds may be interrupted by one second."""
_MIN_PEAKS = 4
"""Fewer peaks in 4 s have no rate."""
_FAINT, _BEAT, _NARROW = range(3)
_GOES_ON = 1.3
"""A sequence of beats goes on until the next one is late by more than this factor."""
_UNDECIDED = 24
"""Model-rate samples at the end of a hop in which beats are not decided yet."""


class RecentPeaks(Part):
    """The peaks of the newest 4 s, too faint ones among them: the R-peak score of broad fast beats is low."""

    STATE: ClassVar[tuple[str, ...]] = ("newest",)

    def __init__(self) -> None:
        self.newest: list[list[float]] = []
        """[position, confidence, one of faint, beat, narrow beat]."""

    def faint(self, position: float) -> None:
        """Add a peak that is too faint for a beat."""
        self.newest.append([position, 0.0, _FAINT])

    def beat(self, position: float, confidence: float, narrow: bool) -> None:
        """Add a beat."""
        self.newest.append([position, confidence, _NARROW if narrow else _BEAT])

    def advance(self, now: float) -> None:
        """Forget what is older than 4 s."""
        self.newest = [peak for peak in self.newest if peak[0] > now - _LOOK_BACK]

    @property
    def beats(self) -> int:
        """How many of them are beats."""
        return sum(kind != _FAINT for *_, kind in self.newest)

    def rate_bpm(self) -> float:
        """Return the rate of all peaks, 0 with fewer than 4."""
        if len(self.newest) < _MIN_PEAKS:
            return 0.0
        return 60 * MODEL_FS_HZ * (len(self.newest) - 1) / (self.newest[-1][0] - self.newest[0][0])

    def silent_since(self, position: float) -> bool:
        """Return whether no beat lies after `position` and the peaks have no rate."""
        return len(self.newest) < _MIN_PEAKS and not any(p > position and kind != _FAINT for p, _, kind in self.newest)

    def organised(self, now: int, limits: VfRule) -> bool:
        """Return whether a regular sequence of narrow beats goes on at `now`."""
        beats = [peak for peak in self.newest if peak[2] != _FAINT]
        if len(beats) < limits.veto_beats or any(kind != _NARROW for *_, kind in beats):
            return False
        rr = [b[0] - a[0] for a, b in itertools.pairwise(beats)]
        mean = sum(rr) / len(rr)
        if now - beats[-1][0] > _GOES_ON * mean + _UNDECIDED:
            return False
        confidence = sum(c for _, c, _ in beats) / len(beats)
        return (max(rr) - min(rr)) / mean <= limits.veto_spread and confidence >= limits.veto_confidence


class VtDetector(Part):
    """Runs of V beats, or seconds of VT that no slow rate contradicts; either extends the other's finding."""

    STATE: ClassVar[tuple[str, ...]] = (
        *("run", "seconds_from", "seconds_to", "seconds_s"),
        *("bout_from", "bout_to", "longest_s", "max_bpm", "bouts", "v_beats", "v_to"),
    )

    def __init__(self, book: FindingBook, limits: VtRule, peaks: RecentPeaks) -> None:
        self._book, self._limits, self._peaks = book, limits, peaks
        self.run: list[list[float]] = []
        """[position, confidence] of the newest V beats in a row."""
        self.seconds_from = self.seconds_to = 0.0
        self.seconds_s = 0
        """VT seconds of the bout [seconds_from, seconds_to)."""
        self._forget()

    def _forget(self) -> None:
        self.bout_from = self.bout_to = -1.0
        """The newest uninterrupted bout of the open finding; −1: none yet."""
        self.longest_s = self.max_bpm = 0.0
        self.bouts = 0
        self.v_beats = 0
        self.v_to = -1.0
        """The newest V beat counted in `v_beats`."""

    def beat(self, position: float, v: bool, confidence: float, linked: bool) -> None:
        """Take a beat; `linked` if an unbroken RR interval leads to it."""
        if not v:
            self.run = []
            return
        limits = self._limits
        keep = int(max(limits.min_beats, limits.slow_beats))
        self.run = [*(self.run[-keep + 1 :] if linked else []), [position, confidence]]
        for need, min_bpm in ((int(limits.min_beats), limits.min_bpm), (int(limits.slow_beats), limits.slow_bpm)):
            newest = self.run[-need:]
            if len(newest) < need:
                continue
            first = newest[0][0]
            bpm = 60 * (need - 1) * MODEL_FS_HZ / (position - first)
            confidence = sum(c for _, c in newest) / need
            if min_bpm < bpm <= limits.max_bpm and confidence >= limits.min_confidence:
                self.v_beats += sum(p > self.v_to for p, _ in newest)
                self.v_to = position
                self._positive(first, position + 1, position, bpm, min_bpm)
                return

    def second(self, second: Second) -> None:
        """Take a second after the beats in it."""
        if second.start - self.seconds_to > _BRIDGE:
            self.seconds_from = self.seconds_to = 0.0
            self.seconds_s = 0
        if not second.readable or second.ventricular < self._limits.rhythm_score or self._book.is_open("vf"):
            return
        bpm = self._peaks.rate_bpm()
        beatless = self._peaks.beats <= 1 and second.rhythm[_VT] >= second.rhythm[_VF]
        if bpm <= self._limits.rhythm_bpm and not beatless:
            return
        if self.seconds_s == 0:
            self.seconds_from = float(second.start)
        self.seconds_to = float(second.end)
        self.seconds_s += 1
        if self.seconds_s >= self._limits.rhythm_s:
            self._positive(self.seconds_from, self.seconds_to, float(second.start), bpm, self._limits.rhythm_bpm)

    def advance(self, now: float) -> None:
        """Let time pass."""
        self._book.expire("vt", now)
        if not self._book.is_open("vt"):
            self._forget()

    def _positive(self, start: float, end: float, opened: float, bpm: float, threshold_bpm: float) -> None:
        if self.bout_to < 0 or start - self.bout_to > _BOUT_BREAK:
            self.bout_from = start
            self.bouts += 1
        self.bout_to = max(self.bout_to, end)
        bout_s = (self.bout_to - self.bout_from) / MODEL_FS_HZ
        self.longest_s, self.max_bpm = max(self.longest_s, bout_s), max(self.max_bpm, bpm)
        sustained = self.longest_s > self._limits.sustained_s
        severity: Severity | None = "critical" if sustained else None
        evidence: dict[str, float | int | str] = {
            "bouts": self.bouts,
            "longest_s": round(self.longest_s, 3),
            "v_beats": self.v_beats,
            "sustained": int(sustained),
            "threshold_bpm": threshold_bpm,
        }
        if self.max_bpm:
            evidence["max_bpm"] = round(self.max_bpm, 1)
        self._book.report("vt", start, end, opened, evidence, severity)


class VfDetector:
    """Seconds of VF, unless a regular sequence of narrow beats goes on.

    A ventricular second that the encoder calls VT counts as well when no beats are found in it: VT has beats.
    """

    def __init__(self, book: FindingBook, limits: VfRule, peaks: RecentPeaks) -> None:
        self._limits, self._peaks = limits, peaks
        self.stretch = Stretch(book, "vf", limits.min_s, limits.bridge_s, measure="score")

    def second(self, second: Second) -> None:
        """Take a second after the beats in it."""
        limits, peaks = self._limits, self._peaks
        self.stretch.advance(second.start)
        if not second.readable or second.ventricular < limits.score or peaks.organised(second.end, limits):
            return
        silent = peaks.silent_since(second.end - limits.silent_s * MODEL_FS_HZ)
        if silent or second.rhythm[_VF] > second.rhythm[_VT]:
            self.stretch.add(second.start, second.end, second.ventricular)
