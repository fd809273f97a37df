"""Alignment: what the heads should say of each row, their loss, and how frames are blurred while they learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edge.assistant.beats import MEASURES
from edge.assistant.soft import FRAME, LABELS, PEAKS, QUALITIES
from edge.encoder.contract import RHYTHMS, TOKEN_DIM
from export.assistant.corpus import Clip
from export.assistant.facts import BEAT_LABELS, WHOLE_RECORD, Facts
from export.assistant.heads import Reading
from export.assistant.wording import SUPERCLASSES

_EDGE_WEIGHT = 3.0
"""How much more a row counts in which a beat's kind or a span's edge lies."""
_NO_TOKENS_P, _NO_SCORES_P = 0.35, 0.3
_NEAR_S = 0.15
"""EC57: a detection this near is the annotated beat."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the heads should say, −1 unknown; shapes as in `Reading`."""

    beat: Tensor
    kind: Tensor
    flags: Tensor
    whole: Tensor


def targets(clips: Sequence[Clip], rows: int) -> Targets:
    """Return the targets of clips, padded to `rows`."""
    beat = np.full((len(clips), rows), -1, dtype=np.float32)
    kind = np.full((len(clips), rows, len(BEAT_LABELS)), -1, dtype=np.float32)
    flags = np.full((len(clips), rows, len(LABELS), 3), -1, dtype=np.float32)
    whole = np.stack([_whole(clip.facts) for clip in clips])
    for n, clip in enumerate(clips):
        one, where = clip.facts, clip.places
        last = clip.frames.shape[0] + 1
        seen, at = _beats(clip)
        if one.beats_known:
            beat[n, : last + 1] = 0
            kind[n, : last + 1] = 0
            beat[n, at] = 1
        if one.db not in WHOLE_RECORD:
            kind[n, at] = one.kinds[seen]
        for label, spans in one.spans.items():
            column = flags[n, : last + 1, LABELS.index(label)]
            column[:] = 0
            for start, end in spans:
                first, latest = (int(where.row[where.nearest(edge)]) for edge in (start, end))
                column[first, 0] = column[latest, 1] = 1
                column[first : latest + 1, 2] = 1
    return Targets(*(torch.from_numpy(one) for one in (beat, kind, flags, whole)))


def _whole(facts: Facts) -> NDArray[np.float32]:
    """Return what is true of the whole clip, [WHOLE], −1 unknown."""

    def among(names: Sequence[str], true: Sequence[str], known: bool) -> list[float]:
        return [float(name in true) if known else -1.0 for name in names]

    rhythm, quality = facts.rhythm, facts.quality
    said = among(RHYTHMS, [rhythm or ""], rhythm is not None)
    said += among(QUALITIES, [quality or ""], quality is not None)
    return np.array(said + among(list(SUPERCLASSES), facts.statements, facts.db == "ptbxl"), dtype=np.float32)


def _beats(clip: Clip) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which annotated beats have a place within `_NEAR_S`, and the rows of those."""
    where = clip.places
    inside = np.flatnonzero((where.row > 0) & (where.row <= clip.frames.shape[0]))
    at = clip.facts.beat_at
    if not inside.size or not at.size:
        none = np.zeros(0, dtype=np.int64)
        return none, none
    distance = np.abs(where.tenths[inside][None, :] / 10 - at[:, None])
    near = distance.argmin(axis=1)
    seen = np.flatnonzero(distance.min(axis=1) <= _NEAR_S)
    return seen, where.row[inside[near[seen]]]


def loss(said: Reading, wanted: Targets) -> Tensor:
    """Return the mean binary cross-entropy of the heads over what is known."""
    total = _bce(said.beat, wanted.beat) + 2 * _bce(said.kind, wanted.kind) + _bce(said.whole, wanted.whole)
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


def batch(clips: Sequence[Clip], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor, Targets]:
    """Return frames, lengths and targets of clips; with `rng` frames are disturbed."""
    frames, lengths = frames_of(clips, rng)
    return frames, lengths, targets(clips, frames.shape[1] + 2)


def frames_of(clips: Sequence[Clip], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return frames [clips, T, FRAME] and lengths of clips; with `rng` frames are disturbed."""
    longest = max(clip.frames.shape[0] for clip in clips)
    frames = np.zeros((len(clips), longest, FRAME), dtype=np.float32)
    for n, clip in enumerate(clips):
        frames[n, : clip.frames.shape[0]] = clip.frames
    if rng is not None:
        disturb(frames, rng)
    return torch.from_numpy(frames), torch.tensor([clip.frames.shape[0] for clip in clips])


def disturb(frames: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Blur what the encoder is surer of on its training patients than on others: noise, and groups left out.

    Tokens know people best, measures of beats know them least: tokens are left out most often, measures never.
    """
    clips = frames.shape[0]
    frames[..., :TOKEN_DIM] += rng.normal(0, 0.25, frames[..., :TOKEN_DIM].shape).astype(np.float32)
    frames[rng.random(clips) < _NO_TOKENS_P, :, :TOKEN_DIM] = 0
    scores = frames[..., TOKEN_DIM + PEAKS : -MEASURES]
    scores *= rng.uniform(0.6, 1.0, (clips, 1, scores.shape[2])).astype(np.float32)
    scores[rng.random(clips) < _NO_SCORES_P] = 0
    frames[..., -MEASURES:] *= rng.normal(1, 0.05, (clips, frames.shape[1], MEASURES)).astype(np.float32)
