"""Comparisons of the encoder: intervals over patients, localisation, peers, embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.errors import BadInputError
from edge.rhythm.events import Beat
from export.datasets.record import Record
from export.evaluate import bootstrap, embeddings, localisation, peers
from export.evaluate.beats import Score
from export.evaluate.page import replace_section

pytestmark = pytest.mark.export


def test_equal_patients_have_no_interval_and_different_ones_have() -> None:
    same = {str(n): Score(90, 10, 10) for n in range(8)}
    assert bootstrap.intervals(same) == {"se": [90.0, 90.0], "ppv": [90.0, 90.0], "f1": [90.0, 90.0]}
    mixed = same | {"bad": Score(0, 100, 0)}
    se = bootstrap.intervals(mixed)["se"]
    assert se is not None
    assert se[0] < 80.0 <= se[1] <= 90.0
    assert bootstrap.intervals(mixed) == bootstrap.intervals(mixed)


def test_undefined_rates_have_no_interval() -> None:
    assert bootstrap.intervals({"a": Score(0, 0, 0)}) == {"se": None, "ppv": None, "f1": None}
    assert bootstrap.intervals({}) == {"se": None, "ppv": None, "f1": None}


def _beats(*told: tuple[float, str]) -> list[Beat]:
    return [Beat(round(at_s * 360), kind, 0.9, "narrow") for at_s, kind in told]


def test_a_beat_spans_from_the_one_before_to_the_one_after() -> None:
    beats = _beats((1, "N"), (2, "V"), (3.24, "N"), (4, "N"), (5, "V"), (6, "V"), (7, "N"))
    assert localisation.spans_of(beats, "PVC", 0, 3600, 360) == [(1.0, 3.2), (4.0, 7.0)]
    assert localisation.spans_of(beats, "PVC", 540, 1980, 360) == [(0.0, 1.7), (2.5, 4.0)]
    assert localisation.spans_of(beats, "SVPB", 0, 3600, 360) == []
    assert localisation.spans_of(_beats((1, "V")), "PVC", 0, 720, 360) == [(0.0, 2.0)]


def test_iou_of_intervals() -> None:
    assert localisation.iou([], []) == 1.0
    assert localisation.iou([], [(0.0, 1.0)]) == 0.0
    assert localisation.iou([(0.0, 2.0)], [(1.0, 3.0)]) == pytest.approx(1 / 3)
    assert localisation.iou([(0.0, 1.0), (2.0, 3.0)], [(0.0, 3.0)]) == pytest.approx(2 / 3)


def test_question_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    good = {"db": "mitdb", "record": "100", "start_sample": 0, "end_sample": 3600, "label": "PVC", "spans": []}
    path.write_text(json.dumps([good]))
    assert localisation.load_questions(path) == [good]
    for bad in ("{}", "[3]", json.dumps([good | {"label": "STEMI"}]), "no json"):
        path.write_text(bad)
        with pytest.raises(BadInputError, match="questions"):
            localisation.load_questions(path)


def _record(beats: str = "NVNNSN") -> Record:
    seconds = 400
    at = np.arange(len(beats)) * 128.0 + 310 * 128
    return Record(
        db="mitdb",
        name="x",
        ecg=np.zeros((1, seconds * 128), np.float32),
        beat_at=at.astype(np.float32),
        beat=np.array(["NSVFQ".index(kind) for kind in beats], dtype=np.int8),
        morphology=np.full(len(beats), -1, dtype=np.int8),
        beats_known=np.ones(seconds, dtype=bool),
        rhythm=np.zeros(seconds, dtype=np.int8),
        quality=np.ones(seconds, dtype=np.int8),
    )


def test_peers_are_scored_like_the_encoder() -> None:
    record = _record()
    at_s = record.beat_at.astype(np.float64) / 128 + 0.05
    shuffled = np.array([3, 0, 5, 1, 2, 4])
    counts = peers.matrix(record, at_s[shuffled], [list("NVNNSN")[n] for n in shuffled])
    assert counts[2, 2] == counts[1, 1] == 1
    assert counts.sum() == 6
    assert peers.matrix(record, at_s, None)[:5, 0].sum() == 6
    assert peers.matrix(record, at_s, ["?"] * 6)[:5, 0].sum() == 6


def test_a_peer_that_fails_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_kept", lambda script, tool: tmp_path / tool)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named openecg >&2\nexit 1\n")
    python.chmod(0o755)
    notes: list[str] = []
    assert peers._peer(python, "openecg", ["100"], notes) is None
    assert notes == ["openecg is left out: no module named openecg"]


def test_what_a_peer_found_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_kept", lambda script, tool: tmp_path / tool)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nmkdir -p "$4"\nshift 4\n'
        f'for path; do echo "{{}}" > {tmp_path}/sleepecg/$(basename "$path").json; done\n'
    )
    python.chmod(0o755)
    notes: list[str] = []
    assert peers._peer(python, "sleepecg", ["100"], notes) == {"100": {}}
    assert peers._peer(python, "sleepecg", ["100", "103"], notes) == {"100": {}, "103": {}}
    first, second = (tmp_path / "calls").read_text().splitlines()
    assert first.endswith("100")
    assert second.endswith("103")
    assert "100" not in second
    assert not notes


def test_hops_are_labelled_by_what_lies_within_them() -> None:
    kinds = embeddings.hop_kinds(_record())
    assert kinds.size == 200
    assert [embeddings.KINDS[kind] for kind in kinds[154:159]] == ["normal", "V beat", "normal", "S beat", "normal"]


def _embedded(seed: int, apart: float) -> embeddings.Embedded:
    rng = np.random.default_rng(seed)
    kind = np.arange(1200) % 3
    vectors = rng.normal(0, 1, (1200, 192))
    vectors[np.arange(1200), kind] += apart
    return embeddings.Embedded(
        vectors.astype(np.float32), kind, np.arange(1200) % 4, np.arange(1200, dtype=np.float64) * 2
    )


@pytest.mark.parametrize("same_record", [False, True])
def test_like_segments_are_found_if_and_only_if_they_are_alike(same_record: bool) -> None:
    alike = embeddings.retrieve(_embedded(1, 25.0), same_record=same_record)
    unlike = embeddings.retrieve(_embedded(1, 0.0), same_record=same_record)
    assert set(alike) == set(embeddings.KINDS[:3])
    assert all(one["nearest"] > 95 and 25 < one["chance"] < 45 for one in alike.values())
    assert all(one["nearest_10"] < 45 for one in unlike.values())


def test_probes_know_what_is_there_to_be_known() -> None:
    known = embeddings.probe(_embedded(1, 4.0), _embedded(2, 4.0))
    assert all(one["auc"] > 95 for one in known.values())
    assert all(35 < one["auc"] < 65 for one in embeddings.probe(_embedded(1, 0.0), _embedded(2, 0.0)).values())


def test_the_picture_is_small(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    share = embeddings.draw(_embedded(1, 8.0), path)
    assert path.stat().st_size <= 300_000
    assert 0 < share["second"] <= share["first"] < 1


def test_only_the_section_between_its_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- peers: how -->\nold\n<!-- end of peers -->\nb\n")
    replace_section(page, "peers", "new\nlines")
    assert page.read_text() == "a\n<!-- peers: how -->\nnew\nlines\n<!-- end of peers -->\nb\n"
    with pytest.raises(BadInputError, match="no section"):
        replace_section(page, "figures", "x")
