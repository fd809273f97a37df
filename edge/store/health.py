"""What the daemon says about itself, for `status` in another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from edge.store.tables import health


def write_health(conn: Connection, values: Mapping[str, Any], now_ns: int) -> None:
    """Replace the given keys; every value is JSON."""
    for key, value in values.items():
        row = {"key": key, "value": value, "updated_ns": now_ns}
        conn.execute(insert(health).values(row).on_conflict_do_update(index_elements=["key"], set_=row))
