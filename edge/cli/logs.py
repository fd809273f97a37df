"""How this process logs: to stderr, never with the values of variables (they are health data)."""

from __future__ import annotations

import contextlib
import logging
import sys

import structlog


class _Log(structlog.PrintLogger):
    """A line that stderr does not take (a file on a full disk, a reader that has gone) is lost, and nothing else."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    debug = info = warning = error = critical = exception = msg


def configure(*, as_json: bool = False) -> None:
    """Log text lines, or JSON lines, from `info` up."""
    renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        processors.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _Log(sys.stderr),
    )
