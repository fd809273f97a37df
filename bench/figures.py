"""What a bench found, as a table for people and as JSON for the next bench to compare with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.machine import Machine

FOLDER = Path("build/bench")
"""Where each bench leaves its JSON."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A table of finished texts; the title names the machine."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def as_rich(self) -> Table:
        table = Table(title=self.title)
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        def line(cells: list[str]) -> str:
            return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

        rule = ["---", *["--:" for _ in self.columns[1:]]]
        return "\n".join([self.title, "", line(self.columns), line(rule), *map(line, self.rows)]) + "\n"


def write_json(path: Path, figures: Figures, machine: Machine, **found: Any) -> None:
    """Write table, machine and what was found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": asdict(machine), "figures": asdict(figures), **found}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
