"""Labels come out of the databases as the traps in `export.datasets.labels` demand; the Polar CSV becomes WFDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.encoder.contract import BEAT_CLASSES, MODEL_FS_HZ, RHYTHMS
from edge.errors import BadInputError
from export.datasets.polar import convert
from export.datasets.reader import data_folder, digital, names, read
from export.datasets.record import NOT_AF, UNKNOWN, Record

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
    wfdb = pytest.importorskip("wfdb")
    source = tmp_path / "polar.csv"
    source.write_text("time,ecg,hr,rr\n1.7e18,-0.098,,\n1.7e18,0.0721,60,1000\n", encoding="utf-8")
    record = wfdb.rdrecord(str(convert(source, tmp_path / "out")), physical=False)
    assert record.fs == 130
    assert record.adc_gain == [1000.0]
    assert record.d_signal[:, 0].tolist() == [-98, 72]
    source.write_text("time,ecg,hr,rr\n1.7e18,-0.098,,\n1.7e18,none,,\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="line 3"):
        convert(source, tmp_path / "out")
