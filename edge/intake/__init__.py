"""Intake: order, duplicates, gaps, late data. It commits, then acknowledges.

Every sound chunk is committed to the inbox at once, whatever its order; its first sample index is decided

- at once, when everything before it is decided and its predecessor is there;
- when the predecessor arrives, is given up by the sender (`oldest`), or the watermark passes: 10 s newer data in
  device stamps, or 10 s of silence. The hole is then a gap, sized by stamps.

Within a boot a stamp within 1.5 samples of the predecessor's end continues it; a later one leaves a gap; one that
jumped back or beyond a day continues it in a new clock segment. A new boot follows by UTC distance. A chunk that
comes after its hole was decided is placed into the gap by its stamp. So the final samples, gaps and segments of a
sender whose stamps lie on the grid do not depend on the order of arrival.

`edge.intake.outcome.OUTCOMES` is the table of everything that can become of a chunk; each has a counter.
"""

from edge.intake.intake import Intake
from edge.intake.outcome import OUTCOMES, IntakeLimits, Stored

__all__ = ["OUTCOMES", "Intake", "IntakeLimits", "Stored"]
