"""What `anyecg wearers` asks for, done by the daemon or, without one, under the lock of the state folder."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from edge.errors import AnyecgError, BadInputError
from edge.sources.ble.bindings import Binding, change_bindings, read_bindings
from edge.store import backup, wearers
from edge.store.database import FILE_NAME, StoreError
from edge.store.queries import find_wearer
from edge.store.residue import residue
from edge.store.writer import Writer

ACTIONS = {
    "add": {"wearer", "timezone"},
    "rename": {"wearer", "to"},
    "timezone": {"wearer", "timezone"},
    "assign": {"wearer", "device", "to", "since_ns"},
    "forget": {"wearer"},
}
"""Action → the parameters it takes."""
LOOKS = 5


def check(request: dict[str, Any]) -> str:
    """Return the action of a request. Raises `BadInputError` if it is none, or has other parameters."""
    action = request.get("action")
    if action not in ACTIONS or set(request) != ACTIONS[action] | {"action"}:
        raise BadInputError(f"wearers takes an action with its parameters: {ACTIONS}")
    for name, value in request.items():
        if not isinstance(value, int if name == "since_ns" else str):
            raise BadInputError(f"{name} is not {value!r}")
    return str(action)


def change(conn: Connection, state: Path, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
    """Do everything but `forget`, in a transaction of the writer."""
    wearer = request["wearer"]
    match request["action"]:
        case "add":
            wearers.add(conn, wearer, request["timezone"], now_ns)
            return {"wearer": wearer, "timezone": request["timezone"]}
        case "timezone":
            wearers.set_timezone(conn, wearer, request["timezone"])
            return {"wearer": wearer, "timezone": request["timezone"]}
        case "rename":
            wearers.rename(conn, wearer, request["to"])
            _rebind(state, wearer, None, request["to"])
            return {"wearer": request["to"], "was": wearer}
        case _:
            return _assign(conn, state, request)


def _assign(conn: Connection, state: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Over Bluetooth the binding says who wears a device; over MQTT its topic does, and an assignment overrules it."""
    bound = read_bindings(state).get(request["device"])
    if bound is not None and bound.wearer == request["wearer"]:
        find_wearer(conn, request["to"])
        _rebind(state, request["wearer"], request["device"], request["to"])
        return {"device": request["device"], "wearer": request["to"], "since_ns": request["since_ns"], "by": "binding"}
    done = wearers.assign(
        conn, request["device"], giver=request["wearer"], taker=request["to"], since_ns=request["since_ns"]
    )
    return {**done, "by": "topic"}


def _rebind(state: Path, wearer: str, device: str | None, to: str | None) -> list[str]:
    """Give a wearer's Bluetooth devices (or one of them) to another, or to nobody; return which."""
    mine = [name for name, one in read_bindings(state).items() if one.wearer == wearer and device in (None, name)]

    def edit(bindings: dict[str, Binding]) -> None:
        for name in mine:
            if to is None:
                del bindings[name]
            else:
                bindings[name] = bindings[name].model_copy(update={"wearer": to})

    if mine:
        change_bindings(state, edit)
    return mine


def forget(writer: Writer, state: Path, folder: Path, *, wearer: str, now_ns: int) -> dict[str, Any]:
    """Erase a wearer from the database, its free pages and WAL, the bindings, and every copy of the database here.

    Backups below `folder` that hold the wearer go, and a new one is made in their place. Raises `StoreError` if
    something is left: it says what, and doing it again goes on where it stopped.
    """
    rows = wearers.forget(lambda job: writer.submit(job).result(), wearer)
    bindings = _rebind(state, wearer, None, None)
    copies = _delete_copies(state, folder, wearer)
    left: list[str] = writer.submit(lambda conn: wearers.traces(conn, wearer)).result()
    if left:
        raise StoreError(f"{wearer} is still named in {', '.join(left)}: run the command again")
    _verify_erased(writer, state)
    if any(path.parent == folder for path in copies):
        backup.make_backup(state, folder, keep=len(copies) + 1, now_ns=now_ns)
    return {"wearer": wearer, "rows": rows, "bindings": bindings, "copies": [str(path) for path in copies]}


def _verify_erased(writer: Writer, state: Path) -> None:
    for _ in range(LOOKS):  # a page that is being written meanwhile looks like a leftover
        writer.empty_wal()
        bytes_left = residue(state / FILE_NAME)
        if bytes_left == 0:
            return
        time.sleep(0.2)
    raise StoreError(
        f"{bytes_left} bytes of deleted rows are still in free parts of {state / FILE_NAME}: it was written by an "
        f"anyecg that did not erase; stop the gateway and run: sqlite3 {state / FILE_NAME} VACUUM"
    )


def _delete_copies(state: Path, folder: Path, wearer: str) -> list[Path]:
    """Delete backups, databases moved aside and copies before migrations that hold the wearer, or cannot be read."""
    files = [one.folder / FILE_NAME for one in backup.backups(folder)]
    for kind in ("damaged", "replaced"):
        files += state.glob(f"{kind}-*/{FILE_NAME}")
    files += state.glob("before-migration-*.sqlite")
    gone = []
    for path in files:
        if not _knows(path, wearer):
            continue
        whole = path if path.name != FILE_NAME else path.parent
        try:
            shutil.rmtree(whole) if whole.is_dir() else whole.unlink()
        except OSError as error:
            raise AnyecgError(f"{whole} holds {wearer} and cannot be deleted: {error}") from None
        gone.append(whole)
    return gone


def _knows(path: Path, wearer: str) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=ro", uri=True)) as conn:
            return conn.execute("SELECT 1 FROM wearer WHERE id = ?", (wearer,)).fetchone() is not None
    except sqlite3.Error:
        return True
