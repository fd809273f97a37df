"""Records read from WFDB and EDF: the same digits as the files, and a clear refusal of anything broken."""

from __future__ import annotations

import contextlib
import datetime
import os
import random
import shutil
from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb

from edge.chunk import MISSING
from edge.errors import BadInputError
from edge.sources import wfdb_file
from edge.sources.record import read_record


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("mitdb/100", ("MLII", "V5")),
        ("vfdb/422", ("ECG", "ECG")),
        ("cinc2017/A04791", ("ECG",)),
        ("ludb/data/1", ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")),
    ],
)
def test_wfdb_equals_the_reference_reader(ecg_data: Path, path: str, leads: tuple[str, ...]) -> None:
    record = read_record(ecg_data / path)
    reference = wfdb.rdrecord(str(ecg_data / path))
    assert record.leads == leads
    assert record.fs_hz == reference.fs
    mv = record.samples * np.array(record.uv_per_lsb)[:, None] / 1000
    np.testing.assert_allclose(mv.T, reference.p_signal, atol=1e-9)


def _write_wfdb(folder: Path, name: str, samples: np.ndarray, **header: object) -> Path:
    n_sig = samples.shape[0]
    settings: dict[str, object] = {
        "fs": 250,
        "units": ["mV"] * n_sig,
        "sig_name": ["II", "V1", "V2"][:n_sig],
        "fmt": ["16"] * n_sig,
        "adc_gain": [200.0] * n_sig,
        "baseline": [1024] * n_sig,
    }
    wfdb.wrsamp(name, d_signal=samples.T, write_dir=str(folder), **{**settings, **header})
    return folder / name


def test_baseline_is_subtracted_and_invalid_samples_are_missing(tmp_path: Path) -> None:
    digital = np.array([[1024, 1025, -32768, 1000]])
    record = read_record(
        _write_wfdb(tmp_path, "a", digital, base_time=datetime.time(), base_date=datetime.date(2024, 2, 29))
    )
    assert record.samples.tolist() == [[0, 1, MISSING, -24]]
    assert record.uv_per_lsb == (5.0,)
    assert record.start_utc_ns == 1_709_164_800_000_000_000


def test_an_inverted_signal_keeps_its_sign_in_mv(tmp_path: Path) -> None:
    path = _write_wfdb(tmp_path, "a", np.array([[0, 10]]), adc_gain=[100.0], baseline=[0])
    header = tmp_path / "a.hea"
    header.write_text(header.read_text().replace(" 100.0(0)", " -100.0(0)"))
    record = read_record(path)
    assert record.samples.tolist() == [[0, -10]]
    assert record.uv_per_lsb == (10.0,)


def test_segments_join_and_the_hole_between_them_is_missing(tmp_path: Path) -> None:
    _write_wfdb(tmp_path, "s1", np.array([[1, 2, 3]]), baseline=[0])
    _write_wfdb(tmp_path, "s2", np.array([[4, 5]]), baseline=[0], adc_gain=[100.0])
    (tmp_path / "m.hea").write_text("m/3 1 250 7\ns1 3\n~ 2\ns2 2\n")
    record = read_record(tmp_path / "m")
    assert record.samples.tolist() == [[1, 2, 3, MISSING, MISSING, 8, 10]]  # brought to the finer gain
    (tmp_path / "m.hea").write_text("m/3 1 250 9\ns1 3\n~ 2\ns2 2\n")
    with pytest.raises(BadInputError, match="add up to 7"):
        read_record(tmp_path / "m")


def test_leads_of_a_variable_layout_are_found_by_name(tmp_path: Path) -> None:
    _write_wfdb(tmp_path, "s1", np.array([[1, 2]]), baseline=[0])
    _write_wfdb(tmp_path, "s2", np.array([[7, 8], [4, 5]]), baseline=[0, 0], sig_name=["V1", "II"])
    (tmp_path / "lay.hea").write_text("lay 2 250 0\n~ 0 200 0 0 0 0 0 II\n~ 0 200 0 0 0 0 0 V1\n")
    (tmp_path / "m.hea").write_text("m/3 2 250 4\nlay 0\ns1 2\ns2 2\n")
    record = read_record(tmp_path / "m")
    assert record.leads == ("II", "V1")
    assert record.samples.tolist() == [[1, 2, 4, 5], [MISSING, MISSING, 7, 8]]


def test_leads_are_chosen_by_name_or_number_and_unknown_ones_list_the_options(tmp_path: Path) -> None:
    path = _write_wfdb(tmp_path, "a", np.arange(6).reshape(3, 2), baseline=[0] * 3)
    assert read_record(path, ["v2", 0]).samples.tolist() == [[4, 5], [0, 1]]
    assert read_record(path, ["1"]).leads == ("V1",)
    for wrong in (["V6"], [3], [0, "II"], []):
        with pytest.raises(BadInputError, match="0: II, 1: V1, 2: V2"):
            read_record(path, wrong)


def test_other_signals_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = _write_wfdb(tmp_path, "a", np.arange(4).reshape(2, 2), units=["mV", "mmHg"], sig_name=["II", "ABP"])
    record = read_record(path)
    assert record.leads == ("II",)
    assert record.notes == ("signal 1 (ABP, 250 Hz) left out",)
    with pytest.raises(BadInputError, match="not a voltage"):
        read_record(path, ["ABP"])


def test_a_truncated_or_missing_signal_file_is_refused(tmp_path: Path) -> None:
    path = _write_wfdb(tmp_path, "a", np.zeros((1, 1000), int))
    os.truncate(tmp_path / "a.dat", 1500)
    with pytest.raises(BadInputError, match="truncated"):
        read_record(path)
    (tmp_path / "a.dat").unlink()
    with pytest.raises(BadInputError, match="No such file"):
        read_record(path)
    with pytest.raises(BadInputError, match="no such record"):
        read_record(tmp_path / "b")


@pytest.mark.parametrize(
    "header",
    [
        "a 1 250 99999999999\na.dat 16 200 16 0 0 0 0 II\n",
        "a 1 250 99999999999\na.dat 516 200 16 0 0 0 0 II\n",
        "a 2 250 10\na.dat 16 200 16 0 0 0 0 II\n",
        "a 1 1e9 10\na.dat 16 200 16 0 0 0 0 II\n",
        "a 1 250 10\n../a.dat 16 200 16 0 0 0 0 II\n",
        "a 1 250 10\na.dat 77 200 16 0 0 0 0 II\n",
        "a 1 250 10\na.dat 16 1e-300 16 0 0 0 0 II\n",
        "a/2 1 250 20\na 10\na 10\n",
        "a 0 250 10\n",
        "\x00\x01",
        "",
    ],
)
def test_hostile_headers_are_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(20))
    (tmp_path / "a.hea").write_text(header)
    with pytest.raises(BadInputError):
        read_record(tmp_path / "a")


def test_mutated_headers_never_crash(tmp_path: Path) -> None:
    path = _write_wfdb(tmp_path, "a", np.arange(40).reshape(2, 20))
    good = (tmp_path / "a.hea").read_bytes()
    rng = random.Random(1)
    for _ in range(500):
        text = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            text[rng.randrange(len(text))] = rng.choice(b"0123456789/+.-( )eE~aI\n\xff")
        (tmp_path / "a.hea").write_bytes(text)
        with contextlib.suppress(BadInputError):
            read_record(path)


def _edf(folder: Path, *signals: edfio.EdfSignal, **extra: object) -> Path:
    path = folder / "a.edf"
    edfio.Edf(list(signals), **extra).write(path)  # type: ignore[arg-type]
    return path


def _signal(digital: np.ndarray, fs: float = 250, label: str = "ECG II", **extra: object) -> edfio.EdfSignal:
    settings: dict[str, object] = {"physical_range": (-5, 5), "physical_dimension": "mV", **extra}
    return edfio.EdfSignal.from_digital(digital.astype(np.int16), fs, label=label, **settings)  # type: ignore[arg-type]


def test_edf_is_exact_but_for_less_than_half_a_unit_of_offset(tmp_path: Path) -> None:
    digital = np.random.default_rng(0).integers(-3000, 3000, 500)
    start = datetime.time(1, 2, 3, 500_000)
    path = _edf(
        tmp_path,
        _signal(digital),
        _signal(np.arange(20), fs=10, label="Resp"),
        starttime=start,
        annotations=[],
        recording=edfio.Recording(startdate=datetime.date(2024, 1, 1)),
    )
    record = read_record(path)
    assert record.leads == ("II",)
    assert record.notes == ("signal 1 (Resp, 10 Hz) left out",)
    mv = record.samples[0] * record.uv_per_lsb[0] / 1000
    assert np.abs(mv - edfio.read_edf(path).signals[0].data).max() <= 0.5 * record.uv_per_lsb[0] / 1000 + 1e-12
    assert np.array_equal(np.diff(record.samples[0]), np.diff(digital))
    assert record.start_utc_ns == 1_704_067_200_000_000_000 + 3_723_500_000_000


def test_an_edf_d_hole_is_missing_and_the_grid_continuous(tmp_path: Path) -> None:
    path = _edf(tmp_path, _signal(np.arange(750)), data_record_duration=1, annotations=[])
    raw = path.read_bytes()
    raw = raw.replace(b"EDF+C", b"EDF+D").replace(b"+2\x14\x14", b"+4\x14\x14")
    path.write_bytes(raw)
    record = read_record(path)
    assert record.n == 5 * 250
    assert (record.samples[0, 500:1000] == MISSING).all()
    assert np.array_equal(np.diff(record.samples[0, 1000:]), np.ones(249))
    path.write_bytes(raw.replace(b"+4\x14\x14", b"+0\x14\x14"))
    with pytest.raises(BadInputError, match="overlap"):
        read_record(path)


def test_a_far_away_edf_d_record_is_refused_before_allocation(tmp_path: Path) -> None:
    path = _edf(
        tmp_path, _signal(np.arange(750)), data_record_duration=1, annotations=[edfio.EdfAnnotation(2, None, "x" * 20)]
    )
    raw = path.read_bytes().replace(b"EDF+C", b"EDF+D")
    at = raw.index(b"+2\x14\x14")
    path.write_bytes(raw[:at] + b"+999999999\x14\x14\x00" + raw[at + 13 :])
    with pytest.raises(BadInputError, match="too long"):
        read_record(path)


def test_edf_leads_of_two_rates(tmp_path: Path) -> None:
    path = _edf(tmp_path, _signal(np.arange(500)), _signal(np.arange(1000), fs=500, label="ECG V1"))
    assert read_record(path).leads == ("II",)
    assert read_record(path, ["V1"]).fs_hz == 500
    with pytest.raises(BadInputError, match="different rates"):
        read_record(path, [0, 1])


def test_broken_edf_files_are_refused(tmp_path: Path) -> None:
    path = _edf(tmp_path, _signal(np.arange(750)), data_record_duration=1)
    good = path.read_bytes()
    for size in (0, 100, 256, 511, 512, 600, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(BadInputError):
            read_record(path)
    rng = random.Random(2)
    for _ in range(500):
        text = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            text[rng.randrange(512)] = rng.choice(b"0123456789+-. eE:\xff")
        path.write_bytes(text)
        with contextlib.suppress(BadInputError):
            read_record(path)
    shutil.copy(path, tmp_path / "a.bin")
    with pytest.raises(BadInputError, match="unknown format"):
        read_record(tmp_path / "a.bin")


@pytest.mark.parametrize("fmt", ["80", "212", "16", "24", "32"])
def test_every_signal_format_reads_the_same_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    bits = {"80": 8, "212": 12}.get(fmt, 16)
    digital = np.random.default_rng(0).integers(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1), (2, 1001))
    digital[0, 77] = -(2 ** (max(bits, {"24": 24, "32": 32}.get(fmt, bits)) - 1))
    path = _write_wfdb(tmp_path, "a", digital, baseline=[3, -5], fmt=[fmt] * 2)
    expected = digital - np.array([[3], [-5]])
    expected[0, 77] = MISSING
    assert np.array_equal(read_record(path).samples, expected)
    monkeypatch.setattr(wfdb_file, "_SLICE_FRAMES", 64)
    assert np.array_equal(read_record(path).samples, expected)


@pytest.mark.parametrize("fmt", ["310", "311", "160", "8"])
def test_rarer_formats_read_the_same_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str) -> None:
    (tmp_path / "a.dat").write_bytes(np.random.default_rng(0).bytes(6000))
    (tmp_path / "a.hea").write_text(f"a 2 250 997\na.dat {fmt} 200 16 0 0 0 0 II\na.dat {fmt} 200 16 0 0 0 0 V1\n")
    whole = read_record(tmp_path / "a").samples
    monkeypatch.setattr(wfdb_file, "_SLICE_FRAMES", 64)
    assert np.array_equal(read_record(tmp_path / "a").samples, whole)
    assert len(np.unique(whole)) > 100


def test_a_lead_with_several_samples_per_frame_has_their_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wfdb_file, "_SLICE_FRAMES", 2)
    (tmp_path / "a.dat").write_bytes(np.arange(15, dtype="<i2").tobytes())
    (tmp_path / "a.hea").write_text("a 2 125 5\na.dat 16x2 200 16 0 0 0 0 II\na.dat 16 1/mmHg 16 0 0 0 0 ABP\n")
    record = read_record(tmp_path / "a")
    assert record.fs_hz == 250
    assert record.samples.tolist() == [[0, 1, 3, 4, 6, 7, 9, 10, 12, 13]]
