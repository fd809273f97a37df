"""`anyecg backup|restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json


@app.command()
def backup(
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Folder; else backup.folder.")] = None,
    keep: Annotated[int | None, typer.Option("--keep", min=1, help="Newest so many stay; else backup.keep.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Only list the backups that are there.")] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Copy database and configuration beside the running gateway, and read the copy back before it counts.

    Exit code 1 if signal in it was damaged already; older backups stay then.
    """
    from edge.clock import SystemClock
    from edge.config import load
    from edge.store import backup as backups

    settings = load(state).backup
    folder = (to or settings.folder).absolute()
    if show:
        found = backups.backups(folder)
        if as_json:
            print_json([one.as_json() for one in found])
        for one in [] if as_json else found:
            console.print(
                f"{one.folder}: {_size(one.folder)}, anyecg {one.version}, schema {one.schema}", highlight=False
            )
        if not found and not as_json:
            console.print(f"no backup in {folder}", highlight=False, markup=False)
        return
    made = backups.make_backup(state, folder, keep=keep or settings.keep, now_ns=SystemClock().utc_ns())
    if as_json:
        print_json(made.as_json())
    else:
        rows = f"{made.rows['recording']} recordings, {made.rows['block']} blocks, {made.rows['finding']} events"
        console.print(
            f"{made.folder}: {_size(made.folder)}, {rows}; read back and sound", highlight=False, markup=False
        )
    if made.damaged_blocks:
        console.print(f"{made.damaged_blocks} blocks of signal were damaged already; older backups stay")
        raise typer.Exit(1)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder of a backup, or a bare SQLite file.")],
    with_config: Annotated[
        bool, typer.Option("--with-config", help="Also replace config.toml and devices.toml.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the database, after reading it back; stop the gateway first.

    The database that was there is moved aside into replaced-<UTC>; delete it when you are sure.
    """
    from edge.clock import SystemClock
    from edge.store.backup import restore as put_back

    done = put_back(state, source.absolute(), with_config=with_config, now_ns=SystemClock().utc_ns())
    if as_json:
        print_json(done)
        return
    aside = f"; what was there is in {done['aside']}" if done["aside"] else ""
    also = f", with {' and '.join(done['also'])}" if done["also"] else ""
    console.print(f"restored from {done['restored']}{also}{aside}", highlight=False, markup=False)


def _size(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 2**20:.1f} MB"
