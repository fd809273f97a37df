"""The full disclosure: every minute of the signal, small, one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from edge.chunk import MISSING
from edge.exchange.disguise import Disguise
from edge.report.holter import Holter
from edge.report.plots import GREY, INK, Box
from edge.store import queries, waveform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NS = queries.NS
ROW_S, ROWS = 60, 30
ROW_NS = ROW_S * NS
PAGE_NS = ROWS * ROW_NS
COLUMNS = 1_000
"""Of a line; each shows the least and the greatest value of its 60 ms."""
SPACING_MV = 3.2
"""Between two lines; what is larger is cut off there."""


def draw(figure: Figure, box: Box, *, conn: Connection, holter: Holter, hide: Disguise, at_ns: int) -> None:
    """Draw the first lead of what spoke for [at_ns, at_ns + PAGE_NS) of the period."""
    rows = min(ROWS, -(-(holter.end_ns - at_ns) // ROW_NS))
    low, high = envelope(conn, holter, at_ns, rows)
    left, bottom, width, height = box
    ax = figure.add_axes((left, bottom + height * (1 - rows / ROWS), width, height * rows / ROWS))
    ax.axis("off")
    ax.set(xlim=(-0.055, 1), ylim=(0, rows))
    ax.set_title(f"{ROW_S} s a line, {SPACING_MV:g} mV between lines", fontsize=5.5, loc="right", pad=2, color=GREY)
    middle = rows - np.arange(rows) - 0.5
    y = np.full((rows, 2 * COLUMNS + 1), np.nan)  # the last one ends the line
    y[:, :-1:2], y[:, 1:-1:2] = low, high
    known: NDArray[np.bool_] = np.asarray(np.isfinite(low).any(axis=1))
    y[known] -= np.nanmedian(y[known], axis=1, keepdims=True)
    y = middle[:, None] + np.clip(y / SPACING_MV, -0.5, 0.5)
    x = np.append(np.repeat((np.arange(COLUMNS) + 0.5) / COLUMNS, 2), np.nan)
    ax.plot(np.tile(x, rows), y.ravel(), color=INK, lw=0.25, solid_joinstyle="bevel")
    for n in range(rows):
        local = hide.local(at_ns + n * ROW_NS)
        ax.text(-0.053, middle[n], f"{local:%H:%M}", fontsize=5.5, va="center", color=INK)
        if not known[n]:
            ax.text(0.5, middle[n], "not recorded", fontsize=5.5, va="center", ha="center", color=GREY)


def envelope(
    conn: Connection, holter: Holter, at_ns: int, rows: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the greatest millivolts of each column, [rows, COLUMNS], NaN where nothing was recorded."""
    low = np.full(rows * COLUMNS, np.inf)
    high = np.full(rows * COLUMNS, -np.inf)
    end_ns = at_ns + rows * ROW_NS
    for piece in holter.pieces:
        fs_hz, scale = piece.recording.fs_hz, piece.recording.uv_per_lsb[0] / 1000
        begin_ns, stop_ns = max(piece.start_ns, at_ns), min(piece.end_ns, end_ns)
        first = piece.first + round((begin_ns - piece.start_ns) / NS * fs_hz)
        last = piece.first + round((stop_ns - piece.start_ns) / NS * fs_hz)
        if begin_ns >= stop_ns or first >= last:
            continue
        samples = waveform.read(conn, piece.recording.id, first, last).samples[0]
        at_s = (begin_ns - at_ns) / NS + np.arange(samples.size) / fs_hz
        column = np.minimum((at_s * (COLUMNS / ROW_S)).astype(np.int64), low.size - 1)
        recorded = samples != MISSING
        mv, column = samples[recorded] * scale, column[recorded]
        if not mv.size:
            continue
        starts = np.flatnonzero(np.diff(column, prepend=-1))
        low[column[starts]] = np.minimum(low[column[starts]], np.minimum.reduceat(mv, starts))
        high[column[starts]] = np.maximum(high[column[starts]], np.maximum.reduceat(mv, starts))
    low[np.isinf(low)] = high[np.isinf(high)] = np.nan
    return low.reshape(rows, COLUMNS), high.reshape(rows, COLUMNS)
