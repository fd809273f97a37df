"""`anyecg alerts` and `anyecg mark` without a daemon: what is said is kept, and what was told is listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from alerts_kit import START_NS, Recording, add_recording, change, tell
from sqlalchemy import Connection, insert
from typer.testing import CliRunner

from edge.alerts.policy import Teller
from edge.cli.app import app
from edge.cli.register import all_commands
from edge.config import Config
from edge.errors import AnyecgError, BadInputError
from edge.store import tables
from edge.store.writer import Writer

NOW_NS = START_NS + 5_000_000_000
HELD_ID = "1" * 16


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A store with one VT that was told and one that its cooldown holds."""

    def fill(conn: Connection) -> None:
        conn.execute(insert(tables.wearer).values(id="anna", timezone="Europe/Berlin", created_ns=0))
        add_recording(conn, Recording())
        version = dict.fromkeys(("encoder", "weights_sha256", "rules_hash", "code_version", "provider"), "")
        conn.execute(insert(tables.analysis).values(**version, created_ns=0))
        teller = Teller(Config(), lambda wearer: "v")
        tell(conn, teller, change(), NOW_NS)
        tell(conn, teller, change(id=HELD_ID, start_ns=START_NS + 30 * 10**9, end_ns=START_NS + 31 * 10**9), NOW_NS)

    with Writer(tmp_path) as writer:
        writer.submit(fill).result()
    return tmp_path


def run(state: Path, *arguments: str) -> Any:
    all_commands()
    result = CliRunner().invoke(app, [*arguments, "--state", str(state), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def listed(state: Path) -> dict[str, tuple[str, str]]:
    return {row["id"]: (row["alert"], row["reason"]) for row in run(state, "alerts", "list", "--wearer", "anna")}


def test_told_held_acknowledged_and_false(state: Path) -> None:
    told = change().row["id"]
    assert listed(state) == {HELD_ID: ("held", "cooldown"), told: ("told", "")}
    assert run(state, "alerts", "ack", told[:6])["kind"] == "ack"
    assert listed(state)[told] == ("acknowledged", "")
    mark = run(state, "review", "false", told)["id"]
    assert listed(state)[told] == ("false", "")
    run(state, "review", "undo", str(mark))
    assert listed(state)[told] == ("acknowledged", "")
    assert run(state, "review", "list", told)


def test_the_list_reads_well(state: Path) -> None:
    all_commands()
    result = CliRunner().invoke(app, ["alerts", "list", "--state", str(state)], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert "held (cooldown)" in lines[0]
    assert "23:13:20" in lines[1], "times are the wearer's"
    assert "strip: fastest" in lines[1]


def test_snooze(state: Path) -> None:
    mark = run(state, "alerts", "snooze", "--wearer", "anna", "--for", "30m", "--rule", "vt")
    assert mark["value"]["rule"] == "vt"
    assert mark["value"]["until_ns"] - mark["at_ns"] == 1800 * 10**9


@pytest.mark.parametrize("length", ["", "m", "0m", "30", "-5m", "8d", "1.5h"])
def test_a_snooze_of_no_length_is_refused(state: Path, length: str) -> None:
    with pytest.raises(BadInputError, match=r"no length of time|a snooze lasts"):
        run(state, "alerts", "snooze", "--wearer", "anna", "--for", length)


def test_a_test_needs_a_gateway(state: Path) -> None:
    with pytest.raises(AnyecgError, match="no gateway runs on"):
        run(state, "alerts", "test", "--wearer", "anna")
