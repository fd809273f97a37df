"""`anyecg reanalyze`: stored samples read again with the weights and rules of today."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, errors, print_json

POLL_S = 0.5
TIMEOUT_S = 24 * 3600.0


@app.command()
def reanalyze(
    wearer: Annotated[str, typer.Option("--wearer", help="Whose recordings.")],
    since: Annotated[
        str | None, typer.Option("--since", help="ISO time, date, 24h, 7d, …; else everything that is stored.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Read a wearer's stored samples again with the current weights and rules; nobody is alerted.

    Findings that come out again keep their id, others are retracted or replaced, and what people said moves along. A
    running daemon does the work between live data; without one this process does, under the lock of the state folder.
    """
    import asyncio

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from edge import control

    arguments = {"wearer": wearer, "since_ns": _since_ns(state, wearer, since)}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(
        *columns, TimeRemainingColumn(), console=errors, transient=True, disable=not errors.is_terminal
    ) as bar:
        task = bar.add_task(f"reading {wearer} again", total=None)

        def show(progress: dict[str, Any]) -> None:
            bar.update(task, completed=progress["done_s"], total=progress["total_s"] or None)

        if control.is_served(state):
            result = _there(state, arguments, show)
        else:
            result = asyncio.run(_here(state, arguments, show))
    if as_json:
        print_json(result)
        return
    events = ", ".join(f"{count} {kind}" for kind, count in result["events"].items() if count) or "nothing changed"
    console.print(
        f"{wearer}: {result['read_s'] / 3600:.2f} h in {result['recordings']} recordings read with "
        f"{result['analysis']}; events: {events}",
        highlight=False,
        soft_wrap=True,
    )


def _since_ns(state: Path, wearer: str, since: str | None) -> int | None:
    from edge.cli.read import local_span, reading
    from edge.clock import SystemClock
    from edge.store import queries

    with reading(state) as conn:
        person = queries.find_wearer(conn, wearer)
    return None if since is None else local_span(person, since, None, SystemClock().utc_ns(), 0)[0]


def _there(state: Path, arguments: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Let the daemon do it."""
    from concurrent.futures import ThreadPoolExecutor, wait

    from edge import control

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(control.request, state, "reanalyze", timeout_s=TIMEOUT_S, **arguments)
        while not wait([work], timeout=POLL_S).done:
            show(control.request(state, "reanalyze_progress"))
        return dict(work.result())


async def _here(state: Path, arguments: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Do it in this process."""
    import asyncio

    from edge.clock import SystemClock
    from edge.config import load
    from edge.gateway import Gateway
    from edge.reanalysis import Reanalysis

    gateway = Gateway(state, load(state), SystemClock())
    reanalysis = Reanalysis(gateway)
    analysis = asyncio.create_task(gateway.analyse())
    work = asyncio.create_task(reanalysis.run(**arguments))
    try:
        while not (await asyncio.wait([work], timeout=POLL_S))[0]:
            show(reanalysis.progress())
        return work.result()
    finally:
        work.cancel()
        analysis.cancel()
        await asyncio.gather(work, analysis, return_exceptions=True)
        gateway.close()
