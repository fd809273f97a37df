"""Writing EDF+: the samples as stored, beats and events as annotations. https://www.edfplus.info/specs/edfplus.html

A data record lasts one second where the rate allows. Where nothing was recorded there is no record (EDF+D); a record
that is partly recorded holds the last value and an annotation `not recorded`, with onset and duration, tells which
part. `edge.sources.edf_file` reads that back as missing. The file's clock is UTC, for EDF knows no time zones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from edge.chunk import MISSING
from edge.errors import BadInputError
from edge.exchange.disguise import Disguise
from edge.exchange.selection import NS, Note, Stretch, notes, slices
from edge.sources.edf_file import NOT_RECORDED

LIMIT = 32_767
"""EDF holds 16 bits; the most negative value stays unused, so that the scale has no offset."""
DURATIONS = (1, 2, 4, 5, 8, 10)
"""Seconds a data record may last: the first that holds a whole number of samples."""
RECORDS_AT_ONCE = 600
MAX_TEXT = 200
"""Characters of an annotation."""
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(slots=True)
class _Plan:
    """What the first pass over the samples found."""

    per_record: int
    records: list[int]
    """Which records hold anything, ascending."""
    texts: dict[int, list[bytes]]
    """Annotations by record."""
    peak: list[int]
    """Greatest magnitude per lead."""


def write_edf(conn: Connection, stretch: Stretch, path: Path, hide: Disguise) -> None:
    """Write a stretch into `path`.

    Raises:
        BadInputError: a sample that 16 bits do not hold, or a date outside 1985-2084.
        OSError: the file cannot be written.
    """
    start_ns = hide.time(stretch.start_ns)
    started = datetime.fromtimestamp(start_ns // NS, UTC)
    if not 1985 <= started.year <= 2084:
        raise BadInputError(f"EDF knows dates from 1985 to 2084, not {started:%Y-%m-%d}: use --wfdb")
    plan = _plan(conn, stretch, notes(conn, stretch, hide))
    if max(plan.peak) > LIMIT:
        raise BadInputError(
            f"{stretch.recording.device}: samples reach {max(plan.peak)} units, EDF holds {LIMIT}: use --wfdb"
        )
    if not plan.records:
        raise BadInputError(f"{stretch.recording.device}: nothing of this stretch is stored any more")
    fraction_ns = start_ns % NS
    width = max(len(_tal(stretch, plan, record, fraction_ns)) for record in plan.records)
    width += width % 2
    with path.open("wb") as file:
        file.write(_header(stretch, plan, started, width, hide))
        _write_records(conn, stretch, plan, file, width, fraction_ns)


def samples_per_record(fs_hz: float) -> int:
    """Return how many samples a data record holds."""
    for seconds in DURATIONS:
        if float(fs_hz * seconds).is_integer():
            return round(fs_hz * seconds)
    return round(fs_hz)


def _plan(conn: Connection, stretch: Stretch, found: list[Note]) -> _Plan:
    per_record = samples_per_record(stretch.recording.fs_hz)
    leads = len(stretch.recording.leads)
    plan = _Plan(per_record, [], defaultdict(list), [0] * leads)
    for at, samples in slices(conn, stretch, per_record * RECORDS_AT_ONCE):
        for lead, row in enumerate(samples):
            known = row[row != MISSING]
            if known.size:
                plan.peak[lead] = max(plan.peak[lead], -int(known.min()), int(known.max()))
        padded = _padded(samples, per_record)
        missing = padded == MISSING
        present = (~missing).any(axis=0).reshape(-1, per_record).any(axis=1)
        base = at // per_record
        plan.records += [base + int(r) for r in np.flatnonzero(present)]
        written = np.repeat(present, per_record)
        everywhere = missing.all(axis=0)
        for name, rows in [("", everywhere & written)] + [
            (str(lead + 1), missing[lead] & ~everywhere & written) for lead in range(leads)
        ]:
            for begin, end in _runs(rows):
                text = f"{NOT_RECORDED}{': signal ' + name if name else ''}"
                record = (at + begin) // per_record
                plan.texts[record].append(_annotation(stretch, at + begin, end - begin, text))
    known_records = np.array(plan.records, np.int64)
    for note in found:
        nearest = int(np.searchsorted(known_records, note.sample // per_record, side="right")) - 1
        if known_records.size:
            record = int(known_records[max(nearest, 0)])
            plan.texts[record].append(_annotation(stretch, note.sample, note.length, _words(note)))
    return plan


def _padded(samples: NDArray[np.int32], per_record: int) -> NDArray[np.int32]:
    return np.pad(samples, ((0, 0), (0, -samples.shape[1] % per_record)), constant_values=MISSING)


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _words(note: Note) -> str:
    if note.kind == "beat":
        return note.text
    if note.kind == "event":
        return f"event {note.text} {note.detail}"
    if note.kind == "clock":
        return note.text
    return f"{note.kind}: {note.text}" if note.text else note.kind


def _ns(stretch: Stretch, samples: int) -> int:
    return round(Fraction(samples * NS) / Fraction(stretch.recording.fs_hz))


def _seconds(ns: int) -> str:
    return f"{ns // NS}.{ns % NS:09d}".rstrip("0").rstrip(".")


def _annotation(stretch: Stretch, sample: int, length: int, text: str) -> bytes:
    """A TAL without its onset offset; onsets count from the file's start, which lies a fraction before sample 0."""
    begin_ns = _ns(stretch, sample) + stretch_fraction(stretch)
    duration = f"\x15{_seconds(_ns(stretch, length))}" if length else ""
    clean = "".join(c for c in text if c >= " " and c != "\x7f")[:MAX_TEXT]
    return f"+{_seconds(begin_ns)}{duration}\x14{clean}\x14\x00".encode()


def stretch_fraction(stretch: Stretch) -> int:
    """Return the ns between the file's whole second and its first sample; whole days never change it."""
    return stretch.start_ns % NS


def _tal(stretch: Stretch, plan: _Plan, record: int, fraction_ns: int) -> bytes:
    onset_ns = _ns(stretch, record * plan.per_record) + fraction_ns
    return f"+{_seconds(onset_ns)}\x14\x14\x00".encode() + b"".join(plan.texts.get(record, ()))


def _header(stretch: Stretch, plan: _Plan, started: datetime, width: int, hide: Disguise) -> bytes:
    recording = stretch.recording
    unbroken = plan.records == list(range(len(plan.records)))
    if hide.hidden:
        patient, origin = "X X X X", "Startdate X X X X"
    else:
        patient = f"{_word(hide.wearer)} X X X"
        origin = (
            f"Startdate {started.day:02d}-{_MONTHS[started.month - 1]}-{started.year} X X {_word(recording.device)}"
        )
    count = len(recording.leads) + 1
    scales = [calibration(uv, peak) for uv, peak in zip(recording.uv_per_lsb, plan.peak, strict=True)]
    filters = "none (as recorded)"
    columns: list[tuple[int, list[str]]] = [
        (16, [*(_label(lead) for lead in recording.leads), "EDF Annotations"]),
        (80, ["", *[""] * (count - 1)]),
        (8, [*(unit for _, _, unit in scales), ""]),
        (8, [*(f"-{physical}" for _, physical, _ in scales), "-1"]),
        (8, [*(physical for _, physical, _ in scales), "1"]),
        (8, [*(str(-digital) for digital, _, _ in scales), "-32768"]),
        (8, [*(str(digital) for digital, _, _ in scales), "32767"]),
        (80, [*[filters] * (count - 1), ""]),
        (8, [*[str(plan.per_record)] * (count - 1), str(width // 2)]),
        (32, [""] * count),
    ]
    fields = [
        ("0", 8),
        (patient, 80),
        (origin, 80),
        (f"{started:%d.%m.%y}", 8),
        (f"{started:%H.%M.%S}", 8),
        (str(256 * (count + 1)), 8),
        ("EDF+C" if unbroken else "EDF+D", 44),
        (str(len(plan.records)), 8),
        (_eight(plan.per_record / recording.fs_hz), 8),
        (str(count), 4),
    ]
    text = "".join(value[:size].ljust(size) for value, size in fields)
    text += "".join(value[:size].ljust(size) for size, values in columns for value in values)
    return text.encode("ascii", "replace")


def _word(name: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c != " " else "_" for c in name)[:40] or "X"


def _label(lead: str) -> str:
    return (lead if lead.upper().startswith(("ECG", "EKG")) else f"ECG {lead}")[:16]


def _eight(value: float) -> str:
    """Return a positive number in at most 8 characters, as close as they allow."""
    text = f"{value:.7f}".rstrip("0").rstrip(".")
    return text if len(text) <= 8 else f"{value:.8f}"[:8]


def calibration(uv_per_lsb: float, peak: int) -> tuple[int, str, str]:
    """Return (digital maximum, physical maximum, unit) whose ratio is nearest to `uv_per_lsb`.

    The header has 8 characters per number, a sign included; the minima are the same, negative.
    """
    digital = np.arange(max(peak, 1), LIMIT + 1)
    unit, scale = ("uV", uv_per_lsb) if uv_per_lsb * LIMIT < 1e7 else ("mV", uv_per_lsb / 1000)
    physical = digital * scale
    whole = np.floor(np.log10(np.maximum(physical, 1))).astype(int) + 1
    decimals = np.maximum(6 - whole, 0)
    rounded = np.round(physical * 10.0**decimals) / 10.0**decimals
    error = np.abs(rounded / digital - scale)
    best = int(np.lexsort((-digital, np.where(error < scale * 1e-15, 0.0, error)))[0])
    text = f"{rounded[best]:.{int(decimals[best])}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return int(digital[best]), text, unit


def _write_records(
    conn: Connection, stretch: Stretch, plan: _Plan, file: IO[bytes], width: int, fraction_ns: int
) -> None:
    per_record, leads = plan.per_record, len(stretch.recording.leads)
    wanted = set(plan.records)
    held = np.zeros(leads, np.int32)
    for at, samples in slices(conn, stretch, per_record * RECORDS_AT_ONCE):
        filled = _padded(samples, per_record)
        for lead, row in enumerate(filled):
            held[lead] = _hold(row, int(held[lead]))
        base = at // per_record
        for r in range(filled.shape[1] // per_record):
            if base + r in wanted:
                file.write(filled[:, r * per_record : (r + 1) * per_record].astype("<i2").tobytes())
                file.write(_tal(stretch, plan, base + r, fraction_ns).ljust(width, b"\x00"))


def _hold(row: NDArray[np.int32], before: int) -> int:
    """Replace missing samples by the one before them; return the last."""
    known = row != MISSING
    last = np.maximum.accumulate(np.where(known, np.arange(row.size), -1))
    row[:] = np.where(last >= 0, row[np.maximum(last, 0)], before)
    return int(row[-1])
