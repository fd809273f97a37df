"""`anyecg doctor`: what is well, what is not, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from edge.doctor import gateway, machine
from edge.doctor.check import CODES, Check, State, worst
from edge.errors import AnyecgError
from edge.report.status import Status, read_status
from edge.store.database import open_readonly

__all__ = ["CODES", "Check", "State", "examine", "worst"]


def examine(state: Path, now_ns: int, *, deep: bool = False) -> list[Check]:
    """Run every check; none of them changes anything or raises."""
    config_check, config = gateway.configuration(state)
    status = _status(state, now_ns)
    received = [] if status is None else [d["last_received_ns"] for w in status.wearers for d in w.devices]
    return [
        config_check,
        machine.state_folder(state),
        machine.disk(state, config),
        machine.encryption(state),
        machine.clock(max(received, default=None)),
        gateway.database(state, deep=deep),
        gateway.backups(state, config, now_ns),
        gateway.model(config),
        gateway.provider(config),
        gateway.broker(config),
        machine.bluetooth(state, config),
        gateway.daemon(status),
        *gateway.devices(status),
    ]


def _status(state: Path, now_ns: int) -> Status | None:
    from sqlalchemy.exc import DatabaseError

    try:
        reader = open_readonly(state)
    except AnyecgError:
        return None
    try:
        with reader.connect() as conn:
            return read_status(conn, now_ns)
    except DatabaseError:
        return None
    finally:
        reader.dispose()
