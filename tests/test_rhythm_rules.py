"""Every rule at the border of its thresholds, and the table itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from rhythm_kit import FS_HZ, Script, play

from edge.errors import BadInputError
from edge.rhythm import rules as rules_module
from edge.rhythm.events import RULES
from edge.rhythm.rules import Limits, Rule, Rules, rules_hash

AS_SCORED = Rules().override({"wearer": {"encoder_weight": 1, "own_weight": 0}})
"""Beats are of the class that the script gives them, not weighed by what is usual in it."""

Case = tuple[str, Callable[[], Script], str, str | None]


def sinus(seconds: int, bpm: float = 75) -> Script:
    return Script(seconds).train(0.4, seconds - 0.1, bpm)


def silence(length_s: float, rhythm: str = "N", seconds: int = 40) -> Script:
    """A silence between two beats, the first at 10 s."""
    script = Script(seconds).train(0.4, 10.1, 60 / 0.8)
    script.beats = [b for b in script.beats if b[0] < 9.9] + [(10.0, "N")]
    script.train(10.0 + length_s, seconds - 0.1, 75)
    if rhythm == "ASYS":
        script.say("ASYS", 10, int(10 + length_s))
    elif rhythm != "N":
        script.say(rhythm, 0, seconds)
    return script


def unseen(length_s: float) -> Script:
    """Asystole that readable signal begins with, two seconds of noise after the last beat."""
    script = Script(60).train(0.4, 19.9, 75).train(22 + length_s, 59.9, 75).say("ASYS", 20, int(22 + length_s))
    return script.fill(script.quality, 0.1, 20, 22)


def rate(bpm: float, length_s: float) -> Script:
    """Three quarters of a minute at 75, then a rate for so long, then 75 again."""
    end = 45.2 + length_s
    return Script(round(end) + 60).train(0.4, 45.1, 75).train(45.2, end, bpm).train(end, round(end) + 59.9, 75)


def v_run(count: int, bpm: float) -> Script:
    script = sinus(20)
    start = 20.4
    script = Script(60).train(0.4, 20, 75)
    script.train(start, start + count * 60 / bpm - 0.01, bpm, "V")
    return script.train(start + count * 60 / bpm + 0.3, 59.9, 75)


def v_rate(count: int) -> Script:
    """So many single V beats in the second minute."""
    script = sinus(240)
    for i in range(count):
        index = 80 + 6 * i
        script.beats[index] = (script.beats[index][0], "V")
    return script


def af(seconds: int) -> Script:
    return sinus(200).say("AFIB", 40, 40 + seconds)


def faint_vt(seconds: int) -> Script:
    script = vf(seconds, rhythm="VT")
    script.faint = [20.2 + 0.35 * i for i in range(int((seconds - 0.2) / 0.35))]
    return script


def vf(seconds: int, narrow: bool = False, rhythm: str = "VF") -> Script:
    script = sinus(60).say(rhythm, 20, 20 + seconds)
    if not narrow:
        script.beats = [b for b in script.beats if not 20 <= b[0] < 20 + seconds]
    return script


def vt_seconds(seconds: int, bpm: float) -> Script:
    """VT by rhythm only: the beats are called N."""
    script = Script(80).train(0.4, 20, 75).train(20.2, 20 + seconds, bpm).train(20.4 + seconds, 79.9, 75)
    return script.say("VT", 20, 20 + seconds)


def pattern(cycle: str, times: int, bpm: float = 75, seconds: int = 240) -> Script:
    """Beats of the classes of `cycle`, so often, from the 60th beat on."""
    script = Script(seconds).train(0.4, seconds - 0.1, bpm)
    for i, kind in enumerate(cycle * times, start=60):
        script.beats[i] = (script.beats[i][0], kind)
    return script


def couplets(times: int, every: int = 20) -> Script:
    script = sinus(300)
    for n in range(times):
        for i in (60 + every * n, 61 + every * n):
            script.beats[i] = (script.beats[i][0], "V")
    return script


def s_run(count: int, bpm: float) -> Script:
    start = 19.6 + 60 / bpm
    end = start + count * 60 / bpm
    return Script(60).train(0.4, 20, 75).train(start, end - 0.01, bpm, "S").train(end + 0.3, 59.9, 75)


def svta(seconds: int, bpm: float = 160) -> Script:
    end = 20 + seconds
    return Script(90).train(0.4, 20, 75).train(20.2, end, bpm).train(end + 0.3, 89.9, 75).say("SVTA", 20, end)


def few(count: int, bpm: float) -> Script:
    """So many beats at a rate that is none for long."""
    end = 20.4 + (count - 0.5) * 60 / bpm
    return Script(90).train(0.4, 20.3, 75).train(20.4, end, bpm).train(end + 0.2, 89.9, 75)


def early_v(coupling_s: float, pause_s: float, at: tuple[int, ...] = (40,), bpm: float = 60) -> Script:
    """Beats with a V beat so early after each of the named ones, and the next beat so long after it."""
    script, now = Script(360), 0.4
    for i in range(300):
        script.beats.append((now, "N"))
        if i in at:
            script.beats.append((now + coupling_s, "V"))
            now += coupling_s + pause_s
        else:
            now += 60 / bpm
    return script


def signal(name: str, seconds: int) -> Script:
    script = sinus(200)
    span = range(50, 50 + seconds)
    if name == "lead_off":
        script.contact_off = set(span)
    elif name == "flat":
        script.fill(script.amplitude_mv, 0.01, span.start, span.stop)
    elif name == "gap":
        script.fill(script.present, 0.0, span.start, span.stop)
    elif name == "clipped":
        script.clipped = set(span)
    else:
        script.fill(script.quality, 0.1, span.start, span.stop)
    return script


CASES: list[Case] = [
    ("pause just not", lambda: silence(1.98), "pause", None),
    ("pause", lambda: silence(2.03), "pause", "advisory"),
    ("long pause just not", lambda: silence(2.98), "pause", "advisory"),
    ("long pause", lambda: silence(3.03), "pause", "urgent"),
    ("pause in AF just not", lambda: silence(2.9, "AFIB"), "pause", None),
    ("pause in AF", lambda: silence(3.05, "AFIB"), "pause", "advisory"),
    ("long pause in AF", lambda: silence(5.1, "AFIB"), "pause", "urgent"),
    ("asystole just not", lambda: silence(3.95, "ASYS"), "asystole", None),
    ("asystole", lambda: silence(4.05, "ASYS"), "asystole", "critical"),
    ("asystole after VF", lambda: vf(10).say("ASYS", 30, 36).cut(30, 35.2), "asystole", "critical"),
    ("asystole after noise just not", lambda: unseen(7.9), "asystole", None),
    ("asystole after noise", lambda: unseen(8.1), "asystole", "critical"),
    ("silence that does not look like asystole", lambda: silence(8), "asystole", None),
    ("silence in VF", lambda: silence(8, "VF"), "pause", None),
    ("bradycardia just not slow", lambda: rate(40.5, 90), "bradycardia", None),
    ("bradycardia just not long", lambda: rate(39, 58), "bradycardia", None),
    ("bradycardia", lambda: rate(39, 70), "bradycardia", "advisory"),
    ("tachycardia just not fast", lambda: rate(149, 90), "tachycardia", None),
    ("tachycardia just not long", lambda: rate(153, 59), "tachycardia", None),
    ("tachycardia", lambda: rate(153, 65), "tachycardia", "advisory"),
    ("couplet is no VT", lambda: v_run(2, 150), "vt", None),
    ("couplet", lambda: v_run(2, 150), "couplet", "info"),
    ("three V are no couplet", lambda: v_run(3, 150), "couplet", None),
    ("one V is no couplet", lambda: v_run(1, 75), "couplet", None),
    ("three slow V are no VT", lambda: v_run(3, 118), "vt", None),
    ("three slow V", lambda: v_run(3, 118), "run", "info"),
    ("three fast V are no slow run", lambda: v_run(3, 123), "run", None),
    ("four V just above 100", lambda: v_run(4, 104), "vt", None),
    ("five V just above 100", lambda: v_run(5, 104), "vt", "urgent"),
    ("five V just below 100", lambda: v_run(5, 97), "vt", None),
    ("three S", lambda: s_run(3, 130), "svt", None),
    ("four S", lambda: s_run(4, 130), "svt", "advisory"),
    ("four slow S", lambda: s_run(4, 97), "svt", None),
    ("SVTA too short", lambda: svta(5), "svt", None),
    ("SVTA", lambda: svta(9), "svt", "advisory"),
    ("SVTA too slow", lambda: svta(20, 96), "svt", None),
    ("4 beats below 40", lambda: few(4, 38), "extreme_bradycardia", None),
    ("5 beats below 40", lambda: few(5, 38), "extreme_bradycardia", "info"),
    ("5 beats just above 40", lambda: few(5, 41), "extreme_bradycardia", None),
    ("one long pause is no rate", lambda: silence(8), "extreme_bradycardia", None),
    ("15 beats above 140", lambda: few(15, 145), "extreme_tachycardia", None),
    ("18 beats above 140", lambda: few(18, 145), "extreme_tachycardia", "info"),
    ("18 beats below 140", lambda: few(18, 138), "extreme_tachycardia", None),
    ("bigeminy, 6 V", lambda: pattern("NV", 6), "bigeminy", None),
    ("bigeminy, 7 V", lambda: pattern("NV", 7), "bigeminy", "info"),
    ("trigeminy, 6 V", lambda: pattern("NNV", 6), "trigeminy", None),
    ("trigeminy, 7 V", lambda: pattern("NNV", 7), "trigeminy", "info"),
    ("trigeminy is no bigeminy", lambda: pattern("NNV", 20), "bigeminy", None),
    ("bigeminy is no trigeminy", lambda: pattern("NV", 20), "trigeminy", None),
    ("quadrigeminy is neither", lambda: pattern("NNNV", 20), "trigeminy", None),
    ("two turns at a time", lambda: pattern("NVNVNNNNNN", 12), "bigeminy", None),
    ("R on T", lambda: early_v(0.32, 1.35), "r_on_t", "info"),
    ("early V without a pause", lambda: early_v(0.32, 0.68), "r_on_t", None),
    ("two early V without a pause", lambda: early_v(0.32, 0.68, (40, 90)), "r_on_t", "info"),
    ("two early V far apart", lambda: early_v(0.32, 0.68, (20, 340)), "r_on_t", None),
    ("V not that early", lambda: early_v(0.36, 1.35), "r_on_t", None),
    ("early V in a fast heart", lambda: early_v(0.19, 1.0, bpm=103), "r_on_t", None),
    ("three fast V", lambda: v_run(3, 123), "vt", "urgent"),
    ("V beats too fast to be true", lambda: v_run(6, 265), "vt", None),
    ("29 s of VT", lambda: v_run(73, 150), "vt", "urgent"),
    ("31 s of VT", lambda: v_run(79, 150), "vt", "critical"),
    ("VT seconds too few", lambda: vt_seconds(2, 160), "vt", None),
    ("VT seconds too slow", lambda: vt_seconds(20, 115), "vt", None),
    ("VT seconds", lambda: vt_seconds(6, 126), "vt", "urgent"),
    ("VT seconds without beats", lambda: vf(8, rhythm="VT"), "vf", "critical"),
    ("VT seconds with slow beats", lambda: vt_seconds(30, 60), "vf", None),
    ("VT seconds of faint fast peaks", lambda: faint_vt(8), "vt", "urgent"),
    ("VF too short", lambda: vf(2), "vf", None),
    ("VF", lambda: vf(3), "vf", "critical"),
    ("VF against regular narrow beats", lambda: vf(20, narrow=True), "vf", None),
    ("8 V per minute", lambda: v_rate(8), "ectopy_rate", None),
    ("9 V per minute", lambda: v_rate(9), "ectopy_rate", "advisory"),
    ("29 s of AF", lambda: af(29), "af", None),
    ("30 s of AF", lambda: af(30), "af", "advisory"),
    ("short gap", lambda: signal("gap", 4), "gap", None),
    ("gap", lambda: signal("gap", 5), "gap", "info"),
    ("short lead off", lambda: signal("lead_off", 4), "lead_off", None),
    ("lead off", lambda: signal("lead_off", 5), "lead_off", "advisory"),
    ("short flat", lambda: signal("flat", 4), "flat", None),
    ("flat", lambda: signal("flat", 5), "flat", "advisory"),
    ("short noise", lambda: signal("unreadable", 59), "unreadable", None),
    ("noise", lambda: signal("unreadable", 60), "unreadable", "info"),
    ("clipping", lambda: signal("clipped", 60), "unreadable", "info"),
]


@pytest.mark.parametrize(("make", "rule", "severity"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_rule_at_its_threshold(make: Callable[[], Script], rule: str, severity: str | None) -> None:
    found = play(make(), AS_SCORED).findings(rule)
    assert [f.severity for f in found] == ([] if severity is None else [severity])
    for finding in found:
        assert finding.state == "closed"
        assert finding.start_sample <= finding.opened_sample < finding.end_sample


def test_sinus_rhythm_finds_nothing() -> None:
    assert play(sinus(300)).findings() == []


@pytest.mark.parametrize(
    ("make", "rule", "start_s", "end_s"),
    [
        (lambda: silence(2.5), "pause", 10.0, 12.5),
        (lambda: silence(6, "ASYS"), "asystole", 10.0, 16.0),
        (lambda: af(60), "af", 40.0, 100.0),
        (lambda: vf(10), "vf", 20.0, 30.0),
        (lambda: v_run(5, 150), "vt", 20.4, 22.0),
        (lambda: signal("gap", 9), "gap", 50.0, 59.0),
        (lambda: signal("lead_off", 9), "lead_off", 50.0, 59.0),
    ],
)
def test_a_finding_covers_what_it_found(make: Callable[[], Script], rule: str, start_s: float, end_s: float) -> None:
    (finding,) = play(make()).findings(rule)
    assert finding.start_sample / FS_HZ == pytest.approx(start_s, abs=0.02 if rule in ("pause", "vt") else 1.0)
    assert finding.end_sample / FS_HZ == pytest.approx(end_s, abs=0.02 if rule in ("pause", "vt") else 1.0)


@pytest.mark.parametrize(("break_s", "count"), [(40, 1), (70, 2)])
def test_af_that_returns_within_the_merge_gap_is_the_same_finding(break_s: int, count: int) -> None:
    script = sinus(300).say("AFIB", 40, 90).say("AFIB", 90 + break_s, 150 + break_s)
    assert len(play(script).findings("af")) == count


@pytest.mark.parametrize(("break_s", "count"), [(28, 1), (34, 2)])
def test_vt_runs_near_each_other_are_one_finding(break_s: float, count: int) -> None:
    script = Script(90).train(0.4, 20, 75).train(20.4, 22, 150, "V")
    script.train(22.4, 21.6 + break_s, 75).train(22 + break_s, 23.5 + break_s, 150, "V").train(24 + break_s, 89, 75)
    found = play(script).findings("vt")
    assert [f.evidence["bouts"] for f in found] == [2 // count] * count


@pytest.mark.parametrize(("low_bpm", "count"), [(42, 1), (45, 2)])
def test_bradycardia_ends_only_at_its_higher_limit(low_bpm: float, count: int) -> None:
    script = Script(330).train(0.4, 20, 75).train(20.2, 110, 38).train(110.5, 190, low_bpm).train(191, 300, 38)
    assert len(play(script.train(300.5, 329, 75)).findings("bradycardia")) == count


def test_ectopy_stays_open_between_its_two_limits() -> None:
    script = sinus(420)
    every = [*range(80, 160, 8), *range(160, 400, 12)]  # 10 a minute, then 6.25
    for index in every:
        script.beats[index] = (script.beats[index][0], "V")
    (finding,) = play(script).findings("ectopy_rate")
    assert finding.end_sample / FS_HZ == pytest.approx(script.beats[388][0], abs=0.1)
    assert finding.evidence["v_beats"] == len(every)


@pytest.mark.parametrize(("every", "count"), [(60, 1), (90, 2)])
def test_couplets_within_the_merge_gap_are_one_finding(every: int, count: int) -> None:
    found = play(couplets(2, every)).findings("couplet")
    assert [f.evidence["couplets"] for f in found] == [2 // count] * count


def test_bigeminy_counts_its_v_beats() -> None:
    (finding,) = play(pattern("NV", 25)).findings("bigeminy")
    assert finding.evidence == {"v_beats": 25, "max_per_min": 25, "threshold_per_min": 6}
    assert (finding.end_sample - finding.start_sample) / FS_HZ == pytest.approx(48 * 0.8, abs=0.02)


def test_svt_by_rhythm_and_by_beats_is_one_finding() -> None:
    script = svta(20)
    script.beats = [(t, "S" if 22 <= t < 38 else kind) for t, kind in script.beats]
    (finding,) = play(script, AS_SCORED).findings("svt")
    assert finding.evidence["max_bpm"] == pytest.approx(160, abs=2)
    assert 30 < float(finding.evidence["s_beats"]) < 45


@pytest.mark.parametrize(("low_bpm", "count"), [(42, 1), (46, 2)])
def test_extreme_bradycardia_ends_only_at_its_higher_limit(low_bpm: float, count: int) -> None:
    script = Script(150).train(0.4, 20.3, 75).train(20.4, 40, 38).train(40.2, 80, low_bpm).train(80.5, 110, 38)
    assert len(play(script.train(110.5, 149.9, 75)).findings("extreme_bradycardia")) == count


def test_many_pauses_are_one_finding() -> None:
    run = play(rate(28, 30))
    (finding,) = run.findings("pause")
    assert finding.evidence["pauses"] >= 12


def test_a_rule_can_be_switched_off_and_its_severity_set() -> None:
    rules = Rules().override({"pause": {"enabled": False}, "asystole": {"severity": "urgent"}})
    run = play(silence(8, "ASYS"), rules)
    assert [(f.rule, f.severity) for f in run.findings()] == [("asystole", "urgent")]


def test_thresholds_can_be_overridden() -> None:
    rules = Rules().override({"pause": {"min_s": 2.5}})
    assert rules.pause.min_s == 2.5
    assert Rules().pause.min_s == 2
    assert play(silence(2.4), rules).findings() == []
    assert play(silence(2.6), rules).rules() == {"pause"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paus": {}}, "unknown rule 'paus'; known are beat, signal"),
        ({"pause": {"min": 2}}, "rules.pause: unknown threshold 'min'; known are severity, enabled, merge_s"),
        ({"pause": {"min_s": 200}}, "rules.pause.min_s: 200 is outside 1 to 10"),
        ({"pause": {"min_s": "2"}}, "rules.pause.min_s: '2' is not a number"),
        ({"pause": {"min_s": True}}, "rules.pause.min_s: True is not a number"),
        ({"pause": {"min_s": float("nan")}}, "rules.pause.min_s: nan is outside"),
        ({"pause": {"severity": "panic"}}, "rules.pause.severity: 'panic' is no severity"),
        ({"pause": {"enabled": 1}}, "rules.pause.enabled: 1 is neither true nor false"),
        ({"pause": 3}, "rules.pause: expected a table"),
        ({"pause": {"min_s": 3.5}}, "rules.pause.min_s = 3.5 must not be above rules.pause.urgent_s = 3"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(changes: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(BadInputError, match=message.replace(".", r"\.").replace("(", r"\(")):
        Rules().override(changes)


def _thresholds() -> list[tuple[str, str]]:
    return [
        (name, f.name) for name, group in Rules().groups() for f in dataclasses.fields(group) if f.name != "severity"
    ]


@pytest.mark.parametrize(("name", "threshold"), _thresholds())
def test_every_threshold_changes_the_hash(name: str, threshold: str) -> None:
    rules = Rules()
    group: Limits = getattr(rules, name)
    old = getattr(group, threshold)
    new = (not old) if isinstance(old, bool) else old + 0.001
    changed = dataclasses.replace(rules, **{name: dataclasses.replace(group, **{threshold: new})})
    assert rules_hash(changed) != rules_hash(rules)


def test_an_integer_override_hashes_like_the_float() -> None:
    assert rules_hash(Rules().override({"pause": {"min_s": 2}})) == rules_hash(Rules())


def test_every_rule_is_a_known_name() -> None:
    for name, group in Rules().groups():
        assert group.meaning
        assert group.source
        if isinstance(group, Rule):
            assert name in RULES


def test_the_written_table_is_current() -> None:
    written = Path(__file__).parent.parent / "docs/rules.md"
    assert written.read_text() == rules_module.page(), "run: python -m edge.rhythm.rules > docs/rules.md"
