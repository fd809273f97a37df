"""The schema as text. `python tests/schema_kit.py` rewrites the golden file from the migrations.

A change of tables needs a migration of its own.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from sqlalchemy import Connection

from edge.store import database

GOLDEN = Path(__file__).parent / "fixtures" / "schema.sql"
MIGRATIONS = Path(database.__file__).parent / "migrations"


def schema_sql(conn: Connection) -> str:
    """Return every table and index of the product as SQL, sorted by name."""
    rows = conn.exec_driver_sql(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%' AND name NOT LIKE 'sqlite_%'"
        " ORDER BY type DESC, name"
    )
    # a column that was added stands on the line of the one before it
    lines = (re.sub(r", (\w+ [A-Z]+\b)", r",\n\t\1", row.sql) for row in rows)
    statements = (re.sub(r'^CREATE TABLE "(\w+)"', r"CREATE TABLE \1", sql) for sql in lines)  # quoted once renamed
    return "".join(f"{sql.replace(', ' + chr(10), ',' + chr(10))};\n\n" for sql in statements)


def main() -> None:
    """Rewrite the golden schema."""
    with tempfile.TemporaryDirectory() as folder:
        engine = database.open_writable(Path(folder))
        with engine.connect() as conn:
            GOLDEN.write_text(schema_sql(conn))


if __name__ == "__main__":
    main()
