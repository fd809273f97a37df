"""The noise stress test: electrode motion from the unused half of nstdb's `em`, added to test records.

After nst(1): noise in alternate two-minute stretches from the fifth minute on; its gain is set so that
10·log10(S / N) is the wanted ratio, with S an eighth of the squared median QRS peak-to-peak amplitude of the first five
minutes and N the mean square of the noise without its mean. Only beats within noisy stretches are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.session import Encoder
from edge.rhythm.rules import Rules
from export.datasets.reader import digital, load
from export.datasets.record import Record
from export.evaluate import beats as ec57
from export.evaluate.beats import Beats, figures
from export.evaluate.reading import read_samples

SNR_DB = (12, 6, 0)
_STRETCH_S = 120
_START_S = 300


def noisy_counts(encoder: Encoder, snr_db: float, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the summed beat matrix over the noisy stretches of the first lead of mitdb test records."""
    noise = digital("nstdb", "em")[0][0].astype(np.float64)
    noise = noise[noise.size // 2 :]
    total = np.zeros((ec57.NONE + 1, ec57.NONE + 1), dtype=np.int64)
    for record in load("mitdb", "test"):
        if record.name not in names:
            continue
        samples, uv_per_lsb, fs_hz = digital("mitdb", record.name)
        spoilt = samples[:1].astype(np.float64)
        length = int(_STRETCH_S * fs_hz)
        ratio = _gain(record, samples[0], noise, fs_hz, snr_db)
        quiet = [(0.0, float(_START_S))]
        for start in range(int(_START_S * fs_hz), spoilt.shape[1], 2 * length):
            piece = spoilt[0, start : start + length]
            piece += (
                ratio * np.resize(noise[: noise.size // length * length], spoilt.shape[1])[start : start + piece.size]
            )
            quiet.append(((start + length) / fs_hz, (start + 2 * length) / fs_hz))
        reading = read_samples(encoder, np.rint(spoilt).astype(np.int32), uv_per_lsb[:1], fs_hz, Rules())
        reference = Beats(record.beat_at.astype(np.float64) / 128, record.beat.astype(np.int64))
        total += ec57.matrix(reference, reading.beats, quiet, _START_S)
    return total


def _gain(record: Record, lead: NDArray[np.int32], noise: NDArray[np.float64], fs_hz: float, snr_db: float) -> float:
    """Return the factor for the noise that gives the wanted ratio."""
    at = (record.beat_at[record.beat_at < _START_S * 128] / 128 * fs_hz).astype(int)
    reach = int(0.05 * fs_hz)
    amplitude = np.median([np.ptp(lead[max(i - reach, 0) : i + reach + 1]) for i in at])
    return float(np.sqrt(amplitude**2 / 8 / noise.var() * 10 ** (-snr_db / 10)))


def noise_figures(encoder: Encoder, names: Sequence[str]) -> dict[str, Any]:
    """Return QRS and V scores per signal-to-noise ratio."""
    out: dict[str, Any] = {"records": list(names)}
    for snr_db in SNR_DB:
        counts = noisy_counts(encoder, snr_db, names)
        out[f"{snr_db} dB"] = {"qrs": figures(ec57.qrs(counts)), "V": figures(ec57.ventricular(counts))}
    return out
