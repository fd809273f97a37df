"""Stored samples read again: the same gives the same, other rules and weights replace what was said, nobody is told."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import wfdb
from gateway_kit import Daemon, Listener, Wearable, assert_same_as_batch, cut
from sqlalchemy import func, select
from typer.testing import CliRunner

from broker.mosquitto import Mosquitto
from edge import reanalysis
from edge.cli.app import app
from edge.encoder.card import Card
from edge.errors import BadInputError
from edge.sources.record import read_record
from edge.store import tables
from edge.store.database import open_readonly

for _name in ("importing", "read", "reanalyze", "review"):
    importlib.import_module(f"edge.cli.{_name}")

SECONDS = 400


def run(state: Path, *args: str) -> Any:
    result = CliRunner().invoke(app, [*args, "--state", str(state), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])  # logs come before it


def rows(state: Path, table: Any) -> list[dict[str, Any]]:
    engine = open_readonly(state)
    try:
        with engine.connect() as conn:
            return [dict(row) for row in conn.execute(select(table)).mappings()]
    finally:
        engine.dispose()


def said(state: Path) -> dict[str, Any]:
    """Everything analysis left behind that has no time of day in it, by table."""
    kept = {}
    for table in (tables.beats, tables.trend, tables.embedding, tables.finding, tables.checkpoint, tables.cursor):
        found = [{key: row[key] for key in row if key not in ("analysis_id", "revision")} for row in rows(state, table)]
        kept[table.name] = sorted(found, key=lambda row: json.dumps(row, default=str, sort_keys=True))
    return kept


@pytest.fixture(scope="module")
def record(ecg_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 s of mitdb 202 in which AF begins, as a file of its own."""
    folder = tmp_path_factory.mktemp("record")
    read = wfdb.rdrecord(str(ecg_data / "mitdb/202"), sampfrom=360 * 1000, sampto=360 * (1000 + SECONDS), channels=[0])
    wfdb.wrsamp("part", 360, ["mV"], ["MLII"], p_signal=read.p_signal, fmt=["16"], write_dir=str(folder))
    return folder / "part"


@pytest.fixture(scope="module")
def imported(record: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("state")
    run(state, "import", str(record), "--wearer", "anna", "--start", "2026-03-01T22:00:00+00:00")
    return state


@pytest.fixture
def state(imported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imported, tmp_path / "state"))


def test_the_same_weights_and_rules_say_the_same(state: Path) -> None:
    before = said(state)
    result = run(state, "reanalyze", "--wearer", "anna")
    assert result["events"] == {"new": 0, "changed": 0, "replaced": 0, "retracted": 0}
    assert result["recordings"] == 1
    assert result["read_s"] == SECONDS
    assert said(state) == before
    assert rows(state, tables.finding_revision) == rows_of_imported_revisions(state)
    assert rows(state, tables.outbox) == []


def rows_of_imported_revisions(state: Path) -> list[dict[str, Any]]:
    """Revisions whose row differs from the one after it: reading again must not add any that says the same."""
    return [row for row in rows(state, tables.finding_revision) if row["row"]["revision"] == row["revision"]]


def test_since_reads_only_the_end_and_says_the_same(state: Path) -> None:
    before = said(state)
    result = run(state, "reanalyze", "--wearer", "anna", "--since", "2026-03-01T22:05:00+00:00")
    assert 100 <= result["read_s"] <= 160
    assert said(state) == before


def test_other_rules_replace_findings_and_marks_move_along(state: Path) -> None:
    (old,) = [row for row in rows(state, tables.finding) if row["rule"] == "af"]
    run(state, "review", "confirm", old["id"], "--note", "felt it")
    (state / "config.toml").write_text("[rules.af]\nmin_s = 50\n")
    result = run(state, "reanalyze", "--wearer", "anna")
    assert result["events"]["replaced"] == 1
    found = {row["id"]: row for row in rows(state, tables.finding) if row["rule"] == "af"}
    heir = found.pop(found[old["id"]]["superseded_by"])
    assert found[old["id"]]["state"] == "retracted"
    assert heir["state"] == "closed"
    assert heir["opened_sample"] > old["opened_sample"]
    (mark,) = rows(state, tables.mark)
    assert (mark["finding_id"], mark["kind"], mark["note"]) == (heir["id"], "confirm", "felt it")
    assert rows(state, tables.outbox) == []


def test_it_equals_a_first_reading_with_the_new_rules(state: Path, record: Path, tmp_path: Path) -> None:
    rules = "[rules.af]\nmin_s = 50\n"
    (state / "config.toml").write_text(rules)
    run(state, "reanalyze", "--wearer", "anna")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "config.toml").write_text(rules)
    run(fresh, "import", str(record), "--wearer", "anna", "--start", "2026-03-01T22:00:00+00:00")

    def current(where: Path) -> list[tuple[Any, ...]]:
        kept = [row for row in rows(where, tables.finding) if row["state"] != "retracted"]
        return sorted(
            (row["id"], row["state"], row["start_sample"], row["end_sample"], row["severity"]) for row in kept
        )

    assert current(state) == current(fresh)
    assert said(state)["beats"] == said(fresh)["beats"]
    assert said(state)["cursor"][0]["next_k"] == said(fresh)["cursor"][0]["next_k"]


def test_embeddings_of_other_weights_stay_readable(state: Path, tmp_path: Path) -> None:
    shipped = Card.load()
    before = {(row["k"], row["vector"]) for row in rows(state, tables.embedding)}
    weights = tmp_path / "again.onnx"
    shutil.copy(shipped.weights, weights)
    facts = shipped.facts | {"file": weights.name, "checkpoint": "again"}
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == facts["sha256"]
    (tmp_path / "again.json").write_text(json.dumps(facts))
    (state / "config.toml").write_text(f'[encoder]\nmodel = "{tmp_path / "again.json"}"\n')
    run(state, "reanalyze", "--wearer", "anna")
    found = rows(state, tables.embedding)
    by_encoder = {
        name: {(row["k"], row["vector"]) for row in found if row["encoder"] == name}
        for name in (shipped.checkpoint, "again")
    }
    assert by_encoder[shipped.checkpoint] == before == by_encoder["again"]
    (analysis,) = [row for row in rows(state, tables.analysis) if row["encoder"] == "again"]
    assert {row["analysis_id"] for row in rows(state, tables.cursor)} == {analysis["id"]}


def test_bad_requests_name_what_is_wrong(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInputError, match="bob"):
        run(state, "reanalyze", "--wearer", "bob")
    with pytest.raises(BadInputError, match="not before"):
        run(state, "reanalyze", "--wearer", "anna", "--since", "2099-01-01")
    monkeypatch.setattr(reanalysis, "MAX_S", 60)
    before = said(state)
    with pytest.raises(BadInputError, match="pass a later --since"):
        run(state, "reanalyze", "--wearer", "anna")
    assert said(state) == before


@pytest.mark.usefixtures("mosquitto_path")
def test_a_daemon_does_it_between_live_data_and_tells_nobody(ecg_data: Path, tmp_path: Path) -> None:
    record = cut(read_record(ecg_data / "mitdb/200"), 240)
    with Mosquitto(tmp_path / "broker") as broker, Daemon(tmp_path / "state", broker.url) as daemon:
        listener = Listener(broker)
        daemon.start()
        daemon.wait_ready()
        wearable = Wearable(broker.url, record, speed=60)
        wearable.start()
        while len(rows(daemon.state, tables.cursor)) == 0:
            daemon.status()
        first = run(daemon.state, "reanalyze", "--wearer", "anna")  # while the wearable sends
        wearable.result()
        status = daemon.settle()
        listener.catch_up()
        told = len(listener.messages)
        result = run(daemon.state, "reanalyze", "--wearer", "anna")
        settled = daemon.settle()
        assert status["analysis"]["failures"] == 0
        assert settled["analysis"]["reread_hops"] * 2 == first["read_s"] + result["read_s"]
        assert result["events"] == {"new": 0, "changed": 0, "replaced": 0, "retracted": 0}
        assert_same_as_batch(daemon.state, record)
        assert daemon.stop() == 0
        listener.catch_up()
        assert len(listener.messages) == told
        listener.close()
    engine = open_readonly(daemon.state)
    with engine.connect() as conn:
        assert conn.execute(select(func.count()).select_from(tables.outbox)).scalar_one() == 0
    engine.dispose()
