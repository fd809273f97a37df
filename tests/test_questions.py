"""The log of questions: bounded, and nothing odd gets in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_kit import NOW_NS, build

from edge.errors import BadInputError
from edge.store import questions
from edge.store.database import open_writable


def test_the_newest_questions_are_kept_with_their_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MAX_KEPT", 2)
    engine = open_writable(build(tmp_path))
    with engine.begin() as conn:
        for n in range(3):
            questions.keep(conn, {"question": f"q{n}", "wearer": None, "answer": {"answer": f"a{n}"}}, NOW_NS + n)
        assert [(q["question"], q["answer"]["answer"]) for q in questions.recent(conn, 10)] == [
            ("q2", "a2"),
            ("q1", "a1"),
        ]
        assert len(questions.recent(conn, 1)) == 1
    engine.dispose()


@pytest.mark.parametrize(
    "wrong",
    [
        {"question": "", "answer": {}},
        {"question": 3, "answer": {}},
        {"question": "x" * 2001, "answer": {}},
        {"question": "x", "wearer": 3, "answer": {}},
        {"question": "x", "answer": "yes"},
        {"question": "x", "answer": {"answer": "x" * 200_001}},
    ],
)
def test_anything_else_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    engine = open_writable(build(tmp_path))
    with engine.begin() as conn, pytest.raises(BadInputError):
        questions.keep(conn, wrong, NOW_NS)
    engine.dispose()
