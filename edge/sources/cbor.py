"""The part of CBOR (RFC 8949) a chunk may use, read strictly.

A general decoder builds whatever a stranger asks for: bignums, decimals, regular expressions, shared references,
deep nests. This one knows numbers, text, bytes, arrays, maps, true, false, null and the four signed typed arrays of
RFC 8746; anything else is an error before memory is spent on it.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MISSING

MAX_DEPTH = 4
TYPED_ARRAYS = {73: ">i2", 74: ">i4", 77: "<i2", 78: "<i4"}
"""RFC 8746 tag → numpy type: sint16 and sint32, big and little endian."""
_INT16_MISSING = -(2**15)
_BREAK = object()


def loads(data: bytes) -> Any:
    """Return the one value `data` holds; typed arrays as int32 arrays with int16's -32768 turned into MISSING.

    Raises ValueError for anything malformed, unsupported or left over.
    """
    reader = _Reader(data)
    value = reader.value(0)
    if value is _BREAK or reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes left over")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError(f"ends {count - len(self.data) + self.at} bytes early")
        start = self.at
        self.at += count
        return self.data[start : self.at]

    def argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise ValueError(f"length code {info} is not supported here")
        return int.from_bytes(self.take(1 << (info - 24)), "big")

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        head = self.take(1)[0]
        major, info = head >> 5, head & 31
        if major == 7:
            return self.simple(info)
        if major in (4, 5) and info == 31:
            return self.array(None, depth) if major == 4 else self.map(None, depth)
        argument = self.argument(info)
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            return self.take(argument).decode()
        if major == 4:
            return self.array(argument, depth)
        if major == 5:
            return self.map(argument, depth)
        return self.typed_array(argument)

    def simple(self, info: int) -> Any:
        if info in (20, 21, 22):
            return (False, True, None)[info - 20]
        if info in (25, 26, 27):
            width = 1 << (info - 24)
            return struct.unpack({2: ">e", 4: ">f", 8: ">d"}[width], self.take(width))[0]
        if info == 31:
            return _BREAK
        raise ValueError(f"simple value {info} is not supported")

    def array(self, count: int | None, depth: int) -> list[Any]:
        items: list[Any] = []
        while count is None or len(items) < count:
            item = self.value(depth + 1)
            if item is _BREAK:
                if count is None:
                    break
                raise ValueError("break inside an array of known length")
            items.append(item)
        return items

    def map(self, count: int | None, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while count is None or len(items) < count:
            key = self.value(depth + 1)
            if key is _BREAK and count is None:
                break
            if not isinstance(key, str) or key in items:
                raise ValueError("a map key is not text or comes twice")
            value = self.value(depth + 1)
            if value is _BREAK:
                raise ValueError("a map key has no value")
            items[key] = value
        return items

    def typed_array(self, tag: int) -> NDArray[np.int32]:
        if tag not in TYPED_ARRAYS:
            raise ValueError(f"tag {tag} is not supported (RFC 8746 tags {sorted(TYPED_ARRAYS)} are)")
        head = self.take(1)[0]
        if head >> 5 != 2:
            raise ValueError(f"tag {tag} is not followed by bytes")
        dtype = np.dtype(TYPED_ARRAYS[tag])
        data = self.take(self.argument(head & 31))
        if len(data) % dtype.itemsize:
            raise ValueError(f"a typed array of {len(data)} bytes does not hold whole numbers")
        values = np.frombuffer(data, dtype).astype(np.int32)
        if dtype.itemsize == 2:
            values[values == _INT16_MISSING] = MISSING
        return values
