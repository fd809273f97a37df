"""Rules that follow from beats and their absence: pause, asystole, slow and fast rates, ectopy rate."""

from __future__ import annotations

import itertools
from typing import ClassVar

from edge.encoder.contract import MODEL_FS_HZ
from edge.rhythm.book import FindingBook
from edge.rhythm.events import Severity
from edge.rhythm.heart import Heart
from edge.rhythm.rules import EctopyRule, RateRule, Rules
from edge.rhythm.state import Part
from edge.rhythm.stretch import Stretch


class SilenceRules(Part):
    """Pause and asystole: how long readable signal has shown no sign of a beat."""

    STATE: ClassVar[tuple[str, ...]] = ("pause_from", "pauses", "longest_s")

    def __init__(self, book: FindingBook, rules: Rules, heart: Heart) -> None:
        self._book, self._heart = book, heart
        self._pause, self._asystole = rules.pause, rules.asystole
        self.pause_from = -1.0
        """Start of the newest counted pause."""
        self.pauses = 0
        """In the open finding."""
        self.longest_s = 0.0

    def check(self, now: float, af: bool) -> None:
        """Judge the silence that lasts at `now`, or that a beat at `now` is about to end."""
        heart = self._heart
        if heart.silent_from is not None:
            silent_s = (now - heart.silent_from) / MODEL_FS_HZ
            if heart.after == "beat":
                self._check_pause(heart.silent_from, now, silent_s, af)
            self._check_asystole(heart.silent_from, now, silent_s)
        self._book.expire("asystole", now)
        self._book.expire("pause", now)
        if not self._book.is_open("pause"):
            self.pause_from, self.pauses, self.longest_s = -1.0, 0, 0.0

    def _check_pause(self, start: float, now: float, silent_s: float, af: bool) -> None:
        limits = self._pause
        threshold_s = limits.af_min_s if af else limits.min_s
        if silent_s <= threshold_s:
            return
        if start != self.pause_from:
            self.pause_from = start
            self.pauses += 1
        self.longest_s = max(self.longest_s, silent_s)
        severity: Severity | None = "urgent" if silent_s > (limits.af_urgent_s if af else limits.urgent_s) else None
        evidence = {"pauses": self.pauses, "longest_s": round(self.longest_s, 3), "threshold_s": threshold_s}
        self._book.report("pause", start, now, start, evidence, severity)

    def _check_asystole(self, start: float, now: float, silent_s: float) -> None:
        limits, heart = self._asystole, self._heart
        threshold_s = limits.min_s if heart.after else limits.min_unseen_s
        if silent_s < threshold_s or heart.silent_s == 0:
            return
        score = heart.asystole / heart.silent_s
        if score >= limits.score:
            evidence = {"silent_s": round(silent_s, 3), "mean_score": round(score, 3), "threshold_s": threshold_s}
            self._book.report("asystole", start, now, start, evidence)


class RateRules(Part):
    """Bradycardia and tachycardia: RR intervals whose rate stays beyond a limit."""

    def __init__(self, book: FindingBook, rules: Rules) -> None:
        self._slow, self._fast = rules.bradycardia, rules.tachycardia
        self._brady = _rate_stretch(book, "bradycardia", rules.bradycardia)
        self._tachy = _rate_stretch(book, "tachycardia", rules.tachycardia)

    def save(self) -> list[object]:
        return [self._brady.save(), self._tachy.save()]

    def load(self, values: list[list[object]]) -> None:  # type: ignore[override]
        self._brady.load(values[0])
        self._tachy.load(values[1])

    def interval(self, start: float, end: float, bpm: float) -> None:
        """Take one RR interval and the rate in force at its end."""
        if bpm < (self._slow.off_bpm if self._brady.active else self._slow.limit_bpm):
            self._brady.add(start, end, bpm)
        if bpm > (self._fast.off_bpm if self._tachy.active else self._fast.limit_bpm):
            self._tachy.add(start, end, bpm)

    def advance(self, now: float) -> None:
        """Let time pass."""
        self._brady.advance(now)
        self._tachy.advance(now)


def _rate_stretch(book: FindingBook, rule: str, limits: RateRule) -> Stretch:
    return Stretch(book, rule, limits.min_s, limits.bridge_s, measure="bpm", beyond=True)


class ExtremeRates(Part):
    """The rate over a few beats in a row: slow if every interval is, so that one pause is no rate; fast by the mean."""

    STATE: ClassVar[tuple[str, ...]] = ("newest", "slowest_bpm", "fastest_bpm")

    def __init__(self, book: FindingBook, rules: Rules) -> None:
        self._book = book
        self._slow, self._fast = rules.extreme_bradycardia, rules.extreme_tachycardia
        self._slow_beats, self._fast_beats = int(self._slow.beats), int(self._fast.beats)
        self._keep = max(self._slow_beats, self._fast_beats)
        self.newest: list[float] = []
        """Positions of the newest beats of the unbroken chain."""
        self.slowest_bpm = self.fastest_bpm = 0.0
        """In the open findings."""

    def beat(self, position: float, linked: bool) -> None:
        """Take a beat; `linked` if an unbroken RR interval leads to it."""
        self.newest = [*(self.newest[1 - self._keep :] if linked else []), position]
        if len(self.newest) >= self._slow_beats:
            self._judge_slow(position)
        if len(self.newest) >= self._fast_beats:
            self._judge_fast(position)

    def advance(self, now: float) -> None:
        """Let time pass."""
        self._book.expire("extreme_bradycardia", now)
        self._book.expire("extreme_tachycardia", now)
        if not self._book.is_open("extreme_bradycardia"):
            self.slowest_bpm = 0.0
        if not self._book.is_open("extreme_tachycardia"):
            self.fastest_bpm = 0.0

    def _judge_slow(self, position: float) -> None:
        """Report if every one of the newest intervals is slow."""
        limits, opened = self._slow, self._book.is_open("extreme_bradycardia")
        beats, limit_bpm = self.newest[-self._slow_beats :], limits.off_bpm if opened else limits.limit_bpm
        if 60 * MODEL_FS_HZ / (beats[-1] - beats[-2]) >= limit_bpm:
            return
        bpm = 60 * MODEL_FS_HZ / min(b - a for a, b in itertools.pairwise(beats))
        if bpm < limit_bpm:
            self.slowest_bpm = min(self.slowest_bpm, bpm) if opened else bpm
            evidence = {"min_bpm": round(self.slowest_bpm, 1), "threshold_bpm": limits.limit_bpm}
            self._book.report("extreme_bradycardia", beats[0], position + 1, position, evidence)

    def _judge_fast(self, position: float) -> None:
        """Report if the mean of the newest intervals is fast."""
        limits, opened = self._fast, self._book.is_open("extreme_tachycardia")
        first = self.newest[-self._fast_beats]
        bpm = 60 * MODEL_FS_HZ * (self._fast_beats - 1) / (position - first)
        if bpm > (limits.off_bpm if opened else limits.limit_bpm):
            self.fastest_bpm = max(self.fastest_bpm, bpm) if opened else bpm
            evidence = {"max_bpm": round(self.fastest_bpm, 1), "threshold_bpm": limits.limit_bpm}
            self._book.report("extreme_tachycardia", first, position + 1, position, evidence)


class EctopyRate(Part):
    """Counts V beats in the newest 60 s."""

    STATE: ClassVar[tuple[str, ...]] = ("newest", "beats", "most")

    def __init__(self, book: FindingBook, limits: EctopyRule, rule: str = "ectopy_rate") -> None:
        self._book, self._limits, self._rule = book, limits, rule
        self._on, self._off = int(limits.per_min) + 1, int(limits.off_per_min)
        self.newest: list[float] = []
        """V beats of the newest 60 s; the refractory period keeps them below 320."""
        self.beats = 0
        """In the open finding."""
        self.most = 0

    def beat(self, position: float) -> None:
        """Take a V beat."""
        self.advance(position)
        self.newest.append(position)
        count = len(self.newest)
        opened = self._book.is_open(self._rule)
        if count < (self._off if opened else self._on):
            return
        self.beats, self.most = (self.beats + 1, max(self.most, count)) if opened else (count, count)
        evidence = {"v_beats": self.beats, "max_per_min": self.most, "threshold_per_min": self._limits.per_min}
        self._book.report(self._rule, self.newest[0], position + 1, position, evidence)

    def advance(self, now: float) -> None:
        """Let time pass."""
        if self.newest and now - self.newest[0] >= 60 * MODEL_FS_HZ:
            self.newest = [position for position in self.newest if now - position < 60 * MODEL_FS_HZ]
        self._book.expire(self._rule, now)
        if not self._book.is_open(self._rule):
            self.beats = self.most = 0
