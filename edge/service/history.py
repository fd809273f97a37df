"""`releases.json`: which versions were installed, and what a rollback needs to know of each."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.errors import AnyecgError


@dataclass(frozen=True, slots=True)
class Release:
    """One installation."""

    version: str
    folder: str
    """Name below `releases`."""
    schema: str
    """Of the database that this version writes."""
    installed: str
    """UTC."""
    backup: str | None = None
    """Backup of the database as the version before it left it."""


def read(path: Path) -> list[Release]:
    """Return the installations, oldest first. Raises `AnyecgError` for a damaged file."""
    try:
        return [Release(**row) for row in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise AnyecgError(f"{path} is damaged ({error}): correct it, or remove it and install anew") from None


def write(path: Path, releases: list[Release]) -> None:
    """Replace the file."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps([asdict(one) for one in releases], indent=1) + "\n")
    os.replace(beside, path)
