"""`RhythmSession`: the fold from frame scores to beats, trends, spans and findings of one recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from edge.encoder.contract import AHEAD_S, BEAT_CLASSES, HOP_S, MODEL_FS_HZ, HopScores
from edge.rhythm import state as rhythm_state
from edge.rhythm.beat_rules import EctopyRate, ExtremeRates, RateRules, SilenceRules
from edge.rhythm.book import FindingBook
from edge.rhythm.conduction import Conduction
from edge.rhythm.events import Beat, Current, HopResult, RhythmSpan
from edge.rhythm.heart import Heart
from edge.rhythm.label import AF, RhythmLabel
from edge.rhythm.patterns import BeatPatterns
from edge.rhythm.peaks import BeatFinder, Peak
from edge.rhythm.rules import Rules, SignalRule, rules_hash
from edge.rhythm.seconds import Second, SignalJudge
from edge.rhythm.slope import SlopeGate
from edge.rhythm.state import Part
from edge.rhythm.stretch import Stretch
from edge.rhythm.supraventricular import SvtDetector
from edge.rhythm.trends import TrendMeter
from edge.rhythm.ventricular import RecentPeaks, VfDetector, VtDetector
from edge.rhythm.wearer import Wearer
from edge.signal.prepare import step

_HOP = HOP_S * MODEL_FS_HZ
_N, _S, _V = (BEAT_CLASSES.index(name) for name in "NSV")
_LIKELY = 0.5
"""P(VT) + P(VF) from which a second without beats is no silence; P(AFIB) + P(AFL) from which a beat is not called S."""


_LEAST = 1e-6


class _Progress(Part):
    """Where the fold stands."""

    STATE: ClassVar[tuple[str, ...]] = ("next_k", "pending", "doubtful", "signal", "quality")

    def __init__(self) -> None:
        self.next_k = 0
        self.pending: list[Any] = []
        """[end, readable, whole, af, likely VT or VF, P(readable), P(AF) or None in AF] of the second whose last beats
        are not decided yet; empty at the start."""
        self.doubtful = False
        """Whether the newest second may yet turn out to be part of a flat line."""
        self.signal = "gap"
        self.quality: float | None = None


class RhythmSession:
    """All rhythm state of one recording. Hops go in in order; nothing here knows a clock.

    A state of `dump` continues bit-identically. Raises AnyecgError when `state` belongs to something else.
    """

    def __init__(
        self, recording_key: str, fs_hz: float, leads: Sequence[str], rules: Rules, state: bytes | None = None
    ) -> None:
        self._identity = [recording_key, float(fs_hz), list(leads), rules_hash(rules)]
        self._leads = len(leads)
        self._step = step(fs_hz)
        self._fs_hz = fs_hz
        self._regular = rules.rhythm.regular
        self._sharpen = 1 / rules.beat.temperature
        self._end_sample: int | None = None
        self._progress = _Progress()
        self._judge = SignalJudge(rules.signal)
        self._finder = BeatFinder(rules.beat, len(leads))
        self._label = RhythmLabel(rules.rhythm)
        self._heart = Heart()
        self._slope = SlopeGate(rules.beat)
        self._conduction = Conduction(rules.conduction, leads)
        self._wearer = Wearer(rules.wearer, len(leads))
        self._book = FindingBook(recording_key, rules, self._sample)
        self._silence = SilenceRules(self._book, rules, self._heart)
        self._rates = RateRules(self._book, rules)
        self._extremes = ExtremeRates(self._book, rules)
        self._ectopy = EctopyRate(self._book, rules.ectopy_rate)
        self._patterns = BeatPatterns(self._book, rules)
        self._svt = SvtDetector(self._book, rules.svt)
        self._peaks = RecentPeaks()
        self._vt = VtDetector(self._book, rules.vt, self._peaks)
        self._vf = VfDetector(self._book, rules.vf, self._peaks)
        self._af = Stretch(self._book, "af", rules.af.min_s, rules.af.bridge_s, measure="score")
        signal_rules = {name: rule for name, rule in rules.groups() if isinstance(rule, SignalRule)}
        self._signals = {
            name: Stretch(self._book, name, rule.min_s, rule.bridge_s) for name, rule in signal_rules.items()
        }
        self._trends = TrendMeter(self._minute)
        self._parts: list[Part] = [
            *(self._progress, self._judge, self._finder, self._label, self._heart, self._book, self._silence),
            *(self._rates, self._ectopy, self._peaks, self._vt, self._vf.stretch, self._af, *self._signals.values()),
            *(
                self._trends,
                self._wearer,
                self._extremes,
                self._svt,
                *self._patterns.parts,
                self._slope,
                self._conduction,
            ),
        ]
        if state is not None:
            rhythm_state.restore(state, self._identity, self._parts)

    @property
    def next_k(self) -> int:
        """The hop that `feed` expects."""
        return self._progress.next_k

    def dump(self) -> bytes:
        """Return the state before hop `next_k`; equal states give equal bytes."""
        return rhythm_state.dump(self._identity, self._parts)

    def feed(self, hop: HopScores) -> HopResult:
        """Take the next hop. Raises ValueError when it is not the next, or has other leads."""
        if hop.k != self.next_k or self._end_sample is not None:
            expected = "none, the recording has ended" if self._end_sample is not None else self.next_k
            raise ValueError(f"hop {hop.k} fed to rhythm, expected {expected}")
        if hop.ecg.shape != (self._leads, _HOP):
            raise ValueError(f"hop {hop.k} has signal {hop.ecg.shape}, expected {(self._leads, _HOP)}")
        self._progress.next_k += 1
        end = (hop.k + 1) * _HOP
        self._book.begin(end, end + AHEAD_S * MODEL_FS_HZ)
        seconds = self._judge.seconds(hop)
        peaks = self._finder.feed(hop)
        beats, spans = self._follow(seconds, peaks, self._finder.frontier)
        for second in seconds:
            self._ventricular(second)
        self._progress.signal, self._progress.quality = seconds[-1].signal, seconds[-1].quality
        trends = self._trends.complete(self._finder.frontier)
        return HopResult(beats, self._book.changes(), trends, spans, self._current(end))

    def finish(self, end_sample: int) -> HopResult:
        """Close what is open: the recording ended before `end_sample`. The last minute may be a part of one."""
        self._end_sample = end_sample
        end = self.next_k * _HOP
        self._book.begin(end, end)
        beats, spans = self._follow([], self._finder.finish(), end)
        last = self._label.finish(-(-end_sample // self._step // MODEL_FS_HZ))
        if last is not None:
            spans.append(self._span(last))
        self._book.close_all()
        return HopResult(beats, self._book.changes(), self._trends.finish(), spans, self._current(end))

    def _sample(self, position: float) -> int:
        """Return the recording sample nearest to a model-rate position."""
        sample = round(position * self._step.numerator / self._step.denominator)
        return sample if self._end_sample is None else min(sample, self._end_sample)

    def _minute(self, position: float) -> int:
        return int(self._sample(position) // (60 * self._fs_hz))

    def _span(self, closed: tuple[str, int, int]) -> RhythmSpan:
        rhythm, start, end = closed
        return RhythmSpan(rhythm, self._sample(start * MODEL_FS_HZ), self._sample(end * MODEL_FS_HZ))

    def _current(self, now: int) -> Current:
        progress = self._progress
        hr_bpm = self._heart.current_bpm(now) if progress.signal == "readable" else None
        return Current(hr_bpm, self._label.name, progress.signal, progress.quality)

    def _follow(self, seconds: list[Second], peaks: list[Peak], frontier: int) -> tuple[list[Beat], list[RhythmSpan]]:
        """Go through seconds and peaks in the order of time, up to `frontier`."""
        beats: list[Beat] = []
        spans: list[RhythmSpan] = []
        waiting = iter(peaks)
        peak = next(waiting, None)
        for second in (None, *seconds):
            if second is not None:
                spans += self._enter(second)
            pending = self._progress.pending
            while peak is not None and pending and peak.frame_position < pending[0]:
                beats += self._beat(peak)
                peak = next(waiting, None)
            if pending and pending[0] <= frontier:
                self._leave()
        if self._progress.pending:
            self._wait(frontier, self._progress.pending[3])
        return beats, spans

    def _enter(self, second: Second) -> list[RhythmSpan]:
        """Begin a second: its rhythm, its signal state, and what it does to the chain of beats."""
        heart = self._heart
        regular = heart.regular(self._regular)
        closed = self._label.feed(second, regular)
        rhythm = self._label.name
        p_af = second.af if second.readable else 0.0
        af = rhythm in AF or (not regular and p_af >= _LIKELY)
        ventricular = second.ventricular >= _LIKELY
        self._progress.pending = [
            *(second.end, second.readable, second.whole, af, ventricular),
            *(second.quality or 0.0, None if af else p_af),
        ]
        if not second.whole:
            self._wait(second.start, af)
            heart.break_at(None)
        elif ventricular:
            self._wait(second.start, af)
            heart.hush(second.end, after="ventricular")
        else:
            if heart.silent_from is None:
                heart.hush(second.start)
            heart.hear(second.asystole)
        self._progress.doubtful = second.doubtful
        self._trends.second(second, rhythm)
        for signal, stretch in self._signals.items():
            stretch.advance(second.start)
            if second.signal == signal:
                stretch.add(second.start, second.end)
        self._count_af(second)
        in_svt = rhythm == "SVTA" and self._label.newest_in_force
        self._svt.second(second, in_svt, heart.rate_bpm())
        return [] if closed is None else [self._span(closed)]

    def _count_af(self, second: Second) -> None:
        """Add AF up to this second, from where it began when it has only now been confirmed.

        A second that no longer looks like AF counts only once a later one shows that AF went on.
        """
        if self._label.name in AF and self._label.newest_in_force:
            start = max(self._label.start * MODEL_FS_HZ, int(self._af.last))
            self._af.add(start, second.end, second.af)
        else:
            self._af.advance(second.start)

    def _wait(self, now: float, af: bool) -> None:
        """Judge the silence that lasts at `now`."""
        if not self._progress.doubtful:
            self._silence.check(now, af)

    def _leave(self) -> None:
        """End a second all of whose beats are known."""
        end, _, whole, af, *_ = self._progress.pending
        if not whole:
            self._heart.break_at(None)
        else:
            self._wait(end, af)
        for rule in (self._rates, self._extremes, self._ectopy, self._patterns, self._svt, self._vt):
            rule.advance(end)
        self._progress.pending = []

    def _beat(self, peak: Peak) -> list[Beat]:
        """Take a peak in the pending second; return it if it is a beat."""
        _, readable, _, af, ventricular, quality, p_af = self._progress.pending
        position = peak.position
        if not readable or (self._end_sample is not None and self._sample(position) >= self._end_sample):
            return []
        slopes = self._slope.slopes(peak.around)
        if not ventricular and self._slope.is_flat(position, peak.score, slopes):
            return []
        self._silence.check(position, af)
        if peak.faint:
            self._peaks.faint(position)
            self._heart.break_at(position)
            return []
        self._slope.beat(position, slopes)
        before = self._heart.kind
        rr_s = self._heart.beat(position)
        scores = self._wearer.weigh(peak, rr_s, p_af, quality)
        if af:
            scores[_N], scores[_S] = scores[_N] + scores[_S], 0.0
        kind = scores.index(max(scores))
        confidence = peak.score * scores[kind]
        self._vt.beat(position, kind == _V, confidence, rr_s is not None)
        self._peaks.beat(position, confidence, kind == _N and peak.morphology == "narrow")
        self._extremes.beat(position, rr_s is not None)
        if kind == _V:
            self._ectopy.beat(position)
        letter = BEAT_CLASSES[kind]
        self._heart.kind = letter
        self._patterns.beat(position, letter, rr_s, confidence)
        self._svt.beat(position, kind == _S, rr_s is not None)
        bpm = self._heart.rate_bpm()
        if rr_s is not None and bpm is not None:
            self._rates.interval(position - rr_s * MODEL_FS_HZ, position, bpm)
        self._trends.beat(position, letter, rr_s, normal=not af and letter == before == "N")
        morphology = self._conduction.morphology(peak, kind not in (_N, _S))
        return [Beat(self._sample(position), letter, self._told(confidence), morphology)]

    def _told(self, confidence: float) -> float:
        """Return the confidence as it is told: log-odds divided by the temperature."""
        share = min(max(confidence, _LEAST), 1 - _LEAST)
        return float(1 / (1 + ((1 - share) / share) ** self._sharpen))

    def _ventricular(self, second: Second) -> None:
        """Judge a second for VF and VT once the beats in it are (all but the newest) known."""
        self._peaks.advance(second.end)
        self._vf.second(second)
        self._vt.second(second)
