"""`Intervals`: what a device without ECG hands to intake: the heartbeats it found itself."""

from __future__ import annotations

from dataclasses import dataclass

TICKS_HZ = 1024
"""RR intervals of the Bluetooth Heart Rate service are whole numbers of 1/1024 s; so is the grid they are kept on."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Successive RR intervals and reported heart rates of a few seconds."""

    wearer: str
    device: str
    run: int
    """Random number of a run of intervals without a hole; within a run each begins where the one before ended."""
    utc_ns: int
    """End of the last interval, or of the report if there is none."""
    rr_ticks: tuple[int, ...]
    """In 1/1024 s, oldest first."""
    hr_bpm: tuple[int, ...]
    """As the device reported them, about one a second."""
    received_ns: int
    """Wall time of arrival."""
    contact: bool | None
    """False: off the body; there are no intervals then."""

    @property
    def mean_bpm(self) -> float | None:
        """Heart rate of these intervals, beats per minute; as reported if there are none."""
        if self.rr_ticks:
            return 60 * TICKS_HZ * len(self.rr_ticks) / sum(self.rr_ticks)
        return sum(self.hr_bpm) / len(self.hr_bpm) if self.hr_bpm else None
