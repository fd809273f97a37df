"""What deleted rows left behind in a SQLite file: nothing, where `secure_delete` was on all the time.

Source: the SQLite file format (https://www.sqlite.org/fileformat2.html), sections 1.5 (freelist), 1.6 (b-tree pages)
and 1.8 (pointer map pages).
"""

from __future__ import annotations

import struct
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

HEADER = b"SQLite format 3\x00"
LEAVES = (0x0A, 0x0D)
INTERIORS = (0x02, 0x05)
SHORTEST_WORDS = 4


def residue(path: Path) -> int:
    """Return how many bytes that belong to no row are not zero, over the free pages and the free parts of others.

    Cell pointers that SQLite leaves behind their array do not count: they are offsets in the page, nobody's data. Nor
    do fragments of a few bytes, which the format leaves between cells.
    The file must not be written meanwhile, and its WAL be empty.
    """
    left = 0
    with path.open("rb") as file:
        first = file.read(100)
        if first[:16] != HEADER:
            raise ValueError(f"{path} is no SQLite file")
        (size,) = struct.unpack(">H", first[16:18])
        size = 65536 if size == 1 else size
        maps = range(2, 2**31, size // 5 + 1) if struct.unpack(">I", first[52:56])[0] else range(0)  # auto_vacuum
        free = _free_pages(file, size, *struct.unpack(">I", first[32:36]))
        for number in range(1, path.stat().st_size // size + 1):
            file.seek((number - 1) * size)
            page = file.read(size)
            if number in free:
                left += _used(page[free[number] :])
            elif number not in maps:
                left += _free_part(page, 100 if number == 1 else 0)
    return left


def _free_pages(file: BinaryIO, size: int, trunk: int) -> dict[int, int]:
    """Return free page → its bytes that say where the others are."""
    pages: dict[int, int] = {}
    while trunk:
        file.seek((trunk - 1) * size)
        page = file.read(size)
        following, count = struct.unpack(">II", page[:8])
        pages[trunk] = 8 + 4 * count
        pages.update(dict.fromkeys(struct.unpack(f">{count}I", page[8 : 8 + 4 * count]), 0))
        trunk = following
    return pages


def _free_part(page: bytes, at: int) -> int:
    """Return the bytes in the unallocated space and the free blocks of a b-tree page; other pages have none."""
    kind = page[at]
    if kind not in LEAVES + INTERIORS:
        return 0
    block, cells, content = struct.unpack(">HHH", page[at + 1 : at + 7])
    content = content or 65536
    start = at + (8 if kind in LEAVES else 12) + 2 * cells
    if not start <= content <= len(page):
        return 0  # an overflow page that only looks like one
    words = struct.unpack_from(f">{(content - start) // 2}H", page, start)
    runs = (len(list(run)) for is_content, run in groupby(word > len(page) for word in words) if is_content)
    left = sum(2 * words for words in runs if words >= SHORTEST_WORDS)
    while content <= block <= len(page) - 4:
        following, length = struct.unpack(">HH", page[block : block + 4])
        left += _used(page[block + 4 : block + length])
        if following <= block:
            break
        block = following
    return left


def _used(data: bytes) -> int:
    return len(data) - data.count(0)
