"""`anyecg run`: the daemon."""

from __future__ import annotations

import logging
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
    import sys

    import structlog

    from edge.config import load
    from edge.daemon import Daemon

    renderer = structlog.processors.JSONRenderer() if log_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    config = load(state)

    async def serve() -> None:
        await Daemon(state, config).run()

    asyncio.run(serve())
