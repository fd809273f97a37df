"""Tells systemd how the service stands (sd_notify protocol); does nothing where systemd does not listen."""

from __future__ import annotations

import os
import socket


def ready(text: str) -> bool:
    """Say that the service is up."""
    return _notify("READY=1", f"STATUS={text}")


def watchdog() -> bool:
    """Say that work progresses; due every `watchdog_interval_s`."""
    return _notify("WATCHDOG=1")


def status(text: str) -> bool:
    """Set the line that `systemctl status` shows."""
    return _notify(f"STATUS={text}")


def stopping() -> bool:
    """Say that the service is on its way down."""
    return _notify("STOPPING=1")


def _notify(*fields: str) -> bool:
    """Send fields; return whether systemd was told.

    Source: sd_notify(3). An unreachable socket is no error: a service must not die of it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":  # abstract socket
        address = "\0" + address[1:]
    message = "\n".join(field.replace("\n", " ") for field in fields).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1.0)
            sock.sendto(message, address)
    except OSError:
        return False
    return True


def watchdog_interval_s() -> float | None:
    """Return how often `WATCHDOG=1` is due (half of what systemd allows), None if there is no watchdog."""
    limit_us = os.environ.get("WATCHDOG_USEC", "")
    owner = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not limit_us.isdecimal() or owner != str(os.getpid()):
        return None
    return int(limit_us) / 2e6 or None
