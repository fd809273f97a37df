"""The retained state: what it shows, when it is written, and how silence is told, all on an injected clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from alerts_kit import START_NS, Recording, change, settings

from edge.alerts.policy import Teller
from edge.alerts.state import MAX_OPEN_SHOWN, Board
from edge.clock import ManualClock
from edge.config import Intake
from edge.rhythm.events import Current, finding_id

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/state.schema.json").read_text()))
EVENT_SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/event.schema.json").read_text()))
CONFIG = settings("mqtt://127.0.0.1")
SINUS = Current(hr_bpm=61.26, rhythm="N", signal="readable", quality=0.987)


class Bench:
    """A board with one wearer, a clock, and what was published."""

    def __init__(self, recording: Recording = Recording()) -> None:  # noqa: B008
        self.clock = ManualClock(START_NS)
        self.woken = 0
        self.board = Board(CONFIG, self.clock, self._wake)
        self.teller = Teller(CONFIG, "v")
        self.recording = recording
        self.sample = 0
        self.events: list[dict[str, Any]] = []

    def _wake(self) -> None:
        self.woken += 1

    def hear(self, seconds: float = 1.0, *, contact: bool | None = True) -> None:
        self.clock.advance(seconds)
        self.sample += round(seconds * 250)
        self.board.heard(
            self.recording, next_sample=self.sample, last_sample_ns=self.clock.utc_ns() - 4_000_000, contact=contact
        )

    def tick(self) -> list[dict[str, Any]]:
        update = self.board.tick()
        for recording, what in update.silences:
            for message in self.teller.messages(recording, [what], self.clock.utc_ns()):
                self.events.append(json.loads(message.payload))
                EVENT_SCHEMA.validate(self.events[-1])
        states = [json.loads(payload) for _, payload in update.states]
        for (topic, _), state in zip(update.states, states, strict=True):
            SCHEMA.validate(state)
            assert topic == f"anyecg/v1/cellar/{state['wearer']}/state"
        return states

    def told(self) -> list[tuple[str, str, int]]:
        return [(event["type"], event["rule"], event["revision"]) for event in self.events]


def test_what_is_known_is_shown() -> None:
    bench = Bench()
    bench.hear()
    bench.board.read(bench.recording, SINUS)
    (state,) = bench.tick()
    assert (state["link"], state["device"], state["contact"]) == ("online", "strap", True)
    assert (state["hr_bpm"], state["rhythm"], state["readable"], state["quality"]) == (61.3, "N", True, 0.99)
    assert state["last_sample_ns"] == bench.clock.utc_ns() - 4_000_000
    assert state["written_ns"] == bench.clock.utc_ns()
    assert state["open_events"] == []


def test_what_is_not_known_is_null() -> None:
    bench = Bench()
    bench.hear(contact=None)
    (state,) = bench.tick()
    assert [state[key] for key in ("contact", "hr_bpm", "rhythm", "signal", "readable", "quality")] == [None] * 6
    bench.board.read(bench.recording, Current(hr_bpm=None, rhythm="", signal="gap", quality=None))
    bench.clock.advance(1)
    (state,) = bench.tick()
    assert [state[key] for key in ("hr_bpm", "rhythm", "signal", "readable")] == [None, None, "gap", False]


def test_messages_are_a_second_apart() -> None:
    bench = Bench()
    written = 0
    for _ in range(100):
        bench.hear(0.1)
        written += len(bench.tick())
    assert 9 <= written <= 11


def test_a_quiet_state_is_written_again_every_minute() -> None:
    bench = Bench()
    bench.board.restore(bench.recording, next_sample=5, last_sample_ns=0, received_ns=START_NS - 10**15)
    assert len(bench.tick()) == 1
    times = []
    for second in range(1, 200):
        bench.clock.advance(1)
        times += [second] * len(bench.tick())
    assert times == [60, 120, 180]


def test_open_events_are_shown_at_once_and_worst_first() -> None:
    bench = Bench()
    bench.hear()
    bench.tick()
    woken = bench.woken
    bench.board.changed(bench.recording, [change(id="1" * 16, severity="info", rule="gap"), change()])
    assert bench.woken == woken + 1
    (state,) = bench.tick()
    assert [event["rule"] for event in state["open_events"]] == ["vt", "gap"]
    assert state["open_events"][0]["since_ns"] == START_NS
    bench.board.changed(bench.recording, [change("update")])
    assert bench.tick() == [], "an update that changes no severity can wait"
    bench.board.changed(bench.recording, [change("update", severity="critical")])
    assert bench.tick()[0]["open_events"][0]["severity"] == "critical"
    bench.board.changed(bench.recording, [change("end")])
    assert [event["rule"] for event in bench.tick()[0]["open_events"]] == ["gap"]
    bench.board.changed(bench.recording, [change("retracted", id="1" * 16)])
    assert bench.tick()[0]["open_events"] == []


def test_many_open_events_are_counted_but_not_all_shown() -> None:
    bench = Bench()
    bench.board.changed(bench.recording, [change(id=f"{n:016x}") for n in range(100)])
    (state,) = bench.tick()
    assert (len(state["open_events"]), state["open_count"]) == (MAX_OPEN_SHOWN, 100)


def test_an_import_has_no_state() -> None:
    bench = Bench()
    bench.board.changed(Recording(source="import"), [change()])
    bench.board.restore(Recording(source="import"), next_sample=5, last_sample_ns=0, received_ns=0)
    assert bench.tick() == []


def test_silence_makes_the_link_stale_then_lost_and_hides_the_reading() -> None:
    bench = Bench()
    bench.hear()
    bench.board.read(bench.recording, SINUS)
    bench.tick()
    links = {}
    for second in range(1, 62):
        bench.clock.advance(1)
        for state in bench.tick():
            links[second] = (state["link"], state["hr_bpm"])
    assert links == {11: ("stale", None), 16: ("stale", None), 61: ("offline", None)}
    assert bench.told() == [("new", "link_lost", 1)]
    assert bench.events[0]["start_ns"] == START_NS + 10**9
    assert bench.events[0]["detected_ns"] == bench.clock.utc_ns()
    bench.hear()
    (state,) = bench.tick()
    assert (state["link"], state["open_events"]) == ("online", [])
    assert bench.told() == [("new", "link_lost", 1), ("end", "link_lost", 2)]
    assert bench.events[1]["id"] == finding_id(bench.recording.key, "link_lost", 250)


def test_a_reading_that_analysis_does_not_renew_is_hidden() -> None:
    bench = Bench()
    for second in range(20):
        bench.hear()
        if second == 0:
            bench.board.read(bench.recording, SINUS)
        states = bench.tick()
    assert states[0]["link"] == "online"
    assert states[0]["hr_bpm"] is None


def test_a_recording_that_stops_is_told_once_and_not_late() -> None:
    bench = Bench()
    bench.hear()
    for _ in range(4000):
        bench.clock.advance(1)
        bench.tick()
    assert bench.told() == [("new", "link_lost", 1), ("new", "recording_stopped", 1)]
    assert [event["late"] for event in bench.events] == [False, False]
    bench.hear()
    bench.tick()
    assert bench.told()[2:] == [("end", "link_lost", 2), ("end", "recording_stopped", 2)]


def test_a_wall_clock_step_is_no_silence() -> None:
    bench = Bench()
    bench.hear()
    bench.tick()
    bench.clock.step_wall(3600)
    bench.tick()
    bench.clock.step_wall(-7200)
    bench.tick()
    assert bench.told() == []


def test_a_silence_without_new_samples_goes_on_with_its_revisions() -> None:
    bench = Bench()
    bench.hear()
    for _ in range(2):
        bench.clock.advance(61)
        bench.tick()
        bench.board.heard(bench.recording, next_sample=bench.sample, last_sample_ns=0, contact=None)
        bench.tick()
    assert [revision for _, _, revision in bench.told()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("away_s", "then_silent_s", "told"),
    [
        (10, 0, []),
        (10, 61, [("new", "link_lost", 1), ("end", "link_lost", 2)]),
        (100, 0, [("end", "link_lost", 2)]),
        (100, 61, [("new", "link_lost", 1), ("end", "link_lost", 2)]),
        (4000, 100, [("end", "link_lost", 2), ("end", "recording_stopped", 2)]),
    ],
)
def test_a_restart_tells_the_same_silence_with_the_same_identity(
    away_s: float, then_silent_s: float, told: list[tuple[str, str, int]]
) -> None:
    bench = Bench()
    received_ns = bench.clock.utc_ns()
    bench.clock.advance(away_s)
    bench.board.restore(
        bench.recording, next_sample=1000, last_sample_ns=0, received_ns=received_ns, open_findings=[change().row]
    )
    assert bench.tick()[0]["open_events"][0]["rule"] == "vt"
    bench.clock.advance(then_silent_s)
    bench.tick()
    bench.sample = 1000
    bench.hear()
    bench.tick()
    assert bench.told() == told
    assert {event["id"] for event in bench.events} <= {
        finding_id(bench.recording.key, rule, 1000) for rule in ("link_lost", "recording_stopped")
    }


def test_the_best_device_of_a_wearer_is_shown() -> None:
    bench = Bench()
    bench.hear()
    patch = Recording(key="f" * 16, device="patch")
    bench.board.heard(patch, next_sample=10, last_sample_ns=bench.clock.utc_ns(), contact=False)
    (state,) = bench.tick()
    assert (state["device"], state["contact"]) == ("patch", False)
    for _ in range(30):
        bench.hear()
        states = bench.tick()
    assert states[-1]["device"] == "strap"
    assert [(entry["device"], entry["link"]) for entry in states[-1]["devices"]] == [
        ("strap", "online"),
        ("patch", "stale"),
    ]
    assert bench.board.links() == {"anna": {"strap": "online", "patch": "stale"}}


def test_a_new_recording_of_the_device_ends_the_silence_of_the_old_one() -> None:
    bench = Bench()
    bench.hear()
    bench.clock.advance(61)
    bench.tick()
    bench.recording = Recording(key="e" * 16)
    bench.hear()
    bench.tick()
    assert bench.told() == [("new", "link_lost", 1), ("end", "link_lost", 2)]
    assert bench.events[0]["id"] == bench.events[1]["id"]


def test_devices_are_bounded() -> None:
    clock = ManualClock(START_NS)
    board = Board(CONFIG.model_copy(update={"intake": Intake(max_devices=3)}), clock)
    for number in range(10):
        clock.advance(0.1)
        device = Recording(key=f"{number:016x}", device=f"d{number}")
        board.heard(device, next_sample=1, last_sample_ns=0, contact=None)
    assert list(board.links()["anna"]) == ["d7", "d8", "d9"]
