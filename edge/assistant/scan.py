"""Localise over hours: what is worth a look, read clip by clip, told in seconds of the recording.

Candidates come from the rhythm engine's marks and from the windows whose embeddings are nearest to theirs, which is
where the engine may have missed one. The model reads clips of at most 60 s around them; its spans and the engine's
are laid side by side, and what only one of them says is shown as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.assistant.soft import MAX_S
from edge.assistant.wording import Span, merge
from edge.encoder.contract import HOP_S

CLIP_S = 30.0
"""Usual length of a clip: long enough for a rhythm, short enough to be read exactly."""
MARGIN_S = 4.0
"""Signal on either side of a candidate."""
SIMILAR_PER_HOUR = 12
MIN_SIMILAR = 0.85
"""Cosine similarity (of embeddings less their mean) of a window worth a look."""

Read = Callable[[float, float], list[Span] | None]
"""`read(start_s, end_s)` returns the model's spans in seconds of the recording; None where nothing was recorded."""


@dataclass(frozen=True, slots=True)
class Found:
    """A stretch of the recording that the model, the engine or both name."""

    start_s: float
    end_s: float
    model: bool
    engine: bool

    @property
    def agreed(self) -> str:
        """Who says so."""
        return "both" if self.model and self.engine else "model" if self.model else "engine"


@dataclass(frozen=True, slots=True)
class Scan:
    """The outcome of a scan."""

    found: tuple[Found, ...]
    clips: tuple[Span, ...]
    """What the model has read."""
    unread: tuple[Span, ...]
    """Clips in which nothing was recorded."""

    @property
    def read_s(self) -> float:
        return sum(end - start for start, end in self.clips)


def scan(length_s: float, marks: Sequence[Span], embeddings: NDArray[np.floating], read: Read) -> Scan:
    """Read a recording of `length_s` seconds.

    Args:
        length_s: of the recording.
        marks: the engine's spans of the label, seconds.
        embeddings: [hops, D], NaN where nothing was recorded.
        read: the model.
    """
    clips, unread, spans = [], [], []
    for start, end in plan_clips(length_s, marks, embeddings):
        said = read(start, end)
        if said is None:
            unread.append((start, end))
        else:
            clips.append((start, end))
            spans += said
    return Scan(tuple(beside(merge(spans), merge(marks))), tuple(clips), tuple(unread))


def plan_clips(length_s: float, marks: Sequence[Span], embeddings: NDArray[np.floating]) -> list[Span]:
    """Return the clips worth reading, in order, not overlapping, none longer than 60 s."""
    wanted = [(max(a - MARGIN_S, 0.0), min(b + MARGIN_S, length_s)) for a, b in marks]
    most = max(1, round(SIMILAR_PER_HOUR * length_s / 3600))
    for hop in similar_hops(embeddings, marks, most):
        middle = (hop + 0.5) * HOP_S
        wanted.append((max(middle - MARGIN_S, 0.0), min(middle + MARGIN_S, length_s)))
    clips: list[Span] = []
    for start, end in merge([span for span in wanted if span[1] > span[0]]):
        if clips and end - clips[-1][0] <= CLIP_S:
            clips[-1] = (clips[-1][0], end)
            continue
        pieces = max(1, -int(-(end - start) // MAX_S))
        width = (end - start) / pieces
        clips += [(round(start + k * width, 1), round(start + (k + 1) * width, 1)) for k in range(pieces)]
    return [(a, b) for a, b in clips if b - a >= 1]


def similar_hops(embeddings: NDArray[np.floating], marks: Sequence[Span], most: int) -> list[int]:
    """Return up to `most` hops outside the marks that look like those inside, most alike first."""
    if not marks or not len(embeddings):
        return []
    known = ~np.isnan(embeddings).any(axis=1)
    if not known.any():
        return []
    centred = np.where(known[:, None], embeddings - np.nanmean(embeddings[known], axis=0), 0.0)
    centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    inside = np.zeros(len(embeddings), dtype=bool)
    for start, end in marks:
        inside[int(start // HOP_S) : int(end // HOP_S) + 1] = True
    seeds = centred[inside & known][:200]
    if not len(seeds):
        return []
    nearest = (centred @ seeds.T).max(axis=1)
    nearest[inside | ~known] = -1
    order = np.argsort(-nearest, kind="stable")[:most]
    return [int(n) for n in order if nearest[n] >= MIN_SIMILAR]


def beside(model: Sequence[Span], engine: Sequence[Span]) -> list[Found]:
    """Return the spans of both in order; where they overlap, the model's span, named by both."""
    found = []
    for start, end in model:
        found.append(Found(start, end, True, any(a < end and start < b for a, b in engine)))
    for start, end in engine:
        if not any(a < end and start < b for a, b in model):
            found.append(Found(start, end, False, True))
    return sorted(found, key=lambda one: one.start_s)
