"""Where the gateway publishes, and how it writes time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

SCHEMA = 1
"""Version of the event, state and status documents; a subscriber refuses a higher one."""


def status_topic(gateway: str) -> str:
    """Retained: whether the gateway itself is there (last will)."""
    return f"anyecg/v1/{gateway}/status"


def state_topic(gateway: str, wearer: str) -> str:
    """Retained: how it stands with a wearer."""
    return f"anyecg/v1/{gateway}/{wearer}/state"


def events_topic(gateway: str, wearer: str) -> str:
    """Not retained: what happened to a wearer."""
    return f"anyecg/v1/{gateway}/{wearer}/events"


def commands_filter(gateway: str) -> str:
    """Subscription to the commands of every wearer."""
    return f"anyecg/v1/{gateway}/+/cmd/+"


def command_of(gateway: str, topic: str) -> tuple[str, str] | None:
    """Return (wearer, name) of a command's topic, None if it is none."""
    parts = topic.split("/")
    if len(parts) != 6 or parts[:3] != ["anyecg", "v1", gateway] or parts[4] != "cmd":
        return None
    return parts[3], parts[5]


def reply_prefix(gateway: str, wearer: str) -> str:
    """What every response topic of a wearer's commands begins with."""
    return f"anyecg/v1/{gateway}/{wearer}/reply/"


def iso(utc_ns: int) -> str:
    """Return UTC as `2026-01-02T03:04:05.678Z`; milliseconds, rounded down."""
    stamp = datetime.fromtimestamp(utc_ns // 1_000_000_000, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{utc_ns % 1_000_000_000 // 1_000_000:03d}Z"


def dump(document: dict[str, Any]) -> str:
    """Return JSON without blanks; NaN and infinity raise `ValueError`."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
