"""Who may do what at the broker: roles, and mosquitto's access list made from them.

A device's user name is `<wearer>/<device>`, so one pattern gives each its own chunk and ack topic and nobody else's.
mosquitto checks what is published and what is delivered; a subscription to more is granted and stays silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from edge.sources.payload import ID

Role = Literal["gateway", "device", "subscriber", "hub"]
ROLES: tuple[Role, ...] = ("gateway", "device", "subscriber", "hub")
"""gateway: takes chunks, acknowledges, tells; device: one wearable; subscriber: named wearers; hub: everybody's alerts
and Home Assistant's discovery."""

PATTERNS = (
    ("write", "ecg/v1/%u/chunk"),
    ("read", "ecg/v1/%u/ack"),
    ("readwrite", "anyecg/check/%u"),
)
"""For every user; `anyecg/check/<user>` is where `anyecg broker check` talks to itself."""


def topics(role: Role, gateway: str, wearers: Iterable[str]) -> list[tuple[str, str]]:
    """Return (access, topic filter) of a user beyond the patterns."""
    own = f"anyecg/v1/{gateway}"
    if role == "gateway":
        return [
            ("read", "ecg/v1/+/+/chunk"),
            ("write", "ecg/v1/+/+/ack"),
            ("readwrite", f"{own}/#"),
            ("write", "homeassistant/#"),
            ("read", "homeassistant/status"),
        ]
    if role == "hub":
        return [
            ("read", f"{own}/#"),
            ("write", f"{own}/+/cmd/#"),
            ("read", "homeassistant/#"),
            ("write", "homeassistant/status"),
        ]
    if role == "subscriber":
        named = [line for w in wearers for line in (("read", f"{own}/{w}/#"), ("write", f"{own}/{w}/cmd/#"))]
        return [("read", f"{own}/status"), *named]
    return []


def may_read(user: str, role: Role, gateway: str, wearers: Iterable[str] = ()) -> list[str]:
    """Return the topic filters a user is meant to receive."""
    lines = [*((access, topic.replace("%u", user)) for access, topic in PATTERNS), *topics(role, gateway, wearers)]
    return [topic for access, topic in lines if access != "write"]


def is_name(name: str, role: Role) -> bool:
    """Whether a user of that role may be called so."""
    parts = name.split("/")
    return len(parts) == (2 if role == "device" else 1) and all(ID.fullmatch(part) for part in parts)


def render(gateway: str, users: Iterable[tuple[str, Role, tuple[str, ...]]], banned: Iterable[str]) -> str:
    """Return mosquitto's `acl_file` for (name, role, wearers) of each user; who is `banned` gets nothing at all."""
    lines = ["# Written by `anyecg broker`; changes here are lost.", *(f"pattern {a} {t}" for a, t in PATTERNS)]
    for name in sorted(banned):
        lines += ["", f"user {name}", "topic deny #"]
    for name, role, wearers in users:
        granted = topics(role, gateway, wearers)
        if granted:
            lines += ["", f"user {name}", *(f"topic {access} {topic}" for access, topic in granted)]
    return "\n".join(lines) + "\n"
