"""`anyecg analyze` as a user runs it: real records in, files that others read out, clear words when it cannot."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest
import wfdb

from edge.analysis_files import document
from edge.analyze import Analyzer
from edge.chunk import MISSING
from edge.encoder.card import Card, shipped_card
from edge.encoder.library import INT8
from edge.encoder.session import Encoder
from edge.sources.record import Record, read_record


def anyecg(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", "analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return Analyzer(Encoder(Card.load(), provider="cpu"))


def facts(analyzer: Analyzer, record: Record) -> dict[str, Any]:
    """The document without what differs from run to run."""
    found = document(analyzer.analyze(record), analyzer.identity)
    del found["timing"]
    return found


def part(record: Record, start: int, end: int, **changes: Any) -> Record:
    values = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    return Record(**{**values, "samples": record.samples[:, start:end], **changes})


def matches(found: np.ndarray, truth: np.ndarray, tolerance: float) -> int:
    """How many of `truth` have a found one within the tolerance."""
    at = np.clip(np.searchsorted(found, truth), 1, len(found) - 1)
    return int((np.minimum(abs(found[at] - truth), abs(found[at - 1] - truth)) <= tolerance).sum())


@pytest.fixture(scope="module")
def written(ecg_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analyze")
    done = anyecg(ecg_data / "mitdb/200", "--lead", "MLII", "--wfdb", folder, "--json", folder / "deep/er")
    assert done.returncode == 0, done.stderr
    assert "200 (MLII)" in done.stdout
    return folder


def test_annotations_of_record_200_can_be_read_and_are_near_the_truth(written: Path, ecg_data: Path) -> None:
    ours = wfdb.rdann(str(written / "200"), "edge")
    truth = wfdb.rdann(str(ecg_data / "mitdb/200"), "atr")
    assert ours.fs == 360
    assert (np.diff(ours.sample) >= 0).all()
    assert set(ours.symbol) <= set("NSVFQ+~")
    symbols = np.array(ours.symbol)
    beats = ours.sample[np.isin(symbols, list("NSVFQ"))]
    true_beats = truth.sample[np.isin(truth.symbol, list("NAVF"))]
    assert matches(beats, true_beats, 54) >= 0.99 * len(true_beats)
    assert matches(true_beats, beats, 54) >= 0.99 * len(beats)
    v = Counter(ours.symbol)["V"]
    assert 700 <= v <= 950, "the record has 826"
    rhythms = [note for note, symbol in zip(ours.aux_note, ours.symbol, strict=True) if symbol == "+"]
    assert rhythms[0].startswith("(")


def test_json_of_record_200_has_the_promised_shape(written: Path) -> None:
    found = json.loads((written / "deep/er/200.json").read_text(encoding="utf-8"))
    assert list(found) == [
        *("record", "leads", "fs", "duration_s", "readable_fraction", "beats", "rhythms", "events"),
        *("analysis", "timing"),
    ]
    assert (found["record"], found["leads"], found["fs"]) == ("200", ["MLII"], 360)
    assert found["duration_s"] == pytest.approx(650_000 / 360, abs=1e-3)
    assert 0.9 < found["readable_fraction"] <= 1
    assert set(found["beats"][0]) == {"t_s", "type", "confidence"}
    assert all(0 <= beat["confidence"] <= 1 for beat in found["beats"])
    assert found["rhythms"][0]["start_s"] == 0
    assert found["rhythms"][-1]["end_s"] == pytest.approx(found["duration_s"], abs=1e-3)
    assert all(a["end_s"] == b["start_s"] for a, b in zip(found["rhythms"], found["rhythms"][1:], strict=False))
    assert {"id", "rule", "severity", "start_s", "end_s"} <= set(found["events"][0])
    assert "ectopy_rate" in {event["rule"] for event in found["events"]}
    assert found["analysis"]["weights_sha256"] == Card.load(shipped_card().parent / INT8).sha256
    assert found["timing"]["realtime_factor"] > 0


def test_annotations_and_json_say_the_same(written: Path) -> None:
    ours = wfdb.rdann(str(written / "200"), "edge")
    found = json.loads((written / "deep/er/200.json").read_text(encoding="utf-8"))
    marks = [(s, t) for s, t in zip(ours.sample, ours.symbol, strict=True) if t in "NSVFQ"]
    assert [(round(beat["t_s"] * 360), beat["type"]) for beat in found["beats"]] == marks


def test_bad_records_are_told_and_the_others_still_run(ecg_data: Path, tmp_path: Path) -> None:
    for suffix in (".hea", ".dat"):
        shutil.copy(ecg_data / f"mitdb/100{suffix}", tmp_path / f"100{suffix}")
    with (tmp_path / "100.dat").open("r+b") as file:
        file.truncate(100_000)
    done = anyecg(tmp_path / "100", ecg_data / "cinc2017/A00001", tmp_path / "none", "--json", tmp_path / "out")
    assert done.returncode == 2
    assert "100.dat: truncated, 100000 bytes where the header promises" in done.stderr
    assert "none: no such record (looked for none.hea" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["A00001.json"]


def test_an_unknown_lead_lists_the_options(ecg_data: Path) -> None:
    done = anyecg(ecg_data / "mitdb/200", "--lead", "aVF")
    assert done.returncode == 2
    assert "no lead 'aVF'; choose one of 0: MLII, 1: V1" in done.stderr


def test_a_lead_can_be_an_index(ecg_data: Path, tmp_path: Path) -> None:
    done = anyecg(ecg_data / "mitdb/200", "--lead", "1", "--json", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "200.json").read_text(encoding="utf-8"))["leads"] == ["V1"]


def test_records_that_would_overwrite_each_other_are_refused(ecg_data: Path, tmp_path: Path) -> None:
    done = anyecg(ecg_data / "mitdb/200", tmp_path / "200", "--wfdb", tmp_path)
    assert done.returncode == 2
    assert "more than one record is called 200" in done.stderr


def test_a_folder_that_is_a_file_is_refused(ecg_data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("", encoding="utf-8")
    done = anyecg(ecg_data / "mitdb/200", "--json", tmp_path / "out")
    assert done.returncode == 2
    assert "out cannot be used as a folder" in done.stderr


def test_an_unknown_provider_lists_the_options(ecg_data: Path) -> None:
    done = anyecg(ecg_data / "mitdb/200", "--provider", "npu")
    assert done.returncode == 2
    assert "choose one of auto, cpu, cuda, tensorrt" in done.stderr


def test_workers_do_not_change_the_result(analyzer: Analyzer, ecg_data: Path) -> None:
    record = read_record(ecg_data / "mitdb/203", ["MLII"])
    alone = Analyzer(analyzer.encoder, workers=1)
    assert facts(alone, record) == facts(analyzer, record)


def test_a_gap_is_a_gap(analyzer: Analyzer, ecg_data: Path) -> None:
    record = part(read_record(ecg_data / "mitdb/100", ["MLII"]), 0, 240 * 360)
    holed = record.samples.copy()
    holed[:, 90 * 360 : 150 * 360] = MISSING
    analysis = analyzer.analyze(part(record, 0, record.n, samples=holed))
    whole = analyzer.analyze(record)
    assert not [beat for beat in analysis.beats if 90 * 360 <= beat.sample < 150 * 360]
    assert 0.70 < analysis.readable_fraction < 0.76
    assert whole.readable_fraction > 0.99
    (gap,) = [finding for finding in analysis.findings if finding.rule == "gap"]
    assert gap.start_sample / 360 == pytest.approx(90, abs=1)
    assert gap.end_sample / 360 == pytest.approx(150, abs=1)
    assert [state for _, state in analysis.signals][:3] == ["readable", "gap", "readable"]
    assert not [finding for finding in analysis.findings if finding.rule in ("pause", "asystole")]


def test_edf_d_gaps_and_odd_names(ecg_data: Path, tmp_path: Path) -> None:
    record = read_record(ecg_data / "mitdb/100", ["MLII"])
    volts = record.samples[0, : 120 * 360] * record.uv_per_lsb[0] / 1000
    signal = edfio.EdfSignal(volts, 360, label="ECG II", physical_dimension="mV", physical_range=(-6, 6))
    start = datetime.time(8, 30)
    path = tmp_path / "wearer [1] (night).edf"
    edfio.Edf([signal], starttime=start, data_record_duration=1, annotations=[edfio.EdfAnnotation(0, None, "x")]).write(
        path
    )
    make_discontinuous(path, jump_at=60, by_s=30)
    done = anyecg(path, "--wfdb", tmp_path / "out", "--json", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out/wearer [1] (night).json").read_text(encoding="utf-8"))
    assert found["duration_s"] == pytest.approx(150)
    assert not [beat for beat in found["beats"] if 60.5 < beat["t_s"] < 89.5]
    assert [beat for beat in found["beats"] if beat["t_s"] > 95]
    assert "wearer [1]" in done.stdout
    assert (tmp_path / "out/wearer [1] (night).edge").stat().st_size > 100


def make_discontinuous(path: Path, *, jump_at: int, by_s: int) -> None:
    """Turn an EDF+C file of 1-s data records into an EDF+D one with a hole before record `jump_at`."""
    raw = bytearray(path.read_bytes())
    raw[192:197] = b"EDF+D"
    begin, records = int(raw[184:192]), int(raw[236:244])
    size = (len(raw) - begin) // records
    for i in range(jump_at, records):
        at = raw.index(b"+%d\x14\x14" % i, begin + i * size, begin + (i + 1) * size)
        old, new = b"+%d\x14\x14\x00" % i, b"+%d\x14\x14" % (i + by_s)
        room = bytes(raw[at : at + len(new)])
        assert room.rstrip(b"\x00") == old.rstrip(b"\x00")
        raw[at : at + len(new)] = new
    path.write_bytes(raw)


def test_a_short_and_an_empty_looking_recording(analyzer: Analyzer, ecg_data: Path, tmp_path: Path) -> None:
    record = read_record(ecg_data / "mitdb/100", ["MLII"])
    second = analyzer.analyze(part(record, 0, 360))
    assert second.readable_fraction <= 1
    nothing = part(record, 0, 3600, samples=np.full((1, 3600), MISSING, np.int32))
    analysis = analyzer.analyze(nothing)
    assert (analysis.beats, analysis.readable_fraction) == ([], 0)
    assert "gap" in {finding.rule for finding in analysis.findings} | {state for _, state in analysis.signals}


def test_int8_is_another_form_of_the_same_weights(ecg_data: Path, tmp_path: Path) -> None:
    told = {}
    for precision in ("fp32", "int8"):
        done = anyecg(ecg_data / "cinc2017/A00001", "--precision", precision, "--json", tmp_path / precision)
        assert done.returncode == 0, done.stderr
        told[precision] = json.loads((tmp_path / precision / "A00001.json").read_text())
    one, other = told["fp32"], told["int8"]
    assert one["analysis"]["checkpoint"] == other["analysis"]["checkpoint"]
    assert one["analysis"]["weights_sha256"] != other["analysis"]["weights_sha256"]
    assert [beat["type"] for beat in one["beats"]] == [beat["type"] for beat in other["beats"]]
    refused = anyecg(ecg_data / "mitdb/100", "--precision", "int4")
    assert refused.returncode == 2
    assert "fp32, int8, auto" in refused.stderr
