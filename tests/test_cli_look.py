"""`localize`, `describe` and `compare` refuse what they cannot do, and say what to do instead."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.assistant import look as looking
from edge.cli.app import app
from edge.errors import AnyecgError, BadInputError

importlib.import_module("edge.cli.look")


def fails(*args: str) -> str:
    result = CliRunner().invoke(app, [*args])
    assert isinstance(result.exception, AnyecgError), result.output
    return str(result.exception)


def question(path: Path, **changed: object) -> Path:
    one = {"db": "mitdb", "record": "100", "start_sample": 0, "end_sample": 3600, "label": "PVC"} | changed
    path.write_text(json.dumps([one]), encoding="utf-8")
    return path


def test_wrong_usage_says_what_is_right(tmp_path: Path) -> None:
    assert "anyecg localize RECORD --label PVC" in fails("localize")
    assert "known labels are PVC, SVPB" in fails("localize", str(tmp_path / "x"), "--label", "QTc")
    assert "compare takes 2 to 4 recordings, not 1" in fails("compare", "a")
    assert "after @ come two numbers" in fails("compare", "a@1", "b@3-4")


def test_question_files_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    assert "cannot be read" in fails("localize", "--questions", str(path))
    path.write_text("{}", encoding="utf-8")
    assert "is not a list" in fails("localize", "--questions", str(path))
    for changed, said in (
        ({"label": "ST"}, "question 0 asks for 'ST'"),
        ({"start_sample": "0"}, "must be whole numbers"),
        ({"record": "../../etc/passwd"}, "db and record must be names"),
    ):
        assert said in fails("localize", "--questions", str(question(path, **changed)))
    path.write_text('[{"db": "mitdb"}]', encoding="utf-8")
    assert "question 0 needs db, record, start_sample" in fails("localize", "--questions", str(path))


def test_without_weights_the_commands_say_so(tmp_path: Path, ecg_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "CARD", tmp_path / "none.json")
    record = str(ecg_data / "mitdb/100")
    for command in (
        ["localize", record, "--label", "PVC"],
        ["describe", record, "--to", "10"],
        ["compare", *[f"{record}@0-9"] * 2],
    ):
        assert "no projector is shipped" in fails(*command)


def test_seconds_outside_the_recording_are_refused(ecg_data: Path) -> None:
    record = str(ecg_data / "mitdb/100")
    assert "give at least 1 s within its 1805.6 s" in fails("describe", record, "--from", "1805")
    assert "reads 60 s at once" in fails("describe", record)
    result = CliRunner().invoke(app, ["describe", record, "--from", "-1"])
    assert isinstance(result.exception, BadInputError)
