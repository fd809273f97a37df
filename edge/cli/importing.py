"""`anyecg import`: a recording from a file into the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json


@app.command("import")
def import_(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="WFDB path (no extension), EDF, CSV or Kardia file.")],
    wearer: Annotated[str, typer.Option(help="Whose recording it is.")],
    device: Annotated[str | None, typer.Option(help="What to call its source.")] = None,
    start: Annotated[str | None, typer.Option(help="Time of its first sample, ISO 8601; else the file's own.")] = None,
    lead: Annotated[
        list[str] | None, typer.Option("--lead", metavar="NAME|INDEX", help="Lead to keep (repeatable); else all.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Put a recording into the store and analyse it like a live one; nobody is alerted.

    A running daemon does the work; without one this process does, under the lock of the state folder.
    """
    import asyncio

    from edge import control

    arguments = {
        "record": str(Path(record).absolute()),
        "wearer": wearer,
        "device": device,
        "start": start,
        "lead": [int(name) if name.isdigit() else name for name in lead or []],
    }
    try:
        result = control.request(state, "import", timeout_s=24 * 3600, **arguments)
    except control.NotRunningError:
        result = asyncio.run(_here(state, arguments))
    if as_json:
        print_json(result)
        return
    for note in result["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    events = ", ".join(f"{count} {rule}" for rule, count in result["events"].items()) or "no events"
    console.print(
        f"{result['wearer']}/{result['device']}: {result['duration_s'] / 3600:.2f} h, "
        f"{result['readable_s'] / 3600:.2f} h readable, {result['beats']} beats, {events}"
        + (" (was there already)" if result["already"] else ""),
        highlight=False,
    )


async def _here(state: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    import asyncio

    from edge.clock import SystemClock
    from edge.config import load
    from edge.gateway import Gateway
    from edge.importing import import_record

    gateway = Gateway(state, load(state), SystemClock())
    analysis = asyncio.create_task(gateway.analyse())
    try:
        return await import_record(gateway, **arguments)
    finally:
        analysis.cancel()
        gateway.close()
