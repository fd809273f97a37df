"""Which modules bring commands; importing one registers them on `edge.cli.app.app`."""

from __future__ import annotations

import importlib

GROUPS = (
    "alerts",
    "analyze",
    "ask",
    "assistant",
    "backup",
    "broker",
    "config",
    "demo",
    "devices",
    "doctor",
    "export",
    "importing",
    "look",
    "models",
    "read",
    "reanalyze",
    "report",
    "review",
    "run",
    "send",
    "service",
    "strip",
    "wearers",
    "web",
)


def all_commands() -> None:
    """Import every command group."""
    for name in GROUPS:
        importlib.import_module(f"edge.cli.{name}")
