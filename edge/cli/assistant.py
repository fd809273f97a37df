"""`anyecg assistant`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.app import DEFAULT_STATE, StateOption, app


@app.command()
def assistant(
    state: StateOption = DEFAULT_STATE,
    idle: Annotated[
        float | None, typer.Option("--idle", min=1, help="End when nobody has asked for so many seconds.")
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End when standard input, a pipe, is closed: who started it has gone.")
    ] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines instead of text.")] = False,
) -> None:
    """Hold the language model ready and answer `ask`, the page and MQTT over a socket, until SIGTERM."""
    from edge.assistant.service import serve
    from edge.cli import logs

    logs.configure(as_json=log_json)
    serve(state, idle, until_eof=until_eof)
