"""Test records as a chest strap would have sent them: 130 Hz, 1 µV, 14 bits, like a Polar H10."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from edge.chunk import MISSING
from edge.encoder.session import Encoder
from edge.rhythm.rules import Rules
from export.datasets.reader import digital, load
from export.datasets.splits import PACED
from export.evaluate import beats as ec57
from export.evaluate.beats import Beats, figures
from export.evaluate.reading import read, read_samples
from export.evaluate.report import unknown

FS_HZ = 130
UV_PER_LSB = 1.0
BITS = 14
SETS = ("mitdb", "svdb")
_CLASSES = {"qrs": ec57.qrs, "V": ec57.ventricular, "S": ec57.supraventricular}


def strapped(samples: NDArray[np.int32], uv_per_lsb: float, fs_hz: int) -> NDArray[np.int32]:
    """Return one lead [n] as the strap's digital values; what is missing becomes zero, for a strap has no such mark."""
    uv = np.where(samples == MISSING, 0, samples) * uv_per_lsb
    high = 2 ** (BITS - 1)
    lsb = np.rint(resample_poly(uv, FS_HZ, fs_hz) / UV_PER_LSB)
    return np.clip(lsb, -high, high - 1).astype(np.int32)


def measure(encoder: Encoder) -> dict[str, Any]:
    """Return EC57 figures of the first lead of test records, as recorded and as a strap would have sent it."""
    out = {}
    for db in SETS:
        recorded, sent = (np.zeros((ec57.NONE + 1, ec57.NONE + 1), dtype=np.int64) for _ in range(2))
        for record in load(db, "test"):
            if record.name in PACED:
                continue
            samples, uv_per_lsb, fs_hz = digital(db, record.name)
            strap = strapped(samples[0], uv_per_lsb[0], round(fs_hz))[None]
            reference = Beats(record.beat_at.astype(np.float64) / 128, record.beat.astype(np.int64))
            for total, reading in (
                (recorded, read(encoder, db, record.name, (0,), Rules())),
                (sent, read_samples(encoder, strap, [UV_PER_LSB], FS_HZ, Rules())),
            ):
                total += ec57.matrix(reference, reading.beats, unknown(record), ec57.SKIP_S)
        out[db] = {
            how: {name: figures(score(total)) for name, score in _CLASSES.items()}
            for how, total in (("recorded", recorded), ("strap", sent))
        }
    return out


def table(found: Mapping[str, Any]) -> str:
    """Return the comparison as a Markdown table."""
    lines = [
        f"Test records, first lead, F1 in per cent, as recorded → at {FS_HZ} Hz, {UV_PER_LSB:g} µV and {BITS} bits.",
        "",
        "| records | QRS | V | S |",
        "| --- | --- | --- | --- |",
    ]
    for db in SETS:
        one = found[db]
        cells = [f"{one['recorded'][name]['f1']} → {one['strap'][name]['f1']}" for name in _CLASSES]
        lines.append(f"| {db} | {' | '.join(cells)} |")
    return "\n".join(lines)
