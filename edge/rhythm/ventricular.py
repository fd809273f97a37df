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
_GOES_ON = 1.3
"""A sequence of beats goes on until the next one is late by more than this factor."""
_UNDECIDED = 24
"""Model-rate samples at the end of a hop in which beats are not decided yet."""


class VtDetector(Part):
    """Runs of V beats, or seconds of VT with a fast rate; either extends the other's finding.

    The rate during VT seconds counts faint peaks too: the R-peak score of broad fast beats is low.
    """

    STATE: ClassVar[tuple[str, ...]] = (
        *("run", "peaks", "seconds_from", "seconds_to", "seconds_s"),
        *("bout_from", "bout_to", "longest_s", "max_bpm", "v_beats", "v_to"),
    )

    def __init__(self, book: FindingBook, limits: VtRule) -> None:
        self._book, self._limits = book, limits
        self.run: list[list[float]] = []
        """[position, confidence] of the newest V beats in a row."""
        self.peaks: list[float] = []
        """Peaks of the newest 4 s, the faint ones too."""
        self.seconds_from = self.seconds_to = 0.0
        self.seconds_s = 0
        """VT seconds of the bout [seconds_from, seconds_to)."""
        self._forget()

    def _forget(self) -> None:
        self.bout_from = self.bout_to = -1.0
        """The newest uninterrupted bout of the open finding; −1: none yet."""
        self.longest_s = self.max_bpm = 0.0
        self.v_beats = 0
        self.v_to = -1.0
        """The newest V beat counted in `v_beats`."""

    def peak(self, position: float) -> None:
        """Take a peak, faint or not."""
        self.peaks.append(position)

    def beat(self, position: float, v: bool, confidence: float, linked: bool) -> None:
        """Take a beat; `linked` if an unbroken RR interval leads to it."""
        if not v:
            self.run = []
            return
        need = int(self._limits.min_beats)
        self.run = [*(self.run[-need + 1 :] if linked else []), [position, confidence]]
        if len(self.run) < need:
            return
        first = self.run[0][0]
        bpm = 60 * (need - 1) * MODEL_FS_HZ / (position - first)
        confidence = sum(c for _, c in self.run) / need
        if self._limits.min_bpm < bpm <= self._limits.max_bpm and confidence >= self._limits.min_confidence:
            self.v_beats += sum(p > self.v_to for p, _ in self.run)
            self.v_to = position
            self._positive(first, position + 1, position, bpm, self._limits.min_bpm)

    def second(self, second: Second) -> None:
        """Take a second after the beats in it."""
        self.peaks = [p for p in self.peaks if p > second.end - _LOOK_BACK]
        if second.start - self.seconds_to > _BRIDGE:
            self.seconds_from = self.seconds_to = 0.0
            self.seconds_s = 0
        if not second.readable or second.ventricular < self._limits.rhythm_score or self._book.is_open("vf"):
            return
        if len(self.peaks) < _MIN_PEAKS:
            return
        bpm = 60 * MODEL_FS_HZ * (len(self.peaks) - 1) / (self.peaks[-1] - self.peaks[0])
        if bpm <= self._limits.rhythm_bpm:
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
        self.bout_to = max(self.bout_to, end)
        bout_s = (self.bout_to - self.bout_from) / MODEL_FS_HZ
        self.longest_s, self.max_bpm = max(self.longest_s, bout_s), max(self.max_bpm, bpm)
        sustained = self.longest_s > self._limits.sustained_s
        severity: Severity | None = "critical" if sustained else None
        evidence = {
            "max_bpm": round(self.max_bpm, 1),
            "longest_s": round(self.longest_s, 3),
            "v_beats": self.v_beats,
            "sustained": int(sustained),
            "threshold_bpm": threshold_bpm,
        }
        self._book.report("vt", start, end, opened, evidence, severity)


class VfDetector(Part):
    """Seconds of VF, unless a regular sequence of narrow beats goes on.

    A ventricular second that the encoder calls VT counts as well when no beat has been found for a while: VT has
    beats, VF has none.
    """

    STATE: ClassVar[tuple[str, ...]] = ("beats",)

    def __init__(self, book: FindingBook, limits: VfRule) -> None:
        self._limits = limits
        self.stretch = Stretch(book, "vf", limits.min_s, limits.bridge_s, measure="score")
        self.beats: list[list[float]] = []
        """[position, confidence, 1 if N and narrow] of the newest 4 s."""

    def beat(self, position: float, confidence: float, narrow: bool) -> None:
        """Take a beat."""
        self.beats.append([position, confidence, float(narrow)])

    def second(self, second: Second) -> None:
        """Take a second after the beats in it."""
        self.stretch.advance(second.start)
        self.beats = [b for b in self.beats if b[0] > second.end - _LOOK_BACK]
        if not second.readable or second.ventricular < self._limits.score or self._organised(second.end):
            return
        silent = not any(b[0] > second.end - self._limits.silent_s * MODEL_FS_HZ for b in self.beats)
        if silent or second.rhythm[_VF] > second.rhythm[_VT]:
            self.stretch.add(second.start, second.end, second.ventricular)

    def _organised(self, now: int) -> bool:
        """Return whether a regular sequence of narrow beats goes on at `now`."""
        recent = self.beats
        if len(recent) < self._limits.veto_beats or not all(narrow for *_, narrow in recent):
            return False
        rr = [b[0] - a[0] for a, b in itertools.pairwise(recent)]
        if now - recent[-1][0] > _GOES_ON * sum(rr) / len(rr) + _UNDECIDED:
            return False
        spread = (max(rr) - min(rr)) * len(rr) / sum(rr)
        confidence = sum(c for _, c, _ in recent) / len(recent)
        return spread <= self._limits.veto_spread and confidence >= self._limits.veto_confidence
