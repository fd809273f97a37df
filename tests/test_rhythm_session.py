"""The fold: beats in place, states that continue, missing that is never normal, minutes, spans, latency."""

from __future__ import annotations

import dataclasses
import itertools
import random

import cbor2
import numpy as np
import pytest
from rhythm_kit import FS_HZ, Run, Script, play, record, session

from edge.encoder.contract import AHEAD_S, HOP_S, HopScores
from edge.errors import AnyecgError
from edge.rhythm.events import HopResult, finding_id
from edge.rhythm.rules import Rules

RECORDS = [("mitdb/200", 300), ("mitdb/202", 1130), ("mitdb/233", 500), ("vfdb/422", 1320)]


def everything(seed: int = 0) -> Script:
    """Five minutes with something of every kind, on two leads."""
    script = Script(300, noise=0.05, seed=seed, leads=2)
    script.train(0.4, 40, 75).train(40.4, 44, 150, "V").train(44.4, 60, 75).train(62.6, 70, 75).train(76.4, 100, 75)
    script.train(100.3, 160, 83).train(175, 200, 75).train(200.2, 262, 160).train(263, 299.5, 75)
    script.beats = [(t, "V" if 20 < t < 38 and i % 3 == 0 else kind) for i, (t, kind) in enumerate(script.beats)]
    script.say("ASYS", 70, 76).say("AFIB", 101, 150).say("VF", 160, 174)
    script.fill(script.present, 0.0, 182, 190).fill(script.quality, 0.1, 280, 290)
    script.fill(script.amplitude_mv, 0.01, 268, 276)
    script.contact_off = set(range(291, 298))
    script.faint = [75.1]
    return script


def split(hops: list[HopScores], cuts: set[int], end_sample: int, leads: int) -> Run:
    """Play, saving and restoring the state before every hop in `cuts`."""
    fold, run = session(leads=leads), Run()
    for hop in hops:
        if hop.k in cuts:
            fold = session(leads=leads, state=fold.dump())
        run.take(hop.k, fold.feed(hop))
    if len(hops) in cuts:
        fold = session(leads=leads, state=fold.dump())
    run.take(len(hops), fold.finish(end_sample))
    return run


def test_everything_finds_every_rule() -> None:
    expected = {"vt", "vf", "af", "pause", "asystole", "tachycardia", "gap", "flat", "lead_off"}
    assert expected <= play(everything()).rules()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_restored_state_continues_identically(seed: int) -> None:
    script = everything(seed)
    hops, end = script.hops(), round(300 * FS_HZ)
    straight = split(hops, set(), end, 2)
    assert split(hops, set(range(len(hops) + 1)), end, 2).results == straight.results
    some = set(random.Random(seed).sample(range(len(hops)), 12))
    assert split(hops, some, end, 2).results == straight.results


def test_equal_states_give_equal_bytes() -> None:
    hops = everything().hops()
    straight, restarted = session(leads=2), session(leads=2)
    for hop in hops:
        straight.feed(hop)
        restarted = session(leads=2, state=restarted.dump())
        restarted.feed(hop)
        assert straight.dump() == restarted.dump()


def test_state_forgets_what_no_longer_matters() -> None:
    """Late data changed the past: once everything is over, the states meet again, so that a repair can stop."""
    one, other = everything(), Script(300, leads=2)
    tail = Script(660, leads=2).train(0.4, 659.9, 75).hops()
    folds = [session(leads=2), session(leads=2)]
    for fold, script in zip(folds, (one, other.train(0.2, 299.9, 61)), strict=True):
        for hop in script.hops():
            fold.feed(hop)
        for hop in tail:
            fold.feed(dataclasses.replace(hop, k=hop.k + 150))
    assert folds[0].dump() == folds[1].dump()


def test_state_is_small() -> None:
    script = dataclasses.replace(everything(), leads=12)
    fold = session(leads=12)
    largest = 0
    for hop in script.hops():
        fold.feed(hop)
        largest = max(largest, len(fold.dump()))
    assert largest < 10500
    single = session()
    for hop in Script(60).train(0.4, 60, 75).hops():
        single.feed(hop)
    assert len(single.dump()) < 3500


def test_hrv_of_a_minute_is_that_of_its_normal_intervals() -> None:
    rng = np.random.default_rng(3)
    script, now = Script(300), 0.4
    while now < 299.5:
        script.beats.append((now, "N"))
        now += 0.8 + rng.normal(0, 0.03)
    for i in range(10, len(script.beats) - 5, 40):  # an early V beat with its pause: four intervals that are not NN
        script.beats[i] = (script.beats[i][0] - 0.25, "V")
    run = play(script)
    times = np.array([beat.sample for beat in run.beats]) / FS_HZ
    rr, kinds = np.diff(times), [beat.type for beat in run.beats]
    normal = np.array([a == b == "N" for a, b in itertools.pairwise(kinds)])
    for minute in run.trends[1:4]:
        inside = (times[1:] >= 60 * minute.minute) & (times[1:] < 60 * minute.minute + 60)
        nn = 1000 * rr[inside & normal]
        steps = 1000 * np.diff(rr)[(inside & normal)[1:] & normal[:-1]]
        assert minute.sdnn_ms == pytest.approx(nn.std(ddof=1), rel=0.02)
        assert minute.rmssd_ms == pytest.approx(np.sqrt(np.mean(steps**2)), rel=0.02)
    assert 25 < (run.trends[2].sdnn_ms or 0) < 40


@pytest.mark.parametrize(
    "script", [Script(120).train(0.4, 119, 75).say("AFIB", 0, 120), Script(120).train(0.4, 14, 75)]
)
def test_hrv_of_af_or_of_a_few_beats_is_not_known(script: Script) -> None:
    for minute in play(script).trends:
        assert minute.rmssd_ms is None
        assert minute.sdnn_ms is None


def garbage(seed: int, hops: int = 200) -> list[HopScores]:
    """Scores without sense: any value a network could give, any hole a device could leave."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(hops):
        present = rng.choice(np.array([0, 0.3, 0.7, 0.985, 1], np.float32), 2, p=[0.1, 0.05, 0.05, 0.1, 0.7])
        ecg = rng.normal(0, rng.choice([0, 0.003, 0.01, 1, 20]), (3, 256)).astype(np.float32)
        ecg[rng.integers(3)] = np.nan
        rhythm = rng.dirichlet(np.full(8, 0.3), 2).astype(np.float32)
        quality = rng.choice(np.array([0.1, 0.5, 0.9], np.float32), 2, p=[0.1, 0.2, 0.7])
        rhythm[present == 0], quality[present == 0] = np.nan, np.nan
        made.append(
            HopScores(
                k=k,
                ecg=ecg,
                present=present,
                contact_off=rng.random(2) < 0.05,
                clipped=rng.choice(np.array([0, 1], np.float32), 2, p=[0.95, 0.05]),
                r_peak=(rng.random(64) ** rng.choice([1, 4])).astype(np.float32),
                beat=rng.dirichlet(np.full(5, 0.5), 64).astype(np.float32),
                morphology=rng.dirichlet(np.full(5, 0.5), 64).astype(np.float32),
                rhythm=rhythm,
                quality=quality,
                qrs=rng.random(256).astype(np.float32),
                embedding=np.zeros(192, np.float32),
            )
        )
    return made


@pytest.mark.parametrize("seed", range(4))
def test_garbage_is_folded_without_harm(seed: int) -> None:
    hops = garbage(seed)
    straight = split(hops, set(), 400 * 250, 3)
    assert split(hops, set(range(0, 201, 3)), 400 * 250, 3).results == straight.results
    assert np.all(np.diff([b.sample for b in straight.beats]) > 0)
    assert [m.minute for m in straight.trends] == list(range(7))
    assert straight.spans[-1].end_sample == 400 * 250
    open_now: dict[str, str] = {}
    for _, finding in straight.told:
        assert open_now.get(finding.rule, finding.id) == finding.id, "one open finding per rule"
        open_now[finding.rule] = finding.id
        if finding.state == "closed":
            del open_now[finding.rule]
    assert not open_now


def test_a_foreign_state_is_refused() -> None:
    state = session().dump()
    with pytest.raises(AnyecgError, match="belongs to"):
        session(Rules().override({"pause": {"min_s": 2.2}}), state=state)
    with pytest.raises(AnyecgError, match="belongs to"):
        session(fs_hz=360, state=state)
    with pytest.raises(AnyecgError, match="belongs to"):
        session(leads=2, state=state)
    version, *rest = cbor2.loads(state)
    with pytest.raises(AnyecgError, match="version"):
        session(state=cbor2.dumps([version + 1, *rest]))
    for damaged in (b"", state[:40], b"\xff" + state[1:]):
        with pytest.raises(AnyecgError, match="damaged"):
            session(state=damaged)


def test_hops_must_come_in_order() -> None:
    hops = Script(10).train(0.4, 10, 75).hops()
    fold = session()
    fold.feed(hops[0])
    for wrong in (hops[0], hops[2]):
        with pytest.raises(ValueError, match="expected 1"):
            fold.feed(wrong)
    fold.feed(hops[1])
    fold.finish(4 * 250)
    with pytest.raises(ValueError, match="ended"):
        fold.feed(hops[2])


@pytest.mark.parametrize(("name", "start_s"), RECORDS)
def test_beats_of_real_annotations_come_back(name: str, start_s: float) -> None:
    script, fs_hz = record(name, start_s=start_s, seconds=240)
    run = play(script, fs_hz=fs_hz)
    found = np.array([b.sample for b in run.beats]) / fs_hz
    assert np.all(np.diff(found) > 0)
    readable = [(t, kind) for t, kind in script.beats if script.quality[int(t)] > 0.5]
    assert len(found) == len(readable)
    assert np.abs(found - [t for t, _ in readable]).max() < 0.005
    in_af = [rhythm in ("AFIB", "AFL") for rhythm in script.rhythm]
    wrong = [t for (t, kind), b in zip(readable, run.beats, strict=True) if kind != b.type and not in_af[int(t)]]
    assert len(wrong) <= 0.02 * len(readable)


@pytest.mark.parametrize("offset", np.linspace(0, 1 / 32, 5).tolist())
@pytest.mark.parametrize("fs_hz", [130.0, 250.0, 360.0, 500.0])
def test_r_peaks_are_placed_between_samples(offset: float, fs_hz: float) -> None:
    script = Script(30).train(0.5 + offset, 29, 70)
    run = play(script, fs_hz=fs_hz)
    error = np.array([b.sample for b in run.beats]) / fs_hz - [t for t, _ in script.beats]
    assert np.abs(error).max() < 0.002 + 0.5 / fs_hz


def test_a_bad_lead_does_not_move_r_peaks() -> None:
    script = Script(60, leads=2).train(0.4, 59.9, 75)
    hops = script.hops()
    rng = np.random.default_rng(3)
    for hop in hops:
        hop.ecg[1] = rng.normal(0, 5, 256)
    hops[4].ecg[1] = np.nan
    found = np.array([b.sample for b in play(hops).beats]) / FS_HZ
    error = np.abs(found - [t for t, _ in script.beats])
    assert np.median(error) < 0.004
    assert error.max() < 0.06


def test_beats_at_hop_borders_are_found_once() -> None:
    script = Script(60).train(2.0, 59.9, 60 / 2.0)
    script.beats += [
        (t + delta, "N") for (t, _), delta in zip(script.beats[:20], np.linspace(0.3, 0.7, 20), strict=False)
    ]
    script.beats.sort()
    assert len(play(script).beats) == len(script.beats)


def test_two_peaks_within_the_refractory_period_are_one_beat() -> None:
    script = Script(20).train(0.5, 19.9, 75)
    script.beats += [(t + 0.12, "N") for t, _ in script.beats]
    assert len(play(script).beats) == len(script.beats) / 2


def holes() -> list[tuple[str, Script]]:
    """Ten seconds without beats in the middle of a minute, each time for another reason."""
    made = []
    for name in ("gap", "unreadable", "lead_off", "clipped", "dead", "one missing second", "one noisy second"):
        script = Script(60).train(0.4, 20, 75).train(30.2, 59.9, 75).say("ASYS", 20, 30)
        if name == "gap":
            script.fill(script.present, 0.0, 20, 30)
        elif name == "unreadable":
            script.fill(script.quality, 0.1, 20, 30)
        elif name == "lead_off":
            script.contact_off = set(range(20, 30))
        elif name == "clipped":
            script.clipped = set(range(20, 30))
        elif name == "dead":
            script.fill(script.amplitude_mv, 0.01, 20, 30)
        else:
            script = Script(60).train(0.4, 20, 75).train(22.6, 59.9, 75)
            script.fill(script.present if "missing" in name else script.quality, 0.0, 21, 22)
        made.append((name, script))
    return made


@pytest.mark.parametrize(("name", "script"), holes(), ids=[name for name, _ in holes()])
def test_missing_is_never_a_pause(name: str, script: Script) -> None:
    assert not play(script).rules() & {"pause", "asystole", "bradycardia"}


def test_part_of_a_second_missing_is_no_pause() -> None:
    script = Script(60).train(0.4, 20, 75).train(22.2, 59.9, 75).fill([], 0, 0, 0)
    assert play(script).rules() == {"pause"}
    script.present[21] = 0.7
    assert play(script).rules() == set()


def test_slow_beats_with_noise_between_them_are_no_bradycardia() -> None:
    script = Script(240).train(0.4, 239.9, 75)
    script.beats = script.beats[::3]
    for second in range(1, 240, 2):
        script.quality[second] = 0.1
    assert not play(script).rules() & {"bradycardia", "pause", "asystole"}


def test_unreadable_seconds_have_no_beats_and_are_counted() -> None:
    script = Script(60).train(0.4, 59.9, 75).fill([], 0, 0, 0)
    script.fill(script.quality, 0.1, 20, 35).fill(script.present, 0.0, 40, 44)
    run = play(script)
    assert not [b for b in run.beats if 20 <= b.sample / FS_HZ < 35 or 40 <= b.sample / FS_HZ < 44]
    (minute,) = run.trends
    assert (minute.recorded_s, minute.readable_s) == (56, 41)
    assert minute.beats["N"] == len(run.beats)
    assert minute.hr_bpm == pytest.approx(75, abs=0.2)
    assert [(s.rhythm, s.start_sample / FS_HZ, s.end_sample / FS_HZ) for s in run.spans] == [
        ("N", 0, 20),
        ("", 20, 35),
        ("N", 35, 40),
        ("", 40, 44),
        ("N", 44, 60),
    ]


def test_quality_has_hysteresis() -> None:
    script = Script(60).train(0.4, 59.9, 75)
    script.quality[10:30] = [0.3] * 20
    script.quality[30] = 0.1
    script.quality[31:40] = [0.3] * 9
    assert play(script).trends[0].readable_s == 50


def test_flat_and_asystole_are_told_apart() -> None:
    def low(amplitude: float, rhythm: str, end: int = 40) -> set[str]:
        script = Script(60).train(0.4, 19.9, 75).train(end + 0.1, 59.9, 75).say(rhythm, 20, end)
        return play(script.fill(script.amplitude_mv, amplitude, 20, end)).rules()

    assert low(0.05, "ASYS") == {"flat"}  # about 0.006 mV: nothing on skin is that still
    assert low(0.25, "ASYS") == {"asystole", "pause"}  # about 0.03 mV
    assert "flat" in low(0.25, "N")
    assert "asystole" not in low(0.25, "N")
    assert low(0.05, "N", end=22) == {"pause"}  # as still as that between two beats: a pause, told with the next beat


def test_a_line_that_was_dead_stays_flat_until_it_lives() -> None:
    script = Script(80).train(0.4, 19.9, 75).train(60.1, 79.9, 75).say("ASYS", 20, 60)
    for second in range(20, 60):
        script.amplitude_mv[second] = 0.05 if second % 10 < 4 else 0.25
    run = play(script)
    assert [f.rule for f in run.findings()] == ["flat"]
    assert run.findings("flat")[0].end_sample == 60 * 250


def test_escalation_keeps_the_id() -> None:
    script = Script(40).train(0.4, 9.3, 75).train(17.5, 39.9, 75)
    run = play(script)
    told = [f for _, f in run.told if f.rule == "pause"]
    assert [f.severity for f in told][:2] == ["advisory", "urgent"]
    assert len({(f.id, f.opened_sample, f.start_sample, f.detected_sample) for f in told}) == 1
    assert told[0].id == finding_id("wearer/device/1", "pause", told[0].opened_sample)
    assert told[-1].state == "closed"

    run = play(Script(120).train(0.4, 20, 75).train(20.4, 80, 150, "V").train(80.4, 119.9, 75))
    told = [f for _, f in run.told if f.rule == "vt"]
    assert [told[0].severity, told[-1].severity] == ["urgent", "critical"]
    assert len({f.id for f in told}) == 1
    assert told[-1].evidence["sustained"] == 1


def test_an_open_finding_is_told_at_a_bounded_rate() -> None:
    run = play(Script(600).train(0.4, 599.9, 75).say("AFIB", 10, 599))
    told = [(k, f) for k, f in run.told if f.rule == "af"]
    steps = np.diff([k for k, _ in told[:-1]]) * HOP_S
    assert steps.min() >= 28
    assert len(told) == pytest.approx(560 / 30 + 2, abs=1)


def test_each_finding_appears_at_most_once_per_hop() -> None:
    for result in play(everything()).results:
        ids = [f.id for f in result.findings]
        assert len(ids) == len(set(ids))


def test_no_s_inside_af() -> None:
    script = Script(120).train(0.4, 119.9, 75, "S").say("AFIB", 40, 80)
    beats = play(script).beats
    inside = {b.type for b in beats if 47 < b.sample / FS_HZ < 80}
    before = {b.type for b in beats if b.sample / FS_HZ < 39}
    after = {b.type for b in beats if b.sample / FS_HZ > 85}
    assert (before, inside, after) == ({"S"}, {"N"}, {"S"})


def test_minutes_come_once_and_complete() -> None:
    script = everything()
    run = play(script, seconds=290)
    assert [m.minute for m in run.trends] == list(range(5))
    assert sum(sum(m.beats.values()) for m in run.trends) == len(run.beats)
    per_minute = np.bincount([b.sample // 15000 for b in run.beats], minlength=5)
    assert [sum(m.beats.values()) for m in run.trends] == per_minute.tolist()
    assert sum(m.recorded_s for m in run.trends) == sum(script.present)
    first = [i for i, r in enumerate(run.results) for m in r.trends if m.minute == 0]
    assert first == [30]  # the hop after the minute's last
    assert run.trends[1].rhythm == "N"
    assert run.trends[1].hr_min_bpm is not None
    assert run.trends[1].hr_bpm is not None
    assert run.trends[1].hr_max_bpm is not None
    assert run.trends[1].hr_min_bpm <= run.trends[1].hr_bpm <= run.trends[1].hr_max_bpm


def test_a_minute_with_few_intervals_has_no_rate() -> None:
    script = Script(120).train(0.4, 119.9, 75)
    script.fill(script.quality, 0.0, 4, 60)
    first, second = play(script).trends
    assert (first.hr_bpm, first.hr_min_bpm, first.hr_max_bpm) == (None, None, None)
    assert second.hr_bpm == pytest.approx(75, abs=0.2)


def test_spans_have_no_holes() -> None:
    spans = play(everything()).spans
    assert spans[0].start_sample == 0
    assert spans[-1].end_sample == 300 * 250
    for left, right in itertools.pairwise(spans):
        assert left.end_sample == right.start_sample
        assert left.rhythm != right.rhythm
    assert {"N", "AFIB", "VF", "ASYS", ""} <= {s.rhythm for s in spans}


def test_a_flicker_does_not_change_the_rhythm() -> None:
    script = Script(120).train(0.4, 119.9, 75).say("AFIB", 30, 32).say("VT", 50, 51)
    run = play(script)
    assert [s.rhythm for s in run.spans] == ["N"]
    assert run.findings() == []


def test_regular_beats_are_no_fibrillation() -> None:
    script = Script(200).train(0.4, 199.9, 75)
    script.rhythm[40:120] = ["AFIB"] * 80
    run = play(script)
    assert [s.rhythm for s in run.spans] == ["N"]
    assert run.findings("af") == []
    script.rhythm[40:120] = ["AFL"] * 80
    assert len(play(script).findings("af")) == 1


def test_fibrillation_is_dated_back_to_where_it_began() -> None:
    run = play(Script(200).train(0.4, 199.9, 75).say("AFIB", 40, 120))
    assert [(s.rhythm, s.start_sample // 250, s.end_sample // 250) for s in run.spans] == [
        ("N", 0, 40),
        ("AFIB", 40, 120),
        ("N", 120, 200),
    ]


def onset_to_open(script: Script, rule: str, onset_s: float) -> float:
    """Return the seconds of data after onset (look-ahead apart) that were in when the finding opened."""
    finding = play(script).findings(rule)[0]
    return finding.detected_sample / FS_HZ - AHEAD_S - onset_s


@pytest.mark.parametrize("onset_s", [20.0, 20.5, 21.0, 21.7])
@pytest.mark.parametrize("rule", ["vf", "vt", "asystole"])
def test_what_is_critical_opens_soon(rule: str, onset_s: float) -> None:
    script = Script(60).train(0.4, onset_s, 75)
    if rule == "vt":
        script.train(onset_s, 59, 150, "V")
    else:
        script.say("ASYS" if rule == "asystole" else "VF", int(np.ceil(onset_s)), 60)
    last = max(t for t, _ in script.beats if t <= onset_s) if rule == "asystole" else onset_s
    assert onset_to_open(script, rule, last) <= (6.2 if rule == "asystole" else 5.3)


def test_a_pause_opens_before_the_next_beat() -> None:
    fold = session()
    script = Script(20).train(0.4, 8.1, 75)
    opened = [h.k for h in script.hops() if any(f.rule == "pause" for f in fold.feed(h).findings)]
    assert opened[0] * HOP_S <= 8.1 + 2 + HOP_S


def test_current_tells_how_things_stand() -> None:
    script = Script(60).train(0.4, 59.9, 90)
    script.fill(script.quality, 0.1, 30, 40).fill(script.present, 0, 50, 54)
    results: list[HopResult] = play(script).results
    good, noisy, lost = results[10].current, results[17].current, results[26].current
    assert good.hr_bpm == pytest.approx(90, abs=0.5)
    assert (good.rhythm, good.signal, good.readable) == ("N", "readable", True)
    assert (noisy.hr_bpm, noisy.rhythm, noisy.signal, noisy.readable) == (None, "", "unreadable", False)
    assert (lost.signal, lost.quality) == ("gap", None)


def test_finish_closes_everything_within_the_recording() -> None:
    script = Script(100).train(0.4, 50, 75).say("ASYS", 50, 100)
    run = play(script, seconds=97.3)
    end = round(97.3 * FS_HZ)
    assert {f.state for f in run.findings()} == {"closed"}
    assert max(f.end_sample for f in run.findings()) <= end
    assert run.spans[-1].end_sample == end
    assert all(f.rule in ("pause", "asystole") for f in run.findings())


def test_a_temperature_changes_what_is_told_and_nothing_else() -> None:
    script = everything()
    plain = play(script, Rules().override({"beat": {"temperature": 1}}))
    sharp = play(script, Rules().override({"beat": {"temperature": 0.5}}))
    assert [(b.sample, b.type, b.morphology) for b in sharp.beats] == [
        (b.sample, b.type, b.morphology) for b in plain.beats
    ]
    assert [f for _, f in sharp.told] == [f for _, f in plain.told]
    for one, other in zip(plain.beats, sharp.beats, strict=True):
        odds = one.confidence / (1 - one.confidence)
        assert other.confidence == pytest.approx(odds**2 / (1 + odds**2), abs=1e-6)
