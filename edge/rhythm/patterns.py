"""Patterns of ventricular beats: couplet, run, bigeminy, trigeminy, R-on-T.

They are read from the order of the beats. Whatever breaks the chain of RR intervals ends a pattern.
"""

from __future__ import annotations

from typing import ClassVar

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.beat_rules import EctopyRate
from edge.rhythm.book import FindingBook
from edge.rhythm.rules import ROnTRule, Rules, RunRule
from edge.rhythm.state import Part

_CYCLES = 3
"""A pattern must come so often in a row (2017 ISHNE-HRS consensus on ambulatory ECG, Heart Rhythm 14:e55)."""
_NN = 8
_MIN_NN = 4
_PAIR = 300 * MODEL_FS_HZ


class BeatPatterns:
    """Hands every beat to each pattern."""

    def __init__(self, book: FindingBook, rules: Rules) -> None:
        self._book = book
        self._runs = VRuns(book, rules)
        self._r_on_t = ROnT(book, rules.r_on_t)
        self._turns = (
            Turn("NV", EctopyRate(book, rules.bigeminy, "bigeminy")),
            Turn("NNV", EctopyRate(book, rules.trigeminy, "trigeminy")),
        )
        self.parts: list[Part] = [self._runs, self._r_on_t]
        for turn in self._turns:
            self.parts += [turn, turn.rate]

    def beat(self, position: float, letter: str, rr_s: float | None, confidence: float) -> None:
        """Take a beat: its class, the RR interval that ends with it (None: the chain was broken), its confidence."""
        linked = rr_s is not None
        self._runs.beat(position, letter == "V", confidence, linked)
        self._r_on_t.beat(position, letter, rr_s, confidence)
        for turn in self._turns:
            turn.beat(position, letter, linked)

    def advance(self, now: float) -> None:
        """Let time pass."""
        self._runs.advance(now)
        self._r_on_t.advance(now)
        for turn in self._turns:
            turn.rate.advance(now)


class VRuns(Part):
    """V beats in a row: two are a couplet, three or more a run, unless they are fast enough for VT."""

    STATE: ClassVar[tuple[str, ...]] = ("run", "in_run", "couplets", "couplet_bpm", "beats", "longest", "run_bpm")

    def __init__(self, book: FindingBook, rules: Rules) -> None:
        self._book, self._couplet, self._run = book, rules.couplet, rules.run
        self.run: list[list[float]] = []
        """[position, confidence] of the newest V beats in a row, at most `min_beats` of a run."""
        self.in_run = 0
        """How many V beats in a row there were."""
        self.couplets = 0
        """In the open finding, as what follows."""
        self.couplet_bpm = 0.0
        self.beats = self.longest = 0
        self.run_bpm = 0.0

    def beat(self, position: float, v: bool, confidence: float, linked: bool) -> None:
        """Take a beat."""
        if not v or not linked:
            self._end()
        if not v:
            return
        limits: RunRule = self._run
        need = int(limits.min_beats)
        self.run = [*self.run[-need + 1 :], [position, confidence]]
        self.in_run += 1
        if self.in_run < need:
            return
        bpm = 60 * (need - 1) * MODEL_FS_HZ / (position - self.run[0][0])
        if bpm > limits.max_bpm or sum(c for _, c in self.run) / need < limits.min_confidence:
            return
        self.beats += need if self.in_run == need or not self._book.is_open("run") else 1
        self.longest, self.run_bpm = max(self.longest, self.in_run), max(self.run_bpm, bpm)
        evidence = {"v_beats": self.beats, "longest_beats": self.longest, "max_bpm": round(self.run_bpm, 1)}
        self._book.report("run", self.run[0][0], position + 1, position, evidence)

    def advance(self, now: float) -> None:
        """Let time pass."""
        self._book.expire("couplet", now)
        self._book.expire("run", now)
        if not self._book.is_open("couplet"):
            self.couplets, self.couplet_bpm = 0, 0.0
        if not self._book.is_open("run"):
            self.beats, self.longest, self.run_bpm = 0, 0, 0.0

    def _end(self) -> None:
        run, count = self.run, self.in_run
        self.run, self.in_run = [], 0
        if count != 2 or sum(c for _, c in run) / 2 < self._couplet.min_confidence:
            return
        (first, _), (second, _) = run
        self.couplets += 1
        self.couplet_bpm = max(self.couplet_bpm, 60 * MODEL_FS_HZ / (second - first))
        evidence = {"couplets": self.couplets, "max_bpm": round(self.couplet_bpm, 1)}
        self._book.report("couplet", first, second + 1, second, evidence)


class Turn(Part):
    """A cycle of classes that repeats; its V beats are counted per minute once it came three times in a row."""

    STATE: ClassVar[tuple[str, ...]] = ("letters", "v_at")

    def __init__(self, cycle: str, rate: EctopyRate) -> None:
        self.rate = rate
        self._whole = cycle * _CYCLES
        self.letters = ""
        """Classes of the newest beats of the chain, as many as make three cycles."""
        self.v_at: list[float] = []
        """Positions of the V beats that wait for the third cycle."""

    def beat(self, position: float, letter: str, linked: bool) -> None:
        """Take a beat."""
        if not linked:
            self.letters, self.v_at = "", []
        self.letters = (self.letters + letter)[-len(self._whole) :]
        if letter == "V":
            self.v_at = [*self.v_at[1 - _CYCLES :], position]
            if self.letters == self._whole:
                for at in self.v_at:
                    self.rate.beat(at)
                self.v_at = []


class ROnT(Part):
    """V beats so early that they fall on the T wave of the beat before."""

    STATE: ClassVar[tuple[str, ...]] = ("before", "nn", "early", "unpaused", "count", "shortest_s")

    def __init__(self, book: FindingBook, limits: ROnTRule) -> None:
        self._book, self._limits = book, limits
        self.before = ""
        """Class of the beat before."""
        self.nn: list[float] = []
        """The newest intervals between N beats of the chain."""
        self.early: list[float] = []
        """[position, coupling, mean NN] of an early V beat whose next beat is awaited."""
        self.unpaused = -1.0
        """The newest early V beat without a pause after it; −1: none within 5 min."""
        self.count = 0
        """In the open finding."""
        self.shortest_s = 0.0

    def beat(self, position: float, letter: str, rr_s: float | None, confidence: float) -> None:
        """Take a beat."""
        limits = self._limits
        if rr_s is None:
            self.before, self.nn, self.early = letter, [], []
            return
        if self.early:
            at, coupling_s, mean_s = self.early
            self.early = []
            if rr_s >= limits.pause * mean_s:
                self._found(at, at, coupling_s)
            else:
                if self.unpaused >= 0:
                    self._found(self.unpaused, at, coupling_s)
                self.unpaused = at
        if letter == self.before == "N":
            self.nn = [*self.nn[1 - _NN :], rr_s]
        elif letter == "V" and self.before == "N" and len(self.nn) >= _MIN_NN and confidence >= limits.min_confidence:
            mean_s = sum(self.nn) / len(self.nn)
            if rr_s < limits.coupling * mean_s and 60 / mean_s <= limits.max_bpm:
                self.early = [position, rr_s, mean_s]
        self.before = letter

    def advance(self, now: float) -> None:
        """Let time pass."""
        if now - self.unpaused > _PAIR:
            self.unpaused = -1.0
        self._book.expire("r_on_t", now)
        if not self._book.is_open("r_on_t"):
            self.count, self.shortest_s = 0, 0.0

    def _found(self, start: float, at: float, coupling_s: float) -> None:
        self.shortest_s = min(self.shortest_s, coupling_s) if self.count else coupling_s
        self.count += 1
        evidence = {"v_beats": self.count, "shortest_coupling_s": round(self.shortest_s, 3)}
        self._book.report("r_on_t", start, at + 1, at, evidence)
