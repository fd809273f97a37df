"""Labels come out of the databases as the traps in `export.datasets.labels` demand; the Polar CSV becomes WFDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from edge.encoder.contract import BEAT_CLASSES, MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS, WAVES
from edge.errors import BadInputError
from export.datasets import ptbxl
from export.datasets.folders import data_folder, records_folder, tables_folder
from export.datasets.polar import convert
from export.datasets.reader import digital, names, read
from export.datasets.record import NOT_AF, UNKNOWN, Record
from export.datasets.splits import DS2, FOLDS, PACED, fold

pytestmark = pytest.mark.export


def _read(db: str, name: str) -> Record:
    if not (data_folder() / db / f"{name}.hea").exists():
        pytest.skip(f"recordings absent: {data_folder() / db} (python -m export.datasets fetch {db})")
    return read(db, name)


def _seconds(record: Record, name: str) -> int:
    return int((record.rhythm == RHYTHMS.index(name)).sum())


def test_mitdb_beats_lie_on_their_r_peaks() -> None:
    record = _read("mitdb", "100")
    # of 2,273 beats the last lies in the broken second at the end, which is left out
    assert np.bincount(record.beat, minlength=len(BEAT_CLASSES)).tolist() == [2238, 33, 1, 0, 0]
    at = np.rint(record.beat_at).astype(int)[1:-1]
    near = np.stack([record.ecg[0, at + shift] for shift in range(-8, 9)])
    assert (np.abs(near.argmax(axis=0) - 8) <= 2).mean() > 0.99
    assert np.median(near.max(axis=0)) == pytest.approx(1.1, abs=0.3)
    assert _seconds(record, "N") == record.seconds


def test_flutter_waves_are_not_beats_and_their_seconds_are_unknown() -> None:
    record = _read("mitdb", "207")
    flutter = record.rhythm == RHYTHMS.index("VF")
    assert flutter.sum() > 100
    assert (~record.beats_known & flutter).sum() > 0.9 * flutter.sum()
    assert record.beats_known[~flutter].mean() > 0.97


def test_vfdb_names_mean_what_its_documentation_says() -> None:
    block = _read("vfdb", "428")
    assert _seconds(block, "N") > 2000
    assert not block.beats_known.any()
    assert _seconds(_read("vfdb", "602"), "P") > 1400
    doubted = _read("vfdb", "418")
    assert _seconds(doubted, "VF") > 200
    assert _seconds(doubted, "N") == 0
    stops = _read("vfdb", "424")
    asystole = stops.rhythm == RHYTHMS.index("ASYS")
    assert asystole.sum() > 50
    assert stops.beats_known[asystole].all()
    assert (stops.quality == 0).sum() > 200
    assert (stops.rhythm[stops.quality == 0] == UNKNOWN).all()


def test_cinc2017_labels_say_no_more_than_they_know() -> None:
    if not (data_folder() / "cinc2017" / "REFERENCE-v3.csv").exists():
        pytest.skip(f"recordings absent: {data_folder() / 'cinc2017'}")
    found = {name: read("cinc2017", name) for name in ("A00001", "A00004", "A00008", "A00022")}
    assert set(found["A00001"].rhythm) == {RHYTHMS.index("N")}
    assert set(found["A00004"].rhythm) == {RHYTHMS.index("AFIB")}
    assert set(found["A00008"].rhythm) == {NOT_AF}
    assert set(found["A00022"].rhythm) == {UNKNOWN}
    assert set(found["A00022"].quality) == {0}
    assert all(not record.beats_known.any() for record in found.values())


def test_large_samples_are_samples() -> None:
    """WFDB marks what was not recorded with the lowest value of the storage format, not of the 10-bit converter."""
    record = _read("svdb", "891")
    assert record.ecg.shape == (2, record.seconds * MODEL_FS_HZ)
    assert digital("svdb", "891")[0].min() == -656
    assert np.isfinite(record.ecg).all()


def test_every_test_record_is_present() -> None:
    if not (data_folder() / "mitdb").is_dir():
        pytest.skip(f"recordings absent: {data_folder() / 'mitdb'}")
    assert len(names("mitdb", "test")) == 22


def test_a_database_that_is_absent_says_how_to_fetch_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ECG_DATA", str(tmp_path))
    with pytest.raises(BadInputError, match="fetch mitdb"):
        names("mitdb", "train")


def test_polar_csv_becomes_wfdb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "polar.csv"
    source.write_text("time,ecg,hr,rr\n1.7e18,-0.098,,\n1.7e18,0.0721,60,1000\n", encoding="utf-8")
    record = wfdb.rdrecord(str(convert(source, tmp_path / "out")), physical=False)
    assert record.fs == 130
    assert record.adc_gain == [1000.0]
    assert record.d_signal[:, 0].tolist() == [-98, 72]
    source.write_text("time,ecg,hr,rr\n1.7e18,-0.098,,\n1.7e18,none,,\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="line 3"):
        convert(source, tmp_path / "out")


def test_ludb_waves_lie_where_the_cardiologists_drew_them() -> None:
    if not (records_folder("ludb") / "1.hea").exists():
        pytest.skip(f"recordings absent: {records_folder('ludb')} (python -m export.datasets fetch ludb)")
    record = read("ludb", "1")
    assert record.wave is not None
    assert record.wave.shape == record.ecg.shape == (12, 1280)
    drawn = wfdb.rdann(str(records_folder("ludb") / "1"), "ii")
    qrs = [i for i, symbol in enumerate(drawn.symbol) if symbol == "N"]
    wave = record.wave[1]
    for i in qrs:
        on, peak, off = (drawn.sample[j] * MODEL_FS_HZ / 500 for j in (i - 1, i, i + 1))
        inside = np.flatnonzero(wave[int(peak) - 20 : int(peak) + 20] == WAVES.index("QRS")) + int(peak) - 20
        assert abs(inside[0] - on) <= 1
        assert abs(inside[-1] - off) <= 1
        assert np.abs(record.beat_at - peak).min() <= 3
    assert (wave[: int(drawn.sample[0] * MODEL_FS_HZ / 500)] == UNKNOWN).all()
    assert set(record.beat) == {UNKNOWN}
    assert set(record.morphology) == {MORPHOLOGIES.index("narrow")}
    assert set(record.rhythm) == {RHYTHMS.index("N")}


def test_ptbxl_statements_name_rhythm_and_shape() -> None:
    if not (tables_folder("ptbxl") / "ptbxl_database.csv").exists():
        pytest.skip(f"recordings absent: {tables_folder('ptbxl')}")
    said = {name: ptbxl.statements(name) for name in names("ptbxl", "train")}
    codes = {code: name for name in said for code in said[name] if "PVC" not in said[name]}
    for code, shape in (("CLBBB", "LBBB"), ("CRBBB", "RBBB"), ("PACE", "paced")):
        record = read("ptbxl", codes[code])
        assert set(record.morphology) == {MORPHOLOGIES.index(shape)}, code
        assert not record.beats_known.any()
    assert set(read("ptbxl", codes["AFIB"]).rhythm) <= {RHYTHMS.index("AFIB"), RHYTHMS.index("P")}
    normal = read("ptbxl", "00001_lr")
    steep = [np.ptp(normal.ecg[1, int(at) - 6 : int(at) + 7]) > 0.3 for at in normal.beat_at]
    assert sum(steep) == 8


def test_every_fold_holds_what_it_is_for() -> None:
    """Each of the five paced records and each record of vfdb is tested by exactly one fold, and DS2 by none."""
    assert sorted(fold("mitdb", name) for name in PACED) == [0, 1, 2, 3]
    assert fold("vfdb", "602") == 4
    every = [name for part in ("train", "validation", "test") for name in names("vfdb", part)]
    assert {fold("vfdb", name) for name in every} == set(range(FOLDS))
    assert all(fold("mitdb", name) is None for name in DS2)
    assert {fold("ludb", str(i)) for i in range(1, 201)} == set(range(FOLDS))
