"""A strip on ECG paper: 25 mm/s and 10 mm/mV at the PNG's own resolution, with the 1 mm and 5 mm grid.

The figure is laid out in millimetres, a whole number of pixels each, and the file says its resolution: printed at
100 % the scale holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import AnyecgError
from edge.report.strip import FOOTER, Strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MM_PER_S = 25
MM_PER_MV = 10
PX_PER_MM = 10
"""254 dpi; half of it for a page of more than `MAX_PIXELS`."""
MAX_PIXELS = 40_000_000

LEFT, RIGHT, TOP, BOTTOM = 6, 6, 16, 12
LEAD_IN = 15
"""Millimetres of paper before the signal, with the calibration pulse."""
HEADROOM = 5
"""Millimetres above each row, for its name."""
MIN_ROW, MAX_ROW = 30, 60

PAPER, MINOR, MAJOR, TRACE, SHADE = "#fffaf8", "#f8d4d0", "#e8a09a", "#101418", "#7fb2e5"
_INCH = 25.4


def write_png(strip: Strip, path: Path) -> tuple[int, int]:
    """Draw the strip into `path`; return its size in pixels.

    Raises:
        AnyecgError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [_row_range(row) for row in strip.mv]
    grid_w = -(-round(LEAD_IN + strip.seconds * MM_PER_S) // 5) * 5
    grid_h = sum(round((high - low) * MM_PER_MV) + HEADROOM for low, high in rows)
    width, height = LEFT + grid_w + RIGHT, TOP + grid_h + BOTTOM
    px = PX_PER_MM if width * height * PX_PER_MM**2 <= MAX_PIXELS else PX_PER_MM // 2
    figure = Figure(figsize=((width * px + 1e-3) / (px * _INCH), (height * px + 1e-3) / (px * _INCH)), dpi=px * _INCH)
    canvas = FigureCanvasAgg(figure)
    page = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    page.set(xlim=(0, width), ylim=(0, height))
    page.axis("off")

    _grid(page, LEFT, BOTTOM, grid_w, grid_h)
    signal_x = LEFT + LEAD_IN
    _marks(page, strip, signal_x, BOTTOM, BOTTOM + grid_h)
    top = BOTTOM + grid_h
    for name, mv, (low, high) in zip(strip.leads, strip.mv, rows, strict=True):
        bottom = top - HEADROOM - round((high - low) * MM_PER_MV)
        _lead(page, name, mv, strip.fs_hz, signal_x, bottom, low, high)
        top = bottom
    _words(page, strip, signal_x, height, BOTTOM + grid_h, width)
    try:
        canvas.print_png(str(path))
    except OSError as error:
        raise AnyecgError(f"cannot write {path}: {error.strerror}") from None
    return width * px, height * px


def _row_range(mv: NDArray[np.float32]) -> tuple[float, float]:
    """Return the millivolts a row shows, in steps of 0.5 mV; what lies beyond is cut off at the border."""
    known = mv[np.isfinite(mv)]
    if not known.size:
        return -1.5, 1.5
    low, high = np.floor(known.min() * 2) / 2, np.ceil(known.max() * 2) / 2
    most, least = MAX_ROW / MM_PER_MV, MIN_ROW / MM_PER_MV
    if high - low > most:
        middle = np.round(np.median(known) * 2) / 2
        low, high = middle - most / 2, middle + most / 2
    while high - low < least:
        high += 0.5
        low -= 0.5 if high - low < least else 0.0
    return float(low), float(high)


def _line(mm: float) -> float:
    """Return millimetres in typographic points, matplotlib's unit of line width."""
    return mm / _INCH * 72


def _grid(page: Axes, x: int, y: int, w: int, h: int) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    page.add_patch(Rectangle((x, y), w, h, facecolor=PAPER, edgecolor="none"))
    for step, colour, thickness in ((1, MINOR, 0.1), (5, MAJOR, 0.2)):
        lines = [((x + i, y), (x + i, y + h)) for i in range(0, w + 1, step)]
        lines += [((x, y + i), (x + w, y + i)) for i in range(0, h + 1, step)]
        page.add_collection(
            LineCollection(lines, colors=colour, linewidths=_line(thickness), antialiaseds=False, capstyle="butt")
        )


def _lead(
    page: Axes, name: str, mv: NDArray[np.float32], fs_hz: float, x: int, bottom: int, low: float, high: float
) -> None:
    from matplotlib.patches import Rectangle

    top = bottom + round((high - low) * MM_PER_MV)
    seconds = np.arange(mv.size) / fs_hz
    (trace,) = page.plot(
        x + seconds * MM_PER_S,
        bottom + (np.clip(mv, low, high) - low) * MM_PER_MV,
        color=TRACE,
        linewidth=_line(0.3),
        solid_joinstyle="round",
    )
    trace.set_clip_path(Rectangle((x, bottom), mv.size / fs_hz * MM_PER_S, top - bottom, transform=page.transData))
    foot = bottom + 5 * round((top - bottom) / 2 / 5) - 5
    page.plot(
        [x - 12, x - 10, x - 10, x - 5, x - 5, x - 3],
        [foot, foot, foot + MM_PER_MV, foot + MM_PER_MV, foot, foot],
        color=TRACE,
        linewidth=_line(0.3),
        solid_joinstyle="miter",
        solid_capstyle="butt",
    )
    _text(page, x - 13, top + 1, name, weight="bold")
    for start, end in _holes(mv, fs_hz):
        if end - start >= 1:
            _text(page, x + (start + end) / 2 * MM_PER_S, (bottom + top) / 2, "not recorded", ha="center", alpha=0.6)


def _holes(mv: NDArray[np.float32], fs_hz: float) -> list[tuple[float, float]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], ~np.isfinite(mv), [0]))))
    return [(a / fs_hz, b / fs_hz) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _marks(page: Axes, strip: Strip, x: int, bottom: int, top: int) -> None:
    from matplotlib.patches import Rectangle

    for n, mark in enumerate(strip.marks):
        start, end = max(mark.start_s, 0.0), min(mark.end_s, strip.seconds)
        if start >= end:
            continue
        box = Rectangle(
            (x + start * MM_PER_S, bottom), (end - start) * MM_PER_S, top - bottom, facecolor=SHADE, alpha=0.22, lw=0
        )
        page.add_patch(box)
        _text(page, x + start * MM_PER_S + 0.5, bottom + 1 + 3 * (n % 5), mark.label, color="#1f5f9f")


def _words(page: Axes, strip: Strip, x: int, height: int, grid_top: int, width: int) -> None:
    _text(page, LEFT, height - 4.5, strip.title, size=3.2, weight="bold")
    _text(page, LEFT, height - 9, strip.when, size=3.0)
    scale = f"25 mm/s   10 mm/mV   {strip.fs_hz:g} Hz   filter: {strip.filter_band}"
    _text(page, width - RIGHT, height - 9, scale, size=2.8, ha="right")
    for t_s, kind in strip.beats:
        _text(page, x + t_s * MM_PER_S, grid_top + 1, kind, ha="center", weight="normal" if kind == "N" else "bold")
    for second in range(int(strip.seconds) + 1):
        _text(page, x + second * MM_PER_S, BOTTOM - 3.5, f"{second} s", size=2.2, ha="center")
    _text(page, LEFT, 2.5, FOOTER, size=2.8)


def _text(page: Axes, x: float, y: float, words: str, size: float = 2.6, **style: Any) -> None:
    shown = "".join(c if 0x20 <= ord(c) < 0x17F and c.isprintable() else "?" for c in words)
    page.text(x, y, shown, fontsize=_line(size), parse_math=False, **style)
