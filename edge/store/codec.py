"""Lossless coding of waveform blocks: differences, byte planes, deflate.

Per lead the missing samples are taken out as runs and the rest is differenced; first or second differences, whichever
come out smaller. Zigzag mapping makes small differences small numbers, byte planes put their zero high bytes side by
side, and deflate runs with the strategy zlib has for such data (`Z_FILTERED`). What else was tried: `docs/store.md`.

Little-endian layout
    u8 0xEC · u8 version · u8 leads · u8 order · u32 n · u32 crc32 of these 8 bytes and of all that follows
    deflate (zlib) of
        u16 runs of each lead
        u32 start, u32 length of each run of missing samples, lead after lead
        the differences of the present samples, lead after lead, u32 as four byte planes, lowest first
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MAX_LEADS, MISSING
from edge.store.database import StoreError

MAGIC = 0xEC
VERSION = 1
ORDERS = (1, 2)
LEVEL = 6
MAX_SAMPLES = 2**20
"""Per lead and block: with `MAX_LEADS` it bounds what a damaged block can make the decoder allocate."""
MAX_RUNS = 2**16 - 1

_HEADER = struct.Struct("<BBBBI")
_CRC = struct.Struct("<I")

U32 = NDArray[np.uint32]


def encode(samples: NDArray[np.int32]) -> bytes:
    """Return int32 [leads, n] (`MISSING` where nothing was recorded) as bytes; 1-12 leads, at most 2^20 samples."""
    leads, n = samples.shape
    if not (1 <= leads <= MAX_LEADS and n <= MAX_SAMPLES):
        raise ValueError(f"{leads} leads of {n} samples: a block has 1-{MAX_LEADS} leads and at most {MAX_SAMPLES}")
    runs = [_missing_runs(lead) for lead in samples]
    present = [lead[_present(r, n)].astype(np.int32).view(np.uint32) for lead, r in zip(samples, runs, strict=True)]
    head = np.array([len(r) for r in runs], "<u2").tobytes() + b"".join(r.tobytes() for r in runs)
    coded = [(_deflate(head + _planes(present, order)), order) for order in ORDERS]
    body, order = min(coded, key=lambda one: len(one[0]))
    header = _HEADER.pack(MAGIC, VERSION, leads, order, n)
    return header + _CRC.pack(zlib.crc32(body, zlib.crc32(header))) + body


def decode(data: bytes) -> NDArray[np.int32]:
    """Return the samples given to `encode`. Raises `StoreError` for anything that `encode` did not write."""
    try:
        return _decode(data)
    except (ValueError, struct.error, zlib.error) as error:
        raise StoreError(f"waveform block damaged: {error}") from None


def _decode(data: bytes) -> NDArray[np.int32]:
    magic, version, leads, order, n = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("no block header")
    if version != VERSION:
        raise StoreError(f"waveform block has version {version}, this anyecg reads {VERSION}: upgrade anyecg-edge")
    body = data[_HEADER.size + _CRC.size :]
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if zlib.crc32(body, zlib.crc32(data[: _HEADER.size])) != crc:
        raise ValueError("checksum differs")
    if not (1 <= leads <= MAX_LEADS and n <= MAX_SAMPLES and order in ORDERS):
        raise ValueError(f"{leads} leads of {n} samples, order {order}")
    inflater = zlib.decompressobj()
    raw = inflater.decompress(body, leads * (2 + 8 * MAX_RUNS + 4 * n))
    if not inflater.eof or inflater.unused_data:
        raise ValueError("length differs")
    counts = np.frombuffer(raw, "<u2", leads).tolist()
    at = 2 * leads
    masks = []
    for count in counts:
        masks.append(_present(np.frombuffer(raw, "<u4", 2 * count, at).reshape(-1, 2), n))
        at += 8 * count
    lengths = [int(mask.sum()) for mask in masks]
    planes = np.frombuffer(raw, np.uint8, 4 * sum(lengths), at).reshape(4, -1)
    if at + planes.size != len(raw):
        raise ValueError("bytes left over")
    differences = _undo_zigzag(np.ascontiguousarray(planes.T).view("<u4").ravel())
    samples = np.full((leads, n), MISSING, np.int32)
    end = 0
    for lead, mask, length in zip(samples, masks, lengths, strict=True):
        values, end = differences[end : end + length], end + length
        for _ in range(order):
            values = np.cumsum(values, dtype=np.uint32)
        lead[mask] = values.view(np.int32)
    return samples


def _missing_runs(lead: NDArray[np.int32]) -> U32:
    """Return [runs, 2] (start, length); none if there are too many, which no sensor makes: they are kept as values."""
    edges = np.flatnonzero(np.diff((lead == MISSING).astype(np.int8), prepend=0, append=0))
    runs = np.stack((edges[::2], edges[1::2] - edges[::2]), axis=1).astype("<u4")
    return runs if len(runs) <= MAX_RUNS else runs[:0]


def _present(runs: U32, n: int) -> NDArray[np.bool_]:
    present = np.ones(n, np.bool_)
    for start, length in runs.tolist():
        if start + length > n:
            raise ValueError("missing run beyond the block")
        present[start : start + length] = False
    return present


def _planes(leads: list[U32], order: int) -> bytes:
    differences = []
    for values in leads:
        for _ in range(order):
            values = np.diff(values, prepend=np.uint32(0))  # modulo 2^32, which cumsum undoes exactly
        differences.append(values)
    signed = np.concatenate(differences).view(np.int32)
    zigzag = ((signed << 1) ^ (signed >> 31)).astype("<i4")
    return zigzag.view(np.uint8).reshape(-1, 4).T.tobytes()


def _undo_zigzag(u: U32) -> U32:
    return (u >> np.uint32(1)) ^ (np.uint32(0) - (u & np.uint32(1)))


def _deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    return compressor.compress(data) + compressor.flush()
