"""Install, upgrade, roll back, uninstall.

A version is a virtual environment below `/opt/anyecg/releases`; installing it points `current` at it and (re)starts
the units. Before a version replaces another, the one that ran backs the database up. A rollback brings back the
version before with its weights, and, where the newer one has migrated the database, that backup; the migrated
database is kept aside.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge import __version__
from edge.errors import AnyecgError, BadInputError
from edge.service import history
from edge.service.history import Release
from edge.service.layout import BROKER, FILES, JETSON, UNITS, USER, Layout, shipped_units
from edge.store.database import FILE_NAME, SCHEMA

HIDDEN = ("/home", "/root", "/run/user")
"""ProtectHome= hides them from the units."""
TIMEOUT_S = 1_800.0
"""Of one command: a backup of a large database takes its time."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to install beyond the usual."""

    jetson: bool | None = None
    """Drop-ins for a Jetson: put in, taken away, or (None) left as they are."""
    broker: bool = False
    backup: bool = True
    start: bool = True


def install(root: Path, options: Options, say: Say) -> Release:
    """Make the version that runs this code the installed one. Raises `AnyecgError`, `BadInputError`."""
    layout = Layout(root.absolute())
    release = _own_release(layout)
    is_live = _is_live(layout)
    if is_live and os.geteuid() != 0:
        raise BadInputError("installing for the whole machine needs root: use sudo, or --root DIR to prepare an image")
    known = history.read(layout.history)
    running = _current(layout)
    _user_and_folders(layout, say)
    backup = None
    if running is not None and running != release.name:
        if is_live:
            _systemctl(layout, "stop", *UNITS)
        if options.backup and (layout.state / FILE_NAME).exists():
            try:
                backup = _backup(layout, running)
            except AnyecgError:
                if is_live:
                    _systemctl(layout, "start", *UNITS)  # nothing was changed yet
                raise
            say(f"backup before the upgrade: {backup}")
    _point(layout, release.name)
    _put_files(layout, options)
    enabled = [*UNITS, *([BROKER] if options.broker else [])]
    if is_live:
        _systemctl(layout, "daemon-reload")
    _systemctl(layout, "enable", *enabled)
    if is_live and options.start:
        _systemctl(layout, "reload", "dbus.service", check=False)
        _systemctl(layout, "restart", *reversed(enabled))
    made = Release(__version__, release.name, SCHEMA, datetime.now(UTC).isoformat(timespec="seconds"), backup)
    history.write(layout.history, [one for one in known if one.folder != release.name] + [made])
    say(
        f"anyecg {__version__} is installed in {layout.current}" + (" and started" if is_live and options.start else "")
    )
    return made


def rollback(root: Path, options: Options, say: Say) -> Release:
    """Bring back the version before the one that runs. Raises `AnyecgError` if there is none."""
    layout = Layout(root.absolute())
    known = history.read(layout.history)
    running = _current(layout)
    names = [one.folder for one in known]
    if running not in names or names.index(running) == 0:
        raise AnyecgError("there is no version before this one to go back to")
    newer, older = known[names.index(running)], known[names.index(running) - 1]
    program = layout.releases / older.folder / "bin/anyecg"
    if not program.exists():
        raise AnyecgError(f"version {older.version} is gone from {program.parent.parent}: install it again")
    if _is_live(layout):
        _systemctl(layout, "stop", *UNITS)
    if _schema(layout.state / FILE_NAME) not in (None, older.schema):
        if newer.backup is None:
            raise AnyecgError(
                f"version {newer.version} has migrated the database and there is no backup from before: "
                f"restore one with `{program} restore BACKUP --state {layout.state}`, then install {older.version}"
            )
        done = _run(layout, [program, "restore", newer.backup, "--state", layout.state, "--json"], as_user=True)
        said = json.loads(done.stdout)
        say(f"database restored from {newer.backup}; the newer one is in {said.get('aside')}")
    flags = [] if options.start else ["--no-start"]
    _run(layout, [program, "service", "install", "--root", layout.root, "--no-backup", *flags])
    history.write(layout.history, known[: names.index(running)])
    say(f"back at anyecg {older.version}")
    return older


def uninstall(root: Path, *, purge: bool, say: Say) -> None:
    """Take away units, policy and versions; with `purge` also every recording, the configuration and the user."""
    layout = Layout(root.absolute())
    is_live = _is_live(layout)
    if is_live and os.geteuid() != 0:
        raise BadInputError("uninstalling needs root: use sudo")
    _systemctl(layout, "disable", *(["--now"] if is_live else []), *UNITS, BROKER, check=False)
    for path in (*(layout.units / name for name in (*FILES, *JETSON)), layout.dbus, layout.sysusers):
        path.unlink(missing_ok=True)
    for name in JETSON:
        drop_ins = (layout.units / name).parent
        if drop_ins.is_dir() and not any(drop_ins.iterdir()):  # others may have put theirs there
            drop_ins.rmdir()
    if is_live:
        _systemctl(layout, "daemon-reload")
        _systemctl(layout, "reload", "dbus.service", check=False)
    if purge:
        for folder in (layout.state, layout.credentials):
            shutil.rmtree(folder, ignore_errors=True)
        if is_live:
            _run(layout, ["userdel", USER], check=False)
        say(f"{layout.state} and the user {USER} are gone")
    else:
        say(f"recordings and configuration stay in {layout.state}, credentials in {layout.credentials} (--purge)")
    shutil.rmtree(layout.prefix, ignore_errors=True)  # last: this program lies there


def _own_release(layout: Layout) -> Path:
    """Return the virtual environment this program runs from, if the units could start it there."""
    here = Path(sys.prefix)
    if here.resolve().parent != layout.releases.resolve() or not (here / "bin/anyecg").exists():
        wanted = layout.releases / __version__
        raise BadInputError(
            f"this anyecg runs from {here}; install it where the units find it:\n"
            f"  python3 -m venv {wanted}\n"
            f"  {wanted}/bin/pip install 'anyecg_edge-{__version__}-py3-none-any.whl[cpu]'\n"
            f"  {wanted}/bin/anyecg service install"
        )
    if any(Path(sys.base_prefix).is_relative_to(folder) for folder in HIDDEN) and _is_live(layout):
        raise BadInputError(f"Python itself lies in {sys.base_prefix}, which units cannot see: use the system's Python")
    return here


def _is_live(layout: Layout) -> bool:
    """Whether this is the running system, not an image."""
    return layout.root == Path("/")


def _current(layout: Layout) -> str | None:
    try:
        return Path(os.readlink(layout.current)).name
    except OSError:
        return None


def _point(layout: Layout, name: str) -> None:
    """Point `current` at a version, in one step; relative, so that an image may move."""
    beside = layout.prefix / ".current.new"
    beside.unlink(missing_ok=True)
    beside.symlink_to(Path("releases") / name)
    beside.replace(layout.current)


def _user_and_folders(layout: Layout, say: Say) -> None:
    units = shipped_units()
    _copy(units / "anyecg-sysusers.conf", layout.sysusers)
    program = shutil.which("systemd-sysusers")
    if program is None:
        say(f"systemd-sysusers is not installed: make the user {USER} yourself")
    elif os.geteuid() == 0:
        _run(layout, [program, f"--root={layout.root}", "anyecg.conf"])
    for folder in (layout.state, layout.credentials):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    ids = _ids(layout)
    if ids is not None and os.geteuid() == 0:
        os.chown(layout.state, *ids)


def _ids(layout: Layout) -> tuple[int, int] | None:
    """Return (uid, gid) of the gateway's user as the installed system knows it."""
    if _is_live(layout):
        try:
            found = pwd.getpwnam(USER)
        except KeyError:
            return None
        return found.pw_uid, found.pw_gid
    try:
        lines = layout.at(Path("/etc/passwd")).read_text().splitlines()
    except OSError:
        return None
    fields = next((line.split(":") for line in lines if line.startswith(f"{USER}:")), None)
    return None if fields is None else (int(fields[2]), int(fields[3]))


def _put_files(layout: Layout, options: Options) -> None:
    units = shipped_units()
    for name in FILES:
        _copy(units / name, layout.units / name)
    for name in JETSON:
        if options.jetson or (options.jetson is None and (layout.units / name).exists()):
            _copy(units / name, layout.units / name)
        else:
            (layout.units / name).unlink(missing_ok=True)
    _copy(units / "anyecg-dbus.conf", layout.dbus)


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.new")
        shutil.copyfile(source, beside)
        beside.chmod(0o644)
        beside.replace(target)
    except OSError as error:
        raise AnyecgError(f"cannot write {target}: {error.strerror}") from None


def _backup(layout: Layout, running: str) -> str:
    """Have the version that ran so far back its database up; return the backup's folder."""
    program = layout.releases / running / "bin/anyecg"
    done = _run(layout, [program, "backup", "--state", layout.state, "--json"], as_user=True)
    return str(json.loads(done.stdout)["folder"])


def _schema(database: Path) -> str | None:
    """Return the schema a database has, None if there is none."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as conn:
            row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise AnyecgError(f"{database} cannot be read: {error}") from None
    return None if row is None else str(row[0])


def _systemctl(layout: Layout, *arguments: str, check: bool = True) -> None:
    root = [] if _is_live(layout) else [f"--root={layout.root}"]
    _run(layout, ["systemctl", "--no-ask-password", *root, *arguments], check=check)


def _run(
    layout: Layout, command: Sequence[Any], *, as_user: bool = False, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command, as the gateway's user if asked and if we can; `AnyecgError` says what it said."""
    words = [str(word) for word in command]
    user: dict[str, Any] = {}
    ids = _ids(layout) if as_user and _is_live(layout) and os.geteuid() == 0 else None
    if ids is not None:
        user = {"user": ids[0], "group": ids[1], "extra_groups": []}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **user)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AnyecgError(f"{' '.join(words)}: {error}") from None
    if check and done.returncode:
        raise AnyecgError(f"{' '.join(words)} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done
