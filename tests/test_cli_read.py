"""`status`, `events`, `trends` and `strip` as a person or a script calls them."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from store_kit import AF_IDS, HEALTH, NOW_NS, NS, berlin, utc_ns
from typer.testing import CliRunner, Result

from edge.cli.app import app
from edge.errors import AnyecgError, BadInputError
from edge.report.status import HEARTBEAT_S, daemon_state, read_status

for group in ("ask", "read", "strip"):
    importlib.import_module(f"edge.cli.{group}")

SINCE = ("--since", "2026-03-28", "--until", "2026-03-29")


def run(state: Path, *args: str) -> Result:
    result = CliRunner().invoke(app, [*args, "--state", str(state)], env={"COLUMNS": "160"})
    if isinstance(result.exception, AnyecgError):
        raise result.exception  # `main` makes exit codes 1 and 2 of these
    return result


def value(state: Path, *args: str) -> Any:
    result = run(state, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_events_are_listed_newest_first_with_their_times_and_lengths(state: Path) -> None:
    rows = value(state, "events", "--wearer", "ann", "--rule", "af", *SINCE)
    assert [row["id"] for row in rows] == list(reversed(AF_IDS))
    assert rows[0]["start"] == "2026-03-29T00:30:00.000Z"
    assert rows[0]["duration_s"] == 4500.0
    assert rows[0]["evidence"] == {"hr_bpm": 110.0}


def test_events_filter_by_severity_and_limit(state: Path) -> None:
    assert [r["rule"] for r in value(state, "events", "--severity", "urgent", *SINCE)] == ["vt", "af"]
    assert [r["rule"] for r in value(state, "events", "--limit", "2", *SINCE)] == ["tachycardia", "vt"]


def test_a_date_means_each_wearers_own_day(state: Path) -> None:
    rows = value(state, "events", "--rule", "af", "--since", "2026-03-28", "--until", "2026-03-28")
    assert {row["id"] for row in rows} == {AF_IDS[0], AF_IDS[1], "bob-af-000000001"}


def test_the_table_of_events_shows_local_time_and_keeps_stored_text_as_text(state: Path) -> None:
    text = run(state, "events", *SINCE).stdout
    assert re.search(r"af-0000000000003\s+ann\s+af\s+urgent\s+29 Mar (2026 )?01:30:00 CET\s+1 h 15 min", text)
    assert re.search(r"28 Mar (2026 )?22:30:00 EDT", text)
    assert "10 min, open" in text
    assert "no events in this period" in run(state, "events", "--wearer", "dan").stdout


def test_trends_carry_every_minute_and_say_when_there_is_nothing(state: Path) -> None:
    (trend,) = value(state, "trends", "--wearer", "ann", "--since", "2026-03-28T11:59", "--until", "2026-03-28T12:01")
    assert [(m["start"], m["hr_bpm"], m["beats"]["V"]) for m in trend["minutes"]] == [
        ("2026-03-28T10:59:00.000Z", 75.0, 0),
        ("2026-03-28T11:00:00.000Z", 75.0, 3),
    ]
    text = run(state, "trends", "--wearer", "ann", *SINCE).stdout
    assert re.search(r"71\s+50\s+140\s+37 h 40 min\s+38 h\s+159740\s+120\s+240", text)
    assert "nothing readable" in run(state, "trends", "--wearer", "cyd", *SINCE).stdout
    assert "nothing recorded" in run(state, "trends", "--wearer", "dan").stdout


def test_trends_draw_the_gap_as_a_gap(state: Path) -> None:
    text = run(state, "trends", "--wearer", "ann", "--since", "2026-03-28T15:00", "--until", "2026-03-28T17:30").stdout
    drawing = [line[5:].ljust(154) for line in text.splitlines()[1:7]]
    gap = slice(round(0.42 * 154), round(0.58 * 154))  # 16:00 to 16:30 lies between 2/5 and 3/5
    assert all(not line[gap].strip() for line in drawing)
    assert any(line[:50].strip() for line in drawing)


def test_strip_on_the_command_line(state: Path, tmp_path: Path) -> None:
    shown = run(state, "strip", "--wearer", "ann", "--at", "2026-03-29T06:09:55")
    assert "Sun 29 Mar 2026 06:09:55 CEST" in shown.stdout
    assert "Research software, not a medical device" in shown.stdout
    png = tmp_path / "x.png"
    data = value(state, "strip", "--event", AF_IDS[0], "--png", str(png))
    assert data["png"] == str(png)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert data["start"] == "2026-03-28T08:59:58.000Z"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["events", "--since", "someday"], "cannot read the time 'someday'"),
        (["events", "--rule", "af", "--rule", "nope"], "no rule 'nope'; choose from af, svt"),
        (["events", "--severity", "bad"], "no severity 'bad'"),
        (["events", "--wearer", "eve"], "no wearer 'eve'; known: ann"),
        (["events", "--since", "2026-03-29", "--until", "2026-03-27"], "is not before"),
        (["trends", "--since", "25:99"], "cannot read the time"),
        (["strip"], "say which strip"),
        (["strip", "--event", "abcd", "--at", "now"], "say which strip"),
        (["strip", "--at", "now"], "needs --wearer"),
        (["strip", "--event", "zzzz"], "there is no event"),
        (["strip", "--record", "/nonexistent", "--from", "0"], "nonexistent"),
    ],
)
def test_wrong_usage_is_bad_input_that_says_why(state: Path, args: list[str], says: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(says)):
        run(state, *args)


@pytest.mark.parametrize("command", [["status"], ["events"], ["trends"], ["strip", "--event", "abcd"]])
def test_without_a_database_every_reading_command_fails_clearly(tmp_path: Path, command: list[str]) -> None:
    with pytest.raises(AnyecgError, match="no database in") as caught:
        run(tmp_path, *command)
    assert not isinstance(caught.value, BadInputError)


def test_status_tells_how_everything_is(conn: Connection) -> None:
    status = read_status(conn, NOW_NS)
    assert (status.state, status.reason) == ("ok", "running")
    people = {person.wearer: person for person in status.wearers}
    assert {name: person.state for name, person in people.items()} == {
        "ann": "ok",
        "bob": "off",
        "cyd": "off",
        "dan": "unknown",
    }
    ann = people["ann"]
    assert (ann.hr_bpm, ann.rhythm) == (130.0, "N")
    assert ann.devices[0]["link"] == "online"
    assert ann.devices[0]["analysis_lag_s"] == 4.0
    assert ann.coverage["recorded_s"] == pytest.approx(23.5 * 3600)
    assert [event["rule"] for event in ann.open_events] == ["tachycardia"]
    assert people["bob"].hr_bpm is None


def test_without_a_heartbeat_nobody_is_ok(conn: Connection) -> None:
    later = read_status(conn, NOW_NS + round((HEARTBEAT_S + 5) * NS))
    assert later.state == "off"
    assert {person.state for person in later.wearers} == {"unknown", "off"}
    assert {p.wearer: p.state for p in later.wearers}["ann"] == "unknown"


def test_a_link_that_falls_silent_is_late_then_off(conn: Connection) -> None:
    def ann(seconds: float) -> tuple[str, str]:
        person = next(p for p in read_status(conn, NOW_NS + round(seconds * NS)).wearers if p.wearer == "ann")
        return person.state, person.devices[0]["link"]

    assert ann(5) == ("ok", "online")
    assert ann(15) == ("degraded", "stale")
    assert read_status(conn, NOW_NS + 400 * NS).wearers[0].hr_bpm is None


@pytest.mark.parametrize(
    ("change", "age_s", "expected"),
    [
        ({}, 1.0, "ok"),
        ({}, None, "unknown"),
        ({}, 100.0, "off"),
        ({}, -100.0, "unknown"),
        ({"analysis": {"lag_s": 90.0}}, 1.0, "degraded"),
        ({"analysis": {"failing": "disk full"}}, 1.0, "failing"),
        ({"analysis": {"failing": "", "last_failure": "disk full"}}, 1.0, "ok"),
        ({"queues": {"chunks": 4900, "chunks_limit": 5000}}, 1.0, "degraded"),
        ({"broker": {"source": {"state": "down", "reason": "refused"}}}, 1.0, "failing"),
        ({"broker": {"publisher": {"link": "unreachable"}}}, 1.0, "failing"),
        ({"analysis": None, "broker": {}, "queues": {}}, 1.0, "ok"),
    ],
)
def test_the_daemon_is_in_one_of_five_states(change: dict[str, Any], age_s: float | None, expected: str) -> None:
    state, reason = daemon_state(HEALTH | change, age_s)
    assert state == expected
    assert reason


def test_an_empty_database_is_unknown_never_ok(tmp_path: Path) -> None:
    from edge.store.database import open_writable

    open_writable(tmp_path).dispose()
    found = value(tmp_path, "status")
    assert found["state"] == "unknown"
    assert found["wearers"] == []
    assert "no wearers yet" in run(tmp_path, "status").stdout
    assert "no events" in run(tmp_path, "events").stdout


def test_status_as_a_table_and_as_json(state: Path) -> None:
    text = run(state, "status").stdout
    for words in ("gateway: no report from the daemon", "test-1 on cpu: no GPU found", "2 s behind", "ann", "imported"):
        assert words in text
    found = value(state, "status")
    assert found["health"]["encoder"]["reason"] == "no GPU found"
    assert [person["wearer"] for person in found["wearers"]] == ["ann", "bob", "cyd", "dan"]


def test_no_command_shows_superseded_or_retracted_findings(state: Path) -> None:
    rows = value(state, "events", "--wearer", "ann", "--since", "2026-03-27", "--until", "2026-03-29")
    assert all(row["state"] != "retracted" for row in rows)
    assert utc_ns(berlin(28, 23, 29)) not in [row["start"] for row in rows]
    assert len(rows) == 10
