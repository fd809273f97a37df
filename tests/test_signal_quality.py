"""Peak-to-peak amplitude per second counts recorded samples only."""

from __future__ import annotations

import numpy as np

from edge.signal.quality import peak_to_peak_mv


def test_each_second_of_each_lead() -> None:
    ecg = np.zeros((2, 3 * 128 + 50), dtype=np.float32)
    ecg[0, 130], ecg[0, 140] = 1.5, -0.5
    ecg[1, 300] = -0.25
    assert peak_to_peak_mv(ecg, 128).tolist() == [[0, 2, 0], [0, 0, 0.25]]


def test_missing_samples_do_not_count_and_too_many_make_it_unknown() -> None:
    ecg = np.ones((1, 256), dtype=np.float32)
    ecg[0, :64] = np.nan
    ecg[0, 100] = 3
    ecg[0, 128:193] = np.nan
    span = peak_to_peak_mv(ecg, 128)
    assert span[0, 0] == 2
    assert np.isnan(span[0, 1])
