"""Biases that undo the training's taste for rare classes, chosen on validation records only.

Rare beats and AF are drawn and weighted more often in training than they occur, so their raw scores are too high. A
constant added to the logits of S, V and AFIB moves the balance; it is folded into the exported weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES, BEAT_FS_HZ, MODEL_FS_HZ, RHYTHMS
from export.datasets.reader import load
from export.datasets.record import UNKNOWN, Record
from export.encoder.network import Encoder

ATRIAL_RECORDS = ("865",)
"""svdb 865 is, like 232 of mitdb, an atrial rhythm labelled S beat by beat; it would decide alone."""
GRID = tuple(np.arange(-3, 1.01, 0.25).tolist())
_S, _V, _F, _Q = (BEAT_CLASSES.index(name) for name in "SVFQ")
_AFIB = RHYTHMS.index("AFIB")
_STEP = MODEL_FS_HZ // BEAT_FS_HZ


@dataclass(frozen=True, slots=True)
class Biases:
    """Added to the logits."""

    s: float
    v: float
    afib: float


def choose(network: Encoder) -> tuple[Biases, str]:
    """Return the biases with the best validation F1, and what they gained."""
    beats = [_beat_logits(network, record) for db in ("mitdb", "svdb") for record in load(db, "validation")
             if record.name not in ATRIAL_RECORDS]  # fmt: skip
    logits = np.concatenate([found for found, _ in beats])
    truth = np.concatenate([label for _, label in beats])

    def beat_f1(s: float, v: float) -> float:
        called = (logits + np.array([0, s, v, 0, 0])).argmax(axis=1)
        return _f1(called == _S, truth == _S, truth == _Q) + _f1(called == _V, truth == _V, np.isin(truth, (_F, _Q)))

    s, v = max(product(GRID, GRID), key=lambda pair: (beat_f1(*pair), -abs(pair[0]) - abs(pair[1])))
    rhythms = [_rhythm_logits(network, record) for db in ("mitdb", "cinc2017") for record in load(db, "validation")]
    scores = np.concatenate([found for found, _ in rhythms])
    is_af = np.concatenate([label for _, label in rhythms])

    def af_f1(afib: float) -> float:
        return _f1((scores + afib * (np.arange(len(RHYTHMS)) == _AFIB)).argmax(axis=1) == _AFIB, is_af)

    afib = max(GRID, key=lambda bias: (af_f1(bias), -abs(bias)))
    gained = (
        f"validation: F1 of S + V {beat_f1(0, 0):.3f} -> {beat_f1(s, v):.3f} with S {s:+.2f}, V {v:+.2f}; "
        f"AF seconds F1 {af_f1(0):.3f} -> {af_f1(afib):.3f} with AFIB {afib:+.2f}"
    )
    return Biases(s, v, afib), gained


def apply(network: Encoder, biases: Biases) -> None:
    """Fold the biases into the network."""
    beat, rhythm = network.beats.bias, network.rhythm.bias
    assert beat is not None
    assert rhythm is not None
    with torch.no_grad():
        beat[1 + _S] += biases.s
        beat[1 + _V] += biases.v
        rhythm[_AFIB] += biases.afib


def _f1(called: NDArray[np.bool_], is_so: NDArray[np.bool_], forgiven: NDArray[np.bool_] | None = None) -> float:
    wrong = called & ~is_so if forgiven is None else called & ~is_so & ~forgiven
    right = int((called & is_so).sum())
    return 2 * right / max(2 * right + int((~called & is_so).sum()) + int(wrong.sum()), 1)


@torch.no_grad()
def _pieces(network: Encoder, record: Record) -> Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield beat and rhythm logits of the first lead, ten minutes at a time."""
    ecg = torch.from_numpy(np.ascontiguousarray(record.ecg[None, :1]))
    for start in range(0, ecg.shape[2], 600 * MODEL_FS_HZ):
        said = network(ecg[..., start : start + 600 * MODEL_FS_HZ])
        yield said.beat[0].numpy(), said.rhythm[0].numpy()


def _beat_logits(network: Encoder, record: Record) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return class logits at the annotated beats, and their classes."""
    frames = np.concatenate([beat for beat, _ in _pieces(network, record)])
    at = np.clip(np.rint((record.beat_at - (_STEP - 1) / 2) / _STEP).astype(int), 0, len(frames) - 1)
    known = record.beats_known[np.minimum((record.beat_at // MODEL_FS_HZ).astype(int), record.seconds - 1)]
    return frames[at][known], record.beat[known].astype(np.int64)


def _rhythm_logits(network: Encoder, record: Record) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return rhythm logits of the seconds known to be AF or not, and whether they are."""
    seconds = np.concatenate([rhythm for _, rhythm in _pieces(network, record)])
    known = record.rhythm != UNKNOWN
    return seconds[known], record.rhythm[known] == _AFIB
