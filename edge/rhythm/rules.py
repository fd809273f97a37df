"""The rules table: every threshold of this room with its unit and source; `python -m edge.rhythm.rules` prints it.

A rule says what opens a finding, how severe it is and when it closes. All times are data time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edge.errors import BadInputError
from edge.rhythm.events import SEVERITIES, Severity

FORMAT = 2
"""Part of the hash: raise it when the code reads the same thresholds differently."""


_MERGE = "closes when this long without it; a return before is the same finding"


def _limit(default: float, unit: str, text: str, low: float, high: float) -> Any:
    """Return a field that holds a number of `unit` between `low` and `high`."""
    return field(default=float(default), metadata={"unit": unit, "text": text, "low": low, "high": high})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A named group of numbers."""

    meaning: ClassVar[str] = ""
    source: ClassVar[str] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatLimits(Limits):
    """Which peaks of the encoder's R-peak score are beats."""

    meaning: ClassVar[str] = (
        "A beat is a peak of the R-peak score that reaches `on` and is the highest within `refractory_s`. A fainter "
        "one that still reaches `faint` is no beat, but proves that the signal was not silent: it restarts the clock "
        "of pauses and breaks the RR chain. A peak below `sure` whose steepest slope is less than `min_slope` of that "
        "of the newest beats (10 s) in every lead is a P or T wave and counts as nothing, unless VT or VF is likely. "
        "The confidence told with a beat is R-peak score · P(class) with its log-odds divided by `temperature`; rules "
        "compare the product itself."
    )
    source: ClassVar[str] = (
        "refractory: Pan & Tompkins 1985 (200 ms), rounded down to whole frames; scores: validation; slope: 40 of the "
        "127,277 annotated beats of the training and validation records of mitdb and svdb lie below 0.1, most of them "
        "where the signal is lost; temperature: likelihood on validation (Guo et al. 2017)"
    )
    on: float = _limit(0.5, "", "R-peak score of a beat", 0.05, 1)
    faint: float = _limit(0.2, "", "R-peak score below which there is nothing", 0.01, 1)
    refractory_s: float = _limit(0.19, "s", "no second beat within", 0.06, 0.3)
    min_slope: float = _limit(0.1, "share", "of the newest beats' median slope: flatter is no QRS complex", 0, 1)
    sure: float = _limit(0.9, "", "R-peak score from which the slope is not asked", 0, 1)
    temperature: float = _limit(0.81, "", "of the confidence told; 1: the product as it is", 0.3, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalLimits(Limits):
    """What a second of signal must be like to be read."""

    meaning: ClassVar[str] = (
        "Every second is exactly one of gap, lead_off, flat, unreadable and readable, tried in this order. Beats, "
        "rates and rhythms come from readable seconds only. Flat or asystole? A line without any life (`dead_mv`) for "
        "`flat_s` is flat whatever the encoder says, for an electrode on skin always shows more; meanwhile no pause "
        "opens without a next beat. A low one (`flat_mv`) is flat after the same time unless the encoder reads "
        "asystole (`asystole_score`) in it. It stays flat until it rises above `flat_mv`. Anything livelier without "
        "beats (P waves, drift, tremor) is asystole if the encoder agrees."
    )
    source: ClassVar[str] = (
        "IEC 60601-2-47 allows 0.05 mV of noise peak to peak; the quietest asystole second of vfdb has 0.055 mV; "
        "quality: validation (of 0.9 / 0.3 to 0.3 / 0.1 the best beats in added noise and the fewest lost seconds of "
        "VT and VF for 29 % of vfdb's noise withheld)"
    )
    quality_on: float = _limit(0.5, "", "quality that makes a second readable again", 0, 1)
    quality_off: float = _limit(0.2, "", "quality below which a second is no longer readable", 0, 1)
    max_clipped: float = _limit(0.25, "share", "more samples at the digital limits than this: unreadable", 0, 1)
    min_present: float = _limit(0.5, "share", "less recorded than this: gap", 0, 1)
    whole_present: float = _limit(0.98, "share", "less recorded than this: no RR interval through it", 0, 1)
    dead_mv: float = _limit(0.02, "mV", "a line that stays within this is dead", 0, 1)
    flat_mv: float = _limit(0.05, "mV", "a line that stays within this is low", 0, 1)
    flat_s: float = _limit(3, "s", "so long must a dead or low line last to be flat", 1, 60)
    asystole_score: float = _limit(0.5, "", "P(asystole) that keeps a low line from being flat", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RhythmLimits(Limits):
    """How rhythm scores become one rhythm per second."""

    meaning: ClassVar[str] = (
        "The rhythm changes when a group of rhythms (N · AFIB and AFL · SVTA · VT and VF · P · ASYS) has the highest "
        "score, and the highest mean over its confirmation time, by `margin` over the present one; the new rhythm is "
        "dated back to its first second, by 16 s at most. AFIB is read as N while the newest 10 RR intervals are "
        "regular (`regular`): fibrillation is not. Inside AF no beat is called S."
    )
    source: ClassVar[str] = (
        "validation; irregularity: RMSSD / mean RR after Dash et al. 2009 (their limit for AF is 0.1), here AF records "
        "stay above 0.1 and regular rhythms read as AF below 0.05; S in AF: without P waves nothing is premature"
    )
    regular: float = _limit(0.06, "share", "RMSSD / mean of 10 RR intervals below which they are regular", 0, 0.5)
    margin: float = _limit(0.1, "", "lead of the new rhythm's mean score", 0, 1)
    confirm_s: float = _limit(4, "s", "confirmation of N, SVTA, P", 1, 16)
    confirm_af_s: float = _limit(6, "s", "confirmation of AFIB and AFL", 1, 16)
    confirm_ventricular_s: float = _limit(2, "s", "confirmation of VT and VF", 1, 16)
    confirm_asystole_s: float = _limit(3, "s", "confirmation of ASYS", 1, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class WearerLimits(Limits):
    """How much the wearer's own normal beats say about the class of a beat."""

    meaning: ClassVar[str] = (
        "N, S and V are weighed anew: log-odds = `encoder_weight` · the encoder's + `own_weight` · those of a logistic "
        "regression on how early a beat comes, how unlike the wearer's newest normal beats it is and how much longer "
        "its QRS complex lasts. Weighed are beats of which the encoder is not `sure` and those that come `early`. A "
        "beat is normal if the encoder calls it N and R-peak score · P(N) reaches `normal`. The encoder alone decides "
        "until 10 s with four normal beats and eight RR intervals are known, where the signal is not clear "
        "(`quality`) and in AF. Weights of 1 and 0 switch it off."
    )
    source: ClassVar[str] = (
        "features after de Chazal et al. 2004 and QRS duration, fitted on training records; weights, gates: validation"
    )
    encoder_weight: float = _limit(0.5, "", "weight of the encoder's log-odds", 0, 2)
    own_weight: float = _limit(1, "", "weight of the wearer's own", 0, 2)
    normal: float = _limit(0.6, "", "R-peak score · P(N) of a normal beat", 0, 1)
    sure: float = _limit(0.7, "", "R-peak score · P(N) from which a beat that is not early is not weighed", 0, 1)
    early: float = _limit(0.12, "", "log of the usual RR interval over this one, from which a beat is early", 0, 1)
    quality: float = _limit(0.9, "", "P(readable) of the second from which the wearer's own normal is asked", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConductionLimits(Limits):
    """Which beats are conducted with a bundle branch block."""

    meaning: ClassVar[str] = (
        "A beat of class N or S that is not paced has a bundle branch block if the median QRS duration of the newest "
        "`beats` such beats reaches `wide_ms`, else it is narrow. The end of the complex tells the bundle in V1, I, "
        "aVL and V6; without such a lead the network's scores do."
    )
    source: ClassVar[str] = (
        "120 ms: AHA/ACCF/HRS 2009, part III; beats: of 44,196 annotated beats of the training and validation records "
        "of mitdb 2 % of the blocked are missed and 1.3 % of the narrow called wide, leaving out 108 (128 ms)"
    )
    wide_ms: float = _limit(120, "ms", "QRS duration of a bundle branch block", 80, 200)
    beats: float = _limit(5, "beats", "whose median duration counts", 1, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Limits):
    """What every rule has."""

    severity: Severity = "advisory"
    enabled: bool = True
    merge_s: float = _limit(10, "s", _MERGE, 0, 3600)
    update_s: float = _limit(30, "s", "an open finding's evidence is sent again at most this often", 2, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class AfRule(Rule):
    """Atrial fibrillation or flutter."""

    meaning: ClassVar[str] = "Seconds of AFIB or AFL that add up to `min_s`, with breaks of at most `bridge_s`."
    source: ClassVar[str] = "30 s: HRS/ESC definition of an AF episode"
    min_s: float = _limit(30, "s", "AF before it opens", 1, 3600)
    bridge_s: float = _limit(6, "s", "longest break before it has opened", 0, 600)
    merge_s: float = _limit(60, "s", _MERGE, 0, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class VtRule(Rule):
    """Ventricular tachycardia."""

    meaning: ClassVar[str] = (
        "`min_beats` V beats in a row faster than `min_bpm` (but not than `max_bpm`: nothing beats like that), or "
        "seconds that the encoder reads as VT or VF for `rhythm_s` while peaks of the R-peak score, faint ones too, "
        "come faster than `rhythm_bpm` or next to no beats are found. `slow_beats` V beats in a row faster than "
        "`slow_bpm` count as well. A bout longer than `sustained_s`, without a break of more than 2 s, makes it "
        "critical."
    )
    source: ClassVar[str] = (
        "NSVT: 3 beats > 120 bpm, sustained: > 30 s (ACC/AHA/ESC); slow: ≥ 5 beats > 100 bpm (ICU challenge 2015; "
        "CardioNet: > 4 beats > 100 bpm); `rhythm_score`: validation "
        "(vfdb 421 423 and the even records of cinc2015: fewest false findings without losing a true one)"
    )
    severity: Severity = "urgent"
    merge_s: float = _limit(30, "s", _MERGE, 0, 3600)
    min_beats: float = _limit(3, "beats", "V beats in a row", 3, 30)
    min_bpm: float = _limit(120, "bpm", "rate over the newest `min_beats` V beats must be above", 60, 250)
    max_bpm: float = _limit(250, "bpm", "faster peaks than this are noise", 150, 350)
    slow_beats: float = _limit(5, "beats", "V beats in a row for the slower limit", 3, 30)
    slow_bpm: float = _limit(100, "bpm", "rate over the newest `slow_beats` V beats must be above", 60, 250)
    min_confidence: float = _limit(0.5, "", "mean confidence of these beats", 0, 1)
    rhythm_score: float = _limit(0.8, "", "P(VT) + P(VF) of a VT second", 0, 1)
    rhythm_s: float = _limit(3, "s", "VT seconds before it opens", 1, 60)
    rhythm_bpm: float = _limit(120, "bpm", "beats during VT seconds must be faster", 60, 250)
    sustained_s: float = _limit(30, "s", "an uninterrupted bout longer than this is critical", 3, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class SvtRule(Rule):
    """Supraventricular tachycardia."""

    meaning: ClassVar[str] = (
        "`min_beats` S beats in a row faster than `min_bpm`, or `rhythm_s` in a row of the rhythm SVTA at such a rate. "
        "Inside AF there is none: no beat is called S there."
    )
    source: ClassVar[str] = "≥ 4 beats > 100 bpm (Zio reports); seconds of SVTA: our choice"
    merge_s: float = _limit(30, "s", _MERGE, 0, 3600)
    min_beats: float = _limit(4, "beats", "S beats in a row", 3, 30)
    min_bpm: float = _limit(100, "bpm", "the rate must be above", 60, 250)
    rhythm_s: float = _limit(6, "s", "seconds of SVTA before it opens", 1, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class VfRule(Rule):
    """Ventricular fibrillation or flutter."""

    meaning: ClassVar[str] = (
        "Seconds read as VF (or flutter), or as VT without any beats for `silent_s`, that add up to `min_s` with "
        "breaks of at most `bridge_s`. A second does not count while a regular sequence of at least `veto_beats` "
        "confident narrow beats in 4 s goes on."
    )
    source: ClassVar[str] = "onset of VF or flutter (ICU challenge 2015: 4 s)"
    severity: Severity = "critical"
    score: float = _limit(0.7, "", "P(VT) + P(VF) of a VF second, P(VF) being the larger or no beat there", 0, 1)
    silent_s: float = _limit(3, "s", "without a beat this long VT counts as VF", 1, 4)
    min_s: float = _limit(3, "s", "VF before it opens", 1, 60)
    bridge_s: float = _limit(1, "s", "longest break before it has opened", 0, 10)
    veto_beats: float = _limit(4, "beats", "regular narrow beats in the newest 4 s that rule VF out", 3, 20)
    veto_confidence: float = _limit(0.7, "", "mean confidence of these beats", 0, 1)
    veto_spread: float = _limit(0.15, "share", "(longest − shortest) / mean of their RR intervals", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRule(Rule):
    """No beat for too long."""

    meaning: ClassVar[str] = (
        "Time from one beat to the next, or to now, all of it readable and without a trace of a beat, longer than "
        "`min_s`; longer than `urgent_s` is urgent. In AF `af_min_s` and `af_urgent_s` hold."
    )
    source: ClassVar[str] = "> 2 s pause, > 3 s long (CardioNet); > 3 s in sinus, > 5 s in AF (Zio, PMC4756401)"
    merge_s: float = _limit(10, "s", "the next pause within this is the same finding", 0, 3600)
    min_s: float = _limit(2, "s", "longer than this opens it", 1, 10)
    urgent_s: float = _limit(3, "s", "longer than this is urgent", 1, 20)
    af_min_s: float = _limit(3, "s", "the same in AF", 1, 10)
    af_urgent_s: float = _limit(5, "s", "the same in AF", 1, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsystoleRule(Rule):
    """The heart stands still."""

    meaning: ClassVar[str] = (
        "No beat and no VT or VF for `min_s` of readable signal, and the encoder's mean P(asystole) there reaches "
        "`score`. Opens without waiting for a beat. Where readable signal begins without one (after noise, a gap, a "
        "faint peak) it takes `min_unseen_s`."
    )
    source: ClassVar[str] = "≥ 4 s without a beat (ICU challenge 2015)"
    severity: Severity = "critical"
    min_s: float = _limit(4, "s", "this long or longer opens it", 2, 20)
    min_unseen_s: float = _limit(8, "s", "the same where the silence began with neither a beat nor VT or VF", 2, 60)
    score: float = _limit(0.3, "", "mean P(asystole) of the seconds without a beat", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRule(Rule):
    """A rate beyond a limit for some time."""

    limit_bpm: float = _limit(0, "bpm", "the limit", 10, 300)
    off_bpm: float = _limit(0, "bpm", "the rate must come back to this to end it", 10, 300)
    min_s: float = _limit(60, "s", "RR intervals that add up to more than this open it", 1, 3600)
    bridge_s: float = _limit(5, "s", "longest break before it has opened", 0, 600)
    merge_s: float = _limit(30, "s", _MERGE, 0, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class BradycardiaRule(RateRule):
    """A slow heart."""

    meaning: ClassVar[str] = "Rate (median of 5 RR intervals) below `limit_bpm` for more than `min_s`."
    source: ClassVar[str] = "< 40 bpm for > 60 s (CardioNet); < 40 for 10 min at rest (Apple)"
    limit_bpm: float = _limit(40, "bpm", "the rate must be below", 10, 100)
    off_bpm: float = _limit(43, "bpm", "a rate of this or more ends it", 10, 110)


@dataclass(frozen=True, slots=True, kw_only=True)
class TachycardiaRule(RateRule):
    """A fast heart, whatever the rhythm."""

    meaning: ClassVar[str] = "Rate (median of 5 RR intervals) above `limit_bpm` for more than `min_s`."
    source: ClassVar[str] = "> 150 bpm for > 60 s (CardioNet); > 120 for 10 min at rest (Apple)"
    limit_bpm: float = _limit(150, "bpm", "the rate must be above", 60, 300)
    off_bpm: float = _limit(140, "bpm", "a rate of this or less ends it", 60, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtremeRule(Rule):
    """A rate beyond a limit over a few beats."""

    severity: Severity = "info"
    beats: float = _limit(5, "beats", "beats in a row over which the rate is taken", 3, 30)
    limit_bpm: float = _limit(0, "bpm", "the limit", 10, 300)
    off_bpm: float = _limit(0, "bpm", "the rate must come back to this to end it", 10, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtremeBradycardiaRule(ExtremeRule):
    """A few very slow beats."""

    meaning: ClassVar[str] = (
        "Every RR interval of `beats` beats in a row slower than `limit_bpm`. Common in sleep, so info."
    )
    source: ClassVar[str] = "< 40 bpm over 5 beats (ICU challenge 2015); severity: our choice"
    limit_bpm: float = _limit(40, "bpm", "the rate must be below", 10, 100)
    off_bpm: float = _limit(43, "bpm", "a rate of this or more ends it", 10, 110)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtremeTachycardiaRule(ExtremeRule):
    """A few very fast beats."""

    meaning: ClassVar[str] = "Mean rate of `beats` beats in a row above `limit_bpm`. Common in exercise, so info."
    source: ClassVar[str] = "> 140 bpm over 17 beats (ICU challenge 2015); severity: our choice"
    beats: float = _limit(17, "beats", "beats in a row over which the rate is taken", 3, 30)
    limit_bpm: float = _limit(140, "bpm", "the rate must be above", 60, 300)
    off_bpm: float = _limit(135, "bpm", "a rate of this or less ends it", 60, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class EctopyRule(Rule):
    """Many ventricular beats."""

    meaning: ClassVar[str] = "More than `per_min` V beats within 60 s of data; stays while there are `off_per_min`."
    source: ClassVar[str] = "> 8 per minute (CardioNet)"
    per_min: float = _limit(8, "1/min", "more V beats than this within 60 s", 1, 100)
    off_per_min: float = _limit(6, "1/min", "V beats within 60 s that keep it open", 1, 100)
    merge_s: float = _limit(60, "s", _MERGE, 0, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoupletRule(Rule):
    """Two ventricular beats in a row."""

    meaning: ClassVar[str] = "Two V beats in a row, not three; the next couplet within `merge_s` is the same finding."
    source: ClassVar[str] = "2017 ISHNE-HRS consensus on ambulatory ECG; severity: our choice"
    severity: Severity = "info"
    merge_s: float = _limit(60, "s", "the next couplet within this is the same finding", 0, 3600)
    min_confidence: float = _limit(0.5, "", "mean confidence of the two beats", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRule(Rule):
    """Ventricular beats in a row that are no tachycardia."""

    meaning: ClassVar[str] = (
        "`min_beats` V beats in a row, the newest `min_beats` of them no faster than `max_bpm`; faster ones are `vt`."
    )
    source: ClassVar[str] = "≥ 3 beats: 2017 ISHNE-HRS consensus on ambulatory ECG; severity: our choice"
    severity: Severity = "info"
    merge_s: float = _limit(30, "s", _MERGE, 0, 3600)
    min_beats: float = _limit(3, "beats", "V beats in a row", 3, 30)
    max_bpm: float = _limit(120, "bpm", "a faster run is VT", 60, 250)
    min_confidence: float = _limit(0.5, "", "mean confidence of these beats", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeminyRule(EctopyRule):
    """V beats that keep their turn."""

    source: ClassVar[str] = (
        "three times in a row: 2017 ISHNE-HRS consensus on ambulatory ECG; > 6 per minute: CardioNet; severity: our "
        "choice, `ectopy_rate` tells as much"
    )
    severity: Severity = "info"
    per_min: float = _limit(6, "1/min", "more V beats of the pattern than this within 60 s", 1, 100)
    off_per_min: float = _limit(4, "1/min", "V beats of the pattern within 60 s that keep it open", 1, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class BigeminyRule(GeminyRule):
    """Every other beat ventricular."""

    meaning: ClassVar[str] = (
        "N and V in turn, three times at least: more than `per_min` such V beats within 60 s; stays while there are "
        "`off_per_min`."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrigeminyRule(GeminyRule):
    """Every third beat ventricular."""

    meaning: ClassVar[str] = (
        "Two N and one V in turn, three times at least: more than `per_min` such V beats within 60 s; stays while "
        "there are `off_per_min`."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ROnTRule(Rule):
    """A ventricular beat on the T wave before it."""

    meaning: ClassVar[str] = (
        "A V beat that comes within `coupling` of the mean interval between normal beats and is followed by `pause` of "
        "it, or two without that pause within 5 min. Not at rates above `max_bpm`, where that interval is too short "
        "to find a beat in."
    )
    source: ClassVar[str] = "after the bedside definition of Philips' ST/AR arrhythmia algorithm; severity: our choice"
    severity: Severity = "info"
    merge_s: float = _limit(60, "s", "the next one within this is the same finding", 0, 3600)
    coupling: float = _limit(0.34, "share", "of the mean interval between normal beats", 0.1, 0.6)
    pause: float = _limit(1.25, "share", "of the mean interval: the pause after it", 1, 2)
    max_bpm: float = _limit(100, "bpm", "not at faster rates", 40, 150)
    min_confidence: float = _limit(0.5, "", "confidence of the beat", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRule(Rule):
    """A state of the signal that lasts."""

    severity: Severity = "info"
    min_s: float = _limit(5, "s", "so long before it opens", 1, 3600)
    bridge_s: float = _limit(0, "s", "longest break before it has opened", 0, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRule(SignalRule):
    """Nothing was recorded."""

    meaning: ClassVar[str] = "Seconds in which less than half was recorded, `min_s` of them in a row."
    source: ClassVar[str] = "our choice: shorter holes are in the store, not worth telling"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadOffRule(SignalRule):
    """The electrodes are off the body."""

    meaning: ClassVar[str] = "The device itself says so for `min_s`."
    source: ClassVar[str] = "lead off is a notification criterion (CardioNet); duration: our choice"
    severity: Severity = "advisory"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatRule(SignalRule):
    """A line without life."""

    meaning: ClassVar[str] = (
        "Flat seconds (see `signal`) for `min_s`. It says that the heart cannot be seen, neither that it beats nor "
        "that it stands still."
    )
    source: ClassVar[str] = "our choice"
    severity: Severity = "advisory"
    min_s: float = _limit(3, "s", "so long before it opens", 1, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRule(SignalRule):
    """Too noisy or clipped to read."""

    meaning: ClassVar[str] = "Unreadable seconds that add up to `min_s`, with breaks of at most `bridge_s`."
    source: ClassVar[str] = "unreadable for N minutes is a notification criterion (CardioNet); N: our choice"
    min_s: float = _limit(60, "s", "so long before it opens", 1, 3600)
    bridge_s: float = _limit(3, "s", "longest break before it has opened", 0, 600)
    merge_s: float = _limit(20, "s", _MERGE, 0, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The whole table."""

    beat: BeatLimits = BeatLimits()
    signal: SignalLimits = SignalLimits()
    rhythm: RhythmLimits = RhythmLimits()
    wearer: WearerLimits = WearerLimits()
    conduction: ConductionLimits = ConductionLimits()
    af: AfRule = AfRule()
    svt: SvtRule = SvtRule()
    vt: VtRule = VtRule()
    vf: VfRule = VfRule()
    pause: PauseRule = PauseRule()
    asystole: AsystoleRule = AsystoleRule()
    bradycardia: BradycardiaRule = BradycardiaRule()
    tachycardia: TachycardiaRule = TachycardiaRule()
    extreme_bradycardia: ExtremeBradycardiaRule = ExtremeBradycardiaRule()
    extreme_tachycardia: ExtremeTachycardiaRule = ExtremeTachycardiaRule()
    ectopy_rate: EctopyRule = EctopyRule()
    couplet: CoupletRule = CoupletRule()
    run: RunRule = RunRule()
    bigeminy: BigeminyRule = BigeminyRule()
    trigeminy: TrigeminyRule = TrigeminyRule()
    r_on_t: ROnTRule = ROnTRule()
    gap: GapRule = GapRule()
    lead_off: LeadOffRule = LeadOffRule()
    flat: FlatRule = FlatRule()
    unreadable: UnreadableRule = UnreadableRule()

    def groups(self) -> Iterator[tuple[str, Limits]]:
        """Yield every group of thresholds with its name, in the order of the table."""
        for item in dataclasses.fields(self):
            yield item.name, getattr(self, item.name)

    def override(self, changes: Mapping[str, Mapping[str, object]]) -> Rules:
        """Return a table with some values replaced, as in `{"pause": {"min_s": 2.5}, "af": {"enabled": False}}`.

        Raises BadInputError for an unknown name (listing the known ones) and for a value outside its range.
        """
        known = dict(self.groups())
        changed: dict[str, Any] = {name: _changed(name, known, values) for name, values in changes.items()}
        rules = dataclasses.replace(self, **changed)
        for low, high in _ORDERED:
            if rules.value(low) > rules.value(high):
                raise BadInputError(
                    f"rules.{low} = {rules.value(low):g} must not be above rules.{high} = {rules.value(high):g}"
                )
        return rules

    def value(self, name: str) -> float:
        """Return a threshold by its full name, as in `pause.min_s`."""
        group, threshold = name.split(".")
        return float(getattr(getattr(self, group), threshold))


_ORDERED = (
    ("beat.faint", "beat.on"),
    ("signal.quality_off", "signal.quality_on"),
    ("signal.dead_mv", "signal.flat_mv"),
    ("asystole.min_s", "asystole.min_unseen_s"),
    ("pause.min_s", "pause.urgent_s"),
    ("pause.af_min_s", "pause.af_urgent_s"),
    ("bradycardia.limit_bpm", "bradycardia.off_bpm"),
    ("tachycardia.off_bpm", "tachycardia.limit_bpm"),
    ("vt.min_bpm", "vt.max_bpm"),
    ("vt.min_beats", "vt.slow_beats"),
    ("vt.slow_bpm", "vt.min_bpm"),
    ("extreme_bradycardia.limit_bpm", "extreme_bradycardia.off_bpm"),
    ("extreme_tachycardia.off_bpm", "extreme_tachycardia.limit_bpm"),
    ("ectopy_rate.off_per_min", "ectopy_rate.per_min"),
    ("bigeminy.off_per_min", "bigeminy.per_min"),
    ("trigeminy.off_per_min", "trigeminy.per_min"),
)


def rules_hash(rules: Rules) -> str:
    """Return 16 hex digits that differ whenever any threshold does."""
    text = json.dumps([FORMAT, dataclasses.asdict(rules)], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _changed(name: str, known: Mapping[str, Limits], values: Mapping[str, object]) -> Limits:
    if name not in known:
        raise BadInputError(f"rules: unknown rule {name!r}; known are {', '.join(known)}")
    if not isinstance(values, Mapping):
        raise BadInputError(f"rules.{name}: expected a table of thresholds, got {values!r}")
    group = known[name]
    fields = {item.name: item for item in dataclasses.fields(group)}
    for key, value in values.items():
        if key not in fields:
            raise BadInputError(f"rules.{name}: unknown threshold {key!r}; known are {', '.join(fields)}")
        _check(f"rules.{name}.{key}", value, fields[key].metadata)
    return dataclasses.replace(
        group,
        **{key: float(v) if "unit" in fields[key].metadata else v for key, v in values.items()},  # type: ignore[arg-type]
    )


def _check(where: str, value: object, metadata: Mapping[str, Any]) -> None:
    if where.endswith(".severity"):
        if value not in SEVERITIES:
            raise BadInputError(f"{where}: {value!r} is no severity; use one of {', '.join(SEVERITIES)}")
    elif where.endswith(".enabled"):
        if not isinstance(value, bool):
            raise BadInputError(f"{where}: {value!r} is neither true nor false")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInputError(f"{where}: {value!r} is not a number")
    elif not metadata["low"] <= value <= metadata["high"]:
        raise BadInputError(f"{where}: {value} is outside {metadata['low']:g} to {metadata['high']:g}")


def page() -> str:
    """Return `docs/rules.md`: the default table as Markdown."""
    rules = Rules()
    lines = [
        "# Rules",
        "",
        "What opens a finding and what closes it. Written by `python -m edge.rhythm.rules > docs/rules.md`; "
        "the thresholds are in `edge/rhythm/rules.py` and any of them can be set in the configuration under "
        "`rules.<name>.<threshold>`. All times are times of the signal, never of a clock.",
        "",
        "Research software, not a medical device.",
    ]
    for name, group in rules.groups():
        lines += ["", f"## {name}", "", f"{type(group).__doc__} {group.meaning}", "", f"Source: {group.source}.", ""]
        if isinstance(group, Rule):
            lines += [f"Severity: **{group.severity}**{'' if group.enabled else ', switched off'}.", ""]
        lines += ["| threshold | value | unit | meaning |", "|---|---|---|---|"]
        for item in dataclasses.fields(group):
            if "unit" in item.metadata:
                value, meta = getattr(group, item.name), item.metadata
                lines.append(f"| `{item.name}` | {value:g} | {meta['unit']} | {meta['text']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
