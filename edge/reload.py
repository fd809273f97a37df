"""What of a changed `config.toml` a running gateway takes over, and what waits for its next start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.config import Config

LIVE = ("alerts", "wearers", "retention", "backup")
"""Sections that are taken over at once."""
NOT_LIVE = ("rules",)
"""Below a wearer: thresholds belong to a reading, and another one reads recordings anew, at a start."""
ELSEWHERE = {"web": "anyecg-web", "assistant": "anyecg-assistant, anyecg-web"}
"""Sections of other processes → their units."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What a new file changes."""

    config: Config
    """In force from now on."""
    applied: tuple[str, ...]
    """Keys that are in force."""
    restart: tuple[str, ...]
    """Keys that wait for a restart of the gateway."""
    elsewhere: tuple[str, ...]
    """Keys that other processes read at their start."""

    def as_json(self) -> dict[str, Any]:
        return {"applied": self.applied, "restart": self.restart, "elsewhere": self.elsewhere}


def take_over(running: Config, wanted: Config) -> Reload:
    """Return what of `wanted` can be in force beside what is `running`."""
    changed = list(_differences(running.model_dump(mode="json"), wanted.model_dump(mode="json")))
    elsewhere = tuple(key for key in changed if key.split(".")[0] in ELSEWHERE)
    waits = tuple(key for key in changed if key not in elsewhere and not _is_live(key))
    update: dict[str, Any] = {name: getattr(wanted, name) for name in LIVE}
    update["wearers"] = {
        name: person.model_copy(update={"rules": running.wearers[name].rules if name in running.wearers else {}})
        for name, person in wanted.wearers.items()
    }
    config = running.model_copy(update=update)
    return Reload(config, tuple(key for key in changed if _is_live(key)), waits, elsewhere)


def _is_live(key: str) -> bool:
    parts = key.split(".")
    return parts[0] in LIVE and not (parts[0] == "wearers" and len(parts) > 2 and parts[2] in NOT_LIVE)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name in sorted({*old, *new}):
        a, b, key = old.get(name), new.get(name), f"{above}{name}"
        if a == b:
            continue
        if isinstance(a, Mapping) or isinstance(b, Mapping):
            yield from _differences(a or {}, b or {}, f"{key}.")
        else:
            yield key
