"""Pieces into chunks whose stamps intake places exactly: a grid with anchors.

Intake keeps a clock as segments of the nominal rate and opens a new one for a new boot, or where a stamp is half a
sample to one and a half off the grid. So within a boot stamps are the ideal grid from its first stamp, which is the
device's own: gaps come out exact to the sample and no jitter reaches RR. When the mapping has moved by
`TOLERANCE_S` against the grid, but not more often than `REST_S`, the grid takes one step of `STEP_SAMPLES` towards
the raw stamps: intake writes a new anchor with the mapped UTC and loses no sample. Every `RENEW_S`, and whenever the
device's clock jumps, a new boot brings the raw stamp again, so rate and drift can be read from the stored segments.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

from edge.chunk import Chunk
from edge.sources.ble.placer import Piece

TOLERANCE_S = 0.003
STEP_SAMPLES = 0.75
SETTLE_S = 600.0
REST_S = (5.0, 60.0)
"""Least signal between two such steps, while the mapping settles and later: a day has at most 1,440 of them."""
RENEW_S = 600.0


@dataclass(frozen=True, slots=True)
class Stream:
    """What stays the same from chunk to chunk."""

    wearer: str
    device: str
    leads: tuple[str, ...]
    fs_hz: float
    uv_per_lsb: tuple[float, ...]


@dataclass(slots=True)
class _Segment:
    """What intake knows: sample `index` has this stamp and this UTC, and the nominal rate goes on from there."""

    index: int
    stamp_ns: int
    utc_ns: int
    since: int
    """Index from which UTC runs on in one line; a renewed stamp does not break it."""
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
        self._boot_index = 0
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
            if piece.index - self._boot_index >= RENEW_S * self.stream.fs_hz:
                self._begin(piece, segment)
            elif abs(drift_ns) >= TOLERANCE_S * 1e9:
                self._step(piece, segment, drift_ns)
        assert self._segment is not None
        self._epoch, self._end = piece.epoch, piece.end
        self._seq += 1
        stream = self.stream
        return Chunk(
            wearer=stream.wearer,
            device=stream.device,
            leads=stream.leads,
            fs_hz=stream.fs_hz,
            boot=self._boot,
            seq=self._seq - 1,
            oldest=0,
            device_time_ns=self._segment.stamp_ns + self._ns(piece.index - self._segment.index),
            utc_ns=self._predicted_ns(piece),
            samples=piece.samples,
            uv_per_lsb=stream.uv_per_lsb,
            contact=piece.contact,
        )

    def _begin(self, piece: Piece, before: _Segment | None) -> None:
        """Open a boot at the device's own stamp; UTC goes on in the line of `before`, or begins anew."""
        if before is None:
            self._segment = _Segment(piece.index, piece.device_ns, piece.utc_ns, piece.index, 0)
        else:
            utc_ns = self._predicted_ns(piece)
            self._segment = _Segment(piece.index, piece.device_ns, utc_ns, before.since, before.lead_ns)
        self._boot = secrets.randbits(63)
        self._seq = 0
        self._boot_index = piece.index
        self.anchors += 1

    def _step(self, piece: Piece, segment: _Segment, drift_ns: int) -> None:
        """Open a segment within the boot, unless the last one is too young."""
        since_s = (piece.index - segment.since) / self.stream.fs_hz
        settled = piece.index - self._epoch_index >= SETTLE_S * self.stream.fs_hz
        rest_s = REST_S[settled]
        if since_s < rest_s:
            return
        grid_ns = segment.stamp_ns + self._ns(piece.index - segment.index)
        step_ns = math.copysign(STEP_SAMPLES * 1e9 / self.stream.fs_hz, piece.device_ns - grid_ns)
        moves_ns = abs(drift_ns + segment.lead_ns) / since_s * rest_s / 2 if settled else 0.0
        lead_ns = round(math.copysign(max(0.9 * TOLERANCE_S * 1e9, moves_ns), drift_ns))
        self._segment = _Segment(piece.index, grid_ns + round(step_ns), piece.utc_ns + lead_ns, piece.index, lead_ns)
        self.anchors += 1

    def _predicted_ns(self, piece: Piece) -> int:
        assert self._segment is not None
        return self._segment.utc_ns + self._ns(piece.index - self._segment.index)

    def _ns(self, samples: int) -> int:
        return round(samples * 1e9 / self.stream.fs_hz)
