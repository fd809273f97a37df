"""The retained state: what it shows, when it is written, and how silence is told, all on an injected clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from alerts_kit import START_NS, Recording, add_recording, change, findings_store, settings
from sqlalchemy import Connection, select

from edge.alerts.battery import Battery
from edge.alerts.policy import Teller
from edge.alerts.state import MAX_OPEN_SHOWN, Board
from edge.alerts.system import absence_news, system_news
from edge.clock import ManualClock
from edge.config import Alerts, Intake, Wearer
from edge.rhythm.events import Current, finding_id
from edge.store import queries, tables
from edge.store.health import write_health

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/state.schema.json").read_text()))
EVENT_SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/event.schema.json").read_text()))
CONFIG = settings("mqtt://127.0.0.1")
SINUS = Current(hr_bpm=61.26, rhythm="N", signal="readable", quality=0.987)


class Bench:
    """A board with one wearer, a clock, and what was published."""

    def __init__(self, conn: Connection, recording: Recording = Recording()) -> None:  # noqa: B008
        self.clock = ManualClock(START_NS)
        self.woken = 0
        self.board = Board(CONFIG, self.clock, self._wake)
        self.conn = conn
        self.teller = Teller(CONFIG.model_copy(update={"alerts": Alerts(cooldown_s=0)}), lambda wearer: "v")
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
        now_ns = self.clock.utc_ns()
        for recording, what in system_news(update.silences, self.conn, now_ns)[1]:
            for message in self.teller.messages(self.conn, recording, [what], now_ns):
                self.events.append(json.loads(message.payload))
                EVENT_SCHEMA.validate(self.events[-1])
        states = [json.loads(payload) for _, payload in update.states]
        for (topic, _), state in zip(update.states, states, strict=True):
            SCHEMA.validate(state)
            assert topic == f"anyecg/v1/cellar/{state['wearer']}/state"
        return states

    def told(self) -> list[tuple[str, str, int]]:
        return [(event["type"], event["rule"], event["revision"]) for event in self.events]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with findings_store() as conn:
        yield Bench(conn)


def test_what_is_known_is_shown(bench: Bench) -> None:
    bench.hear()
    bench.board.read(bench.recording, SINUS)
    (state,) = bench.tick()
    assert (state["link"], state["device"], state["contact"]) == ("online", "strap", True)
    assert (state["hr_bpm"], state["rhythm"], state["readable"], state["quality"]) == (61.3, "N", True, 0.99)
    assert state["last_sample_ns"] == bench.clock.utc_ns() - 4_000_000
    assert state["written_ns"] == bench.clock.utc_ns()
    assert state["open_events"] == []


def test_what_is_not_known_is_null(bench: Bench) -> None:
    bench.hear(contact=None)
    (state,) = bench.tick()
    assert [state[key] for key in ("contact", "hr_bpm", "rhythm", "signal", "readable", "quality")] == [None] * 6
    bench.board.read(bench.recording, Current(hr_bpm=None, rhythm="", signal="gap", quality=None))
    bench.clock.advance(1)
    (state,) = bench.tick()
    assert [state[key] for key in ("hr_bpm", "rhythm", "signal", "readable")] == [None, None, "gap", False]


def test_messages_are_a_second_apart(bench: Bench) -> None:
    written = 0
    for _ in range(100):
        bench.hear(0.1)
        written += len(bench.tick())
    assert 9 <= written <= 11


def test_a_quiet_state_is_written_again_every_minute(bench: Bench) -> None:
    bench.board.restore(bench.recording, next_sample=5, last_sample_ns=0, received_ns=START_NS - 10**15)
    assert len(bench.tick()) == 1
    times = []
    for second in range(1, 200):
        bench.clock.advance(1)
        times += [second] * len(bench.tick())
    assert times == [60, 120, 180]


def test_open_events_are_shown_at_once_and_worst_first(bench: Bench) -> None:
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


def test_many_open_events_are_counted_but_not_all_shown(bench: Bench) -> None:
    bench.board.changed(bench.recording, [change(id=f"{n:016x}") for n in range(100)])
    (state,) = bench.tick()
    assert (len(state["open_events"]), state["open_count"]) == (MAX_OPEN_SHOWN, 100)


def test_an_import_has_no_state(bench: Bench) -> None:
    bench.board.changed(Recording(source="import"), [change()])
    bench.board.restore(Recording(source="import"), next_sample=5, last_sample_ns=0, received_ns=0)
    assert bench.tick() == []


def test_silence_makes_the_link_stale_then_lost_and_hides_the_reading(bench: Bench) -> None:
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


def test_a_reading_that_analysis_does_not_renew_is_hidden(bench: Bench) -> None:
    for second in range(20):
        bench.hear()
        if second == 0:
            bench.board.read(bench.recording, SINUS)
        states = bench.tick()
    assert states[0]["link"] == "online"
    assert states[0]["hr_bpm"] is None


def test_a_recording_that_stops_is_told_once_and_not_late(bench: Bench) -> None:
    bench.hear()
    for _ in range(4000):
        bench.clock.advance(1)
        bench.tick()
    assert bench.told() == [("new", "link_lost", 1), ("new", "recording_stopped", 1)]
    assert [event["late"] for event in bench.events] == [False, False]
    bench.hear()
    bench.tick()
    assert bench.told()[2:] == [("end", "link_lost", 2), ("end", "recording_stopped", 2)]


def test_a_wall_clock_step_is_no_silence(bench: Bench) -> None:
    bench.hear()
    bench.tick()
    bench.clock.step_wall(3600)
    bench.tick()
    bench.clock.step_wall(-7200)
    bench.tick()
    assert bench.told() == []


def test_a_silence_without_new_samples_goes_on_with_its_revisions(bench: Bench) -> None:
    bench.hear()
    for _ in range(2):
        bench.clock.advance(61)
        bench.tick()
        bench.board.heard(bench.recording, next_sample=bench.sample, last_sample_ns=0, contact=None)
        bench.tick()
    assert [(kind, revision) for kind, _, revision in bench.told()] == [("new", 1), ("end", 2), ("new", 3), ("end", 4)]


@pytest.mark.parametrize(
    ("away_s", "then_silent_s", "told"),
    [
        (10, 0, [("end", "link_lost", 2)]),
        (10, 61, [("end", "link_lost", 2)]),
        (100, 0, [("end", "link_lost", 2)]),
        (4000, 100, [("end", "link_lost", 2)]),
    ],
)
def test_a_restart_knows_the_silence_that_was_told(
    bench: Bench, away_s: float, then_silent_s: float, told: list[tuple[str, str, int]]
) -> None:
    bench.hear(4)
    received_ns = bench.clock.utc_ns()
    bench.clock.advance(61)
    bench.tick()
    assert bench.told() == [("new", "link_lost", 1)]
    bench.clock.advance(away_s)
    bench.board = Board(CONFIG, bench.clock)
    opened = [dict(row) for row in bench.conn.execute(select(tables.finding)).mappings()]
    bench.board.restore(
        bench.recording, next_sample=1000, last_sample_ns=0, received_ns=received_ns, open_findings=opened
    )
    assert bench.tick()[0]["open_events"][0]["rule"] == "link_lost"
    bench.clock.advance(then_silent_s)
    bench.tick()
    bench.hear()
    bench.tick()
    assert bench.told()[1:] == told, "nothing twice"
    assert {event["id"] for event in bench.events} == {finding_id(bench.recording.key, "link_lost", 1000)}


def test_the_best_device_of_a_wearer_is_shown(bench: Bench) -> None:
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


def test_a_new_recording_of_the_device_ends_the_silence_of_the_old_one(bench: Bench) -> None:
    bench.hear()
    bench.clock.advance(61)
    bench.tick()
    bench.recording = Recording(key="e" * 16)
    add_recording(bench.conn, bench.recording)
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


def why(state: dict[str, Any]) -> list[str]:
    return [entry["why"] for entry in state["not_alerted"]]


def test_what_is_not_alerted_is_stated(bench: Bench) -> None:
    bench.hear()
    assert why(bench.tick()[0]) == ["not_read_yet", "below_severity"]
    for signal in ("unreadable", "lead_off", "flat", "gap"):
        bench.board.read(bench.recording, Current(hr_bpm=None, rhythm="", signal=signal, quality=0.1))
        bench.hear()
        assert why(bench.tick()[0]) == [signal, "below_severity"]
    bench.board.read(bench.recording, SINUS)
    bench.hear()
    (state,) = bench.tick()
    assert state["not_alerted"] == [{"why": "below_severity", "rules": None, "below": "advisory", "until": None}]
    bench.clock.advance(11)
    assert why(bench.tick()[0]) == ["no_data", "below_severity"]


def test_an_all_hearing_wearer_misses_nothing(bench: Bench) -> None:
    config = CONFIG.model_copy(update={"wearers": {"anna": Wearer(min_severity="info")}})
    board = Board(config, bench.clock)
    board.heard(bench.recording, next_sample=1, last_sample_ns=0, contact=True)
    board.read(bench.recording, SINUS)
    assert json.loads(board.tick().states[0][1])["not_alerted"] == []


def test_what_people_silenced_is_stated_at_once(bench: Bench) -> None:
    entry = {"why": "snoozed", "rules": ["vt"], "below": "critical", "until": "2023-11-14T23:00:00.000Z"}
    board = Board(CONFIG, bench.clock, bench._wake, silenced=lambda wearer: [entry])
    board.heard(bench.recording, next_sample=1, last_sample_ns=0, contact=True)
    board.tick()
    board.refresh("anna")
    state = json.loads(board.tick().states[0][1])
    SCHEMA.validate(state)
    assert entry in state["not_alerted"]


def test_acknowledged_and_false_events_in_the_state(bench: Bench) -> None:
    bench.hear()
    bench.board.changed(bench.recording, [change(), change(id="1" * 16, rule="af")])
    bench.board.changed(bench.recording, [change("update", said="ack"), change("update", id="1" * 16, said="false")])
    bench.board.changed(bench.recording, [change("update", severity="critical"), change("update", id="1" * 16)])
    (state,) = bench.tick()
    assert [(e["rule"], e["severity"], e["acknowledged"]) for e in state["open_events"]] == [("vt", "critical", True)]


def test_a_battery_is_shown_and_told_once_over_restarts(bench: Bench) -> None:
    bench.hear()
    battery = Battery()

    def report(percent: int) -> list[str]:
        now_ns = bench.clock.utc_ns()
        bench.board.battery("anna", "strap", percent)
        found = battery.report(bench.recording, percent, sample=bench.sample, now_ns=now_ns)
        written = system_news([] if found is None else [(bench.recording, found)], bench.conn, now_ns)[1]
        return [change.type for _, change in written]

    assert [report(percent) for percent in (20, 15, 14)] == [[], ["new"], []]
    bench.hear()
    assert bench.tick()[0]["battery_percent"] == 14
    battery = Battery()
    battery.restore(bench.recording, dict(bench.conn.execute(select(tables.finding)).mappings().one()))
    assert [report(percent) for percent in (13, 24, 25, 12)] == [[], [], ["end"], ["new"]]


@pytest.mark.parametrize(("away_s", "on_purpose", "told"), [(59, False, 0), (61, False, 1), (3600, True, 1)])
def test_a_gateway_that_was_away_tells_it(bench: Bench, away_s: int, on_purpose: bool, told: int) -> None:
    live = Recording(key="a" * 16, device="patch")
    add_recording(bench.conn, live)
    add_recording(bench.conn, Recording(key="c" * 16, source="import"))
    write_health(bench.conn, {"daemon": {}}, START_NS)
    if on_purpose:
        write_health(bench.conn, {"stopped": 0}, START_NS + 1)
    now_ns = START_NS + away_s * 10**9
    found = absence_news(60, bench.conn, now_ns)[1]
    events = [
        json.loads(message.payload)
        for recording, what in found
        for message in bench.teller.messages(bench.conn, recording, [what], now_ns)
    ]
    assert [(e["type"], e["rule"], e["start_ns"], e["end_ns"]) for e in events] == [
        ("end", "gateway_down", START_NS, now_ns)
    ] * told
    for event in events:
        EVENT_SCHEMA.validate(event)
        assert event["evidence"] == {"down_s": away_s, "stopped_on_purpose": int(on_purpose)}
    assert absence_news(60, bench.conn, now_ns)[1] == [], "nothing twice"


def test_a_first_start_was_never_away(bench: Bench) -> None:
    assert absence_news(60, bench.conn, START_NS + 10**15)[1] == []
    assert queries.findings(bench.conn) == []
