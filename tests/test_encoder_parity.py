"""The shipped weights: they say what torch said when they were exported, and the same bits in any window or batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.encoder.card import Card
from edge.encoder.contract import HOP_S, MODEL_FS_HZ, OUTPUTS, OUTPUTS_HZ, PAST_S
from edge.encoder.session import Encoder

FIXTURE = Path(__file__).parent / "fixtures" / "encoder_parity.npz"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Card.load(), provider="cpu")


def test_onnx_runtime_says_what_torch_said(encoder: Encoder) -> None:
    with np.load(FIXTURE) as stored:
        said = encoder.run(stored["ecg"])
        for name in OUTPUTS:
            np.testing.assert_allclose(getattr(said, name), stored[name], atol=1e-3, err_msg=name)


def _recording(leads: int) -> np.ndarray:
    """Two minutes: spikes, noise, a lead lost for a while and a hole in all of them."""
    rng = np.random.default_rng(5)
    ecg = rng.normal(0, 0.05, (1, leads, 120 * MODEL_FS_HZ)).astype(np.float32)
    for at in np.cumsum(rng.integers(60, 180, 120)):
        ecg[0, :, at : at + 12] += np.hanning(12)[: max(0, ecg.shape[2] - at)] * rng.normal(1, 0.3, (leads, 1))
    ecg[0, 0, 6000:7000] = np.nan
    ecg[0, :, 9000:9300] = np.nan
    return ecg


@pytest.mark.parametrize(("leads", "threads"), [(1, 1), (1, 2), (2, 1), (12, 1)])
def test_window_length_and_batch_do_not_change_a_bit(leads: int, threads: int) -> None:
    encoder = Encoder(Card.load(), provider="cpu", threads=threads)
    ecg = _recording(leads)
    long = encoder.run(ecg)
    starts = range(0, 98, 6 if leads > 2 else HOP_S)
    windows = [ecg[0, :, s * MODEL_FS_HZ : (s + PAST_S + HOP_S + 2) * MODEL_FS_HZ] for s in starts]
    for batch in (1, 3, 16):
        for at in range(0, len(windows), batch):
            said = encoder.run(np.stack(windows[at : at + batch]))
            for row, start in enumerate(starts[at : at + batch]):
                for name in OUTPUTS:
                    rate = OUTPUTS_HZ[name]
                    kept = getattr(said, name)[row, PAST_S * rate : (PAST_S + HOP_S) * rate]
                    wanted = getattr(long, name)[0, (start + PAST_S) * rate : (start + PAST_S + HOP_S) * rate]
                    assert np.isfinite(kept).all()
                    assert kept.tobytes() == wanted.tobytes(), (name, batch, start)
