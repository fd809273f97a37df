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
    raw = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
    values: NDArray[np.int32] = raw[:, 0] | raw[:, 1] << 8 | raw[:, 2] << 16
    return np.where(values >= 1 << 23, values - (1 << 24), values).astype(np.int32)
