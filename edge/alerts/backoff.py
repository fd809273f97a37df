"""How long to wait before trying again: exponential, with full jitter, so that gateways do not return in step.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits drawn from [0.1, 1] of `first_s` · 2^attempt, at most `longest_s`."""

    first_s: float = 0.5
    longest_s: float = 60.0

    def wait_s(self, attempt: int) -> float:
        """Return the wait before attempt 1, 2, 3, … after a failure (`attempt` counts from 0)."""
        top_s = min(self.longest_s, self.first_s * 2.0 ** min(attempt, 30))
        return random.uniform(0.1 * top_s, top_s)  # noqa: S311 (nothing secret)
