"""Store → EDF+ or WFDB → store: the same samples, times and annotations, and others read what we write."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb
from exchange_kit import HOLE, ONE_LEAD, PERIOD, START, new_state, read_so_far, run, short_record, stored, value

from edge.chunk import MISSING
from edge.encoder.contract import BEAT_CLASSES
from edge.errors import BadInputError
from edge.exchange.disguise import hide, plain
from edge.sources.record import read_record
from edge.store import marks, queries
from edge.store.database import open_readonly, open_writable
from edge.store.waveform import write


@pytest.fixture(scope="module")
def state(ecg_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("round")
    path, _ = short_record(ecg_data, folder)
    state = new_state(folder / "state")
    value(state, "import", path, "--wearer", "anna", "--device", "patch", "--start", START)
    run(state, "mark", "--wearer", "anna", "--at", "2026-03-29T01:00:00+00:00", "dizzy, =1+1")
    return state


@pytest.mark.parametrize("form", ["edf", "wfdb"])
def test_a_round_trip_changes_nothing(state: Path, tmp_path: Path, form: str) -> None:
    files = value(state, "export", "--wearer", "anna", f"--{form}", tmp_path / "out", *PERIOD)["files"]
    (path,) = [f for f in files if f.endswith((".edf", "Z.hea"))]
    second = new_state(tmp_path / "second")
    for _ in range(2):  # again changes nothing
        value(second, "import", path.removesuffix(".hea"), "--wearer", "anna", "--device", "patch")
    kept, said = [], []
    for folder in (state, second):
        engine = open_readonly(folder)
        with engine.connect() as conn:
            recording, samples = stored(conn, "anna")
            kept.append((recording, samples, read_so_far(conn, recording)))
            found = marks.in_period(conn, "anna", 0, 2**62)
            said.append([(m.kind, round(m.at_ns / 1e6), m.note) for m in found])
        engine.dispose()
    (before, samples, reading), (after, samples_again, reading_again) = kept
    np.testing.assert_array_equal(samples, samples_again)
    assert (samples[:, HOLE[0] : HOLE[1]] == MISSING).all()
    assert (samples[1, ONE_LEAD[0] : ONE_LEAD[1]] == MISSING).all()
    assert (samples[0, ONE_LEAD[0] : ONE_LEAD[1]] != MISSING).all()
    assert (before.leads, before.fs_hz, before.uv_per_lsb) == (after.leads, after.fs_hz, after.uv_per_lsb)
    assert before.to_utc_ns(0) == after.to_utc_ns(0)
    assert before.to_utc_ns(100_000) == after.to_utc_ns(100_000)
    assert reading == reading_again
    assert len(reading[0]) > 300
    assert said[0] == said[1]
    assert [kind for kind, _, _ in said[0]] == ["symptom"]


def test_edfio_reads_signals_and_annotations(state: Path, tmp_path: Path) -> None:
    (path,) = value(state, "export", "--wearer", "anna", "--edf", tmp_path, *PERIOD)["files"]
    edf = edfio.read_edf(path)
    assert edf.reserved == "EDF+D"
    assert [s.label for s in edf.signals] == ["ECG MLII", "ECG V1"]
    assert edf.signals[0].sampling_frequency == 360
    assert (str(edf.startdate), edf.starttime.replace(microsecond=0).isoformat()) == ("2026-03-29", "00:58:30")
    engine = open_readonly(state)
    with engine.connect() as conn:
        recording, samples = stored(conn, "anna")
        beats = queries.beats(conn, recording, 0, recording.end_sample)
    engine.dispose()
    first = samples[0, :360] * recording.uv_per_lsb[0]
    np.testing.assert_allclose(edf.signals[0].data[:360], first, atol=1e-6)
    told = [(a.onset, a.text) for a in edf.annotations if a.text in BEAT_CLASSES]
    assert [text for _, text in told] == [BEAT_CLASSES[int(b["type"])] for b in beats]
    np.testing.assert_allclose([onset for onset, _ in told], beats["sample"] / 360, atol=1e-6)
    texts = [a.text for a in edf.annotations]
    assert "symptom: dizzy, =1+1" in texts
    assert any(text.startswith("event ") for text in texts)


def test_wfdb_reads_signals_and_annotations(state: Path, tmp_path: Path) -> None:
    files = value(state, "export", "--wearer", "anna", "--wfdb", tmp_path, *PERIOD)["files"]
    (head,) = [f for f in files if f.endswith(".hea")]
    name = head.removesuffix(".hea")
    record = wfdb.rdrecord(name)
    engine = open_readonly(state)
    with engine.connect() as conn:
        recording, samples = stored(conn, "anna")
        beats = queries.beats(conn, recording, 0, recording.end_sample)
    engine.dispose()
    mv = np.where(samples == MISSING, np.nan, samples * np.array(recording.uv_per_lsb)[:, None] / 1000)
    np.testing.assert_allclose(record.p_signal.T, mv, atol=1e-9)
    assert wfdb.rdrecord(name, physical=False).checksum == wfdb.rdheader(name).checksum
    found = wfdb.rdann(name, "edge")
    told = [(s, c) for s, c in zip(found.sample, found.symbol, strict=True) if c in BEAT_CLASSES]
    assert told == [(int(b["sample"]), BEAT_CLASSES[int(b["type"])]) for b in beats]
    assert any(aux.startswith("event ") for aux in found.aux_note)
    assert "symptom dizzy, =1+1" in found.aux_note


def test_long_holes_become_segments_and_wide_samples_24_bits(tmp_path: Path) -> None:
    from store_kit import ANN_START, FS_HZ, GAP, build

    state = build(tmp_path / "state")
    engine = open_writable(state)
    last = round((GAP[1] - ANN_START).total_seconds() * FS_HZ)
    begin = round((GAP[0] - ANN_START).total_seconds() * FS_HZ)
    with engine.begin() as conn:
        recording = next(r for r in queries.recordings(conn, "ann"))
        write(conn, recording.id, begin - 500, np.arange(-250, 250, dtype=np.int32)[None, :] * 1000)
        write(conn, recording.id, last, np.full((1, 500), 7, np.int32))
    engine.dispose()
    since = ("--since", "2026-03-28T15:59:58", "--until", "2026-03-28T16:30:02")
    files = value(state, "export", "--wearer", "ann", "--wfdb", tmp_path / "w", *since)["files"]
    (head,) = [f for f in files if f.endswith("Z.hea")]
    record = read_record(head.removesuffix(".hea"))
    assert Path(head).read_text().splitlines()[3] == f"~ {last - begin}"
    assert record.samples[0, 0] == -250_000
    assert record.samples[0, -500:].tolist() == [7] * 500
    assert (record.samples[0, 500:-500] == MISSING).all()
    assert wfdb.rdrecord(head.removesuffix(".hea")).p_signal.shape == (record.n, 1)
    with pytest.raises(BadInputError, match=r"reach 250000 units, EDF holds 32767: use --wfdb"):
        run(state, "export", "--wearer", "ann", "--edf", tmp_path / "e", *since)
    assert not any((tmp_path / "e").iterdir())  # nothing by halves


def test_an_export_never_overwrites_and_says_what_is_missing(state: Path, tmp_path: Path) -> None:
    run(state, "export", "--wearer", "anna", "--edf", tmp_path, *PERIOD)
    with pytest.raises(BadInputError, match="exists already"):
        run(state, "export", "--wearer", "anna", "--edf", tmp_path, *PERIOD)
    with pytest.raises(BadInputError, match="say what to write"):
        run(state, "export", "--wearer", "anna", *PERIOD)
    with pytest.raises(BadInputError, match="nothing of anna was recorded"):
        run(state, "export", "--wearer", "anna", "--wfdb", tmp_path, "--since", "2026-01-01", "--until", "2026-01-02")


@pytest.mark.parametrize("form", ["edf", "wfdb", "csv", "fhir"])
def test_a_hidden_export_names_nobody_and_no_day(state: Path, tmp_path: Path, form: str) -> None:
    target = tmp_path / ("out.json" if form == "fhir" else "out")
    files = value(state, "export", "--wearer", "anna", f"--{form}", target, "--deidentify", *PERIOD)["files"]
    engine = open_readonly(state)
    with engine.connect() as conn:
        ids = [row["id"] for row in queries.findings(conn)]
    engine.dispose()
    days = ["2026-03", "-mar-2026", "29-MAR", "29.03.26", "177474"]  # the last: seconds since 1970
    secrets = ["anna", "patch", "dizzy", *days, *ids]
    for path in map(Path, files):
        body = (path.name.encode() + path.read_bytes()).lower()
        if path.suffix != ".dat":
            assert [word for word in secrets if word.lower().encode() in body] == []
    if form == "edf":
        record = read_record(files[0])
        assert record.start_utc_ns is None
        assert "01.01.85" in Path(files[0]).read_bytes()[:256].decode()
    if form == "wfdb":
        record = read_record(next(f for f in files if f.endswith(".hea")).removesuffix(".hea"))
        hours = record.start_utc_ns // 3_600_000_000_000 if record.start_utc_ns else None
        assert hours == (15 * 365 + 4) * 24 + 0  # 00:58 UTC, 01:58 there


def test_a_hidden_symptom_does_not_tell_its_day_by_what_older_versions_wrote() -> None:
    row = {"mark": 1, "at": 1_774_746_000_000_000_000, "link": "away"}
    assert hide(UTC, 1_774_700_000_000_000_000, b"k").evidence(row) == {"mark": 1}
    assert plain("anna", UTC).evidence(row) == row
