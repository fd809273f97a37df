"""`Chunk`: the only thing a source hands to intake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSING = -(2**31)
"""Digital value of a sample that was not recorded (one lead may miss samples that another has)."""

UNKNOWN_LEAD = "unknown"
LEAD_NAMES = (
    *("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"),
    *("MLI", "MLII", "MLIII", "D3", "D4", "CC5", "CM2", "CM4", "CM5", "CS12", "V", "ECG", "ECG1", "ECG2", UNKNOWN_LEAD),
)
"""Names that are kept as sent; any other is stored as given but counted as an unknown lead."""

MAX_LEADS = 12
FS_RANGE_HZ = (50.0, 2000.0)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What a source has measured of a device's clock. Kept with the clock segment that begins here; never used to place
    a sample, only to tell when it was taken."""

    stamp_ns: int | None
    """The device's own stamp at the first sample, raw; None if it sends none."""
    rate_hz: float | None
    """Samples per second of device time."""
    drift_ppm: float | None
    """How much faster host time passes than device time."""


def utc_rate_hz(fs_hz: float, rate_hz: float | None, drift_ppm: float | None) -> float:
    """Return the samples per second of UTC of a clock segment; what was not measured is nominal."""
    return (rate_hz or fs_hz) / (1 + (drift_ppm or 0.0) * 1e-6)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of consecutive samples of one device on one wearer. Integers inside, millivolts at the edges."""

    wearer: str
    """`[a-z0-9][a-z0-9_-]{0,63}`."""
    device: str
    """Same form as `wearer`."""
    leads: tuple[str, ...]
    """1 to 12 lead names, one per row of `samples`."""
    fs_hz: float
    """Nominal sampling rate; the grid of sample indices."""
    boot: int
    """Random 63-bit number drawn whenever the sender starts; sequence numbers restart with it."""
    seq: int
    """0, 1, 2, … within a boot."""
    oldest: int
    """The lowest sequence number the sender still holds; everything below it is committed or given up."""
    device_time_ns: int
    """Device clock at the first sample."""
    utc_ns: int | None
    """The sender's own UTC at the first sample, if it has one."""
    samples: NDArray[np.int32]
    """[leads, n] digital values, `MISSING` where a lead has none."""
    uv_per_lsb: tuple[float, ...]
    """Microvolts per digital unit, one per lead; digital 0 is 0 mV."""
    contact: bool | None = None
    """False: electrodes off the body. None: the device cannot tell."""
    clock: ClockReading | None = None
    """Of sources that make `device_time_ns` themselves (Bluetooth); not on the wire."""

    @property
    def n(self) -> int:
        """Number of samples per lead."""
        return int(self.samples.shape[1])


@dataclass(frozen=True, slots=True)
class Delivery:
    """A chunk on its way into intake, and what to call once it is safe."""

    chunk: Chunk
    received_ns: int
    """Wall time of arrival, ns since 1970 UTC."""
    committed: Callable[[], None]
    """Called exactly once, after the commit (or the counted refusal) of this chunk; must not block."""
