"""Sending a stream at a chosen speed, as a wearable in that hurry would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.clock import Clock
from edge.errors import BadInputError


class Block(NamedTuple):
    """Consecutive samples of a stream."""

    start: int
    """Index of the first sample."""
    samples: NDArray[np.int32]
    """[leads, n]."""
    contact: bool | None = None


class Sink(Protocol):
    """Where blocks go: `edge.sources.sender.Sender`."""

    def send(self, start: int, samples: NDArray[np.int32], contact: bool | None = None) -> None: ...


def send_blocks(
    blocks: Iterable[Block],
    sink: Sink,
    *,
    fs_hz: float,
    speed: float,
    clock: Clock,
    sleep: Callable[[float], None],
    progress: Callable[[int], None] = lambda sent: None,
) -> None:
    """Send each block when its last sample would exist at `speed` times real time; 0 is as fast as possible.

    progress: called with the number of samples per lead sent so far.
    """
    if not 0 <= speed <= 1e6:
        raise BadInputError(
            f"speed {speed:g} is impossible: 1 is real time, 60 an hour per minute, 0 as fast as possible"
        )
    began_s = clock.monotonic_s()
    for block in blocks:
        end = block.start + block.samples.shape[1]
        if speed > 0:
            ahead_s = began_s + end / fs_hz / speed - clock.monotonic_s()
            if ahead_s > 0:
                sleep(ahead_s)
        sink.send(*block)
        progress(end)
