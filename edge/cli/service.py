"""`anyecg service install|rollback|uninstall`: the gateway as systemd services of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli.app import app, console

group = typer.Typer(no_args_is_help=True, help="Install the gateway as systemd services (docs/install.md).")
app.add_typer(group, name="service")

RootOption = Annotated[Path, typer.Option("--root", help="Another root than /, to prepare an image.")]
StartOption = Annotated[bool, typer.Option("--start/--no-start", help="(Re)start the units.")]


@group.command()
def install(
    jetson: Annotated[
        bool | None,
        typer.Option("--jetson/--no-jetson", help="Let the units use the GPU of a Jetson; else as it was."),
    ] = None,
    broker: Annotated[
        bool, typer.Option("--broker", help="Also run the broker that `anyecg broker init` set up.")
    ] = False,
    backup: Annotated[
        bool, typer.Option("--backup/--no-backup", help="Back the database up before another version takes over.")
    ] = True,
    start: StartOption = True,
    root: RootOption = Path("/"),
) -> None:
    """Install or upgrade to the version that runs this command: user, folders, units, D-Bus policy."""
    from edge.service.install import Options
    from edge.service.install import install as put_in

    put_in(root, Options(jetson, broker, backup, start), _say)


@group.command()
def rollback(
    start: StartOption = True,
    root: RootOption = Path("/"),
) -> None:
    """Go back to the version before: code, weights and, if it was migrated since, the database of then."""
    from edge.service.install import Options
    from edge.service.install import rollback as go_back

    go_back(root, Options(start=start), _say)


@group.command()
def uninstall(
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete every recording, the configuration and the user.")
    ] = False,
    root: RootOption = Path("/"),
) -> None:
    """Stop and remove the services; recordings and configuration stay unless --purge."""
    from edge.service.install import uninstall as take_away

    take_away(root, purge=purge, say=_say)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
