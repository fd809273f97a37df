"""What nobody is told of at the moment, and why: for the retained state, so that quiet is never taken for well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge.alerts.liveness import Link
from edge.alerts.quiet import quiet_until_ns
from edge.alerts.topics import iso
from edge.config import Config
from edge.rhythm.events import Severity
from edge.rhythm.rules import Rule, Rules
from edge.store.marks import Mark


def unseen(link: Link, signal: str | None) -> list[dict[str, Any]]:
    """Return why nothing about the heart can be seen, if nothing can."""
    if link != "online":
        return [_entry("no_data")]
    if signal is None:
        return [_entry("not_read_yet")]
    return [] if signal == "readable" else [_entry(signal)]


def below_severity(least: Severity) -> list[dict[str, Any]]:
    """Return that events below the wearer's `min_severity` are not told."""
    return [] if least == "info" else [_entry("below_severity", below=least)]


def silenced(
    config: Config, wearer: str, timezone: str, rules: Rules, snoozes: Sequence[Mark], now_ns: int
) -> list[dict[str, Any]]:
    """Return what people have silenced: rules switched off, snoozes and quiet hours in force."""
    found = []
    off = [name for name, rule in rules.groups() if isinstance(rule, Rule) and not rule.enabled]
    if off:
        found.append(_entry("rule_off", rules=off))
    quiet = config.quiet(wearer)
    ends_ns = quiet_until_ns(quiet, timezone, now_ns)
    if quiet is not None and ends_ns is not None:
        found.append(_entry("quiet_hours", below=quiet.min_severity, until_ns=ends_ns))
    for one in snoozes:
        if one.value is not None and one.value["until_ns"] > now_ns:
            rule = one.value["rule"]
            found.append(
                _entry("snoozed", rules=[rule] if rule else None, below="critical", until_ns=one.value["until_ns"])
            )
    return found


def _entry(
    why: str, *, rules: list[str] | None = None, below: Severity | None = None, until_ns: int | None = None
) -> dict[str, Any]:
    return {"why": why, "rules": rules, "below": below, "until": None if until_ns is None else iso(until_ns)}
