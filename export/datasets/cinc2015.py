"""ICU alarms of the CinC Challenge 2015: what was alarmed at 5:00, and whether rightly. For rules, never for training.

Odd record numbers are the test half, even ones choose thresholds. The alarm was raised at 5 minutes; its cause lies in
the 10 s before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import wfdb

from edge.errors import BadInputError
from export.datasets.folders import records_folder
from export.datasets.splits import Part

DB = "cinc2015"
ALARM_S = 300.0
KINDS = {
    "Asystole": "asystole",
    "Bradycardia": "bradycardia",
    "Tachycardia": "tachycardia",
    "Ventricular_Tachycardia": "vt",
    "Ventricular_Flutter_Fib": "vf",
}
"""The challenge's name to our rule."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One recording and its alarm."""

    name: str
    path: Path
    """Without extension; samples come from `edge.sources.record` or `export.datasets.reader.digital`."""
    leads: tuple[str, ...]
    rule: str
    is_true: bool

    @property
    def part(self) -> Part:
        """Odd numbers test, even ones choose."""
        return "test" if number(self.name) % 2 else "validation"


def number(name: str) -> int:
    """Return the number in a record's name."""
    found = re.fullmatch(r"[a-z](\d+)[ls]", name)
    if found is None:
        raise BadInputError(f"{name!r} is no record of cinc2015: a letter, a number, then l or s")
    return int(found[1])


def read(name: str) -> Alarm:
    """Read the header of one record. Raises `BadInputError` if its comments do not tell the alarm."""
    path = records_folder(DB) / name
    header = wfdb.rdheader(str(path))
    comments = [comment.strip() for comment in header.comments]
    kind = next((KINDS[comment] for comment in comments if comment in KINDS), None)
    verdict = next((comment for comment in comments if comment in ("True alarm", "False alarm")), None)
    if kind is None or verdict is None:
        raise BadInputError(f"{path}.hea tells no alarm: expected one of {', '.join(KINDS)} and True or False alarm")
    return Alarm(name, path, tuple(header.sig_name), kind, verdict == "True alarm")


def load(part: Part | None = None) -> list[Alarm]:
    """Return every alarm that is present, or those of a part, by name."""
    found = [read(path.stem) for path in sorted(records_folder(DB).glob("*.hea"))]
    if not found:
        raise BadInputError(
            f"no records in {records_folder(DB)}: fetch them with `python -m export.datasets fetch {DB}`"
        )
    return [alarm for alarm in found if part is None or alarm.part == part]
