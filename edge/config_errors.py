"""What is wrong with a configuration, said with file, line, key and the nearest valid name."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_ERRORS = 10

_HEADER = re.compile(r"\s*\[{1,2}([^\]\[]+)\]{1,2}\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*\.?""")


def explain(error: ValidationError, model: type[BaseModel], text: str, path: Path) -> str:
    """Return one line per mistake; values are shown except those of unknown keys, which may be secrets."""
    details = error.errors(include_url=False)
    lines = [_explain_one(detail, model, text, path) for detail in details[:MAX_ERRORS]]
    if len(details) > MAX_ERRORS:
        lines.append(f"… and {len(details) - MAX_ERRORS} more")
    return "\n".join(lines)


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """Return the 1-based line of TOML `text` that sets `keys`, or else the nearest table or key above it in depth."""
    table: list[str] = []
    best, best_depth = None, 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            here = table = _split(header[1])
        elif key := _KEY.match(line):
            here = [*table, *_split(key[1])]
        else:
            continue
        depth = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(here, keys, strict=False)))
        if depth > best_depth and depth in (len(here), len(keys)):
            best, best_depth = number, depth
    return best


def _explain_one(detail: ErrorDetails, model: type[BaseModel], text: str, path: Path) -> str:
    keys = [str(part) for part in detail["loc"] if part != "[key]"]
    dotted = ".".join(keys)
    variable = "ANYECG_" + "__".join(keys).upper()
    line = line_of(text, keys)
    if variable in os.environ:
        where = f"environment variable {variable}"
    else:
        where = f"{path}, line {line}" if line is not None else str(path)
    if detail["type"] == "extra_forbidden":
        names = _names_at(model, keys[:-1])
        near = difflib.get_close_matches(keys[-1], names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here are: {', '.join(names)}"
        return f"{where}: unknown key {dotted!r}; {hint}"
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if detail["type"] == "value_error" else f", not {detail['input']!r:.80}"
    return f"{where}: {dotted}: {message}{given}"


def _names_at(model: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """Return the valid names inside the table `keys`."""
    for key in keys:
        field = model.model_fields.get(key)
        inner = [] if field is None else [field.annotation, *get_args(field.annotation)]
        tables = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if tables:
            model = tables[0]
    return list(model.model_fields)


def _split(dotted: str) -> list[str]:
    return ["".join(part) for part in _PART.findall(dotted)]
