"""`anyecg`: options every command shares, and where errors become exit codes.

Command groups import heavy modules inside their functions: `anyecg --help` stays instant.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from edge.errors import AnyecgError, BadInputError

app = typer.Typer(
    name="anyecg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keep, read and ask about wearable ECG at home. Research software, not a medical device.",
)
console = Console()
errors = Console(stderr=True)

StateOption = Annotated[
    Path,
    typer.Option("--state", envvar="ANYECG_STATE", help="Folder of the database, configuration and sockets."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DEFAULT_STATE = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "anyecg"


def waiting(what: str = "looking it up") -> Status:
    """Return a line that a terminal shows from `start` to `stop`; elsewhere nothing is written."""
    return errors.status(what)


def print_json(value: Any) -> None:
    """Write one JSON document on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def print_error(kind: str, error: Exception) -> None:
    """Write an error on one line; brackets in its text are text, not styles."""
    errors.print(f"[red]{kind}:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: 0 done, 1 failed, 2 wrong usage or bad input."""
    from edge.cli import logs, register

    # NumPy's OpenBLAS would share out small products over all cores, where its idle threads spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    logs.configure()
    register.all_commands()
    try:
        app()
    except BadInputError as error:
        print_error("bad input", error)
        raise SystemExit(2) from None
    except AnyecgError as error:
        print_error("failed", error)
        raise SystemExit(1) from None
