"""A strip in the terminal."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from edge.report.braille import plot
from edge.report.strip import FOOTER, ST_NOTE, Strip

ROWS = 8
AXIS = 7
"""Columns of the millivolt axis."""


def draw(strip: Strip, columns: int, *, ascii_only: bool = False) -> list[str]:
    """Return the strip as lines of at most `columns` characters."""
    width = max(columns - AXIS, 20)
    lines = [strip.title, f"{strip.when}   {strip.seconds:g} s   filter: {strip.filter_band}, {ST_NOTE}"]
    lines.append(" " * AXIS + _labels(strip, width))
    for name, mv in zip(strip.leads, strip.mv, strict=True):
        known = mv[np.isfinite(mv)]
        low, high = (float(known.min()), float(known.max())) if known.size else (-1.0, 1.0)
        if high - low < 0.1:
            low, high = low - 0.05, high + 0.05
        rows = plot(mv, width, ROWS, low, high, ascii_only=ascii_only)
        axis = [f"{high:6.2f}", f"{name[:6]:>6}", *[""] * (ROWS - 3), f"{low:6.2f}"]
        lines += [f"{label:>6} {row}".rstrip() for label, row in zip(axis, rows, strict=True)]
    lines += [" " * AXIS + line for line in _spans(strip, width, "=" if ascii_only else "▔")]
    lines.append(" " * AXIS + _seconds(strip.seconds, width))
    lines.append(FOOTER)
    return [line[:columns].rstrip() for line in lines]


def _column(t_s: float, strip: Strip, width: int) -> int:
    return min(max(int(t_s / strip.seconds * width), 0), width - 1)


def _labels(strip: Strip, width: int) -> str:
    line = [" "] * width
    for t_s, kind in strip.beats:
        at = _column(t_s, strip, width)
        if line[at] in (" ", "N"):
            line[at] = kind
    return "".join(line)


def _spans(strip: Strip, width: int, bar: str) -> list[str]:
    lines = []
    for mark in strip.marks:
        if mark.end_s <= 0 or mark.start_s >= strip.seconds:
            continue
        first, last = _column(mark.start_s, strip, width), _column(mark.end_s, strip, width)
        length = max(last - first + 1, 1)
        lines.append(" " * first + (mark.label + " ")[:length].ljust(length, bar))
    recorded = np.asarray(np.isfinite(strip.mv).any(axis=0))
    if not recorded.all():
        at = np.linspace(0, recorded.size, width + 1).astype(int).tolist()
        hole = "".join(" " if recorded[a : max(b, a + 1)].any() else "x" for a, b in pairwise(at))
        lines.append(re.sub("x+", lambda m: "not recorded "[: len(m[0])].ljust(len(m[0]), "x"), hole))
    return lines


def _seconds(seconds: float, width: int) -> str:
    line = [" "] * width
    step = max(1, int(np.ceil(seconds * 6 / width)))
    for second in range(0, int(seconds) + 1, step):
        text = f"{second}s"
        at = int(second / seconds * width)
        line[at : at + len(text)] = text
    return "".join(line)[:width]
