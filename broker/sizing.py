"""How much a broker keeps for whom is away, and how often it writes that down: pure functions of the wearers.

Measured with mosquitto 2.0.11 (573-byte chunks, `python -m bench.broker`): a queued message takes 945 bytes of memory
and 660 on disk, and every save writes the whole queue anew. With a save for every message 93 messages/s pass on a busy
machine while nothing is queued (1,281 on a quiet one), 6 (138) behind a queue of 3,600, an hour of one wearer: 1.3 MB
are written for each. Through a day's outage of the gateway that would be some 2.6 TB for one wearer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Save = Literal["timed", "every-message"]

DAY_CHUNKS = 86_400
"""One chunk a second for a day: the outage that is meant to be survived."""
SLACK = 1.25
CHUNK_BYTES = 1_200
"""A second of one 250 Hz lead as CBOR int32, with names: 1,071 bytes measured."""
QUEUED_BYTES = 945
"""Memory of one queued 573-byte chunk, measured."""
SAVE_S = 60
SAVE_MOST_S = 1_800
"""mosquitto's own default."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """Limits of the queues of whom is away, and the reason of each choice."""

    max_queued_messages: int
    max_queued_bytes: int
    autosave_interval: int
    """Seconds, or messages if `autosave_on_changes`."""
    autosave_on_changes: bool
    queue_reason: str
    save_reason: str


def choose_sizing(wearers: int, save: Save = "timed") -> Sizing:
    """Return the limits for so many wearers.

    The time between two saves grows with them, so that a day's outage writes about as much as with one: 43 GB at
    60 s (1,440 saves of 30 MB on average).
    """
    queued = round(DAY_CHUNKS * wearers * SLACK)
    memory_mb = DAY_CHUNKS * wearers * QUEUED_BYTES / 1e6
    queue_reason = (
        f"a day of one chunk a second from {wearers} wearer{'s' * (wearers != 1)}, and a quarter more; "
        f"that day takes about {memory_mb:,.0f} MB of memory (mosquitto's own 1,000 would drop after "
        f"{1_000 / wearers / 60:.0f} min)"
    )
    if save == "every-message":
        interval, reason = 1, "asked for: every message is a disk write, which a queue of an hour slows to 140/s"
    else:
        interval = min(SAVE_S * wearers, SAVE_MOST_S)
        reason = (
            f"every {interval} s for {wearers} wearer{'s' * (wearers != 1)}: a broker that is killed loses at most "
            "that from senders that forget after PUBACK; those that wait for the gateway's ack lose nothing"
        )
    return Sizing(queued, queued * CHUNK_BYTES, interval, save == "every-message", queue_reason, reason)
