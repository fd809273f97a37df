"""What really happened in a simulation, for whoever checks an analysis against it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import AnyecgError
from edge.sources.simulator import Simulation, Span

RHYTHM = {"af": "AFIB", "vt": "VT", "vf": "VF", "asystole": "ASYS", "bigeminy": "B"}
"""Segment kind → WFDB rhythm; every other is N."""
_NOISY, _UNREADABLE = 0x01, 0x11
"""Subtypes of the WFDB annotation `~`: bit 0 is noise in signal 0, bit 4 that it cannot be read."""


def write_json(simulation: Simulation, folder: Path, start_utc_ns: int | None = None) -> Path:
    """Write `<folder>/<script>.truth.json`: beats, rhythms and segments in seconds from the start."""
    record = simulation.record
    fs = record.fs_hz
    document: dict[str, Any] = {
        "record": record.name,
        "fs": fs,
        "duration_s": record.duration_s,
        "start_utc_ns": start_utc_ns,
        "beats": [{"t_s": sample / fs, "type": kind} for sample, kind in simulation.beats],
        "rhythms": [{"rhythm": name, "start_s": a / fs, "end_s": b / fs} for name, a, b in rhythms(simulation.spans)],
        "segments": [{"kind": s.kind, "start_s": s.start / fs, "end_s": s.end / fs} for s in simulation.spans],
    }
    path = folder / f"{record.name}.truth.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, allow_nan=False))
    except OSError as error:
        raise AnyecgError(f"{path} cannot be written: {error.strerror}") from None
    return path


def write_wfdb(simulation: Simulation, folder: Path) -> Path:
    """Write signal (`.hea`, `.dat`) and truth (`.atr`) as a WFDB record; returns its path without extension.

    `.atr` has beats (N V), rhythm changes (`+` with `(N`, `(AFIB`, …), `[` and `]` around fibrillation and `~` where
    noise (subtype 1) or lost contact (subtype 17) begins and ends (subtype 0).
    """
    import wfdb

    record = simulation.record
    try:
        folder.mkdir(parents=True, exist_ok=True)
        wfdb.wrsamp(
            record.name,
            fs=record.fs_hz,
            units=["mV"],
            sig_name=list(record.leads),
            d_signal=np.clip(record.samples.T, -(2**15) + 1, 2**15 - 1),
            fmt=["16"],
            adc_gain=[1000 / record.uv_per_lsb[0]],
            baseline=[0],
            write_dir=str(folder),
        )
        rows = _annotations(simulation)
        wfdb.wrann(
            record.name,
            "atr",
            np.array([row[0] for row in rows]),
            symbol=[row[1] for row in rows],
            subtype=np.array([row[2] for row in rows]),
            aux_note=[row[3] for row in rows],
            fs=record.fs_hz,
            write_dir=str(folder),
        )
    except (OSError, ValueError) as error:
        raise AnyecgError(f"{folder / record.name} cannot be written: {error}") from None
    return folder / record.name


def rhythms(spans: tuple[Span, ...]) -> list[tuple[str, int, int]]:
    """Maximal runs of one rhythm: (name, start, end) in samples; "" while the electrodes are off."""
    runs: list[tuple[str, int, int]] = []
    for span in spans:
        name = "" if span.kind == "lead_off" else RHYTHM.get(span.kind, "N")
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], span.end)
        else:
            runs.append((name, span.start, span.end))
    return runs


def _annotations(simulation: Simulation) -> list[tuple[int, str, int, str]]:
    """(sample, symbol, subtype, aux) in order."""
    rows = [(sample, kind, 0, "") for sample, kind in simulation.beats]
    rows += [(start, "+", 0, f"({name}") for name, start, _ in rhythms(simulation.spans) if name]
    for span in simulation.spans:
        last = span.end - 1
        if span.kind == "vf":
            rows += [(span.start, "[", 0, ""), (last, "]", 0, "")]
        elif span.kind in ("noise", "lead_off"):
            rows += [(span.start, "~", _NOISY if span.kind == "noise" else _UNREADABLE, ""), (last, "~", 0, "")]
    order = "+[~"
    return sorted(rows, key=lambda row: (row[0], order.find(row[1]) if row[1] in order else len(order)))
