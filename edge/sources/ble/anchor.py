"""Pieces into chunks whose stamps intake places exactly: a grid with anchors.

Intake keeps a clock as segments of the nominal rate and opens a new one for a new boot, or where a stamp is half a
sample to one and a half off the grid. So within a boot stamps are the ideal grid from its first stamp, which is the
device's own: gaps come out exact to the sample and no jitter reaches RR. When the mapping has moved by
`TOLERANCE_S` against the grid, but not more often than `REST_S`, the grid takes one step of `STEP_SAMPLES` towards
the raw stamps: intake writes a new anchor with the mapped UTC and loses no sample. A jump of the device's clock is a
new boot whose UTC goes on in line. The raw stamp, the measured rate and drift travel beside it (`ClockReading`) and
are kept with every segment.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

from edge.chunk import Chunk
from edge.sources.ble.placer import Piece
from edge.sources.stream import Stream

TOLERANCE_S = 0.003
STEP_SAMPLES = 0.75
SETTLE_S = 600.0
REST_S = (5.0, 60.0)
"""Least signal between two such steps, while the mapping settles and later: a day has at most 1,440 of them."""


@dataclass(slots=True)
class _Segment:
    """What intake knows: sample `index` has this stamp and this UTC, and the nominal rate goes on from there."""

    index: int
    stamp_ns: int
    utc_ns: int
    lead_ns: int
    """How far UTC was ahead of the mapping there, so that the line is right in its middle."""


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
            self._epoch_index = piece.index
            self._begin(piece, segment if piece.follows else None)
        elif piece.index == self._end:
            drift_ns = piece.utc_ns - self._predicted_ns(piece)
            if abs(drift_ns) >= TOLERANCE_S * 1e9:
                self._step(piece, segment, drift_ns)
        assert self._segment is not None
        self._epoch, self._end = piece.epoch, piece.end
        self._seq += 1
        return self.stream.chunk(
            piece.samples,
            boot=self._boot,
            seq=self._seq - 1,
            device_time_ns=self._grid_ns(piece),
            utc_ns=self._predicted_ns(piece),
            contact=piece.contact,
            clock=piece.clock,
        )

    def _begin(self, piece: Piece, before: _Segment | None) -> None:
        """Open a boot at the device's own stamp; UTC goes on in the line of `before`, or begins anew."""
        utc_ns, lead_ns = (piece.utc_ns, 0) if before is None else (self._predicted_ns(piece), before.lead_ns)
        self._segment = _Segment(piece.index, piece.device_ns, utc_ns, lead_ns)
        self._boot = secrets.randbits(63)
        self._seq = 0
        self.anchors += 1

    def _step(self, piece: Piece, segment: _Segment, drift_ns: int) -> None:
        """Open a segment within the boot, unless the last one is too young."""
        since_s = (piece.index - segment.index) / self.stream.fs_hz
        settled = piece.index - self._epoch_index >= SETTLE_S * self.stream.fs_hz
        rest_s = REST_S[settled]
        if since_s < rest_s:
            return
        grid_ns = self._grid_ns(piece)
        step_ns = math.copysign(STEP_SAMPLES * 1e9 / self.stream.fs_hz, piece.device_ns - grid_ns)
        moves_ns = abs(drift_ns + segment.lead_ns) / since_s * rest_s / 2 if settled else 0.0
        lead_ns = round(math.copysign(max(0.9 * TOLERANCE_S * 1e9, moves_ns), drift_ns))
        self._segment = _Segment(piece.index, grid_ns + round(step_ns), piece.utc_ns + lead_ns, lead_ns)
        self.anchors += 1

    def _predicted_ns(self, piece: Piece) -> int:
        assert self._segment is not None
        return self._segment.utc_ns + self.stream.offset_ns(piece.index - self._segment.index)

    def _grid_ns(self, piece: Piece) -> int:
        assert self._segment is not None
        return self._segment.stamp_ns + self.stream.offset_ns(piece.index - self._segment.index)
