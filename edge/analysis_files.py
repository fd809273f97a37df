"""An analysis as files others read: a WFDB annotation file and a JSON document.

WFDB annotation codes: https://wfdb.io/spec/annotation-files.html and https://archive.physionet.org/physiobank/annotations.shtml
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from edge.analyze import Analysis
from edge.errors import AnyecgError

EXTENSION = "edge"
UNREADABLE_RHYTHM = "NOISE"
"""Rhythm string of a span in which no rhythm could be read, as in vfdb."""
CLEAN, UNREADABLE = 0, -1
"""Subtypes of a `~` annotation: every signal clean, every signal unreadable."""


def write_wfdb(analysis: Analysis, folder: Path) -> Path:
    """Write `folder/<record>.edge` at the record's own rate and return its path.

    One annotation per beat at its R peak (N S V F Q), `+` with the rhythm where it changes, `~` with the signal state
    (subtype 0 readable, −1 not) where that changes. At one sample the order is `~`, `+`, beat.
    """
    import wfdb

    record = analysis.record
    marks: list[tuple[int, int, str, int, str]] = []
    state = "readable"
    for sample, signal in analysis.signals:
        if signal != state:
            marks.append((sample, 0, "~", CLEAN if signal == "readable" else UNREADABLE, signal))
            state = signal
    marks += [(span.start_sample, 1, "+", 0, f"({span.rhythm or UNREADABLE_RHYTHM}") for span in analysis.rhythms]
    marks += [(beat.sample, 2, beat.type, 0, "") for beat in analysis.beats]
    marks.sort()

    path = folder / f"{record.name}.{EXTENSION}"
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", record.name)
    try:
        wfdb.wrann(
            plain,
            EXTENSION,
            np.array([mark[0] for mark in marks], dtype=np.int64),
            symbol=[mark[2] for mark in marks],
            subtype=np.array([mark[3] for mark in marks], dtype=np.int64),
            aux_note=[mark[4] for mark in marks],
            fs=record.fs_hz,
            write_dir=str(folder),
        )
        # wfdb accepts fewer characters in a name than file systems and EDF files do.
        (folder / f"{plain}.{EXTENSION}").replace(path)
    except OSError as error:
        raise AnyecgError(f"{path} cannot be written: {error.strerror}") from None
    return path


def write_json(analysis: Analysis, identity: dict[str, str], folder: Path) -> Path:
    """Write `folder/<record>.json` and return its path."""
    path = folder / f"{analysis.record.name}.json"
    try:
        path.write_text(json.dumps(document(analysis, identity), allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise AnyecgError(f"{path} cannot be written: {error.strerror}") from None
    return path


def document(analysis: Analysis, identity: dict[str, str]) -> dict[str, Any]:
    """Return the analysis as plain values; times in seconds from the record's first sample."""
    record = analysis.record

    def seconds(sample: int) -> float:
        return round(sample / record.fs_hz, 4)

    return {
        "record": record.name,
        "leads": list(record.leads),
        "fs": record.fs_hz,
        "duration_s": seconds(record.n),
        "readable_fraction": round(analysis.readable_fraction, 6),
        "beats": [
            {"t_s": seconds(beat.sample), "type": beat.type, "confidence": round(beat.confidence, 4)}
            for beat in analysis.beats
        ],
        "rhythms": [
            {"rhythm": span.rhythm, "start_s": seconds(span.start_sample), "end_s": seconds(span.end_sample)}
            for span in analysis.rhythms
        ],
        "events": [
            {
                "id": finding.id,
                "rule": finding.rule,
                "severity": finding.severity,
                "start_s": seconds(finding.start_sample),
                "end_s": seconds(finding.end_sample),
                "detected_s": seconds(finding.detected_sample),
                "evidence": finding.evidence,
            }
            for finding in analysis.findings
        ],
        "analysis": identity,
        "timing": {name: round(value, 4) for name, value in analysis.timing.items()},
    }
