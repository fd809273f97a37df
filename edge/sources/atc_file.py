"""Reading AliveCor's ATC files, the raw export of Kardia devices.

https://github.com/alivecor/ATCpy (ATC File Format Specification 1.7): blocks of id, length, data and a checksum,
little endian. `fmt ` has rate and resolution, `ecg ` to `ecgc` the leads, `info` the date.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from edge.errors import BadInputError
from edge.sources.leads import SignalInfo, choose, plausible_scale
from edge.sources.record import Record

SIGNATURE = b"ALIVE\0\0\0"
MAX_BYTES = 64 << 20
"""A day of twelve leads at 300 Hz has 600 MB; Kardia recordings last up to 5 minutes."""
LEADS = dict(
    zip(
        ("ecg ", *(f"ecg{c}" for c in "23456789abc")),
        ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"),
        strict=True,
    )
)


def read_atc(path: Path, leads: Sequence[str | int] | None) -> Record:
    """Read the file at `path`; see `edge.sources.record.read_record`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInputError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no Kardia recording is")
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from None
    if not data.startswith(SIGNATURE) or len(data) < 12:
        raise BadInputError(f"{path}: not an ATC file (it does not begin with ALIVE)")
    blocks = dict(_blocks(data, path))
    if len(blocks.get("fmt ", b"")) < 6:
        raise BadInputError(f"{path}: its format block is missing")
    kind, fs_hz, nv_per_lsb = struct.unpack_from("<BHH", blocks["fmt "])
    if kind != 1 or not plausible_scale(nv_per_lsb / 1000):
        raise BadInputError(f"{path}: sample format {kind} at {nv_per_lsb} nV is unknown")
    names = [name for name in LEADS if name in blocks]
    infos = [SignalInfo(LEADS[name], "uV", float(fs_hz)) for name in names]
    chosen, notes = choose(infos, leads, str(path))
    rows = [np.frombuffer(blocks[names[i]][: len(blocks[names[i]]) // 2 * 2], "<i2") for i in chosen]
    if len({row.size for row in rows}) != 1 or not rows[0].size:
        raise BadInputError(f"{path}: its leads are empty or of different lengths")
    return Record(
        name=path.stem,
        leads=tuple(infos[i].name for i in chosen),
        fs_hz=float(fs_hz),
        uv_per_lsb=(nv_per_lsb / 1000,) * len(chosen),
        samples=np.stack(rows).astype(np.int32),
        start_utc_ns=_start_ns(blocks.get("info", b"")[:32]),
        path=path,
        notes=notes,
    )


def _blocks(data: bytes, path: Path) -> Iterator[tuple[str, bytes]]:
    at = 12
    while at < len(data):
        if at + 12 > len(data):
            raise BadInputError(f"{path}: truncated within a block header at byte {at}")
        name = data[at : at + 4].decode("latin-1")
        (length,) = struct.unpack_from("<I", data, at + 4)
        end = at + 8 + length
        if end + 4 > len(data):
            raise BadInputError(f"{path}: truncated, block {name!r} of {length} bytes reaches beyond the file")
        (checksum,) = struct.unpack_from("<I", data, end)
        block = data[at:end]
        if checksum not in (zlib.crc32(block), sum(block) & 0xFFFFFFFF):  # the specification and AliveCor's own reader
            raise BadInputError(f"{path}: block {name!r} does not match its checksum: the file is damaged")
        yield name, data[at + 8 : end]
        at = end + 4


def _start_ns(text: bytes) -> int | None:
    words = text.split(b"\0")[0].decode("latin-1").strip()
    try:
        moment = datetime.fromisoformat(words)
    except ValueError:
        return None
    return None if moment.tzinfo is None else round(moment.timestamp() * 1e6) * 1000
