"""`anyecg run`: the daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.app import DEFAULT_STATE, StateOption, app


@app.command()
def run(
    state: StateOption = DEFAULT_STATE,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines instead of text.")] = False,
) -> None:
    """Run the gateway until SIGTERM: listen, keep, read, tell."""
    import asyncio
    import os

    from edge.cli import logs
    from edge.config import load
    from edge.daemon import Daemon

    os.umask(0o077)  # whatever the daemon writes is for its user only
    logs.configure(as_json=log_json)
    config = load(state)

    async def serve() -> None:
        await Daemon(state, config).run()

    asyncio.run(serve())
