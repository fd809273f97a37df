"""`python -m export.encoder.wearer`: fits the weights of `edge.rhythm.wearer` on the training records and prints them.

The encoder takes no part in the fit: it knows the training records by heart, and what is fitted beside it would learn
to trust it. How much each counts is chosen on validation (`rules.wearer`). The intercepts are raised by the
difference of the classes' frequencies, because the encoder's log-odds bring them already.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from edge.encoder.card import Card
from edge.encoder.session import Encoder
from edge.rhythm.peaks import Peak
from edge.rhythm.rules import Rules
from edge.rhythm.session import RhythmSession
from edge.rhythm.wearer import FEATURES, Wearer
from export.datasets.reader import digital, load
from export.datasets.record import Record
from export.datasets.splits import PACED
from export.evaluate.beats import pairs
from export.evaluate.reading import score

CLASSES = 3
EVERY_BEAT = Rules().override({"wearer": {"sure": 1}})
"""The encoder is never sure of the records it has learnt: every beat is compared."""
RIDGE = 1.0
"""Penalty on the squared weight of a feature of variance 1."""


class Diary(Wearer):
    """A `Wearer` that also writes down the features of every beat, None where they were not known."""

    def __init__(self, wearer: Wearer) -> None:
        self.__dict__ |= wearer.__dict__
        self.pages: list[list[float] | None] = []

    def weigh(self, peak: Peak, rr_s: float | None, af: float | None, quality: float) -> list[float]:
        self.pages.append(None)
        return super().weigh(peak, rr_s, af, quality)

    def features(self, *measures: Any) -> list[float]:
        found = super().features(*measures)
        self.pages[-1] = found
        return found


def labelled(encoder: Encoder, record: Record) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return features [beats, features] and labels of the annotated N, S and V beats of a record's first lead."""
    samples, uv_per_lsb, fs_hz = digital(record.db, record.name)
    session = RhythmSession("fit", fs_hz, ["unknown"], EVERY_BEAT)
    diary = session._wearer = Diary(session._wearer)
    found_s: list[float] = []
    for hop in score(encoder, samples[:1], uv_per_lsb[:1], fs_hz):
        found_s += [beat.sample / fs_hz for beat in session.feed(hop).beats]
    found_s += [beat.sample / fs_hz for beat in session.finish(samples.shape[1]).beats]
    matched = pairs(record.beat_at.astype(np.float64) / 128, np.array(found_s))
    rows = [(page, record.beat[i]) for i, j in matched if (page := diary.pages[j]) and record.beat[i] < CLASSES]
    return np.array([page for page, _ in rows]).reshape(-1, len(FEATURES)), np.array(
        [label for _, label in rows], dtype=np.int64
    )


def fit(features: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights [S and V, features] of a ridge multinomial logistic regression against N."""
    spread = features.std(axis=0) + 1e-3
    target = np.eye(CLASSES)[labels]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(CLASSES - 1, -1)
        odds = np.zeros((labels.size, CLASSES))
        odds[:, 1:] = features @ weights.T
        odds -= odds.max(axis=1, keepdims=True)
        share = np.exp(odds)
        share /= share.sum(axis=1, keepdims=True)
        value = -np.log(share[np.arange(labels.size), labels] + 1e-12).sum() + RIDGE * ((weights * spread) ** 2).sum()
        slope = (share - target)[:, 1:].T @ features + 2 * RIDGE * weights * spread**2
        return float(value), slope.ravel()

    start = np.zeros((CLASSES - 1) * features.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 400}).x.reshape(CLASSES - 1, -1)


def main() -> None:
    """Fit and print."""
    encoder = Encoder(Card.load(None))
    parts = [
        labelled(encoder, record)
        for db in ("svdb", "mitdb")
        for record in load(db, "train")
        if record.name not in PACED
    ]
    features = np.concatenate([part for part, _ in parts])
    labels = np.concatenate([part for _, part in parts])
    weights = fit(features, labels)
    counts = np.bincount(labels, minlength=CLASSES)
    weights[:, FEATURES.index("one")] += np.log(counts[0] / counts[1:])
    print(f"{labels.size} beats: {counts.tolist()}")
    for name, row in zip("SV", weights, strict=True):
        print(name, ", ".join(f"{weight:.2f}" for weight in row))


if __name__ == "__main__":
    main()
