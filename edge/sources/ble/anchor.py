"""Pieces into chunks whose stamps intake places exactly: a grid with anchors.

Intake keeps a clock as segments and opens a new one for a new boot, or where a stamp is half a sample to one and a half
off the grid. So within a boot stamps are the ideal grid of the nominal rate from its first stamp, which is the device's
own: gaps come out exact to the sample and no jitter reaches RR. A segment's UTC goes on by the rate and drift that were
measured when it began. When the mapping has moved by `TOLERANCE_S` against that line, but not more often than `REST_S`,
the grid takes one step of `STEP_SAMPLES` towards the raw stamps: intake writes a new anchor with the mapped UTC, rate
and drift, and loses no sample. A jump of the device's clock is a new boot whose UTC goes on in line.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

from edge.chunk import Chunk, utc_rate_hz
from edge.sources.ble.placer import Piece
from edge.sources.stream import Stream

STEP_SAMPLES = 0.75
SETTLE_S = 600.0
TOLERANCE_S = (0.001, 0.002)
REST_S = (3.0, 60.0)
"""Least signal between two such steps. Both: while the mapping settles, and later: then a day has at most 1,440."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """What intake knows: sample `index` has this stamp and this UTC; the stamp goes on at the nominal rate."""

    index: int
    stamp_ns: int
    utc_ns: int
    rate_hz: float
    """Samples per second of UTC."""

    def utc_at(self, index: int) -> int:
        return self.utc_ns + round((index - self.index) * 1e9 / self.rate_hz)


class Anchor:
    """Makes the chunks of one device, in order; every chunk made must reach intake."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.anchors = 0
        """Clock segments opened."""
        self._segment: _Segment | None = None
        self._epoch = -1
        self._boot = 0
        self._seq = 0
        self._epoch_index = 0
        self._end = 0

    def chunk(self, piece: Piece) -> Chunk:
        """Return the next chunk."""
        segment = self._segment
        if segment is None or piece.epoch != self._epoch:
            segment = self._begin(piece, segment if piece.follows else None)
        elif piece.index == self._end and self._is_off(piece, segment):
            segment = self._step(piece, segment)
        self._segment, self._epoch, self._end = segment, piece.epoch, piece.end
        self._seq += 1
        return self.stream.chunk(
            piece.samples,
            boot=self._boot,
            seq=self._seq - 1,
            device_time_ns=self._grid_ns(piece, segment),
            utc_ns=segment.utc_at(piece.index),
            contact=piece.contact,
            clock=piece.clock,
        )

    def _begin(self, piece: Piece, before: _Segment | None) -> _Segment:
        """Open a boot at the device's own stamp; UTC goes on in the line of `before`, or begins anew."""
        self._boot, self._seq, self._epoch_index = secrets.randbits(63), 0, piece.index
        utc_ns = piece.utc_ns if before is None else before.utc_at(piece.index)
        return self._open(piece, piece.device_ns, utc_ns)

    def _is_off(self, piece: Piece, segment: _Segment) -> bool:
        """Whether the mapping has left the segment's line, which is not too young."""
        fs_hz = self.stream.fs_hz
        settled = piece.index - self._epoch_index >= SETTLE_S * fs_hz
        if piece.index - segment.index < REST_S[settled] * fs_hz:
            return False
        return abs(piece.utc_ns - segment.utc_at(piece.index)) >= TOLERANCE_S[settled] * 1e9

    def _step(self, piece: Piece, segment: _Segment) -> _Segment:
        """Open a segment within the boot."""
        grid_ns = self._grid_ns(piece, segment)
        step_ns = math.copysign(STEP_SAMPLES * 1e9 / self.stream.fs_hz, piece.device_ns - grid_ns)
        return self._open(piece, grid_ns + round(step_ns), piece.utc_ns)

    def _open(self, piece: Piece, stamp_ns: int, utc_ns: int) -> _Segment:
        self.anchors += 1
        rate_hz = utc_rate_hz(self.stream.fs_hz, piece.clock.rate_hz, piece.clock.drift_ppm)
        return _Segment(piece.index, stamp_ns, utc_ns, rate_hz)

    def _grid_ns(self, piece: Piece, segment: _Segment) -> int:
        return segment.stamp_ns + self.stream.offset_ns(piece.index - segment.index)
