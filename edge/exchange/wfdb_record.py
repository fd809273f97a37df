"""Writing a WFDB record: signal, header and an annotation file. https://wfdb.io/spec/

Formats 16, 24 and 32 hold the samples as stored; the most negative value of each means "not recorded". Long holes
become null segments of a multi-segment record. The header's clock is UTC: WFDB knows no time zones.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from edge.analysis_files import EXTENSION
from edge.chunk import MISSING
from edge.errors import BadInputError
from edge.exchange.disguise import Disguise
from edge.exchange.selection import NS, Note, Stretch, greatest, notes, slices
from edge.store import queries

SLICE = 1 << 18
LONG_HOLE_S = 600.0
"""A shorter one is filled with the "not recorded" value: fewer files."""
RHYTHMS = {"af": "(AFIB", "svt": "(SVTA", "vt": "(VT", "vf": "(VFL", "asystole": "(ASYS"}
UNREADABLE = ("unreadable", "flat", "lead_off", "gap")
MAX_AUX = 250


def write_wfdb(conn: Connection, stretch: Stretch, folder: Path, name: str, hide: Disguise) -> list[Path]:
    """Write a stretch as record `name` into `folder`; return its files.

    Raises:
        BadInputError: nothing is stored in the stretch.
        OSError: a file cannot be written.
    """
    width = _width(greatest(conn, stretch))
    parts = _parts(conn, stretch)
    if not parts:
        raise BadInputError(f"{stretch.recording.device}: nothing of this stretch is stored any more")
    clock = _clock(hide.time(stretch.start_ns))
    fs, leads = _number(stretch.recording.fs_hz), len(stretch.recording.leads)
    if parts == [(0, stretch.n)]:
        return [
            *_segment(conn, stretch, folder, name, (0, stretch.n), width, clock),
            _annotate(conn, stretch, folder, name, hide),
        ]
    files = [_layout(stretch, folder, f"{name}_layout", width)]
    lines = [f"{name}_layout 0"]
    at = 0
    for number, (first, last) in enumerate(parts, 1):
        if first > at:
            lines.append(f"~ {first - at}")
        files += _segment(conn, stretch, folder, f"{name}_{number:04d}", (first, last), width, "")
        lines.append(f"{name}_{number:04d} {last - first}")
        at = last
    head = folder / f"{name}.hea"
    text = [f"{name}/{len(lines)} {leads} {fs} {at} {clock}", *lines]
    head.write_text("\n".join(text) + "\n", encoding="ascii")
    return [*files, head, _annotate(conn, stretch, folder, name, hide)]


def _parts(conn: Connection, stretch: Stretch) -> list[tuple[int, int]]:
    """Return the sample spans between long holes, counted from the stretch's first sample.

    All of it where two leads have one name: in a record with null segments signals are told apart by their names.
    """
    if len(set(stretch.recording.leads)) < len(stretch.recording.leads):
        return [(0, stretch.n)]
    least = LONG_HOLE_S * stretch.recording.fs_hz
    spans, at = [], 0
    for begin, end in queries.gaps(conn, stretch.recording.id, stretch.first, stretch.last):
        if end - begin >= least:
            spans.append((at, begin - stretch.first))
            at = end - stretch.first
    spans.append((at, stretch.n))
    return [(a, b) for a, b in spans if a < b]


def _width(peak: int) -> int:
    """Return the bits that hold every sample and leave the most negative value free."""
    return next((bits for bits in (16, 24) if peak < 2 ** (bits - 1)), 32)


def _clock(start_ns: int) -> str:
    at = datetime.fromtimestamp(start_ns // NS, UTC)
    return f"{at:%H:%M:%S}.{start_ns % NS // 1000:06d} {at:%d/%m/%Y}"


def _number(value: float) -> str:
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _layout(stretch: Stretch, folder: Path, name: str, width: int) -> Path:
    """Write the layout header that a record with null segments begins with."""
    recording = stretch.recording
    lines = [f"{name} {len(recording.leads)} {_number(recording.fs_hz)} 0"]
    for lead, uv in zip(recording.leads, recording.uv_per_lsb, strict=True):
        lines.append(f"~ {width} {_number(1000 / uv)}(0)/mV {width} 0 0 0 0 {_lead(lead)}")
    head = folder / f"{name}.hea"
    head.write_text("\n".join(lines) + "\n", encoding="ascii", errors="replace")
    return head


def _segment(
    conn: Connection, stretch: Stretch, folder: Path, name: str, span: tuple[int, int], width: int, clock: str
) -> list[Path]:
    """Write signal and header of samples [first, last) of the stretch."""
    recording = stretch.recording
    first, last = span
    leads = len(recording.leads)
    part = Stretch(recording, stretch.first + first, stretch.first + last, stretch.start_ns)
    sums, begin = np.zeros(leads, np.int64), np.zeros(leads, np.int64)
    data = folder / f"{name}.dat"
    with data.open("wb") as file:
        for at, samples in slices(conn, part, SLICE):
            digital = np.where(samples == MISSING, -(2 ** (width - 1)), samples.astype(np.int64))
            if at == 0:
                begin = digital[:, 0]
            sums += digital.sum(axis=1)
            _write_frames(file, digital.T, width)
    lines = [f"{name} {leads} {_number(recording.fs_hz)} {last - first} {clock}".rstrip()]
    for n, (lead, uv) in enumerate(zip(recording.leads, recording.uv_per_lsb, strict=True)):
        checksum = (int(sums[n]) + 2**15) % 2**16 - 2**15
        gain = _number(1000 / uv)
        lines.append(f"{data.name} {width} {gain}(0)/mV {width} 0 {int(begin[n])} {checksum} 0 {_lead(lead)}")
    head = folder / f"{name}.hea"
    head.write_text("\n".join(lines) + "\n", encoding="ascii", errors="replace")
    return [data, head]


def _lead(name: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "_" for c in name) or "unknown"


def _write_frames(file: IO[bytes], frames: NDArray[np.int64], width: int) -> None:
    if width == 24:
        four = np.ascontiguousarray(frames.astype("<i4")).view(np.uint8).reshape(*frames.shape, 4)
        file.write(four[..., :3].tobytes())
    else:
        file.write(np.ascontiguousarray(frames.astype(f"<i{width // 8}")).tobytes())


def _annotate(conn: Connection, stretch: Stretch, folder: Path, name: str, hide: Disguise) -> Path:
    """Write beats, rhythm changes (`+`), unreadable signal (`~`) and every event, symptom and note (`"`)."""
    import wfdb

    rows: list[tuple[int, int, str, int, str]] = []
    for note in notes(conn, stretch, hide):
        if note.kind == "beat":
            rows.append((note.sample, 3, note.text, 0, ""))
            continue
        rows.append((note.sample, 2, '"', 0, _aux(note, stretch.recording.fs_hz)))
        if note.kind == "event" and note.text in UNREADABLE:
            rows += [(note.sample, 0, "~", -1, ""), (note.sample + note.length, 0, "~", 0, "")]
    rows += _rhythms([n for n in notes(conn, stretch, hide) if n.kind == "event" and n.text in RHYTHMS])
    rows = sorted(row for row in rows if row[0] < stretch.n) or [(0, 2, '"', 0, "no beats")]
    wfdb.wrann(
        name,
        EXTENSION,
        np.array([row[0] for row in rows], np.int64),
        symbol=[row[2] for row in rows],
        subtype=np.array([row[3] for row in rows], np.int64),
        aux_note=[row[4] for row in rows],
        fs=stretch.recording.fs_hz,
        write_dir=str(folder),
    )
    return folder / f"{name}.{EXTENSION}"


def _aux(note: Note, fs_hz: float) -> str:
    words = f"{note.text} {note.detail} {note.length / fs_hz:.3f} s" if note.kind == "event" else note.text
    text = f"{note.kind} {words}".strip()
    return text.encode("ascii", "replace").decode()[:MAX_AUX]


def _rhythms(found: list[Note]) -> list[tuple[int, int, str, int, str]]:
    """Return rhythm changes: an episode begins, and where it ends normal rhythm does."""
    rows: list[tuple[int, int, str, int, str]] = [(0, 1, "+", 0, "(N")] if not found or found[0].sample > 0 else []
    until = -1
    for note in found:
        if until >= 0 and note.sample > until:
            rows.append((until, 1, "+", 0, "(N"))
        rows.append((note.sample, 1, "+", 0, RHYTHMS[note.text]))
        until = max(until, note.sample + note.length)
    if until >= 0:
        rows.append((until, 1, "+", 0, "(N"))
    return rows
