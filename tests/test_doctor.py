"""Every code of the doctor that can be provoked here, on a real machine, broker and database."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from mosquitto_kit import mosquitto
from store_kit import NOW_NS
from typer.testing import CliRunner

from edge.cli import register
from edge.cli.app import app
from edge.config import parse
from edge.doctor import examine, gateway, machine
from edge.doctor.check import CODES, STATES, Check, worst
from edge.encoder.card import shipped_card
from edge.store import backup
from edge.store.database import FILE_NAME

DOC = Path(__file__).resolve().parents[1] / "docs/operations.md"


@pytest.fixture
def own_state(state: Path, tmp_path: Path) -> Path:
    target = tmp_path / "state"
    target.mkdir(mode=0o700)
    shutil.copy(state / FILE_NAME, target / FILE_NAME)
    return target


def _codes(state: Path, now_ns: int = NOW_NS) -> dict[str, Check]:
    return {check.code: check for check in examine(state, now_ns)}


def test_codes_have_a_state_and_a_fix_and_are_documented() -> None:
    text = DOC.read_text()
    for code, (state, fix) in CODES.items():
        assert state in STATES
        assert bool(fix) == (state != "ok"), code
        assert code.split(".")[1] == "ok" or f"`{code}`" in text, code
    used = set(
        re.findall(r'"([a-z]+\.[a-z_]+)"', Path(machine.__file__).read_text() + Path(gateway.__file__).read_text())
    )
    assert {code for code in used if code.split(".")[0] in {c.split(".")[0] for c in CODES}} <= set(CODES)


def test_nothing_there_is_unknown_never_ok(tmp_path: Path) -> None:
    found = _codes(tmp_path / "none")
    assert {"state.missing", "database.none", "daemon.unknown", "device.none"} <= set(found)
    assert not any(code in found for code in ("daemon.ok", "device.ok", "database.ok"))
    assert worst([]) == "unknown"


def test_a_scripted_gateway(own_state: Path) -> None:
    found = _codes(own_state)
    assert {"config.ok", "state.ok", "database.ok", "model.ok", "backup.none", "bluetooth.off"} <= set(found)
    own_state.chmod(0o755)
    (own_state / "config.toml").write_text("[mqt]\nurl = 1\n")
    found = _codes(own_state)
    assert "did you mean 'mqtt'" in found["config.invalid"].seen
    assert "755" in found["state.open"].seen


def test_last_data_of_each_device(own_state: Path) -> None:
    checks = [check for check in examine(own_state, NOW_NS) if check.code.startswith("device.")]
    assert len(checks) >= 2
    assert all(re.search(r"^\w+/.+: last data .*(ago|future)$", check.seen) for check in checks)


def test_a_damaged_database_and_a_damaged_block(own_state: Path) -> None:
    with sqlite3.connect(own_state / FILE_NAME) as conn:
        conn.execute("INSERT INTO block VALUES (1, 99999, zeroblob(50))")
    conn.close()
    assert gateway.database(own_state, deep=False).code == "database.ok"
    assert "checksum" in gateway.database(own_state, deep=True).seen
    data = bytearray((own_state / FILE_NAME).read_bytes())
    data[8192 * 30 : 8192 * 31] = b"\xa5" * 8192
    (own_state / FILE_NAME).write_bytes(data)
    assert gateway.database(own_state, deep=False).code == "database.damaged"


def test_backups_are_dated_and_their_disk_is_looked_at(own_state: Path) -> None:
    config = parse("", own_state / "config.toml")
    made_ns = time.time_ns()
    backup.make_backup(own_state, config.backup.folder, keep=1, now_ns=made_ns)
    assert gateway.backups(own_state, config, made_ns + 10**9).code == "backup.same_disk"
    assert gateway.backups(own_state, config, made_ns + 3 * 86_400 * 10**9).code == "backup.old"


def test_weights_that_are_not_their_cards(own_state: Path) -> None:
    card = shipped_card()
    weights = json.loads(card.read_text())["file"]
    shutil.copy(card, own_state / card.name)
    data = bytearray((card.parent / weights).read_bytes())
    data[1000] ^= 1
    (own_state / weights).write_bytes(data)
    config = parse(f'[encoder]\nmodel = "{card.name}"\n', own_state / "config.toml")
    check = gateway.model(config)
    assert check.code == "model.wrong"
    assert "sha256" in check.seen


def test_the_broker_lets_in_refuses_or_is_not_there(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "BROKER_TIMEOUT_S", 60.0)
    secret = own_state / "password"
    secret.write_text("right\n")
    secret.chmod(0o600)
    with mosquitto(passwords={"gateway": "right"}) as broker:
        text = f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\nusername = "gateway"\npassword_file = "password"\n'
        config = parse(text, own_state / "config.toml")
        assert gateway.broker(config).code == "broker.ok"
        secret.write_text("wrong\n")
        check = gateway.broker(config)
        assert check.code == "broker.refused"
        assert "wrong" not in check.seen
    assert gateway.broker(config).code == "broker.unreachable"


def test_the_clock_against_what_it_has_stamped() -> None:
    assert machine.clock(time.time_ns() + 3600 * 10**9).code == "clock.behind"
    assert machine.clock(None).code in ("clock.ok", "clock.unsynchronised", "clock.unknown")


def test_luks_is_found_below_other_layers(tmp_path: Path) -> None:
    """A disk with LVM on LUKS, as /sys shows it."""
    device = tmp_path.stat().st_dev
    import os

    lvm, luks, disk = (tmp_path / "devices" / name for name in ("dm-1", "dm-0", "sda2"))
    for folder, kind in ((lvm, "LVM-abc"), (luks, "CRYPT-LUKS2-abc"), (disk, None)):
        (folder / "slaves").mkdir(parents=True)
        if kind:
            (folder / "dm").mkdir()
            (folder / "dm/uuid").write_text(f"{kind}\n")
    (lvm / "slaves/dm-0").symlink_to(luks)
    (luks / "slaves/sda2").symlink_to(disk)
    block = tmp_path / "block"
    block.mkdir()
    at = block / f"{os.major(device)}:{os.minor(device)}"
    at.symlink_to(lvm)
    assert machine.encryption(tmp_path, block).code == "encryption.ok"
    at.unlink()
    at.symlink_to(disk)
    assert machine.encryption(tmp_path, block).code == "encryption.none"
    at.unlink()
    assert machine.encryption(tmp_path, block).code == "encryption.unknown"


def test_the_command(own_state: Path) -> None:
    register.all_commands()
    result = CliRunner().invoke(app, ["doctor", "--json", "--state", str(own_state)])
    document = json.loads(result.stdout)
    assert document["state"] == "failing"  # no broker on the default port, or nobody lets us in
    assert result.exit_code == 1
    assert {"code", "state", "seen", "fix"} == set(document["checks"][0])
    plain = CliRunner().invoke(app, ["doctor", "--state", str(own_state)])
    assert "→" in plain.stdout
