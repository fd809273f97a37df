"""Reading ECG from CSV: Apple Watch exports as they are, anything else by a layout described in TOML beside it.

`NAME.csv` is read by `NAME.toml`:

    fs_hz = 250                                # samples per second
    start = "2026-01-31T22:15:00+01:00"        # optional
    delimiter = ","                            # "," ";" "\\t" " " or "|"
    decimal = "."                              # "." or ","
    skip_lines = 0                             # before the header line
    header = true                              # whether a line names the columns
    time = {column = "t", unit = "s"}          # optional: puts every row in its place; "s" or "ms"
    [[leads]]
    column = "ecg"                             # a name, or a number from 1
    name = "I"
    unit = "mV"                                # V, mV, uV or nV
    uv_per_lsb = 0.1                           # optional: how finely it is kept

An empty cell, `NaN` and `missing` cells are not recorded. An Apple Watch file needs no layout: it says rate, unit, lead
and date itself, in whatever language.
"""

from __future__ import annotations

import csv
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.chunk import MAX_LEADS, MISSING
from edge.errors import BadInputError
from edge.sources.leads import SignalInfo, choose, lead_name, plausible_scale
from edge.sources.record import MAX_SAMPLES, Record

UV_PER_LSB = 0.1
"""How finely a value is kept: far below the noise of any electrode."""
MAX_LINE = 4_096
MAX_LAYOUT_BYTES = 64 << 10
MAX_HEADER_LINES = 60
ROWS_AT_ONCE = 50_000
_NONE = ("", "nan", "na", "null", "none")
_RATE = re.compile(r"\s*(\d{1,4}(?:[.,]\d{1,6})?)\s*(?:hertz|hz|赫兹|赫茲|ヘルツ|헤르츠|герц)\s*", re.IGNORECASE)
_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\s*")
_UNITS = {"µv": "uV", "μv": "uV", "uv": "uV", "mv": "mV"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Lead(_Strict):
    """One column of signal."""

    column: str | int
    name: str = Field(max_length=32)
    unit: Literal["V", "mV", "uV", "µV", "nV"]
    uv_per_lsb: float = UV_PER_LSB


class Time(_Strict):
    """A column of times."""

    column: str | int
    unit: Literal["s", "ms"] = "s"


class Layout(_Strict):
    """How a CSV file is to be read."""

    fs_hz: float | int = Field(allow_inf_nan=False)
    leads: list[Lead] = Field(min_length=1, max_length=MAX_LEADS)
    start: str | None = None
    delimiter: Literal[",", ";", "\t", " ", "|"] = ","
    decimal: Literal[".", ","] = "."
    skip_lines: int = Field(default=0, ge=0, le=1000)
    header: bool = True
    time: Time | None = None
    missing: list[str] = Field(default=[], max_length=20)


def read_csv(path: Path, leads: Sequence[str | int] | None) -> Record:
    """Read the file at `path`; see `edge.sources.record.read_record`."""
    layout_path = path.with_suffix(".toml")
    try:
        with path.open("rb") as probe:
            if probe.read(4) in (b"PK\x03\x04", b"PK\x05\x06") or probe.seek(0) or probe.read(2) == b"\x1f\x8b":
                raise BadInputError(f"{path}: an archive; unpack it first")
        with path.open(encoding="utf-8-sig", newline="") as file:
            if layout_path.exists():
                layout = read_layout(layout_path)
                first = _columns(file, layout, path)
            else:
                layout, first = _apple(file, path)
            return _read(file, layout, first, path, leads)
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except csv.Error as error:
        raise BadInputError(f"{path}: damaged CSV ({error})") from None


def read_layout(path: Path) -> Layout:
    """Read a layout; raises `BadInputError` that names the wrong key."""
    try:
        if path.stat().st_size > MAX_LAYOUT_BYTES:
            raise BadInputError(f"{path}: larger than {MAX_LAYOUT_BYTES} bytes; that is no layout")
        layout = Layout(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise BadInputError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInputError(f"{path}: {where}: {first['msg']}") from None
    for lead in layout.leads:
        if not plausible_scale(lead.uv_per_lsb):
            raise BadInputError(f"{path}: {lead.uv_per_lsb} µV per digital unit is impossible")
    return layout


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise BadInputError(f"{path}: a line of more than {MAX_LINE} characters; that is no CSV of samples")
        yield line


def _columns(file: TextIO, layout: Layout, path: Path) -> list[int]:
    """Skip what precedes the samples; return the columns (from 0) of time, if any, and leads."""
    for _ in range(layout.skip_lines):
        if not file.readline(MAX_LINE):
            raise BadInputError(f"{path}: fewer lines than skip_lines = {layout.skip_lines}")
    names: list[str] = []
    if layout.header:
        line = file.readline(MAX_LINE)
        names = [name.strip() for name in next(csv.reader([line], delimiter=layout.delimiter), [])]
    wanted = ([layout.time.column] if layout.time else []) + [lead.column for lead in layout.leads]
    found = []
    for column in wanted:
        if isinstance(column, int):
            if not 1 <= column <= 1000:
                raise BadInputError(f"{path}: column {column} is impossible; the first is 1")
            found.append(column - 1)
        elif column in names:
            found.append(names.index(column))
        else:
            known = ", ".join(names[:30]) or "none: header is false, give numbers"
            raise BadInputError(f"{path}: no column {column!r}; columns: {known}")
    return found


def _apple(file: TextIO, path: Path) -> tuple[Layout, list[int]]:
    """Read the head of an Apple Watch export up to its first sample."""
    rate = unit = start = lead = None
    position = file.tell()
    for _ in range(MAX_HEADER_LINES):
        position = file.tell()
        line = file.readline(MAX_LINE)
        cells = next(csv.reader([line]), [])
        value = cells[-1].strip() if cells else ""
        if not line or (len(cells) == 1 and _number(value) is not None):
            break
        if match := _RATE.fullmatch(value):
            rate = float(match[1].replace(",", "."))
        elif _DATE.fullmatch(value):
            start = value
        elif value.lower() in _UNITS:
            unit = _UNITS[value.lower()]
        elif match := re.search(r"(?<!\w)(I{1,3}|aV[RLF]|V[1-6])$", value):
            lead = match[1]
    if rate is None or unit is None:
        raise BadInputError(
            f"{path}: not an Apple Watch export (no rate in hertz, no unit), and no layout {path.stem}.toml lies "
            "beside it; docs/exchange.md shows one"
        )
    file.seek(position)
    # Layout is strict about literals; unit is one of _UNITS
    fields = {
        "fs_hz": rate,
        "start": start,
        "header": False,
        "leads": [{"column": 1, "name": lead or "I", "unit": unit}],
    }
    return Layout(**fields), [0]  # type: ignore[arg-type]


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def _read(file: TextIO, layout: Layout, columns: list[int], path: Path, wanted: Sequence[str | int] | None) -> Record:
    infos = [SignalInfo(lead.name, lead.unit, float(layout.fs_hz)) for lead in layout.leads]
    chosen, notes = choose(infos, wanted, str(path))
    timed = layout.time is not None
    take = ([columns[0]] if timed else []) + [columns[i + timed] for i in chosen]
    none = {*_NONE, *(text.strip().lower() for text in layout.missing)}
    scales = np.array([(infos[i].uv_per_unit or 1.0) / layout.leads[i].uv_per_lsb for i in chosen])
    parts: list[NDArray[np.int32]] = []
    times: list[NDArray[np.float64]] = []
    total = 0
    quoted = not layout.header and layout.decimal == "." and len(take) == 1
    rows = csv.reader(_lines(file, path), delimiter=layout.delimiter)
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        values = _values(chunk, take, none, "," if quoted else layout.decimal, path, total)
        total += len(chunk)
        if total * len(chosen) > MAX_SAMPLES:
            raise BadInputError(f"{path}: more than {MAX_SAMPLES} samples; choose fewer leads or cut it")
        if timed:
            times.append(values[:, 0])
            values = values[:, 1:]
        digital = np.rint(values * scales)
        if np.isinf(values).any() or np.nanmax(np.abs(digital), initial=0) >= -MISSING:
            raise BadInputError(f"{path}: a value before line {total} is infinite or too large for its unit")
        parts.append(np.where(np.isnan(digital), MISSING, digital).astype(np.int32).T)
    if not total:
        raise BadInputError(f"{path}: no samples")
    samples = np.concatenate(parts, axis=1)
    if timed:
        assert layout.time is not None
        samples = _placed(samples, np.concatenate(times) / (1000 if layout.time.unit == "ms" else 1), layout, path)
    if not (samples != MISSING).any():
        raise BadInputError(f"{path}: no samples: every cell is empty")
    return Record(
        name=path.stem,
        leads=tuple(lead_name(infos[i].name) for i in chosen),
        fs_hz=float(layout.fs_hz),
        uv_per_lsb=tuple(layout.leads[i].uv_per_lsb for i in chosen),
        samples=samples,
        start_utc_ns=_start_ns(layout.start, path),
        path=path,
        notes=notes,
    )


def _values(
    chunk: list[list[str]], take: list[int], none: set[str], decimal: str, path: Path, before: int
) -> NDArray[np.float64]:
    values = np.empty((len(chunk), len(take)))
    for n, row in enumerate(chunk):
        for k, column in enumerate(take):
            cell = row[column].strip() if column < len(row) else ("" if not row else None)
            if cell is None:
                raise BadInputError(f"{path}: sample line {before + n + 1} has {len(row)} columns, not {column + 1}")
            if cell.lower() in none:
                values[n, k] = math.nan
                continue
            try:
                values[n, k] = float(cell.replace(",", ".") if decimal == "," else cell)
            except ValueError:
                raise BadInputError(f"{path}: sample line {before + n + 1}: {cell[:40]!r} is no number") from None
    return values


def _placed(samples: NDArray[np.int32], seconds: NDArray[np.float64], layout: Layout, path: Path) -> NDArray[np.int32]:
    """Put every row where its time says."""
    if not np.isfinite(seconds).all():
        raise BadInputError(f"{path}: a time is missing or no number")
    at = np.rint((seconds - seconds[0]) * float(layout.fs_hz))
    if np.any(np.diff(at) < 1):
        raise BadInputError(f"{path}: its times go back, or faster than {layout.fs_hz:g} Hz: check fs_hz and time.unit")
    if (at[-1] + 1) * samples.shape[0] > MAX_SAMPLES:
        raise BadInputError(f"{path}: its times span {seconds[-1] - seconds[0]:g} s, which is too long")
    placed = np.full((samples.shape[0], int(at[-1]) + 1), MISSING, np.int32)
    placed[:, at.astype(np.int64)] = samples
    return placed


def _start_ns(text: str | None, path: Path) -> int | None:
    if text is None:
        return None
    try:
        moment = (
            datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z") if _DATE.fullmatch(text) else datetime.fromisoformat(text)
        )
    except ValueError:
        raise BadInputError(f"{path}: start {text[:60]!r} is no ISO 8601 time") from None
    if moment.tzinfo is None:
        raise BadInputError(f"{path}: start {text!r} lacks its offset from UTC, such as +01:00")
    return round(moment.timestamp() * 1e6) * 1000
