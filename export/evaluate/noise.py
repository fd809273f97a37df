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
from export.datasets.splits import Part
from export.evaluate import beats as ec57
from export.evaluate.beats import Beats, figures
from export.evaluate.bootstrap import intervals
from export.evaluate.reading import read_samples

SNR_DB = (12, 6, 0)
_STRETCH_S = 120
_START_S = 300


def noisy_counts(
    encoder: Encoder, snr_db: float, names: Sequence[str], *, part: Part = "test", rules: Rules | None = None
) -> dict[str, tuple[NDArray[np.int64], float]]:
    """Return for each record of mitdb its beat matrix over the noisy stretches, first lead, and the share read there.

    Test records get the second half of the noise, which nobody was trained with; others get the first.
    """
    noise = digital("nstdb", "em")[0][0].astype(np.float64)
    noise = noise[noise.size // 2 :] if part == "test" else noise[: noise.size // 2]
    out = {}
    for record in load("mitdb", part):
        if record.name not in names:
            continue
        samples, uv_per_lsb, fs_hz = digital("mitdb", record.name)
        spoilt = samples[:1].astype(np.float64)
        length = int(_STRETCH_S * fs_hz)
        ratio = _gain(record, samples[0], noise, fs_hz, snr_db)
        added = ratio * np.resize(noise[: noise.size // length * length], spoilt.shape[1])
        quiet = [(0.0, float(_START_S))]
        noisy = np.zeros(record.seconds, dtype=bool)
        for start in range(int(_START_S * fs_hz), spoilt.shape[1], 2 * length):
            spoilt[0, start : start + length] += added[start : start + length]
            quiet.append(((start + length) / fs_hz, (start + 2 * length) / fs_hz))
            noisy[round(start / fs_hz) : round((start + length) / fs_hz)] = True
        reading = read_samples(encoder, np.rint(spoilt).astype(np.int32), uv_per_lsb[:1], fs_hz, rules or Rules())
        reference = Beats(record.beat_at.astype(np.float64) / 128, record.beat.astype(np.int64))
        counts = ec57.matrix(reference, reading.beats, [*quiet, (float(record.seconds), np.inf)], _START_S)
        out[record.name] = (counts, float((reading.rhythm[: record.seconds][noisy] >= 0).mean()))
    return out


def _gain(record: Record, lead: NDArray[np.int32], noise: NDArray[np.float64], fs_hz: float, snr_db: float) -> float:
    """Return the factor for the noise that gives the wanted ratio."""
    at = (record.beat_at[record.beat_at < _START_S * 128] / 128 * fs_hz).astype(int)
    reach = int(0.05 * fs_hz)
    amplitude = np.median([np.ptp(lead[max(i - reach, 0) : i + reach + 1]) for i in at])
    return float(np.sqrt(amplitude**2 / 8 / noise.var() * 10 ** (-snr_db / 10)))


def noise_figures(encoder: Encoder, names: Sequence[str]) -> dict[str, Any]:
    """Return QRS and V scores per signal-to-noise ratio, with 95 % intervals over patients."""
    out: dict[str, Any] = {"records": list(names)}
    for snr_db in SNR_DB:
        each = noisy_counts(encoder, snr_db, names)
        total = sum((counts for counts, _ in each.values()), np.zeros((ec57.NONE + 1, ec57.NONE + 1), dtype=np.int64))
        out[f"{snr_db} dB"] = {
            name: figures(score(total)) | {"interval": intervals({n: score(c) for n, (c, _) in each.items()})}
            for name, score in (("qrs", ec57.qrs), ("V", ec57.ventricular))
        } | {"read_share": round(float(np.mean([share for _, share in each.values()])), 3)}
    return out
