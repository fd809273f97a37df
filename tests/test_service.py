"""The wheel, installed where systemd finds it: complete, verified by systemd, upgraded, rolled back, taken away."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import sysconfig
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from test_systemd import needs_systemd

from edge.service.history import Release, read, write
from edge.service.layout import BROKER, FILES, JETSON, UNITS

ROOT = Path(__file__).resolve().parents[1]
UNIT_PATH = Path("etc/systemd/system")
pytestmark = pytest.mark.timeout(900)


def run(*command: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as an operator would: without this checkout on Python's path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=600, check=False,
        env=clean | environment, cwd="/",
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def build(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("anyecg_edge-*.whl")
    return wheel


def release(root: Path, version: str, wheel: Path) -> Path:
    """Lay a version out as docs/install.md says; its dependencies are those of this environment."""
    venv = root / "opt/anyecg/releases" / version
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    run(sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--quiet", "--no-deps", wheel)
    (site,) = venv.glob("lib/python3*/site-packages")
    (site / "zz-dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_weights_migrations_page_and_units(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wanted = {name for name in tracked if name.startswith(("edge/", "broker/", "export/"))}
    wanted |= {f"edge/service/units/{name.removeprefix('systemd/')}" for name in tracked if name.startswith("systemd/")}
    assert wanted - names == set()
    for needed in ("edge/models/encoder.onnx", "edge/store/migrations/versions/v0001.py", "edge/web/static/app.js"):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


@needs_systemd
def test_installed_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    venv = release(tmp_path, "0.1.0", wheel)
    program = venv / "bin/anyecg"
    run(program, "service", "install", "--root", tmp_path, "--jetson")

    current = tmp_path / "opt/anyecg/current"
    assert current.resolve() == venv.resolve()
    assert not Path(os.readlink(current)).is_absolute()
    verified = run(current / "bin/anyecg", "models", "verify", "--state", tmp_path / "var/lib/anyecg")
    assert str(ROOT) not in verified.stdout
    assert "encoder: ok" in verified.stdout
    state = tmp_path / "var/lib/anyecg"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "etc/anyecg").stat().st_mode) == 0o700
    assert (tmp_path / "etc/dbus-1/system.d/anyecg.conf").exists()
    if os.geteuid() == 0:
        passwd = (tmp_path / "etc/passwd").read_text()
        (entry,) = [line.split(":") for line in passwd.splitlines() if line.startswith("anyecg:")]
        assert entry[5:] == ["/var/lib/anyecg", "/usr/sbin/nologin"]
        assert state.stat().st_uid == int(entry[2])

    units = tmp_path / UNIT_PATH
    for name in (*FILES, *JETSON):
        assert (units / name).read_bytes() == (ROOT / "systemd" / name).read_bytes()
    for name in UNITS:
        assert name in enabled(units)
    assert BROKER not in enabled(units)
    verify(tmp_path)

    run(program, "service", "install", "--root", tmp_path)  # again: what is there stays
    assert all((units / name).exists() for name in JETSON)
    run(program, "service", "install", "--root", tmp_path, "--no-jetson")
    assert not any((units / name).exists() for name in JETSON)
    (state / "anyecg.sqlite").touch()
    run(program, "service", "uninstall", "--root", tmp_path)
    assert not [path for path in units.rglob("anyecg*") if path.is_file() or path.is_symlink()]
    assert not (tmp_path / "opt/anyecg").exists()
    assert (state / "anyecg.sqlite").exists()


def enabled(units: Path) -> set[str]:
    return {path.name for path in units.glob("*.wants/*")}  # links into the installed system, dangling here


def verify(root: Path) -> None:
    """Have systemd judge the installed units: every program is there, and nothing is said."""
    units = root / UNIT_PATH
    folder = root / "verify"
    shutil.copytree(units, folder, symlinks=True, ignore=shutil.ignore_patterns("*.wants"))
    for path in folder.rglob("*.service"):
        text = path.read_text()
        for program in re.findall(r"^ExecStart=(/opt/\S+)", text, re.MULTILINE):
            assert os.access(root / program.lstrip("/"), os.X_OK), program
            text = text.replace(program, str(root / program.lstrip("/")))
        path.write_text(text.replace("ExecStart=/usr/sbin/mosquitto", "ExecStart=/bin/true"))
    for name in FILES:
        done = run("systemd-analyze", "verify", folder / name, SYSTEMD_UNIT_PATH=f"{folder}:", SYSTEMD_COLORS="0")
        assert (name, done.stdout, done.stderr) == (name, "", "")


@needs_systemd
def test_upgrade_backs_up_and_rollback_brings_code_weights_and_database_back(wheel: Path, tmp_path: Path) -> None:
    """The newer version has other weights and another schema; both are undone, and nothing newer is deleted."""
    old = release(tmp_path, "0.1.0", wheel)
    run(old / "bin/anyecg", "service", "install", "--root", tmp_path)
    state = tmp_path / "var/lib/anyecg"
    database = state / "anyecg.sqlite"
    current = tmp_path / "opt/anyecg/current"
    make = "import sys,pathlib; from edge.store.database import open_writable; open_writable(pathlib.Path(sys.argv[1]))"
    run(current / "bin/python", "-c", make, state)
    note = "INSERT INTO wearer (id, timezone, created_ns) VALUES (?, 'UTC', 0)"
    with closing(sqlite3.connect(database)) as conn:
        (before,) = conn.execute("SELECT version_num FROM alembic_version").fetchone()
        columns = [row[1] for row in conn.execute("PRAGMA table_info(wearer)")]
        assert {"id", "timezone"} <= set(columns), columns
        note = note if "created_ns" in columns else "INSERT INTO wearer (id, timezone) VALUES (?, 'UTC')"
        conn.execute(note, ["anna"])
        conn.commit()

    newer = release(tmp_path, "0.2.0", wheel)
    make_newer(newer, before)
    said = run(newer / "bin/anyecg", "service", "install", "--root", tmp_path).stdout
    assert "backup before the upgrade" in said
    assert current.resolve() == newer.resolve()
    run(current / "bin/python", "-c", make, state)
    with closing(sqlite3.connect(database)) as conn:
        assert conn.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
        conn.execute(note, ["ben"])
        conn.commit()
    card = "lib/python3*/site-packages/edge/models/encoder.json"
    assert '"checkpoint": "other"' in next(current.glob(card)).read_text()

    said = run(newer / "bin/anyecg", "service", "rollback", "--root", tmp_path, "--no-start").stdout
    assert "back at anyecg 0.1.0" in said
    assert current.resolve() == old.resolve()
    assert '"checkpoint": "other"' not in next(current.glob(card)).read_text()
    with closing(sqlite3.connect(database)) as conn:
        assert conn.execute("SELECT version_num FROM alembic_version").fetchone() == (before,)
        assert conn.execute("SELECT id FROM wearer").fetchall() == [("anna",)]
    (aside,) = [path for path in state.rglob("anyecg.sqlite") if path.parent.name.startswith("replaced-")]
    with closing(sqlite3.connect(aside)) as conn:
        assert {row[0] for row in conn.execute("SELECT id FROM wearer")} == {"anna", "ben"}
    again = run(old / "bin/anyecg", "service", "rollback", "--root", tmp_path, check=False)
    assert (again.returncode, "no version before" in again.stderr) == (1, True)


def make_newer(venv: Path, schema: str) -> None:
    """Turn an installed version into a later one: another number, other weights, one more migration."""
    (site,) = venv.glob("lib/python3*/site-packages")
    (facts,) = site.glob("anyecg_edge-*.dist-info/METADATA")
    facts.write_text(re.sub(r"^Version: .*$", "Version: 0.2.0", facts.read_text(), count=1, flags=re.MULTILINE))
    card = site / "edge/models/encoder.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"checkpoint": "other"}, indent=1))
    (site / "edge/store/migrations/versions/v9999.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\n"
        f'revision = "9999"\ndown_revision = "{schema}"\nbranch_labels = depends_on = None\n'
        'def upgrade():\n    op.create_table("later", sa.Column("id", sa.Integer, primary_key=True))\n'
        "def downgrade():\n    raise NotImplementedError\n"
    )
    database = site / "edge/store/database.py"
    text, found = re.subn(r'^SCHEMA = "\w+"', 'SCHEMA = "9999"', database.read_text(), flags=re.MULTILINE)
    assert found == 1
    database.write_text(text)
    for compiled in (site / "edge/store/__pycache__").glob("database.*"):
        compiled.unlink()  # of the same second and size as the new text, it would be taken for it


def test_an_anyecg_from_elsewhere_says_how_to_install(tmp_path: Path) -> None:
    done = run(
        sys.executable, "-m", "edge", "service", "install", "--root", tmp_path, check=False, PYTHONPATH=str(ROOT)
    )
    assert done.returncode == 2
    assert "python3 -m venv" in done.stderr
    assert not list(tmp_path.iterdir())


def test_history_is_read_back_and_damage_is_said(tmp_path: Path) -> None:
    path = tmp_path / "releases.json"
    assert read(path) == []
    release = Release("0.1.0", "0.1.0", "0001", "2026-01-01T00:00:00+00:00", None)
    write(path, [release])
    assert read(path) == [release]
    path.write_text('[{"version": 1}]')
    from edge.errors import AnyecgError

    with pytest.raises(AnyecgError, match="damaged"):
        read(path)
