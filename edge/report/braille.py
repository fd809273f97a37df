"""Plots in a terminal: braille dots, or `*` where the terminal has no Unicode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille dot bits by (row, column) within a cell, from U+2800."""


def plot(
    values: Sequence[float] | NDArray[np.floating],
    columns: int,
    rows: int,
    low: float,
    high: float,
    *,
    ascii_only: bool,
) -> list[str]:
    """Return `rows` lines of `columns` characters: per dot column a bar from the least to the greatest value in it.

    NaN leaves its dots empty, so a gap is a gap; values beyond [low, high] are drawn at the border.
    """
    across, down = (1, 1) if ascii_only else (2, 4)
    width, height = columns * across, rows * down
    canvas = np.zeros((height, width), bool)
    y = np.asarray(values, float)
    edges = np.linspace(0, y.size, width + 1).round().astype(int)
    span = high - low if high > low else 1.0
    last: int | None = None
    for x in range(width):
        part = y[edges[x] : max(edges[x + 1], edges[x] + 1)]
        part = part[np.isfinite(part)]
        if not part.size:
            last = None
            continue
        top, bottom = (_row(v, low, span, height) for v in (part.max(), part.min()))
        if last is not None:  # no holes between neighbouring columns
            top, bottom = min(top, last), max(bottom, last)
        canvas[top : bottom + 1, x] = True
        last = _row(float(part[-1]), low, span, height)
    if ascii_only:
        return ["".join("*" if dot else " " for dot in line) for line in canvas]
    return [
        "".join(_cell(canvas[r * down : (r + 1) * down, c * across : (c + 1) * across]) for c in range(columns))
        for r in range(rows)
    ]


def _row(value: float, low: float, span: float, height: int) -> int:
    return int(np.clip(round((1 - (value - low) / span) * (height - 1)), 0, height - 1))


def _cell(dots: NDArray[np.bool_]) -> str:
    bits = sum(_DOTS[r][c] for r in range(4) for c in range(2) if dots[r, c])
    return chr(0x2800 + bits) if bits else " "
