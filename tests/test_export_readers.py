"""Readers of what has no signal (afdb) or no beats (cinc2015), and unpacking what was fetched."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge.encoder.contract import RHYTHMS
from edge.errors import BadInputError
from edge.rhythm.rules import Rules
from export.datasets import afdb, cinc2015
from export.datasets.fetch import SOURCES, fetch, unpack
from export.datasets.folders import records_folder

pytestmark = pytest.mark.export


def _needs(db: str) -> None:
    if not records_folder(db).is_dir():
        pytest.skip(f"recordings absent: {records_folder(db)} (python -m export.datasets fetch {db})")


def test_afdb_has_beats_and_their_rhythm() -> None:
    _needs("afdb_ann")
    pulse = afdb.read("04015")
    assert pulse.at_s.size == 44_005
    assert pulse.at_s[-1] == pytest.approx(10 * 3600, abs=60)
    assert (np.diff(pulse.at_s) > 0).all()
    af = pulse.rhythm == RHYTHMS.index("AFIB")
    first = float(pulse.at_s[af][0])
    assert first == pytest.approx(102_584 / 250, abs=1.5), "the first mark of AF"
    assert 0.003 < af.mean() < 0.02


def test_the_limit_for_a_regular_pulse_spares_af() -> None:
    """The floor of the rule: of the AF of 25 people at most one window in a hundred is taken for a regular pulse."""
    _needs("afdb_ann")
    found = afdb.regular(Rules().rhythm.regular)
    assert found["af_windows"] > 500_000
    assert found["af_taken_for_regular"] < 0.01
    assert found["other_taken_for_regular"] > 0.7


def test_irregularity_of_known_intervals() -> None:
    at_s = np.cumsum([0.8, 0.9] * 20)
    pulse = afdb.Pulse("x", at_s, np.full(40, RHYTHMS.index("N"), np.int8))
    ratio, rhythm = afdb.irregularity(pulse)
    assert ratio == pytest.approx(0.1 / 0.85)
    assert set(rhythm.tolist()) == {RHYTHMS.index("N")}
    mixed = afdb.Pulse("x", at_s, np.repeat([0, 1], 20).astype(np.int8))
    assert afdb.irregularity(mixed)[0].size == 20, "windows across a change of rhythm say nothing"


def test_alarms_of_the_icu_challenge() -> None:
    _needs("cinc2015")
    alarms = cinc2015.load()
    assert len(alarms) > 150
    assert sum(alarm.rule == "vf" and alarm.is_true for alarm in alarms) == 2
    one = cinc2015.read("a103l")
    assert (one.rule, one.is_true, one.part, one.leads) == ("asystole", False, "test", ("II", "V"))
    assert {alarm.part for alarm in cinc2015.load("validation")} == {"validation"}
    with pytest.raises(BadInputError, match="no record"):
        cinc2015.number("100")


def test_archives_are_laid_flat_and_stay_inside(tmp_path: Path) -> None:
    archive = tmp_path / "training.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("training/a103l.hea", "header")
        packed.writestr("../../outside.hea", "header")
    unpack(archive, tmp_path / ".")
    assert (tmp_path / "a103l.hea").read_text() == "header"
    assert (tmp_path / "outside.hea").exists()
    assert not (tmp_path.parent / "outside.hea").exists()
    archive.write_bytes(b"no zip")
    with pytest.raises(BadInputError, match="fetch again"):
        unpack(archive, tmp_path)


def test_fetch_asks_for_what_the_readers_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[str]] = {}

    def dl_files(slug: str, folder: str, files: list[str]) -> None:
        asked[slug] = files
        for name in files:
            if name.endswith(".zip"):
                with zipfile.ZipFile(Path(folder) / name, "w") as packed:
                    packed.writestr("training2017/A00001.hea", "header")

    monkeypatch.setattr("wfdb.dl_files", dl_files)
    monkeypatch.setattr("wfdb.get_record_list", lambda slug: ["04015"])
    for name in ("afdb_ann", "cinc2017", "ptbxl_500"):
        fetch(name, tmp_path / name)
    assert asked["afdb"] == ["04015.hea", "04015.atr", "04015.qrs"]
    assert (tmp_path / "cinc2017" / "A00001.hea").exists()
    assert "records100/00000/00500_lr.dat" in asked["ptb-xl"]
    assert set(SOURCES) >= {"mitdb", "svdb", "vfdb", "nstdb", "ludb", "cinc2015"}
