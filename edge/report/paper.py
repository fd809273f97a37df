"""A strip on ECG paper: 25 mm/s and 10 mm/mV with the 1 mm and 5 mm grid, as PNG, SVG or PDF.

The figure is laid out in millimetres, in a PNG a whole number of pixels each, and the file says its size: printed at
100 % the scale holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import AnyecgError, BadInputError
from edge.report.strip import FOOTER, ST_NOTE, Strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
INCH = 25.4
FONTS = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "anyecg"}
"""Text stays text in PDF and SVG, and the same strip gives the same file."""
_PUNCTUATION = "–“”…"
SUFFIXES = (".png", ".svg", ".pdf")


def write_strip(strip: Strip, path: Path) -> str:
    """Draw the strip into a `.png`, `.svg` or `.pdf` file; return its size in words.

    Raises:
        BadInputError: another extension.
        AnyecgError: the file cannot be written.
    """
    import matplotlib

    suffix = path.suffix.lower()
    if suffix == ".png":
        return "{} x {} pixels".format(*write_png(strip, path))
    if suffix not in SUFFIXES:
        raise BadInputError(f"{path}: a strip is written as {', '.join(SUFFIXES)}")
    width, height, _, _ = _size(strip)
    with matplotlib.rc_context(FONTS):
        try:
            _page(strip, width, height, INCH).savefig(path, format=suffix[1:], metadata=_metadata(suffix, strip.title))
        except OSError as error:
            raise AnyecgError(f"cannot write {path}: {error.strerror}") from None
    return f"{width} x {height} mm"


def write_png(strip: Strip, path: Path) -> tuple[int, int]:
    """Draw the strip into `path`; return its size in pixels.

    Raises:
        AnyecgError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    width, height, _, _ = _size(strip)
    px = PX_PER_MM if width * height * PX_PER_MM**2 <= MAX_PIXELS else PX_PER_MM // 2
    canvas = FigureCanvasAgg(_page(strip, width, height, px * INCH))
    try:
        canvas.print_png(str(path))
    except OSError as error:
        raise AnyecgError(f"cannot write {path}: {error.strerror}") from None
    return width * px, height * px


def _metadata(suffix: str, title: str) -> dict[str, Any]:
    return {"Title": title, "CreationDate": None} if suffix == ".pdf" else {"Title": title, "Date": None}


def _size(strip: Strip) -> tuple[int, int, int, int]:
    """Return width and height of the page and of its grid, in mm."""
    rows = [row_range(row) for row in strip.mv]
    grid_w = -(-round(LEAD_IN + strip.seconds * MM_PER_S) // 5) * 5
    grid_h = sum(round((high - low) * MM_PER_MV) + HEADROOM for low, high in rows)
    return LEFT + grid_w + RIGHT, TOP + grid_h + BOTTOM, grid_w, grid_h


def _page(strip: Strip, width: int, height: int, dpi: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=((width * dpi / INCH + 1e-3) / dpi, (height * dpi / INCH + 1e-3) / dpi), dpi=dpi)
    page = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    page.set(xlim=(0, width), ylim=(0, height))
    page.axis("off")
    _, _, grid_w, grid_h = _size(strip)
    signal_x = LEFT + LEAD_IN
    draw_paper(page, strip, LEFT, BOTTOM, grid_w, [row_range(row) for row in strip.mv])
    _words(page, strip, signal_x, height, BOTTOM + grid_h, width)
    return figure


def draw_paper(page: Axes, strip: Strip, x: int, y: int, width: int, rows: list[tuple[float, float]]) -> int:
    """Draw grid, leads, calibration and marks with the lower left corner at (x, y) mm; return the height in mm.

    Args:
        page: axes whose unit is the millimetre.
        strip: what is drawn, `LEAD_IN` to the right of x.
        x: mm.
        y: mm.
        width: of the grid, mm.
        rows: the millivolts each lead shows (`row_range`).
    """
    height = sum(round((high - low) * MM_PER_MV) + HEADROOM for low, high in rows)
    _grid(page, x, y, width, height)
    _marks(page, strip, x + LEAD_IN, y, y + height)
    top = y + height
    for name, mv, (low, high) in zip(strip.leads, strip.mv, rows, strict=True):
        bottom = top - HEADROOM - round((high - low) * MM_PER_MV)
        _lead(page, name, mv, strip.fs_hz, x + LEAD_IN, bottom, low, high)
        top = bottom
    return height


def row_range(mv: NDArray[np.float32], least_mm: int = MIN_ROW, most_mm: int = MAX_ROW) -> tuple[float, float]:
    """Return the millivolts a row shows, in steps of 0.5 mV; what lies beyond is cut off at the border."""
    known = mv[np.isfinite(mv)]
    if not known.size:
        return -least_mm / MM_PER_MV / 2, least_mm / MM_PER_MV / 2
    low, high = np.floor(known.min() * 2) / 2, np.ceil(known.max() * 2) / 2
    most, least = most_mm / MM_PER_MV, least_mm / MM_PER_MV
    if high - low > most:
        middle = np.round(np.median(known) * 2) / 2
        low, high = middle - most / 2, middle + most / 2
    while high - low < least:
        high += 0.5
        low -= 0.5 if high - low < least else 0.0
    return float(low), float(high)


def line(mm: float) -> float:
    """Return millimetres in typographic points, matplotlib's unit of line width."""
    return mm / INCH * 72


def _grid(page: Axes, x: int, y: int, w: int, h: int) -> None:
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path as Curve

    page.add_patch(Rectangle((x, y), w, h, facecolor=PAPER, edgecolor="none"))
    for step, colour, thickness in ((1, MINOR, 0.1), (5, MAJOR, 0.2)):
        ends = [end for i in range(0, w + 1, step) for end in ((x + i, y), (x + i, y + h))]
        ends += [end for i in range(0, h + 1, step) for end in ((x, y + i), (x + w, y + i))]
        curve = Curve(ends, [Curve.MOVETO, Curve.LINETO] * (len(ends) // 2))
        curve.should_simplify = False  # it would move lines by a pixel
        style = {"edgecolor": colour, "linewidth": line(thickness), "capstyle": "butt", "zorder": 2}
        page.add_patch(PathPatch(curve, fill=False, antialiased=False, snap=True, **style))


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
        linewidth=line(0.3),
        solid_joinstyle="round",
    )
    trace.set_clip_path(Rectangle((x, bottom), mv.size / fs_hz * MM_PER_S, top - bottom, transform=page.transData))
    foot = bottom + 5 * round((top - bottom) / 2 / 5) - 5
    page.plot(
        [x - 12, x - 10, x - 10, x - 5, x - 5, x - 3],
        [foot, foot, foot + MM_PER_MV, foot + MM_PER_MV, foot, foot],
        color=TRACE,
        linewidth=line(0.3),
        solid_joinstyle="miter",
        solid_capstyle="butt",
    )
    text(page, x - 13, top + 1, name, weight="bold")
    for start, end in _holes(mv, fs_hz):
        if end - start >= 1:
            text(page, x + (start + end) / 2 * MM_PER_S, (bottom + top) / 2, "not recorded", ha="center", alpha=0.6)


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
        text(page, x + start * MM_PER_S + 0.5, bottom + 1 + 3 * (n % 5), mark.label, color="#1f5f9f")


def _words(page: Axes, strip: Strip, x: int, height: int, grid_top: int, width: int) -> None:
    text(page, LEFT, height - 4.5, strip.title, size=3.2, weight="bold")
    text(page, LEFT, height - 9, strip.when, size=3.0)
    scale = f"25 mm/s   10 mm/mV   {strip.fs_hz:g} Hz   filter: {strip.filter_band}, {ST_NOTE}"
    text(page, width - RIGHT, height - 9, scale, size=2.8, ha="right")
    for t_s, kind in strip.beats:
        text(page, x + t_s * MM_PER_S, grid_top + 1, kind, ha="center", weight="normal" if kind == "N" else "bold")
    for second in range(int(strip.seconds) + 1):
        text(page, x + second * MM_PER_S, BOTTOM - 3.5, f"{second} s", size=2.2, ha="center")
    text(page, LEFT, 2.5, FOOTER, size=2.8)


def text(page: Axes, x: float, y: float, words: str, size: float = 2.6, **style: Any) -> None:
    """Write words at (x, y) mm, `size` mm high; what the font lacks becomes `?`."""
    shown = "".join(c if c.isprintable() and (ord(c) < 0x17F or c in _PUNCTUATION) else "?" for c in words)
    page.text(x, y, shown, fontsize=line(size), parse_math=False, **style)
