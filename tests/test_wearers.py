"""Wearers: added, renamed, moved, given another's strap; and forgotten, down to the free pages of the file."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_kit import START_NS, Daemon, Wearable, cut, wait_for
from sqlalchemy import Connection, insert, select
from typer.testing import CliRunner

from broker.mosquitto import Mosquitto
from edge import wearers as actions
from edge.cli import register
from edge.cli.app import app
from edge.control import request
from edge.errors import AnyecgError, BadInputError
from edge.sources.ble.bindings import Binding, change_bindings, read_bindings
from edge.sources.record import read_record
from edge.store import backup, queries, tables, wearers
from edge.store.database import FILE_NAME, StoreError, open_readonly
from edge.store.residue import residue
from edge.store.waveform import read, write
from edge.store.writer import Writer

NOW_NS = START_NS + 10**12
WORD = b"\x5a\xa5\x5a\xa5\x5a\xa5\x5a\xa5"
"""In the embeddings of the one to be forgotten."""


@pytest.fixture
def own_state(state: Path, tmp_path: Path) -> Path:
    target = tmp_path / "state"
    target.mkdir()
    shutil.copy(state / FILE_NAME, target / FILE_NAME)
    with Writer(target, spacing_s=0.0) as writer:
        writer.submit(_more_of_ann).result()
    return target


def _more_of_ann(conn: Connection) -> None:
    """Rows of every kind that names a wearer."""
    (first, *_) = queries.recordings(conn, "ann")
    samples = np.cumsum(np.random.default_rng(3).normal(0, 30, (1, round(600 * first.fs_hz))), axis=1).astype(np.int32)
    write(conn, first.id, 0, samples)
    finding = (
        conn.execute(select(tables.finding.c.id).where(tables.finding.c.recording_id == first.id)).scalars().first()
    )
    conn.execute(
        insert(tables.embedding),
        [{"recording_id": first.id, "encoder": "e", "k": k, "vector": WORD * 48} for k in range(500)],
    )
    note = {"wearer": "ann", "finding_id": finding, "kind": "note", "note": "x", "at_ns": 1, "written_ns": 1}
    conn.execute(insert(tables.mark).values(note))
    topics = ["anyecg/v1/home/ann/events", "anyecg/v1/home/annabel/events"]
    for topic in topics:
        row = {"topic": topic, "payload": "{}", "retain": False, "expires_ns": None, "created_ns": 1}
        conn.execute(insert(tables.outbox).values(row))
    for text in ("How was ann last night?", "How is annabel?"):
        conn.execute(insert(tables.question).values(asked_ns=1, wearer=None, question=text, answer={}))
    health = tables.health
    conn.execute(health.delete().where(health.c.key == "links"))
    conn.execute(insert(health).values(key="links", value={"ann": {"strap": "online"}}, updated_ns=1))
    sender = {"wearer": "ann", "device": "d", "boot": 1, "ordinal": 0, "next_seq": 1, "ahead": [], "updated_ns": 1}
    conn.execute(insert(tables.sender).values(sender))
    conn.execute(insert(tables.assignment).values(wearer="bob", device="d", since_ns=1, worn_by="ann"))


def _rows(state: Path, *without: str) -> dict[str, set[tuple[str, ...]]]:
    reader = open_readonly(state)
    with reader.connect() as conn:
        found = {
            t.name: {tuple(map(str, row)) for row in conn.execute(select(t))} for t in tables.metadata.sorted_tables
        }
    reader.dispose()
    return {name: rows for name, rows in found.items() if name not in without}


def _bytes(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file())


def test_everything_of_one_is_erased_and_nothing_of_the_others(own_state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    backup.make_backup(own_state, folder, keep=3, now_ns=NOW_NS)
    shutil.copytree(backup.backups(folder)[0].folder, own_state / "replaced-2026-01-01")
    binding = {"wearer": "ann", "address": "00:11:22:33:44:55", "kind": "polar"}

    def bind(bindings: dict[str, Binding]) -> None:
        bindings["h10"] = Binding.model_validate(binding)
        bindings["h9"] = Binding.model_validate({**binding, "wearer": "bob", "address": "00:11:22:33:44:56"})

    change_bindings(own_state, bind)
    before = _rows(own_state)
    reader = open_readonly(own_state)
    with reader.connect() as conn:
        keys = {r.key.encode() for r in queries.recordings(conn, "ann")}
        ids = [r.id for r in queries.recordings(conn, "ann")]
        assert "question" in wearers.traces(conn, "ann")
    reader.dispose()
    assert WORD in _bytes(own_state)
    with Writer(own_state) as writer:
        done = actions.forget(writer, own_state, folder, wearer="ann", now_ns=NOW_NS + 10**9)
    whole = _bytes(own_state) + _bytes(folder)
    assert WORD not in whole
    assert not [key for key in keys if key in whole]
    after = _rows(own_state)
    for name, rows in before.items():
        gone = rows - after[name]
        assert after[name] <= rows, name
        if "recording_id" in tables.metadata.tables[name].c and gone:
            at = list(tables.metadata.tables[name].c.keys()).index("recording_id")
            assert {int(row[at]) for row in gone if row[at] != "None"} <= set(ids), name
    assert {row[2] for row in after["question"]} | {row[3] for row in after["question"]} >= {"How is annabel?"}
    assert [row[1] for row in after["outbox"]] == ["anyecg/v1/home/annabel/events"]
    assert after["assignment"] == set()
    assert done["bindings"] == ["h10"]
    assert list(read_bindings(own_state)) == ["h9"]
    assert len(done["copies"]) == 2
    (fresh,) = backup.backups(folder)
    backup.verify_backup(fresh)


def test_every_table_that_can_name_a_wearer_is_covered() -> None:
    """A table added later, with a reference to a wearer, a recording or a finding, must be found by `forget`."""
    for table in tables.metadata.sorted_tables:
        parents = {key.column.table.name for key in table.foreign_keys} & {"wearer", "recording", "finding"}
        if parents:
            where = str(wearers._belongs(table, "ann", [1]))
            assert where != "false", table.name


def test_the_check_would_find_what_a_careless_deletion_leaves(own_state: Path, tmp_path: Path) -> None:
    def careless(conn: Connection) -> None:
        driver = conn.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA secure_delete=OFF")

    with Writer(own_state) as writer:
        writer.submit(careless).result()
        with pytest.raises(StoreError, match="bytes of deleted rows are still in free parts"):
            actions.forget(writer, own_state, tmp_path, wearer="ann", now_ns=NOW_NS)
    assert WORD in (own_state / FILE_NAME).read_bytes()
    with sqlite3.connect(own_state / FILE_NAME) as conn:
        conn.execute("VACUUM")
    conn.close()
    assert residue(own_state / FILE_NAME) == 0
    assert WORD not in (own_state / FILE_NAME).read_bytes()


def test_renamed_everywhere_and_the_device_is_followed(own_state: Path) -> None:
    before = _rows(own_state, "outbox", "question", "health", "assignment")
    with Writer(own_state) as writer:
        writer.submit(lambda conn: wearers.rename(conn, "ann", "zoe")).result()
        with pytest.raises(BadInputError, match="there is a wearer 'bob' already"):
            writer.submit(lambda conn: wearers.rename(conn, "zoe", "bob")).result()
        with pytest.raises(BadInputError, match="no wearer 'ann'"):
            writer.submit(lambda conn: wearers.rename(conn, "ann", "eve")).result()
        with pytest.raises(BadInputError, match="must match"):
            writer.submit(lambda conn: wearers.rename(conn, "zoe", "Zoë/#")).result()
        routes = writer.submit(wearers.Routes.load).result()
        (first, *_) = writer.submit(lambda conn: queries.recordings(conn, "zoe")).result()
    after = _rows(own_state, "outbox", "question", "health", "assignment")
    renamed = {
        name: {tuple("zoe" if value == "ann" else value for value in row) for row in rows}
        for name, rows in before.items()
    }
    assert after == renamed
    assert routes.wearer("ann", first.device, 5) == "zoe"
    assert routes.wearer("bob", "d", 5) == "zoe"
    assert routes.wearer("bob", "d", 0) == "bob"


def test_time_zones_and_new_wearers_are_checked(own_state: Path) -> None:
    with Writer(own_state) as writer:
        writer.submit(lambda conn: wearers.add(conn, "eve", "Asia/Tokyo", NOW_NS)).result()
        for wrong in ("Mars/Olympus", "../etc/passwd"):
            with pytest.raises(BadInputError, match="IANA name"):
                writer.submit(lambda conn, wrong=wrong: wearers.set_timezone(conn, "eve", wrong)).result()
        writer.submit(lambda conn: wearers.set_timezone(conn, "eve", "Europe/Berlin")).result()
        assert {w.id: w.timezone for w in writer.submit(queries.wearers).result()}["eve"] == "Europe/Berlin"


def test_a_device_moves_by_the_time_of_its_samples(own_state: Path) -> None:
    with Writer(own_state) as writer:

        def give(giver: str, taker: str, at: int) -> Any:
            return writer.submit(lambda c: wearers.assign(c, device, giver=giver, taker=taker, since_ns=at)).result()

        (first, *_) = writer.submit(lambda conn: queries.recordings(conn, "bob")).result()
        device = first.device
        give("bob", "cyd", 1000)
        give("cyd", "dan", 2000)
        with pytest.raises(BadInputError, match="later --at"):
            give("dan", "bob", 1500)
        with pytest.raises(BadInputError, match="wears no device"):
            writer.submit(lambda c: wearers.assign(c, "nix", giver="bob", taker="cyd", since_ns=9)).result()
        routes = writer.submit(wearers.Routes.load).result()
    worn = [routes.wearer("bob", device, at) for at in (0, 999, 1000, 1999, 2000, 10**18)]
    assert worn == ["bob", "bob", "cyd", "cyd", "dan", "dan"]


def test_the_commands_without_a_gateway(own_state: Path) -> None:
    register.all_commands()
    runner = CliRunner()

    def run(*arguments: str, **options: Any) -> Any:
        return runner.invoke(app, ["wearers", *arguments, "--state", str(own_state)], **options)

    assert run("rename", "ann", "zoe").exit_code == 0
    listed = run("list", "--json").stdout
    assert '"wearer": "zoe"' in listed
    assert '"wearer": "ann"' not in listed
    assert "zoe" in run("list").stdout
    refused = run("forget", "zoe", input="nobody\n")
    assert isinstance(refused.exception, BadInputError)
    assert run("forget", "zoe", input="zoe\n").exit_code == 0
    assert "zoe" not in run("list", "--json").stdout


@pytest.mark.usefixtures("mosquitto_path")
def test_a_strap_changes_its_wearer_while_it_sends_and_one_is_forgotten(
    ecg_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sample is lost or told of twice; what was measured before the hand-over stays with who wore it."""
    record = cut(read_record(ecg_data / "mitdb/200"), 60)
    monkeypatch.setenv("ANYECG_ALERTS__STALE_S", "1")
    monkeypatch.setenv("ANYECG_ALERTS__LINK_LOST_S", "3")
    with Mosquitto(tmp_path / "broker") as broker, Daemon(tmp_path / "state", broker.url) as daemon:
        daemon.start()
        daemon.wait_ready()
        request(daemon.state, "wearers", action="add", wearer="bert", timezone="Europe/Berlin")
        wearable = Wearable(broker.url, record, speed=4)
        wearable.start()
        wait_for(lambda: wearable.told_committed() > 5 * record.fs_hz, 60, "the first seconds")
        at_ns = START_NS + 50 * 10**9  # some 10 s of this machine's time from now
        request(daemon.state, "wearers", action="assign", wearer="anna", device="patch", to="bert", since_ns=at_ns)
        with pytest.raises(AnyecgError, match="still sends"):
            request(daemon.state, "wearers", action="forget", wearer="anna")
        wearable.result(120)
        daemon.settle()
        reader = open_readonly(daemon.state)
        with reader.connect() as conn:
            found = {r.wearer: (r, read(conn, r.id, 0, r.end_sample).samples) for r in queries.recordings(conn)}
        reader.dispose()
        given = round(50 * record.fs_hz)
        assert np.array_equal(found["anna"][1], record.samples[:, :given])
        taken = found["bert"][1]
        assert np.array_equal(taken[:, taken[0] != np.iinfo(np.int32).min], record.samples[:, given:])
        assert found["bert"][0].to_utc_ns(found["bert"][0].end_sample) == pytest.approx(
            START_NS + 60 * 10**9, abs=10**7
        )
        key = found["bert"][0].key.encode()
        assert key in (daemon.state / FILE_NAME).read_bytes() + (daemon.state / f"{FILE_NAME}-wal").read_bytes()
        wait_for(lambda: set((daemon.status() or {})["links"]["bert"].values()) == {"offline"}, 30, "silence")
        done = request(daemon.state, "wearers", action="forget", wearer="bert")
        assert done["rows"]["recording"] == 1
        assert key not in (daemon.state / FILE_NAME).read_bytes()
        status = daemon.settle()
        assert status["analysis"]["failures"] == 0
        assert "bert" not in status["links"]
        assert daemon.stop() == 0
