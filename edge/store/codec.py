"""Lossless coding of waveform blocks: prediction by differences, then adaptive Rice coding, all in numpy.

Per lead: missing samples are taken out as runs, the rest is differenced 1 to 3 times (whichever comes out smallest),
zigzag-mapped and Rice-coded in groups of 32 with a parameter k of their own. Rice coding: S. W. Golomb 1966 and
R. F. Rice 1979; second differences with it is what Shorten and FLAC do to sound. Measured choice: `docs/store.md`.

Little-endian layout
    u8 0xEC · u8 version · u8 leads · u8 0 · u32 n · u32 crc32 of all that follows; then per lead
    u8 order · u8 0 · u16 runs · u32 unary bytes · u32 remainder bytes
    runs x (u32 start, u32 length)   missing samples
    5 bits per group                 k
    unary plane                      per sample (u >> k) zeros and a one
    remainder plane                  per sample the low k bits of u
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.store.database import StoreError

MAGIC = 0xEC
VERSION = 1
GROUP = 32
ORDERS = (1, 2, 3)
MAX_SAMPLES = 2**20
"""Per lead and block: bounds what a damaged header can make the decoder allocate."""
MAX_RUNS = 2**16 - 1

_HEADER = struct.Struct("<BBBBII")
_LEAD = struct.Struct("<BBHII")

U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]


def encode(samples: NDArray[np.int32]) -> bytes:
    """Return int32 [leads, n] (`MISSING` where nothing was recorded) as bytes; at most 255 leads, 2^20 samples."""
    leads, n = samples.shape
    if not (1 <= leads <= 255 and n <= MAX_SAMPLES):
        raise ValueError(f"a block of {leads} leads and {n} samples is outside 1-255 leads and {MAX_SAMPLES} samples")
    body = b"".join(_encode_lead(np.ascontiguousarray(row, dtype=np.int32)) for row in samples)
    return _HEADER.pack(MAGIC, VERSION, leads, 0, n, zlib.crc32(body)) + body


def decode(data: bytes) -> NDArray[np.int32]:
    """Return the samples given to `encode`. Raises `StoreError` for anything that `encode` did not write."""
    if len(data) < _HEADER.size:
        raise StoreError(f"waveform block damaged: {len(data)} bytes")
    magic, version, leads, _, n, crc = _HEADER.unpack_from(data)
    if magic != MAGIC or n > MAX_SAMPLES or leads == 0:
        raise StoreError("waveform block damaged: no block header")
    if version != VERSION:
        raise StoreError(f"waveform block has version {version}, this anyecg reads {VERSION}: upgrade anyecg-edge")
    body = memoryview(data)[_HEADER.size :]
    if zlib.crc32(body) != crc:
        raise StoreError("waveform block damaged: checksum differs")
    samples = np.empty((leads, n), np.int32)
    try:
        at = 0
        for row in samples:
            at = _decode_lead(body, at, row)
        if at != len(body):
            raise ValueError("bytes left over")
    except (ValueError, IndexError, struct.error) as error:
        raise StoreError(f"waveform block damaged: {error}") from None
    return samples


def _encode_lead(x: NDArray[np.int32]) -> bytes:
    missing = x == MISSING
    runs = _runs(missing)
    if len(runs) > MAX_RUNS:  # cannot come from a sensor; keep them as values
        missing, runs = np.zeros_like(missing), runs[:0]
    present = x[~missing].view(np.uint32)
    best: tuple[int, int, U32, NDArray[np.int64]] | None = None
    for order in ORDERS:
        u = _zigzag(_differences(present, order))
        bits, k = _parameters(u)
        if best is None or bits < best[0]:
            best = (bits, order, u, k)
    assert best is not None
    _, order, u, k_group = best
    k = np.repeat(k_group, GROUP)[: len(u)]
    unary = np.zeros(int((u >> k).sum(dtype=np.int64)) + len(u), np.uint8)
    unary[np.cumsum((u >> k).astype(np.int64) + 1) - 1] = 1
    unary_bytes = np.packbits(unary).tobytes()
    remainder_bytes = np.packbits(_low_bits(u, k)).tobytes()
    head = _LEAD.pack(order, 0, len(runs), len(unary_bytes), len(remainder_bytes))
    return b"".join((head, runs.tobytes(), _pack_k(k_group), unary_bytes, remainder_bytes))


def _decode_lead(body: memoryview, at: int, out: NDArray[np.int32]) -> int:
    order, _, n_runs, unary_bytes, remainder_bytes = _LEAD.unpack_from(body, at)
    if order not in ORDERS:
        raise ValueError(f"difference order {order}")
    at += _LEAD.size
    present = np.ones(len(out), np.bool_)
    for start, length in np.frombuffer(body, "<u4", 2 * n_runs, at).reshape(-1, 2).tolist():
        if start + length > len(out):
            raise ValueError("missing run beyond the block")
        present[start : start + length] = False
    at += 8 * n_runs
    count = int(present.sum())
    groups = -(-count // GROUP)
    k_bytes = -(-5 * groups // 8)
    if at + k_bytes + unary_bytes + remainder_bytes > len(body):
        raise ValueError("cut short")
    k = np.repeat(_unpack_k(np.frombuffer(body, np.uint8, k_bytes, at), groups), GROUP)[:count]
    at += k_bytes
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(body, np.uint8, unary_bytes, at)))
    if len(ones) != count:
        raise ValueError(f"{len(ones)} samples instead of {count}")
    quotient = np.diff(ones, prepend=-1) - 1
    at += unary_bytes
    bits = np.unpackbits(np.frombuffer(body, np.uint8, remainder_bytes, at))
    at += remainder_bytes
    if len(bits) < int(k.sum()):
        raise ValueError("cut short")
    u = (quotient.astype(np.uint64) << k.astype(np.uint64)).astype(np.uint32) | _from_low_bits(bits, k)
    x = _undo_zigzag(u)
    for _ in range(order):
        x = np.cumsum(x, dtype=np.uint32)
    out[:] = MISSING
    out[present] = x.view(np.int32)
    return at


def _runs(mask: NDArray[np.bool_]) -> U32:
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    return np.stack((starts, ends - starts), axis=1).astype("<u4")


def _differences(x: U32, order: int) -> U32:
    for _ in range(order):
        x = np.diff(x, prepend=np.uint32(0))  # modulo 2^32, which cumsum undoes exactly
    return x


def _zigzag(x: U32) -> U32:
    signed = x.view(np.int32)
    return ((signed << 1) ^ (signed >> 31)).view(np.uint32)


def _undo_zigzag(u: U32) -> U32:
    return (u >> np.uint32(1)) ^ (np.uint32(0) - (u & np.uint32(1)))


def _parameters(u: U32) -> tuple[int, NDArray[np.int64]]:
    """Return the size in bits and the best k of each group (the optimum lies within one of log2(mean · ln 2))."""
    groups = -(-len(u) // GROUP)
    padded = np.zeros(groups * GROUP, np.uint32)
    padded[: len(u)] = u
    table = padded.reshape(groups, GROUP)
    mean = table.mean(axis=1)
    low = np.clip(np.floor(np.log2(mean * 0.6931 + 1e-9)), 0, 29).astype(np.int64)
    ks = low[None, :] + np.arange(3)[:, None]
    cost = (table[None] >> ks[:, :, None].astype(np.uint32)).sum(axis=2, dtype=np.int64) + GROUP * (1 + ks)
    best = cost.argmin(axis=0)
    return int(np.take_along_axis(cost, best[None], axis=0).sum()), low + best


def _low_bits(u: U32, k: NDArray[np.int64]) -> U8:
    sample = np.repeat(np.arange(len(u)), k)
    place = np.arange(len(sample)) - np.repeat(np.cumsum(k) - k, k)
    return ((u[sample] >> (k[sample] - 1 - place).astype(np.uint32)) & np.uint32(1)).astype(np.uint8)


def _from_low_bits(bits: U8, k: NDArray[np.int64]) -> U32:
    start = np.cumsum(k) - k
    value = np.zeros(len(k), np.uint32)
    for place in range(int(k.max(initial=0))):
        here = np.flatnonzero(k > place)
        value[here] = (value[here] << np.uint32(1)) | bits[start[here] + place]
    return value


def _pack_k(k: NDArray[np.int64]) -> bytes:
    return np.packbits(np.unpackbits(k.astype(np.uint8)[:, None], axis=1)[:, 3:]).tobytes()


def _unpack_k(packed: U8, groups: int) -> NDArray[np.int64]:
    bits = np.unpackbits(packed)[: 5 * groups].reshape(groups, 5).astype(np.int64)
    k: NDArray[np.int64] = bits @ np.array([16, 8, 4, 2, 1])
    return k
