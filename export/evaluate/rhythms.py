"""Scoring of rhythms: per second where a database marks rhythms, per record where it labels records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import RHYTHMS
from export.evaluate.beats import Score

AF = (RHYTHMS.index("AFIB"), RHYTHMS.index("AFL"))
VENTRICULAR = (RHYTHMS.index("VT"), RHYTHMS.index("VF"))
ASYSTOLE = (RHYTHMS.index("ASYS"),)


def seconds(reference: NDArray[np.integer], found: NDArray[np.integer], group: Sequence[int]) -> Score:
    """Compare second by second where the reference is known (≥ 0); an unread second is a second not called."""
    n = min(reference.size, found.size)
    known = reference[:n] >= 0
    is_so = np.isin(reference[:n], group) & known
    called = np.isin(found[:n], group) & known
    return Score(int((is_so & called).sum()), int((is_so & ~called).sum()), int((~is_so & called).sum()))


def auc(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve (ties count half), NaN if one class is empty."""
    order = np.argsort(score, kind="stable")
    rank = np.empty(score.size)
    values, start, counts = np.unique(score[order], return_index=True, return_counts=True)
    rank[order] = np.repeat(start + (counts + 1) / 2, counts)
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if n_positive == 0 or n_negative == 0 or values.size == 0:
        return float("nan")
    return float((rank[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def best_threshold(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the threshold (score ≥ threshold) with the highest F1; for validation records only."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    f1 = 2 * hits / (np.arange(1, score.size + 1) + positive.sum())
    return float(score[order][int(f1.argmax())])


def at_threshold(score: NDArray[np.floating], positive: NDArray[np.bool_], threshold: float) -> Score:
    """Return the score of calling everything at or above the threshold."""
    called = score >= threshold
    return Score(int((called & positive).sum()), int((~called & positive).sum()), int((called & ~positive).sum()))
