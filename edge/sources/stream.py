"""What stays the same from chunk to chunk of a device, and the grid its samples lie on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.chunk import Chunk, ClockReading


@dataclass(frozen=True, slots=True)
class Stream:
    """One device on one wearer."""

    wearer: str
    device: str
    leads: tuple[str, ...]
    fs_hz: float
    uv_per_lsb: tuple[float, ...]

    def offset_ns(self, samples: int) -> int:
        """Nanoseconds that `samples` take on the exact grid of the nominal rate."""
        return round(samples * 1e9 / self.fs_hz)

    def chunk(
        self,
        samples: NDArray[np.int32],
        *,
        boot: int,
        seq: int,
        device_time_ns: int,
        utc_ns: int | None,
        contact: bool | None,
        clock: ClockReading | None = None,
    ) -> Chunk:
        """Return samples [leads, n] as a chunk of this stream; `oldest` is 0."""
        return Chunk(
            wearer=self.wearer,
            device=self.device,
            leads=self.leads,
            fs_hz=self.fs_hz,
            boot=boot,
            seq=seq,
            oldest=0,
            device_time_ns=device_time_ns,
            utc_ns=utc_ns,
            samples=samples,
            uv_per_lsb=self.uv_per_lsb,
            contact=contact,
            clock=clock,
        )
