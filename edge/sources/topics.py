"""Topics between wearables and the gateway."""

from __future__ import annotations

from edge.sources.payload import ID, PayloadError

CHUNK_FILTER = "ecg/v1/+/+/chunk"
"""What the gateway subscribes to."""


def chunk_topic(wearer: str, device: str) -> str:
    """Where a device publishes its chunks."""
    return f"ecg/v1/{wearer}/{device}/chunk"


def ack_topic(wearer: str, device: str) -> str:
    """Where the gateway tells a device what is committed."""
    return f"ecg/v1/{wearer}/{device}/ack"


def parse_chunk_topic(topic: str) -> tuple[str, str]:
    """Return (wearer, device); raises PayloadError (`topic`) for another topic or an impossible id."""
    parts = topic.split("/")
    if len(parts) != 5 or parts[:2] != ["ecg", "v1"] or parts[4] != "chunk":
        raise PayloadError("topic", f"topic {topic[:80]!r} is not ecg/v1/<wearer>/<device>/chunk")
    if not (ID.fullmatch(parts[2]) and ID.fullmatch(parts[3])):
        raise PayloadError("topic", f"wearer and device in topic {topic[:160]!r} must match {ID.pattern}")
    return parts[2], parts[3]
