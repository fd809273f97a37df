"""Beat-by-beat scoring after ANSI/AAMI EC57: 150 ms window, first five minutes skipped, flutter excluded.

Deviations, both usual in the literature on DS1/DS2: there is no shutdown (every second counts, however noisy), and
paced records are scored apart by choosing records, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES

WINDOW_S = 0.15
SKIP_S = 300.0
NONE = len(BEAT_CLASSES)
"""Row or column of the matrix for a beat without a partner (EC57 writes O)."""
_S, _V, _F, _Q = (BEAT_CLASSES.index(name) for name in "SVFQ")


@dataclass(frozen=True, slots=True)
class Beats:
    """R peaks in seconds, ascending, with their AAMI class as index into `BEAT_CLASSES`."""

    at_s: NDArray[np.float64]
    label: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Score:
    """Sensitivity and positive predictivity as counts."""

    tp: int
    fn: int
    fp: int

    @property
    def se(self) -> float:
        """Sensitivity, NaN without reference."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def ppv(self) -> float:
        """Positive predictivity, NaN if nothing was called."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.tp / (2 * self.tp + self.fn + self.fp) if self.tp + self.fn + self.fp else float("nan")

    def __add__(self, other: Score) -> Score:
        return Score(self.tp + other.tp, self.fn + other.fn, self.fp + other.fp)


def pairs(reference_s: NDArray[np.float64], found_s: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return one-to-one pairs (reference, found) no further apart than the window, each beat with its nearest."""
    out: list[tuple[int, int]] = []
    i = j = 0
    while i < reference_s.size and j < found_s.size:
        apart = found_s[j] - reference_s[i]
        if apart < -WINDOW_S:
            j += 1
        elif apart > WINDOW_S:
            i += 1
        elif j + 1 < found_s.size and abs(found_s[j + 1] - reference_s[i]) < abs(apart):
            j += 1
        elif i + 1 < reference_s.size and abs(found_s[j] - reference_s[i + 1]) < abs(apart):
            i += 1
        else:
            out.append((i, j))
            i, j = i + 1, j + 1
    return out


def matrix(
    reference: Beats, found: Beats, excluded_s: Iterable[tuple[float, float]] = (), skip_s: float = SKIP_S
) -> NDArray[np.int64]:
    """Return counts [reference class, found class], 6 × 6 with `NONE` last in both.

    Beats before `skip_s` and within `excluded_s` (flutter) do not count; a pair counts by its reference beat.
    """
    spans = list(excluded_s)

    def counts_at(at_s: float) -> bool:
        return at_s >= skip_s and not any(start <= at_s <= end for start, end in spans)

    out = np.zeros((NONE + 1, NONE + 1), dtype=np.int64)
    matched = pairs(reference.at_s, found.at_s)
    for i, j in matched:
        if counts_at(reference.at_s[i]):
            out[reference.label[i], found.label[j]] += 1
    for i in set(range(reference.at_s.size)) - {i for i, _ in matched}:
        if counts_at(reference.at_s[i]):
            out[reference.label[i], NONE] += 1
    for j in set(range(found.at_s.size)) - {j for _, j in matched}:
        if counts_at(found.at_s[j]):
            out[NONE, found.label[j]] += 1
    return out


def qrs(counts: NDArray[np.int64]) -> Score:
    """Return how well beats of any class are found."""
    return Score(int(counts[:NONE, :NONE].sum()), int(counts[:NONE, NONE].sum()), int(counts[NONE, :NONE].sum()))


def ventricular(counts: NDArray[np.int64]) -> Score:
    """Return the score of V; calling a fusion or unclassifiable beat V is neither right nor wrong (EC57)."""
    return _of_class(counts, _V, (_F, _Q))


def supraventricular(counts: NDArray[np.int64]) -> Score:
    """Return the score of S; calling an unclassifiable beat S is neither right nor wrong (EC57)."""
    return _of_class(counts, _S, (_Q,))


def _of_class(counts: NDArray[np.int64], label: int, forgiven: Sequence[int]) -> Score:
    tp = int(counts[label, label])
    wrong = int(counts[:, label].sum()) - tp - sum(int(counts[row, label]) for row in forgiven)
    return Score(tp, int(counts[label].sum()) - tp, wrong)


def figures(score: Score) -> dict[str, Any]:
    """Return counts and rates of a score, rates in per cent, None where undefined."""
    rates = {name: round(100 * float(getattr(score, name)), 2) for name in ("se", "ppv", "f1")}
    return asdict(score) | {name: None if np.isnan(value) else value for name, value in rates.items()}


def average(scores: Iterable[Score]) -> tuple[float, float]:
    """Return the mean sensitivity and mean positive predictivity over the records in which each is defined."""
    found = list(scores)
    se = [score.se for score in found if not np.isnan(score.se)]
    ppv = [score.ppv for score in found if not np.isnan(score.ppv)]
    return (
        float(np.mean(se)) if se else float("nan"),
        float(np.mean(ppv)) if ppv else float("nan"),
    )
