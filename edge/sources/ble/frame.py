"""What decoders return: samples, beats, motion. And the one error they raise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class FrameError(ValueError):
    """Bytes that are not what the protocol says; counted under `reason`, the stream goes on."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The samples of one notification (or one reassembled message)."""

    samples: NDArray[np.int32]
    """[leads, n] digital values, n ≥ 1."""
    last_ns: int | None
    """Device clock at the last sample; None if the device sends no stamps."""
    first_ns: int | None = None
    """Device clock at the first sample, from devices that stamp that one; exactly one of the two is set, or none."""
    lost: int = 0
    """Frames lost before this one, by the device's own counter."""
    contact: bool | None = None
    """False: electrodes off the body, said in the frame itself."""


@dataclass(frozen=True, slots=True)
class Heart:
    """One Heart Rate Measurement."""

    hr_bpm: int
    contact: bool | None
    """None: the sensor cannot tell."""
    rr_s: tuple[float, ...]
    """RR intervals since the last measurement, oldest first."""
    energy_kj: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Accelerometer samples."""

    mg: NDArray[np.int32]
    """[n, 3] in thousandths of g."""
    last_ns: int


def int24_le(data: bytes) -> NDArray[np.int32]:
    """Return consecutive little-endian signed 24-bit integers; `len(data)` must be a multiple of 3."""
    padded = np.zeros((len(data) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    values: NDArray[np.int32] = (padded.view("<i4")[:, 0] >> 8).astype(np.int32, copy=False)
    return values
