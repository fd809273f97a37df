"""Supraventricular tachycardia, from beats and from the rhythm of seconds."""

from __future__ import annotations

from typing import ClassVar

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.book import FindingBook
from edge.rhythm.rules import SvtRule
from edge.rhythm.seconds import Second
from edge.rhythm.state import Part


class SvtDetector(Part):
    """Runs of S beats, or seconds of SVTA at a fast rate; either extends the other's finding."""

    STATE: ClassVar[tuple[str, ...]] = ("run", "in_run", "seconds_from", "seconds_s", "s_beats", "max_bpm")

    def __init__(self, book: FindingBook, limits: SvtRule) -> None:
        self._book, self._limits = book, limits
        self.run: list[float] = []
        """Positions of the newest S beats in a row, at most `min_beats`."""
        self.in_run = 0
        """How many S beats in a row there were."""
        self.seconds_from = 0.0
        self.seconds_s = 0
        """SVT seconds in a row since `seconds_from`."""
        self.s_beats = 0
        """In runs of the open finding."""
        self.max_bpm = 0.0

    def beat(self, position: float, s: bool, linked: bool) -> None:
        """Take a beat; `linked` if an unbroken RR interval leads to it."""
        if not s:
            self.run, self.in_run = [], 0
            return
        need = int(self._limits.min_beats)
        if not linked:
            self.run, self.in_run = [], 0
        self.run = [*self.run[-need + 1 :], position]
        self.in_run += 1
        if len(self.run) < need:
            return
        bpm = 60 * (need - 1) * MODEL_FS_HZ / (position - self.run[0])
        if bpm > self._limits.min_bpm:
            self.s_beats += need if self.in_run == need or not self._book.is_open("svt") else 1
            self._positive(self.run[0], position + 1, position, bpm)

    def second(self, second: Second, in_svt: bool, bpm: float | None) -> None:
        """Take a second, whether its rhythm is SVTA, and the rate in force."""
        if not in_svt or bpm is None or bpm <= self._limits.min_bpm:
            self.seconds_s = 0
            return
        if self.seconds_s == 0:
            self.seconds_from = float(second.start)
        self.seconds_s += 1
        if self.seconds_s >= self._limits.rhythm_s:
            self._positive(self.seconds_from, float(second.end), float(second.start), bpm)

    def advance(self, now: float) -> None:
        """Let time pass."""
        self._book.expire("svt", now)
        if not self._book.is_open("svt"):
            self.s_beats, self.max_bpm = 0, 0.0
        if self.seconds_s == 0:
            self.seconds_from = 0.0

    def _positive(self, start: float, end: float, opened: float, bpm: float) -> None:
        self.max_bpm = max(self.max_bpm, bpm)
        evidence = {
            "s_beats": self.s_beats,
            "max_bpm": round(self.max_bpm, 1),
            "threshold_bpm": self._limits.min_bpm,
        }
        self._book.report("svt", start, end, opened, evidence)
