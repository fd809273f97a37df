"""Alignment: the projector's heads learn the annotations of every row; the language model is not needed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edge.assistant.soft import FRAME, LABELS
from edge.encoder.contract import TOKEN_FS_HZ
from export.assistant.corpus import Clip
from export.assistant.facts import BEAT_LABELS, WHOLE_RECORD, Facts
from export.assistant.projector import Reading

_EDGE_WEIGHT = 3.0
"""How much more a row counts in which a beat's kind or a span's edge lies."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the heads should say, −1 unknown; shapes as in `Reading`."""

    beat: Tensor
    kind: Tensor
    flags: Tensor


def targets(facts: Sequence[Facts], rows: int) -> Targets:
    """Return the targets of clips, padded to `rows`."""
    beat = np.full((len(facts), rows), -1, dtype=np.float32)
    kind = np.full((len(facts), rows, len(BEAT_LABELS)), -1, dtype=np.float32)
    flags = np.full((len(facts), rows, len(LABELS), 3), -1, dtype=np.float32)
    for n, one in enumerate(facts):
        last = int(np.ceil(round(one.length_s * TOKEN_FS_HZ, 3))) + 1
        if one.beats_known:
            beat[n, : last + 1] = 0
            kind[n, : last + 1] = 0
            beat[n, _rows(one.beat_at, last)] = 1
        if one.db not in WHOLE_RECORD:
            for at, known in zip(_rows(one.beat_at, last), one.kinds, strict=True):
                kind[n, at] = known
        for label, spans in one.spans.items():
            column = flags[n, : last + 1, LABELS.index(label)]
            column[:] = 0
            for start, end in spans:
                first = 0 if start <= 0.05 else int(_rows(np.array([start]), last)[0])
                latest = last if end >= one.length_s - 0.05 else int(_rows(np.array([end]), last)[0])
                column[first, 0] = column[latest, 1] = 1
                column[first : latest + 1, 2] = 1
    return Targets(torch.from_numpy(beat), torch.from_numpy(kind), torch.from_numpy(flags))


def _rows(seconds: NDArray[np.floating], last: int) -> NDArray[np.int64]:
    return np.clip((np.asarray(seconds) * TOKEN_FS_HZ).astype(np.int64) + 1, 1, last - 1)


def loss(said: Reading, wanted: Targets) -> Tensor:
    """Return the mean binary cross-entropy of the heads over what is known."""
    total = _bce(said.beat, wanted.beat) + 2 * _bce(said.kind, wanted.kind)
    return (
        total
        + 2 * _bce(said.flags[..., 2], wanted.flags[..., 2])
        + 2 * _bce(said.flags[..., :2], wanted.flags[..., :2])
    )


def _bce(said: Tensor, wanted: Tensor) -> Tensor:
    known = wanted >= 0
    weight = known * (1 + _EDGE_WEIGHT * (wanted == 1))
    each = functional.binary_cross_entropy_with_logits(said.float(), wanted.clamp(min=0), reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1)


def batch(clips: Sequence[Clip], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor, Tensor, Targets]:
    """Return frames, lengths, lengths in tenths of a second and targets of clips; with `rng` frames are disturbed."""
    longest = max(clip.frames.shape[0] for clip in clips)
    frames = np.zeros((len(clips), longest, FRAME), dtype=np.float32)
    for n, clip in enumerate(clips):
        frames[n, : clip.frames.shape[0]] = clip.frames
    if rng is not None:
        disturb(frames, rng)
    lengths = torch.tensor([clip.frames.shape[0] for clip in clips])
    ds = torch.tensor([round(clip.facts.length_s * 10) for clip in clips])
    return torch.from_numpy(frames), lengths, ds, targets([clip.facts for clip in clips], longest + 2)


def disturb(frames: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Blur what the encoder is surer of on its training patients than on others: noise, and groups left out."""
    from edge.assistant.soft import PEAKS
    from edge.encoder.contract import TOKEN_DIM

    frames[..., :TOKEN_DIM] += rng.normal(0, 0.25, frames[..., :TOKEN_DIM].shape).astype(np.float32)
    scores = frames[..., TOKEN_DIM + PEAKS :]
    scores *= rng.uniform(0.6, 1.0, (scores.shape[0], 1, scores.shape[2])).astype(np.float32)
    scores[rng.random(scores.shape[0]) < 0.3] = 0
