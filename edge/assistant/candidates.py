"""What of hours is worth a look: clips around what the rhythm engine marks and around what looks like it, best first.

Clips with most of what is marked in them come first; of three, one only resembles: there the engine may have missed
something. Of one long mark the beginning comes before the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge.assistant.wording import Span, merge
from edge.encoder.contract import HOP_S

CLIP_S = 30.0
"""Length of a clip at most: long enough for a rhythm, short enough to be read exactly."""
LEAST_S = 1.0
MARGIN_S = 4.0
"""Signal on either side of a candidate."""
SIMILAR_PER_HOUR = 12
MIN_SIMILAR = 0.85
"""Cosine similarity (of embeddings less their mean) of a window worth a look."""
MAX_SIMILAR = 200
MAX_SEEDS = 200

Embeddings = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Where hops begin [n], in seconds, and what was seen in them [n, D]; NaN where nothing was recorded."""
Blocks = Callable[[], Iterable[Embeddings]]
"""Gives all hops, some thousands at a time, as often as it is called."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stretch that is worth a look."""

    start_s: float
    end_s: float
    marked_s: float = 0.0
    """Seconds of it that the engine marks; of the n-th clip of one mark 1/n of them."""
    likeness: float = 0.0
    """Cosine similarity of what is most like the marks."""

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def candidates(length_s: float, marks: Sequence[Span], blocks: Blocks, *, whole: bool = False) -> list[Candidate]:
    """Return clips of at most `CLIP_S` that do not overlap, in the order in which they are worth reading.

    Args:
        length_s: of the recording or period, which begins at 0.
        marks: the engine's spans of what is looked for, merged.
        blocks: the embeddings.
        whole: add what no candidate covers, at the end, in order of time.
    """
    most = min(max(1, round(SIMILAR_PER_HOUR * length_s / 3600)), MAX_SIMILAR)
    alike = similar(blocks, marks, most)
    wanted = [(a - MARGIN_S, b + MARGIN_S) for a, b in marks]
    wanted += [(at + HOP_S / 2 - MARGIN_S, at + HOP_S / 2 + MARGIN_S) for at, _ in alike]
    kept = [(max(a, 0.0), min(b, length_s)) for a, b in wanted]
    clips = [clip for clip in _cut(merge([(a, b) for a, b in kept if a < b])) if clip[1] - clip[0] >= LEAST_S]
    marked = _Marked(marks)
    found = [
        Candidate(a, b, marked.within(a, b) / n, max((score for at, score in alike if a <= at < b), default=0.0))
        for a, b, n in clips
    ]
    by_marks = sorted((c for c in found if c.marked_s > 0), key=lambda c: (-c.marked_s, c.start_s))
    by_likeness = sorted((c for c in found if c.marked_s <= 0), key=lambda c: (-c.likeness, c.start_s))
    rest = _between(found, length_s) if whole else []
    return [*_two_to_one(by_marks, by_likeness), *rest]


def similar(blocks: Blocks, marks: Sequence[Span], most: int) -> list[tuple[float, float]]:
    """Return up to `most` hops outside the marks that look like those inside: when they begin, likeness; best first."""
    seeds: list[NDArray[np.float32]] = []
    total, count = np.zeros(1), 0
    if not marks:
        return []
    for at_s, vectors in blocks():
        known, inside = _known(vectors), _touched(at_s, marks)
        total = total + vectors[known].sum(axis=0, dtype=np.float64)
        count += int(known.sum())
        seeds.append(_thinned(vectors[known & inside]))
    if not sum(map(len, seeds)):
        return []
    mean = (total / count).astype(np.float32)
    wanted = _unit(_thinned(np.concatenate(seeds)) - mean)
    best: list[tuple[float, float]] = []
    for at_s, vectors in blocks():
        searched = np.flatnonzero(_known(vectors) & ~_touched(at_s, marks))
        if not searched.size:
            continue
        likeness = (_unit(vectors[searched] - mean) @ wanted.T).max(axis=1)
        top = np.argsort(-likeness, kind="stable")[:most]
        best += [(float(at_s[searched[n]]), float(likeness[n])) for n in top if likeness[n] >= MIN_SIMILAR]
    return sorted(best, key=lambda one: (-one[1], one[0]))[:most]


class _Marked:
    """How much of a stretch is marked."""

    def __init__(self, marks: Sequence[Span]) -> None:
        self._edges = np.array([0.0, *(edge for span in marks for edge in span)])
        self._before = np.cumsum([0.0, *(part for a, b in marks for part in (0.0, b - a))])

    def within(self, start_s: float, end_s: float) -> float:
        first, last = np.interp([start_s, end_s], self._edges, self._before)
        return float(last - first)


def _cut(spans: Sequence[Span]) -> list[tuple[float, float, int]]:
    """Return spans joined up to `CLIP_S`, longer ones cut into equal pieces, each with its number in its span."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and end - joined[-1][0] <= CLIP_S:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    clips = []
    for start, end in joined:
        edges = [round(float(at), 1) for at in np.linspace(start, end, max(1, -int(-(end - start) // CLIP_S)) + 1)]
        clips += [(a, b, n) for n, (a, b) in enumerate(pairwise(edges), 1)]
    return clips


def _between(clips: Sequence[Candidate], length_s: float) -> list[Candidate]:
    spans = sorted((clip.start_s, clip.end_s) for clip in clips)
    edges = [0.0, *(edge for span in spans for edge in span), length_s]
    holes = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= LEAST_S]
    return [Candidate(a, b) for hole in holes for a, b, _ in _cut([hole])]


def _two_to_one(first: Sequence[Candidate], second: Sequence[Candidate]) -> Iterator[Candidate]:
    ones, others = iter(first), iter(second)
    left = len(first) + len(second)
    while left:
        for source in (ones, ones, others):
            clip = next(source, None)
            if clip is not None:
                left -= 1
                yield clip


def _touched(at_s: NDArray[np.floating], marks: Sequence[Span]) -> NDArray[np.bool_]:
    """Return which hops overlap a mark; `marks` are merged and ascending."""
    starts, ends = (np.array(edges) for edges in zip(*marks, strict=True))
    before = np.searchsorted(starts, at_s + HOP_S, side="left") - 1
    touched: NDArray[np.bool_] = (before >= 0) & (ends[before] > at_s)
    return touched


def _known(vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.isfinite(vectors).all(axis=1)
    return known


def _thinned(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return at most `MAX_SEEDS` of them, spread evenly."""
    chosen = np.linspace(0, len(vectors) - 1, min(len(vectors), MAX_SEEDS)).astype(int)
    thinned: NDArray[np.float32] = vectors[chosen].astype(np.float32)
    return thinned


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    unit: NDArray[np.floating] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit
