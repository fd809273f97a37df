"""What people say about a recording: written with or without a daemon, undone, laid over the machine's reading."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select
from store_kit import AF_IDS, NOW_NS, NS, build, reader
from typer.testing import CliRunner

from edge.cli.app import app
from edge.control import ControlServer
from edge.encoder.contract import BEAT_CLASSES
from edge.errors import AnyecgError, BadInputError
from edge.store import marks, queries, tables
from edge.store.database import open_writable

for group in ("report", "review", "strip"):
    importlib.import_module(f"edge.cli.{group}")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return build(tmp_path / "state")


@pytest.fixture
def conn(state: Path) -> Iterator[Connection]:
    engine = open_writable(state)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def said(conn: Connection, **request: Any) -> dict[str, Any]:
    return marks.perform(conn, {"author": "eva", **request}, NOW_NS)


def run(state: Path, *args: str) -> Any:
    result = CliRunner().invoke(app, [*args, "--state", str(state), "--json"], env={"COLUMNS": "160"})
    if isinstance(result.exception, AnyecgError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def a_beat(conn: Connection) -> tuple[queries.Recording, int]:
    recording = next(r for r in queries.recordings(conn, "ann") if queries.beats(conn, r, 0, r.end_sample).size > 10)
    return recording, int(queries.beats(conn, recording, 0, recording.end_sample)["sample"][5])


def classes(conn: Connection, recording: queries.Recording, sample: int) -> list[str]:
    """Corrected classes within 0.1 s of a sample."""
    found = marks.corrected_beats(conn, recording, sample - 25, sample + 26)
    return [BEAT_CLASSES[kind] for kind in found["type"]]


def test_the_newest_verdict_counts_and_undoing_it_brings_the_older_one_back(conn: Connection) -> None:
    said(conn, kind="confirm", event=AF_IDS[0])
    second = said(conn, kind="false", event=AF_IDS[0], note="artefact\x00")
    assert second["note"] == "artefact"
    assert marks.verdicts(conn, AF_IDS)[AF_IDS[0]].kind == "false"
    undone = said(conn, undo=second["id"])
    assert (undone["undone_ns"], undone["undone_by"]) == (NOW_NS, "eva")
    assert marks.verdicts(conn, AF_IDS)[AF_IDS[0]].kind == "confirm"
    assert [m.kind for m in marks.of_finding(conn, AF_IDS[0])] == ["confirm", "false"], "the audit keeps both"
    with pytest.raises(BadInputError, match="already undone by eva"):
        said(conn, undo=second["id"])


def test_a_beat_is_given_another_class_removed_and_added(conn: Connection) -> None:
    recording, sample = a_beat(conn)
    machine = queries.beats(conn, recording, 0, recording.end_sample).tobytes()
    assert classes(conn, recording, sample) == ["N"]
    said(conn, kind="beat", recording_id=recording.id, sample=sample + 10, type="V")
    assert classes(conn, recording, sample) == ["V"]
    gone = said(conn, kind="beat", recording_id=recording.id, sample=sample, type=None)
    assert classes(conn, recording, sample) == []
    said(conn, undo=gone["id"])
    assert classes(conn, recording, sample) == ["V"]
    between = sample + 70
    assert classes(conn, recording, between) == []
    said(conn, kind="beat", recording_id=recording.id, sample=between, type="S")
    assert classes(conn, recording, between) == ["S"]
    corrected = marks.corrected_beats(conn, recording, 0, recording.end_sample)
    assert (corrected["sample"][1:] > corrected["sample"][:-1]).all()
    assert queries.beats(conn, recording, 0, recording.end_sample).tobytes() == machine, "the machine's stay"
    with pytest.raises(BadInputError, match="no beat within"):
        said(conn, kind="beat", recording_id=recording.id, sample=sample + 140, type=None)


def test_an_episode_is_corrected_and_a_missed_one_added(conn: Connection) -> None:
    row = queries.find_finding(conn, AF_IDS[1])
    end = row["start_sample"] + 5000
    said(conn, kind="episode", event=row["id"], rule="svt", end_sample=end)
    (right,) = marks.correct_findings(conn, [row])
    assert (right["rule"], right["start_sample"], right["end_sample"]) == ("svt", row["start_sample"], end)
    assert right["end_ns"] - right["start_ns"] == 20 * NS
    assert right["verdict"] == "episode"
    assert queries.find_finding(conn, AF_IDS[1])["rule"] == "af"
    new = {"recording_id": row["recording_id"], "rule": "pause", "start_sample": 250, "end_sample": 1000}
    one = said(conn, kind="episode", **new)
    (seen,) = marks.human_episodes(conn, "ann", 0, NOW_NS)
    assert (seen["id"], seen["rule"], seen["start_sample"]) == (f"mark-{one['id']}", "pause", 250)
    assert marks.human_episodes(conn, "ann", NOW_NS, NOW_NS + 1) == []


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({"kind": "wrong"}, "no mark 'wrong'"),
        ({"kind": ["a"]}, "no mark"),
        ({"kind": "confirm"}, "event is missing"),
        ({"kind": "confirm", "event": "zzzz"}, "no event"),
        ({"kind": "confirm", "event": AF_IDS[0], "sample": 1}, "takes no sample"),
        ({"kind": "note", "event": AF_IDS[0]}, "note is missing"),
        ({"kind": "note", "event": AF_IDS[0], "note": "x" * 2001}, "at most 2000"),
        ({"kind": "symptom"}, "wearer is missing"),
        ({"kind": "symptom", "wearer": "nobody"}, "no wearer 'nobody'"),
        ({"kind": "symptom", "wearer": "ann", "at_ns": NOW_NS * 2}, "between 1970 and now"),
        ({"kind": "beat", "recording_id": 99, "sample": 1, "type": "V"}, "no recording 99"),
        ({"kind": "beat", "recording_id": 1, "sample": 10**12, "type": "V"}, "outside the recording"),
        ({"kind": "beat", "recording_id": 1, "sample": True, "type": "V"}, "whole number"),
        ({"kind": "beat", "recording_id": 1, "sample": 1, "type": "X"}, "no beat class 'X'"),
        ({"kind": "beat", "recording_id": 1, "sample": 1}, "no beat class ''"),
        ({"kind": "episode", "event": AF_IDS[0], "rule": "nice"}, "no rule 'nice'"),
        ({"kind": "episode", "event": AF_IDS[0], "start_sample": 9, "end_sample": 9}, "no span"),
        ({"kind": "episode", "rule": "af"}, "recording_id must be"),
        ({"undo": 7}, "no mark 7"),
        ({"undo": 7, "kind": "confirm"}, "nothing else"),
        ({"kind": "confirm", "event": AF_IDS[0], "author": 3}, "author must be text"),
    ],
)
def test_bad_marks_are_refused_and_leave_nothing(conn: Connection, request_: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInputError, match=complaint):
        said(conn, **request_)
    assert conn.execute(select(func.count()).select_from(tables.mark)).scalar() == 0


def test_marks_are_bounded(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "MAX_PER_FINDING", 2)
    monkeypatch.setattr(marks, "MAX_MARKS", 3)
    for _ in range(2):
        said(conn, kind="ack", event=AF_IDS[0])
    with pytest.raises(BadInputError, match="2 marks already"):
        said(conn, kind="ack", event=AF_IDS[0])
    said(conn, kind="symptom", wearer="ann", note="dizzy")
    with pytest.raises(BadInputError, match="3 marks already"):
        said(conn, kind="symptom", wearer="ann")


def test_commands_write_without_a_daemon(state: Path) -> None:
    first = run(state, "review", "confirm", AF_IDS[0], "--note", "seen on the strip")
    assert (first["kind"], first["finding_id"], first["wearer"]) == ("confirm", AF_IDS[0], "ann")
    run(state, "review", "false", AF_IDS[1])
    run(state, "review", "note", AF_IDS[0], "ask again")
    run(state, "review", "episode", AF_IDS[2], "--rule", "svt", "--end", "2026-03-29T01:45")
    run(state, "review", "undo", str(first["id"]))
    symptom = run(state, "mark", "dizzy", "--wearer", "ann", "--at", "2026-03-29T06:10")
    assert symptom["at_ns"] == 1_774_757_400 * NS
    listed = run(state, "review", "list", AF_IDS[0])
    assert [(m["kind"], m["undone_ns"] is not None) for m in listed] == [("confirm", True), ("note", False)]
    with reader(state).connect() as conn:
        verdicts = marks.verdicts(conn, AF_IDS)
        assert {key: mark.kind for key, mark in verdicts.items()} == {AF_IDS[1]: "false", AF_IDS[2]: "episode"}
        assert [m.note for m in marks.in_period(conn, "ann", 0, NOW_NS, kinds=("symptom",))] == ["dizzy"]


def test_a_missed_episode_is_added_found_shown_and_taken_back(state: Path) -> None:
    span = ("--start", "2026-03-28T08:00", "--end", "2026-03-28T09:00")
    added = run(state, "review", "add", "af", "--wearer", "ann", *span, "--note", "seen on the strip")
    assert (added["kind"], added["finding_id"], added["value"]) == ("episode", None, {"rule": "af"})
    name = f"mark-{added['id']}"
    assert [m["id"] for m in run(state, "review", "list", name)] == [added["id"]]
    day = ("--wearer", "ann", "--since", "2026-03-28", "--until", "2026-03-28")
    assert [m["id"] for m in run(state, "review", "list", *day)] == [added["id"]]
    strip = run(state, "strip", "--event", name)
    assert f"event {name}: af" in strip["title"]
    burden = run(state, "report", *day)["af_s"]
    run(state, "review", "undo", str(added["id"]))
    assert run(state, "report", *day)["af_s"] == burden - 3600
    with reader(state).connect() as conn:
        assert marks.find_episode(conn, name)["state"] == "undone"
        for wrong in ("mark-999", "mark-x", "mark-"):
            with pytest.raises(BadInputError, match=r"no (event|mark)"):
                marks.find_episode(conn, wrong)
    with pytest.raises(BadInputError, match="is not before"):
        run(state, "review", "add", "af", "--wearer", "ann", "--start", span[3], "--end", span[1])
    with pytest.raises(BadInputError, match="nothing of ann was recorded by strap then"):
        run(state, "review", "add", "af", "--wearer", "ann", *span, "--device", "strap")
    with pytest.raises(BadInputError, match="no rule 'atrial'"):
        run(state, "review", "add", "atrial", "--wearer", "ann", *span)


def test_the_command_for_beats_finds_the_sample(state: Path) -> None:
    with reader(state).connect() as conn:
        recording, sample = a_beat(conn)
        at_ns = recording.to_utc_ns(sample)
    at = datetime.fromtimestamp(at_ns // NS, UTC).replace(microsecond=at_ns % NS // 1000)
    done = run(state, "review", "beat", "V", "--wearer", "ann", "--at", at.isoformat())
    assert abs(done["start_sample"] - sample) <= 1
    with pytest.raises(BadInputError, match="nothing of ann was recorded"):
        run(state, "review", "beat", "V", "--wearer", "ann", "--at", "2020-01-01T00:00")


def test_commands_ask_a_running_daemon(state: Path) -> None:
    asked: list[dict[str, Any]] = []
    up, over = threading.Event(), threading.Event()

    async def handler(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"id": 1, "kind": "confirm", "finding_id": request["event"], "wearer": "ann", "undone_ns": None}

    def serve() -> None:
        async def main() -> None:
            async with ControlServer(state, {"mark": handler}):
                up.set()
                await asyncio.to_thread(over.wait)

        asyncio.run(main())

    thread = threading.Thread(target=serve)
    thread.start()
    assert up.wait(10)
    try:
        run(state, "review", "confirm", AF_IDS[0])
    finally:
        over.set()
        thread.join()
    assert (asked[0]["kind"], asked[0]["event"]) == ("confirm", AF_IDS[0])
    assert asked[0]["author"]
    with reader(state).connect() as conn:
        assert conn.execute(select(func.count()).select_from(tables.mark)).scalar() == 0, "only the daemon writes"
