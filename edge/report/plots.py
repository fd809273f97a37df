"""The plots of a day: heart rate, rhythm, ectopic beats, signal; and the full disclosure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from edge.encoder.contract import BEAT_CLASSES
from edge.exchange.disguise import Disguise
from edge.report.holter import Figures, Holter
from edge.report.pieces import free, hours
from edge.store import queries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NS = queries.NS
HOUR_NS = 3600 * NS
Box = tuple[float, float, float, float]
"""Left, bottom, width and height as shares of a figure."""
LANES = (("AF", "af", "#c0392b"), ("VT/VF", "vt", "#7d3c98"), ("pause", "pause", "#1f5f9f"), ("noise", "", "#7f8c8d"))
INK, GREY, BAND, RED, BLUE = "#101418", "#8a939b", "#c9d3dc", "#c0392b", "#1f5f9f"


def day(figure: Figure, box: Box, holter: Holter, span: Figures, hide: Disguise) -> None:
    """Draw heart rate, rhythm lanes and ectopic beats of [start, end) one above the other on one time axis."""
    left, bottom, width, height = box
    left, width = left + 0.055 * width, 0.93 * width
    parts = ((0.50, 0.46), (0.29, 0.17), (0.07, 0.18))
    axes = [figure.add_axes((left, bottom + low * height, width, share * height)) for low, share in parts]
    _heart_rate(axes[0], holter, span)
    _lanes(axes[1], holter, span)
    _ectopy(axes[2], holter, span)
    for n, ax in enumerate(axes):
        _time_axis(ax, span, hide, labels=n == len(axes) - 1)


def _time_axis(ax: Axes, span: Figures, hide: Disguise, *, labels: bool) -> None:
    """Hours of the wearer's clock at their true distance: a day with a change of clocks is as long as it was."""
    marks = [a for a, _ in hours(span.start_ns, span.end_ns, hide.tz)] if not hide.hidden else _hidden_hours(span, hide)
    marks = [at for at in marks if _is_full(at, hide)]
    every = next((n for n in (1, 2, 3, 6) if len(marks) / n <= 14), 12)
    shown = [at for at in marks if hide.local(at).hour % every == 0]
    ax.set_xlim(0, (span.end_ns - span.start_ns) / HOUR_NS)
    ax.set_xticks([(at - span.start_ns) / HOUR_NS for at in shown])
    ax.set_xticks([(at - span.start_ns) / HOUR_NS for at in marks], minor=True)
    ax.set_xticklabels([f"{hide.local(at):%H}" for at in shown] if labels else [])
    ax.tick_params(length=2, width=0.4, labelsize=6, pad=1.5, colors=INK)
    ax.tick_params(which="minor", length=1, width=0.3)
    ax.grid(axis="x", color="#e6eaee", lw=0.3)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_linewidth(0.4)


def _hidden_hours(span: Figures, hide: Disguise) -> list[int]:
    return [at - hide.shift_ns for at, _ in hours(hide.time(span.start_ns), hide.time(span.end_ns), hide.tz)]


def _is_full(at: int, hide: Disguise) -> bool:
    local = hide.local(at)
    return timedelta(minutes=local.minute, seconds=local.second) < timedelta(seconds=1)


def _heart_rate(ax: Axes, holter: Holter, span: Figures) -> None:
    inside = [m for m in holter.minutes if span.start_ns <= m.utc_ns < span.end_ns]
    slots = max(-(-(span.end_ns - span.start_ns) // queries.MINUTE_NS), 1)
    low, mean, high = (np.full(slots, np.nan) for _ in range(3))
    for m in inside:
        at = (m.utc_ns - span.start_ns) // queries.MINUTE_NS
        if m.hr_bpm is not None:
            low[at], mean[at], high[at] = m.low_bpm or m.hr_bpm, m.hr_bpm, m.high_bpm or m.hr_bpm
    x = (np.arange(slots) + 0.5) / 60
    known = np.isfinite(mean)
    ax.fill_between(x, low, high, color=BAND, lw=0, step="mid")
    ax.plot(x, mean, color=INK, lw=0.6)
    top = float(np.nanpercentile(high, 99.8)) if known.any() else 120.0
    ax.set_ylim(20, max(160.0, 20 * np.ceil(top / 20)))
    ax.set_yticks(np.arange(40, ax.get_ylim()[1] + 1, 40))
    ax.set_yticklabels([f"{v:.0f}" for v in ax.get_yticks()])
    ax.grid(axis="y", color="#e6eaee", lw=0.3)
    ax.set_ylabel("bpm", fontsize=6, labelpad=1)
    if not known.any():
        ax.text(0.5, 0.5, "no heart rate", transform=ax.transAxes, ha="center", fontsize=7, color=GREY)


def _lanes(ax: Axes, holter: Holter, span: Figures) -> None:
    for n, (_, rule, colour) in enumerate(LANES):
        bars = _bars(holter, rule, span)
        ax.broken_barh(bars, (len(LANES) - 1 - n + 0.15, 0.7), facecolor=colour, lw=0.35, edgecolor=colour)
    ax.set_ylim(0, len(LANES))
    ax.set_yticks([len(LANES) - 0.5 - n for n in range(len(LANES))])
    ax.set_yticklabels([name for name, _, _ in LANES])


def _bars(holter: Holter, rule: str, span: Figures) -> list[tuple[float, float]]:
    if rule:
        rules = ("vt", "vf") if rule == "vt" else ("pause", "asystole") if rule == "pause" else (rule,)
        spans = [(e.start_ns, e.end_ns) for name in rules for e in holter.episodes.get(name, ())]
    else:
        spans = [
            (e.start_ns, e.end_ns) for name in ("unreadable", "flat", "lead_off") for e in holter.episodes.get(name, ())
        ]
        spans += _unrecorded(holter)
    clipped = [(max(a, span.start_ns), min(b, span.end_ns)) for a, b in spans]
    return [((a - span.start_ns) / HOUR_NS, (b - a) / HOUR_NS) for a, b in queries.merge(clipped)]


def _unrecorded(holter: Holter) -> list[tuple[int, int]]:
    recorded = queries.merge([(piece.start_ns, piece.end_ns) for piece in holter.pieces])
    return free(holter.start_ns, holter.end_ns, recorded)


def _ectopy(ax: Axes, holter: Holter, span: Figures) -> None:
    """V upward and S downward, beats per 10 minutes."""
    width_ns = 600 * NS
    slots = max(-(-(span.end_ns - span.start_ns) // width_ns), 1)
    inside = holter.series.between(span.start_ns, span.end_ns)
    slot = (holter.series.utc_ns[inside] - span.start_ns) // width_ns
    counts = {
        kind: np.bincount(slot[holter.series.kind[inside] == BEAT_CLASSES.index(kind)], minlength=slots)
        for kind in ("V", "S")
    }
    x = np.arange(slots) / 6
    ax.bar(x, counts["V"], 1 / 6, align="edge", color=RED, lw=0)
    ax.bar(x, -counts["S"], 1 / 6, align="edge", color=BLUE, lw=0)
    most = max(int(counts["V"].max()), int(counts["S"].max()), 5)
    ax.set_ylim(-most * 1.1, most * 1.1)
    ax.set_yticks([-most, 0, most])
    ax.set_yticklabels([f"S {most}", "0", f"V {most}"])
    ax.axhline(0, color=INK, lw=0.3)
