"""A lead that is noise does not blind the others, and one that fell off does not speak for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.card import Card
from edge.encoder.contract import HopScores
from edge.encoder.scoring import READABLE, HopJob, score_hops
from edge.encoder.session import Encoder
from edge.sources.record import read_record

FIRST, STOP = 379, 385
"""Hops of record 200 in whose second lead the electrode moves."""
SCORES = ("r_peak", "beat", "morphology", "rhythm", "quality", "qrs", "embedding")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Card.load(None), provider="cpu")


@pytest.fixture(scope="module")
def samples(ecg_data: Path) -> NDArray[np.int32]:
    return read_record(ecg_data / "mitdb" / "200").samples


def scored(encoder: Encoder, samples: NDArray[np.int32], first: int, stop: int) -> list[HopScores]:
    """Read hops of samples [leads, n] at 360 Hz, 5 µV each, in one window."""

    def read(start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        return samples[:, start:end], np.zeros(end - start, np.bool_)

    return score_hops(encoder, [HopJob(read, (5.0,) * len(samples), 360.0, first, stop)], stride_hops=stop - first)[0]


def differ(a: HopScores, b: HopScores) -> list[str]:
    return [name for name in SCORES if not np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)]


def test_the_readable_lead_speaks_for_the_hop(
    encoder: Encoder, samples: NDArray[np.int32], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = scored(encoder, samples, FIRST, STOP)
    clean = scored(encoder, samples[:1], FIRST, STOP)
    assert [differ(a, b) for a, b in zip(both, clean, strict=True)] == [[]] * len(both)
    assert [hop.ecg.shape[0] for hop in both] == [2] * len(both)
    monkeypatch.setattr("edge.encoder.scoring.READABLE", 0.0)
    assert max(hop.quality.min() for hop in scored(encoder, samples, FIRST, STOP)) < READABLE


def test_hop_by_hop_the_same_lead_speaks(encoder: Encoder, samples: NDArray[np.int32]) -> None:
    """Live hops are read one at a time."""
    long = scored(encoder, samples, FIRST - 10, STOP + 10)
    for hop in long:
        assert differ(hop, scored(encoder, samples, hop.k, hop.k + 1)[0]) == []


@pytest.mark.parametrize("value", [0, 1023, MISSING])
def test_a_lead_that_fell_off_does_not_speak(encoder: Encoder, samples: NDArray[np.int32], value: int) -> None:
    """Alone it would be called readable, and asystole."""
    noise = np.random.default_rng(1).normal(0, 200, samples.shape[1]).cumsum() % 4000 - 2000
    dead = np.full_like(samples[0], value)
    hops = scored(encoder, np.stack([noise.astype(np.int32), dead]), FIRST, STOP)
    assert max(hop.quality.min() for hop in hops) < READABLE


def test_clean_leads_are_read_together_once(
    encoder: Encoder, samples: NDArray[np.int32], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    real = encoder.run
    monkeypatch.setattr(encoder, "run", lambda ecg: (shapes.append(ecg.shape), real(ecg))[1])
    scored(encoder, samples, 20, 30)
    scored(encoder, samples[:1], FIRST, STOP)
    assert [shape[:2] for shape in shapes] == [(1, 2), (1, 1)]
