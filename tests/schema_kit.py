"""The schema as text. `python tests/schema_kit.py` rewrites the golden file from the migrations.

Until the first release, `python tests/schema_kit.py first` also rewrites migration 0001 from `edge.store.tables`;
after it, a change of tables needs a migration of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine

from edge.store import database

GOLDEN = Path(__file__).parent / "fixtures" / "schema.sql"
MIGRATIONS = Path(database.__file__).parent / "migrations"


def schema_sql(conn: Connection) -> str:
    """Return every table and index of the product as SQL, sorted by name."""
    rows = conn.exec_driver_sql(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%' AND name NOT LIKE 'sqlite_%'"
        " ORDER BY type DESC, name"
    )
    return "".join(f"{row.sql.replace(', ' + chr(10), ',' + chr(10))};\n\n" for row in rows)


def _write_first() -> None:
    for path in (MIGRATIONS / "versions").glob("*0001*.py"):
        path.unlink()
    with create_engine("sqlite://").connect() as conn:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = conn
        command.revision(config, "The whole first schema", autogenerate=True, rev_id="0001")
    (path,) = (MIGRATIONS / "versions").glob("0001_*.py")
    target = path.with_name("v0001.py")
    text = path.read_text().replace('"""The whole first schema"""', '"""The whole first schema."""')
    target.write_text("".join(line for line in text.splitlines(keepends=True) if "### " not in line))
    path.unlink()
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(target)], check=True)


def main() -> None:
    """Rewrite the golden schema, and migration 0001 if asked to."""
    if "first" in sys.argv[1:]:
        _write_first()
    with tempfile.TemporaryDirectory() as folder:
        engine = database.open_writable(Path(folder))
        with engine.connect() as conn:
            GOLDEN.write_text(schema_sql(conn))


if __name__ == "__main__":
    main()
