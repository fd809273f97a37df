"""Tools that go to the signal, over the scripted database: clips, who agrees, what looks alike, time for reading."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, text
from store_kit import ANN_START, FS_HZ, NOW_NS, VT_AT, berlin, build, utc_ns, waveform

from edge.assistant import looking
from edge.assistant.ask import Answer, Helpers, ask
from edge.assistant.scan import READING_S
from edge.assistant.service import reading_s
from edge.clock import ManualClock
from edge.store import tables
from edge.store.database import open_writable
from edge.store.waveform import write


def facts(answer: Answer) -> dict[str, object]:
    return {name: fact.value for name, fact in answer.results[0].facts.items()}


class Seer:
    """Eyes that see one span in every clip, from the second to the third second, in `pace` seconds per second."""

    name = "seer"

    def __init__(self, clock: ManualClock | None = None, pace: float = 0.0) -> None:
        self._clock, self._pace = clock, pace

    def localize(
        self, signal_mv: NDArray[np.float32], fs_hz: float, leads: tuple[str, ...], label: str
    ) -> list[tuple[float, float]]:
        assert 1 <= signal_mv.shape[1] / fs_hz <= 60
        if self._clock is not None:
            self._clock.advance(self._pace * signal_mv.shape[1] / fs_hz)
        return [(1.0, 2.0), (5.0, 4.0), (0.0, 1e6)]

    def describe(self, signal_mv: NDArray[np.float32], fs_hz: float, leads: tuple[str, ...]) -> str:
        return "Sinus rhythm."


def test_what_the_model_sees_is_marked_and_shown_beside_the_engine(conn: Connection) -> None:
    helpers = Helpers(eyes=Seer())
    answer = ask(conn, "Mark the VT from 6 to 7 this morning", now_ns=NOW_NS, wearer="ann", helpers=helpers)
    (result,) = answer.results
    assert result.as_json()["source"] == "model"
    assert facts(answer) | {"count": 1, "engine": 1, "agreed": 0, "model_only": 1, "whole": "part"} == facts(answer)
    assert "only the engine" in answer.answer
    assert "It read 14 s around what stood out, not everything." in answer.answer
    (seen,) = result.items
    assert seen["duration"].value == pytest.approx(1.0)
    look = ask(conn, "Describe the last VT", now_ns=NOW_NS, wearer="ann", helpers=helpers)
    assert "reads: Sinus rhythm." in look.answer
    assert look.citations()[0] == {"event": look.results[0].citations[0]["event"]}


def test_half_an_hour_is_read_whole_as_far_as_there_is_signal(conn: Connection) -> None:
    helpers = Helpers(eyes=Seer())
    answer = ask(conn, "Mark the VT from 6:00 to 6:20 this morning", now_ns=NOW_NS, wearer="ann", helpers=helpers)
    assert facts(answer)["whole"] == "all"
    assert facts(answer)["read"] == pytest.approx(20.0, abs=0.1)
    assert " It read" not in answer.answer


UNSEEN_AT = berlin(28, 14, 30)
"""A place that looks like PVCs and that the engine does not mark."""


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """Ann's database with signal and embeddings of three hours, from 12 to 15 o'clock."""
    engine = open_writable(build(tmp_path_factory.mktemp("day")))
    with engine.begin() as conn:
        recording_id = conn.execute(text("select id from recording where wearer = 'ann'")).scalar_one()
        first_s = round((berlin(28, 12) - ANN_START).total_seconds())
        write(conn, recording_id, round(first_s * FS_HZ), waveform(round(3 * 3600 * FS_HZ)))
        vectors = np.random.default_rng(0).normal(0, 1, (5400, 192)).astype("<f2")
        vectors[:1800:30] = 4 + vectors[:1800:30] / 4
        vectors[round((UNSEEN_AT - berlin(28, 12)).total_seconds() / 2)] = vectors[1770]
        rows = [
            {"recording_id": recording_id, "encoder": "test-1", "k": first_s // 2 + n, "vector": vector.tobytes()}
            for n, vector in enumerate(vectors)
        ]
        conn.execute(insert(tables.embedding), rows)
    with engine.connect() as conn:
        yield conn
    engine.dispose()


def test_hours_are_read_where_something_stands_out(day: Connection) -> None:
    answer = ask(day, "Mark the PVCs yesterday", now_ns=NOW_NS, wearer="ann", helpers=Helpers(eyes=Seer()))
    found = facts(answer)
    assert (found["engine"], found["whole"], found["left"]) == (60, "part", 0.0)
    assert found["read"] == pytest.approx(60 * 10.6 + 8, abs=30)
    starts = [item["start"].value for item in answer.results[0].items]
    assert utc_ns(berlin(28, 12, 1)) - starts[1] == pytest.approx(3.5e9, abs=2e8)
    assert found["agreed"] + found["engine_only"] == 60  # type: ignore[operator]


def test_a_clip_too_short_to_be_read_is_left_out(day: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "CLIP_S", 5.2)  # of the 10.6 s around each twice as much, and 0.2 s
    answer = ask(day, "Mark the PVCs yesterday", now_ns=NOW_NS, wearer="ann", helpers=Helpers(eyes=Seer()))
    assert 600 < facts(answer)["read"] < 61 * 10.4 + 1  # type: ignore[operator]


def test_an_answer_comes_in_time_and_says_what_was_not_read(day: Connection) -> None:
    clock = ManualClock()
    helpers = Helpers(eyes=Seer(clock, 0.25), clock=clock)
    answer = ask(day, "Mark the PVCs yesterday", now_ns=NOW_NS, wearer="ann", helpers=helpers)
    found = facts(answer)
    assert clock.monotonic_s() <= READING_S
    assert found["read"] == pytest.approx(clock.monotonic_s() / 0.25, abs=5)  # nothing was recorded before 12
    assert found["read"] + found["left"] == pytest.approx(60 * 10.6 + 8, abs=30)  # type: ignore[operator]
    assert found["engine"] < 20  # type: ignore[operator]
    assert "; another 8 min" in answer.answer
    starts = [item["start"].value for item in answer.results[0].items]
    assert any(abs(at - utc_ns(UNSEEN_AT)) < 5e9 for at in starts), "what only resembles is read before time is over"


def test_who_waits_shortens_the_reading_of_others(day: Connection) -> None:
    assert [reading_s(waiting) for waiting in (0, 1, 3, 30)] == [40.0, 20.0, 10.0, 10.0]
    clock = ManualClock()
    helpers = Helpers(eyes=Seer(clock, 0.25), clock=clock, reading_s=reading_s(1))
    ask(day, "Mark the PVCs yesterday", now_ns=NOW_NS, wearer="ann", helpers=helpers)
    assert 15 < clock.monotonic_s() <= 20


def test_what_looks_alike_is_told_with_what_it_is(day: Connection) -> None:
    answer = ask(day, "What looks like the last PVC yesterday?", now_ns=NOW_NS, wearer="ann")
    (result,) = answer.results
    assert result.facts["count"].value == 1
    assert result.items[0]["likeness"].value > 0.9
    assert result.items[0]["start"].value == utc_ns(UNSEEN_AT)
    assert all(item["event"].value == "no event" for item in result.items)
    assert "likeness" in answer.answer


def test_a_strip_lies_around_the_event(conn: Connection) -> None:
    answer = ask(conn, "Show me a strip of the last VT", now_ns=NOW_NS, wearer="ann")
    assert facts(answer)["start"] == utc_ns(VT_AT) - 2_000_000_000
    assert facts(answer)["seconds"] == 12.0
