"""A scan: the model reads the clips worth a look as far as time allows; its spans and the engine's, side by side.

Used for recordings in files (`hours.py`) and for the gateway's database (`looking.py`). Where only one of model and
engine names something both are shown. What the model has not read says nothing about what the engine marks there.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.assistant.candidates import Blocks, candidates
from edge.assistant.wording import Span, merge
from edge.clock import Clock, SystemClock

MAX_READ_S = 1800.0
"""Signal read in one scan at most; what is not longer is read whole."""
READING_S = 40.0
"""Time for reading within one answer, which the service gives up after 60 s; what is most promising is read first."""

Read = Callable[[float, float], tuple[list[Span], float]]
"""`read(start_s, end_s)` returns the model's spans, and how many seconds of signal it read: 0 where there are none."""


class Budget:
    """Time for reading, seconds from now on."""

    def __init__(self, seconds: float = math.inf, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._until_s = self._clock.monotonic_s() + seconds
        self._slowest = 0.0
        self._began: tuple[float, float] | None = None

    def allows(self, length_s: float) -> bool:
        """Return whether a clip of `length_s` can still be read if that is as slow as the slowest one before it.

        The first one always is: a scan that reads nothing answers nothing.
        """
        now_s = self._clock.monotonic_s()
        if self._began is not None:
            at_s, length_before_s = self._began
            self._slowest = max(self._slowest, (now_s - at_s) / length_before_s)
            if now_s + self._slowest * length_s > self._until_s:
                return False
        self._began = (now_s, length_s)
        return True


@dataclass(frozen=True, slots=True)
class Found:
    """A stretch that the model, the engine or both name."""

    start_s: float
    end_s: float
    model: bool
    engine: bool
    read: bool
    """Whether the model has read there."""

    @property
    def agreed(self) -> str:
        """Who says so."""
        return "both" if self.model and self.engine else "model" if self.model else "engine"


@dataclass(frozen=True, slots=True)
class Scan:
    """What model and engine say, in seconds from the beginning of the recording or period."""

    model: tuple[Span, ...]
    """The model's spans, merged."""
    engine: tuple[Span, ...]
    """The engine's, merged, wherever they are."""
    clips: tuple[Span, ...]
    """Where the model has read, in order of time."""
    unread: tuple[Span, ...]
    """Clips in which nothing was recorded."""
    left: tuple[Span, ...]
    """Clips worth a look that were not read any more, the most promising first."""
    read_s: float
    """Signal that the model has read."""
    whole: bool
    """Whether it has read all there is."""

    @property
    def left_s(self) -> float:
        return sum((end - start for start, end in self.left), 0.0)

    @property
    def looked_at(self) -> list[Span]:
        """The engine's spans where the model has read."""
        return [span for span in self.engine if _touches(span, self.clips)]

    @property
    def agreed(self) -> list[Span]:
        """Those of the engine's spans that the model marks too."""
        return [span for span in self.looked_at if _touches(span, self.model)]

    @property
    def engine_only(self) -> list[Span]:
        """The engine's spans where the model has read and marks nothing."""
        return [span for span in self.looked_at if not _touches(span, self.model)]

    @property
    def model_only(self) -> list[Span]:
        """The model's spans of which the engine says nothing."""
        return [span for span in self.model if not _touches(span, self.engine)]

    @property
    def found(self) -> list[Found]:
        """All spans in order; where they overlap, the model's, named by both."""
        found = [Found(a, b, True, _touches((a, b), self.engine), True) for a, b in self.model]
        found += [
            Found(a, b, False, True, _touches((a, b), self.clips))
            for a, b in self.engine
            if not _touches((a, b), self.model)
        ]
        return sorted(found, key=lambda one: one.start_s)


def scan(
    length_s: float, marks: Sequence[Span], blocks: Blocks, read: Read, *, most_s: float = MAX_READ_S, budget: Budget
) -> Scan:
    """Let the model read what is worth a look.

    Args:
        length_s: of the recording or period, which begins at 0.
        marks: the engine's spans of what is looked for.
        blocks: embeddings of its hops.
        read: the model.
        most_s: so much is read at most; a period that is not longer is read whole.
        budget: time for it.
    """
    engine = merge(marks)
    whole = length_s <= most_s
    clips: list[Span] = []
    unread: list[Span] = []
    left: list[Span] = []
    spans: list[Span] = []
    planned_s = read_s = 0.0
    over = False
    for clip in candidates(length_s, engine, blocks, whole=whole):
        place = (clip.start_s, clip.end_s)
        over = over or planned_s + clip.length_s > most_s + 1 or not budget.allows(clip.length_s)
        if over:
            left.append(place)
            continue
        said, seconds = read(*place)
        if seconds <= 0:
            unread.append(place)
            continue
        planned_s += clip.length_s
        read_s += seconds
        clips.append(place)
        spans += said
    return Scan(
        model=tuple(merge(spans)),
        engine=tuple(engine),
        clips=tuple(sorted(clips)),
        unread=tuple(sorted(unread)),
        left=tuple(left),
        read_s=read_s,
        whole=whole and not left,
    )


def _touches(one: Span, others: Sequence[Span]) -> bool:
    """Return whether a span overlaps one of `others`, which are in order and do not overlap."""
    last = bisect_left(others, (one[1],)) - 1
    return last >= 0 and others[last][1] > one[0]
