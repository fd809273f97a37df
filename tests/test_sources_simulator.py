"""The simulated wearable: the scripted rhythms are really in the signal, and the truth says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from scipy.signal import welch

from edge.errors import BadInputError
from edge.sources.record import read_record
from edge.sources.script import BUILT_IN, KINDS, Script, load_script, parse_script
from edge.sources.simulator import Simulation, blocks, simulate
from edge.sources.truth import rhythms, write_json, write_wfdb

FS = 250.0


@pytest.fixture(scope="module")
def tour() -> Simulation:
    return simulate(load_script("tour"), seed=1)


def one(kind: str, seconds: float, seed: int = 1, **parameters: float) -> Simulation:
    return simulate(parse_script([{"kind": kind, "seconds": seconds, **parameters}], "one", "test"), seed=seed)


def beat_times(simulation: Simulation, kind: str = "NV") -> np.ndarray:
    return np.array([sample / FS for sample, k in simulation.beats if k in kind])


def mv(simulation: Simulation) -> np.ndarray:
    return simulation.record.samples[0] * simulation.record.uv_per_lsb[0] / 1000


def test_the_tour_shows_every_kind_in_under_five_minutes(tour: Simulation) -> None:
    assert {span.kind for span in tour.spans} == set(KINDS)
    assert 240 <= tour.record.duration_s <= 300
    assert tour.spans[0].start == 0
    assert tour.spans[-1].end == tour.record.n
    assert all(a.end == b.start for a, b in zip(tour.spans, tour.spans[1:], strict=False))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tour: Simulation) -> None:
    again = simulate(load_script("tour"), seed=1)
    assert np.array_equal(again.record.samples, tour.record.samples)
    assert again.beats == tour.beats
    assert not np.array_equal(simulate(load_script("tour"), seed=2).record.samples, tour.record.samples)


def test_truth_marks_the_r_peaks(tour: Simulation) -> None:
    signal = mv(tour)
    clean = [s for s in tour.spans if s.kind in ("sinus", "pvcs", "bigeminy", "vt")]
    for span in clean:
        for sample, _ in tour.beats:
            if span.start + 25 <= sample < span.end - 25:
                peak = sample - 12 + int(np.argmax(signal[sample - 12 : sample + 13]))
                assert abs(peak - sample) <= 3, (span, sample)


def test_sinus_has_the_rate_and_the_two_spectral_peaks_of_hrv() -> None:
    simulation = one("sinus", 600, hr_bpm=75, rr_sd_s=0.05, lf_hf=2)
    times = beat_times(simulation)
    rr = np.diff(times)
    assert rr.mean() == pytest.approx(0.8, rel=0.02)
    assert rr.std() == pytest.approx(0.05, rel=0.15)
    even = np.interp(np.arange(times[1], times[-1], 0.25), times[1:], rr)
    f, power = welch(even - even.mean(), 4, nperseg=1024)
    low = power[(f > 0.07) & (f < 0.13)].sum()
    high = power[(f > 0.22) & (f < 0.28)].sum()
    assert 1.2 < low / high < 3.5
    assert (low + high) / power.sum() > 0.9


def test_af_is_irregular_without_p_waves_but_with_f_waves() -> None:
    af, sinus = one("af", 120), one("sinus", 120, hr_bpm=95)
    rr = np.diff(beat_times(af))
    assert 60 / rr.mean() == pytest.approx(95, rel=0.1)
    assert 0.15 < rr.std() / rr.mean() < 0.3
    assert abs(np.corrcoef(rr[1:], rr[:-1])[0, 1]) < 0.25

    def before_r(simulation: Simulation) -> np.ndarray:
        signal = mv(simulation)
        starts = [s for s, _ in simulation.beats if s > 100]
        return np.mean([signal[s - 70 : s - 15] - signal[s - 70 : s - 15].mean() for s in starts], axis=0)

    assert np.ptp(before_r(sinus)) > 2 * np.ptp(before_r(af))  # averaging keeps P, which is locked to R, not f
    f, power = welch(mv(one("af", 60, seed=3)), FS, nperseg=2048)
    _, power0 = welch(mv(one("sinus", 60, seed=3, hr_bpm=95)), FS, nperseg=2048)
    band = (f > 5) & (f < 7)
    assert power[band].sum() > 1.3 * power0[band].sum()


def test_pvcs_are_wide_and_followed_by_a_full_compensatory_pause() -> None:
    simulation = one("pvcs", 120, rr_sd_s=0.0)
    kinds = [kind for _, kind in simulation.beats]
    assert kinds.count("V") >= 8
    times = beat_times(simulation)
    signal = mv(simulation)
    for i in range(1, len(kinds) - 1):
        if kinds[i] == "V":
            assert times[i + 1] - times[i - 1] == pytest.approx(2 * 60 / 70, abs=0.02)
            assert times[i] - times[i - 1] < 0.75 * 60 / 70
            sample = simulation.beats[i][0]
            wide = signal[sample - 25 : sample + 26] > 0.5 * signal[sample]
            narrow = simulation.beats[i - 1][0]
            assert wide.sum() > 2 * (signal[narrow - 25 : narrow + 26] > 0.5 * signal[narrow]).sum()


def test_bigeminy_alternates() -> None:
    kinds = "".join(kind for _, kind in one("bigeminy", 30).beats)
    assert kinds.rstrip("N") in ("NV" * (len(kinds) // 2), "NV" * (len(kinds) // 2 - 1))


def test_vt_is_fast_regular_and_wide() -> None:
    simulation = one("vt", 20, hr_bpm=180)
    assert {kind for _, kind in simulation.beats} == {"V"}
    rr = np.diff(beat_times(simulation))
    assert 60 / rr.mean() == pytest.approx(180, rel=0.03)
    assert rr.std() / rr.mean() < 0.05


def test_vf_oscillates_at_3_to_6_hz_with_changing_amplitude_and_no_beats() -> None:
    simulation = one("vf", 60)
    assert simulation.beats == ()
    signal = mv(simulation)
    f, power = welch(signal, FS, nperseg=1024)
    assert 3 <= f[np.argmax(power)] <= 6
    assert power[(f >= 2.5) & (f <= 7)].sum() > 0.85 * power.sum()
    per_second = np.ptp(signal.reshape(-1, 250), axis=1)
    assert per_second.max() > 2 * per_second.min()


def test_a_pause_is_as_long_as_scripted_and_asystole_is_flat() -> None:
    rr = np.diff(beat_times(one("pause", 20, pause_s=4.5)))
    assert rr.max() == pytest.approx(4.5, abs=0.01)
    assert np.sort(rr)[-2] < 1.3
    flat = one("asystole", 10)
    assert flat.beats == ()
    assert np.ptp(mv(flat)) < 0.35


def test_noise_buries_the_signal_and_lead_off_ends_contact(tour: Simulation) -> None:
    by_kind = {span.kind: span for span in tour.spans}
    noise, off = by_kind["noise"], by_kind["lead_off"]
    assert np.diff(mv(tour)[noise.start : noise.end]).std() > 5 * np.diff(mv(tour)[: 10 * 250]).std()
    assert not tour.contact[off.start : off.end].any()
    assert tour.contact.sum() == tour.record.n - (off.end - off.start)
    assert not any(off.start <= sample < off.end for sample, _ in tour.beats)
    pieces = list(blocks(tour, 1.0))
    assert np.array_equal(np.concatenate([b.samples for b in pieces], axis=1), tour.record.samples)
    for block in pieces:
        assert (tour.contact[block.start : block.start + block.samples.shape[1]] == block.contact).all()


def test_duration_repeats_and_cuts_the_script() -> None:
    long = simulate(load_script("sinus"), seed=1, duration_s=150.5)
    assert long.record.n == 150.5 * 250
    assert len(long.spans) == 3
    first, second = long.record.samples[0, :15000], long.record.samples[0, 15000:30000]
    assert not np.array_equal(first, second)
    rr = np.diff(beat_times(long))
    assert rr.min() > 0.6
    assert rr.max() < 1.2


@pytest.mark.parametrize("fs_hz", [50.0, 130.0, 360.0, 2000.0])
def test_every_rate_works(fs_hz: float) -> None:
    simulation = simulate(load_script("tour"), seed=1, fs_hz=fs_hz, duration_s=60)
    assert simulation.record.n == 60 * fs_hz
    assert len(simulation.beats) > 50


def test_wfdb_and_json_carry_the_truth(tour: Simulation, tmp_path: Path) -> None:
    path = write_wfdb(tour, tmp_path)
    record = read_record(path)
    assert np.array_equal(record.samples, tour.record.samples)
    assert record.fs_hz == FS
    marks = wfdb.rdann(str(path), "atr")
    beats = [(s, k) for s, k in zip(marks.sample.tolist(), marks.symbol, strict=True) if k in "NV"]
    assert beats == list(tour.beats)
    spoken = [
        (s, a.rstrip("\x00")) for s, k, a in zip(marks.sample, marks.symbol, marks.aux_note, strict=True) if k == "+"
    ]
    assert spoken == [(start, f"({name}") for name, start, _ in rhythms(tour.spans) if name]
    assert [k for k in marks.symbol if k in "[]"] == ["[", "]"]
    assert [s for s, k in zip(marks.subtype, marks.symbol, strict=True) if k == "~"] == [1, 0, 17, 0]
    document = json.loads(write_json(tour, tmp_path / "new" / "folder").read_text())
    assert len(document["beats"]) == len(tour.beats)
    assert [r["rhythm"] for r in document["rhythms"]] == [
        "N",
        "B",
        "N",
        "AFIB",
        "N",
        "VT",
        "N",
        "VF",
        "ASYS",
        "N",
        "",
        "N",
    ]


@pytest.mark.parametrize("form", ["toml", "json"])
def test_scripts_come_from_files(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"my night.{form}"
    if form == "toml":
        path.write_text('[[segment]]\nkind = "af"\nseconds = 40\nhr_bpm = 110\n[[segment]]\nkind = "vf"\nseconds = 5\n')
    else:
        path.write_text(json.dumps([{"kind": "af", "seconds": 40, "hr_bpm": 110}, {"kind": "vf", "seconds": 5}]))
    script = load_script(str(path))
    assert isinstance(script, Script)
    assert script.name == "my_night"
    assert [(s.kind, s.seconds) for s in script.segments] == [("af", 40), ("vf", 5)]
    assert script.segments[0].parameters == {"hr_bpm": 110, "rr_cv": 0.22, "f_hz": 6}
    assert write_wfdb(simulate(script, seed=1), tmp_path).name == "my_night"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "1 to 1000 segments"),
        ({"segments": []}, "unknown key 'segments'"),
        ({"segment": "af"}, "1 to 1000 segments"),
        (["af"], "segment 1: not a table"),
        (
            [{"kind": "sinus", "seconds": 5}, {"kind": "flutter", "seconds": 5}],
            "segment 2: kind 'flutter' is not one of",
        ),
        ([{"kind": "sinus"}], "seconds must be a number from 1 to 3600"),
        ([{"kind": "sinus", "seconds": 1e9}], "seconds must be"),
        ([{"kind": "sinus", "seconds": True}], "seconds must be"),
        ([{"kind": "sinus", "seconds": 5, "hr": 60}], "sinus has no 'hr'; it has seconds, hr_bpm"),
        ([{"kind": "af", "seconds": 5, "hr_bpm": 999}], "hr_bpm must be a number from 40 to 220, not 999"),
    ],
)
def test_mistakes_in_scripts_are_explained(tmp_path: Path, document: Any, words: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps(document))
    with pytest.raises(BadInputError) as caught:
        load_script(str(path))
    assert words in str(caught.value)
    assert "script.json" in str(caught.value)


def test_unreadable_scripts_and_impossible_simulations_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[segment")
    (tmp_path / "bad.json").write_bytes(b"\xff")
    for name in ("bad.toml", "bad.json", "absent.toml"):
        with pytest.raises(BadInputError, match=name):
            load_script(str(tmp_path / name))
    script = load_script(next(iter(BUILT_IN)))
    for options in (
        {"seed": -1},
        {"seed": 1, "fs_hz": 10.0},
        {"seed": 1, "duration_s": 0.0},
        {"seed": 1, "duration_s": 1e9},
    ):
        with pytest.raises(BadInputError):
            simulate(script, **options)  # type: ignore[arg-type]
