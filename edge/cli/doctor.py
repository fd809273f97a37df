"""`anyecg doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json


@app.command()
def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also a large database whole, and every block of signal.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Check machine and gateway: five states, a stable code each, and what to do. Exit code 1 if something fails."""
    from rich.markup import escape

    from edge.cli.read import STYLES
    from edge.clock import SystemClock
    from edge.doctor import examine, worst

    checks = examine(state, SystemClock().utc_ns(), deep=deep)
    verdict = worst(checks)
    if as_json:
        print_json({"state": verdict, "checks": [check.as_json() for check in checks]})
    else:
        for check in checks:
            console.print(
                f"[{STYLES[check.state]}]{check.state:8}[/] {check.code:22} {escape(check.seen)}", soft_wrap=True
            )
            if check.state not in ("ok", "off"):
                console.print(f"         → {escape(check.fix)}", highlight=False, soft_wrap=True)
    raise typer.Exit(verdict == "failing")
