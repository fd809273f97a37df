"""What a simulated wearable goes through: a list of segments, built in or from a TOML or JSON file.

[[segment]]
kind = "af"
seconds = 40
hr_bpm = 110
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edge.errors import BadInputError

MAX_SCRIPT_BYTES = 1 << 20
MAX_SEGMENTS = 1000
SECONDS_RANGE = (1.0, 3600.0)


class Parameter(NamedTuple):
    """Default and range of a segment's parameter."""

    default: float
    low: float
    high: float


_RATE = Parameter(70, 20, 220)
_HRV = {"rr_sd_s": Parameter(0.03, 0, 0.2), "lf_hf": Parameter(0.5, 0, 10)}
KINDS: dict[str, dict[str, Parameter]] = {
    "sinus": {"hr_bpm": _RATE, **_HRV},
    "pvcs": {"hr_bpm": _RATE, "beats_between": Parameter(5, 1, 100), **_HRV},
    "bigeminy": {"hr_bpm": _RATE, **_HRV},
    "af": {"hr_bpm": Parameter(95, 40, 220), "rr_cv": Parameter(0.22, 0.05, 0.5), "f_hz": Parameter(6, 4, 10)},
    "vt": {"hr_bpm": Parameter(180, 100, 300)},
    "vf": {"f_hz": Parameter(4.5, 3, 6), "mv": Parameter(1.2, 0.1, 5)},
    "pause": {"hr_bpm": Parameter(60, 20, 220), "pause_s": Parameter(4, 2, 30), **_HRV},
    "asystole": {},
    "noise": {
        "hr_bpm": _RATE,
        **_HRV,
        "emg_mv": Parameter(0.3, 0, 10),
        "wander_mv": Parameter(0.5, 0, 10),
        "motion_mv": Parameter(1.0, 0, 10),
    },
    "lead_off": {},
}


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of a script."""

    kind: str
    seconds: float
    parameters: Mapping[str, float]
    """Every parameter of the kind, defaults filled in."""


@dataclass(frozen=True, slots=True)
class Script:
    """A name (of the record it makes) and what happens in order."""

    name: str
    segments: tuple[Segment, ...]


BUILT_IN: dict[str, list[dict[str, Any]]] = {
    "tour": [
        {"kind": "sinus", "seconds": 30},
        {"kind": "pvcs", "seconds": 30},
        {"kind": "bigeminy", "seconds": 20},
        {"kind": "sinus", "seconds": 10},
        {"kind": "af", "seconds": 45},
        {"kind": "sinus", "seconds": 10},
        {"kind": "pause", "seconds": 20},
        {"kind": "vt", "seconds": 12},
        {"kind": "sinus", "seconds": 10},
        {"kind": "vf", "seconds": 12},
        {"kind": "asystole", "seconds": 8},
        {"kind": "sinus", "seconds": 20},
        {"kind": "noise", "seconds": 15},
        {"kind": "sinus", "seconds": 10},
        {"kind": "lead_off", "seconds": 12},
        {"kind": "sinus", "seconds": 16},
    ],
    "sinus": [{"kind": "sinus", "seconds": 60}],
}
"""`tour` shows everything in four minutes and forty seconds."""


def load_script(name_or_path: str) -> Script:
    """Return a built-in script by name, or the one in a .toml or .json file.

    Raises BadInputError that names file, segment and key of a mistake.
    """
    if name_or_path in BUILT_IN:
        return parse_script(BUILT_IN[name_or_path], name_or_path, name_or_path)
    path = Path(name_or_path)
    try:
        if path.stat().st_size > MAX_SCRIPT_BYTES:
            raise BadInputError(f"{path}: a script of more than {MAX_SCRIPT_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        built_in = ", ".join(BUILT_IN)
        raise BadInputError(f"no script {name_or_path!r}: give a .toml or .json file or one of {built_in}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not readable as TOML or JSON: {error}") from None
    if isinstance(document, dict):
        if unknown := sorted(document.keys() - {"segment"}):
            raise BadInputError(f"{path}: unknown key {unknown[0]!r}; a script is a list of [[segment]]")
        document = document.get("segment")
    return parse_script(document, re.sub(r"[^A-Za-z0-9_-]", "_", path.stem), str(path))


def parse_script(document: Any, name: str, where: str) -> Script:
    """Check a list of {kind, seconds, parameters…}; `where` names it in errors."""
    if not isinstance(document, list) or not 1 <= len(document) <= MAX_SEGMENTS:
        raise BadInputError(f"{where}: a script is a list of 1 to {MAX_SEGMENTS} segments")
    return Script(name, tuple(_segment(item, f"{where}: segment {i + 1}") for i, item in enumerate(document)))


def _segment(item: Any, where: str) -> Segment:
    if not isinstance(item, dict):
        raise BadInputError(f"{where}: not a table with kind and seconds")
    kind = item.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadInputError(f"{where}: kind {kind!r} is not one of {', '.join(KINDS)}")
    known = KINDS[kind]
    for key in item:
        if key not in known and key not in ("kind", "seconds"):
            raise BadInputError(f"{where}: {kind} has no {key!r}; it has {', '.join(('seconds', *known))}")
    seconds = _number(item.get("seconds"), Parameter(0, *SECONDS_RANGE), "seconds", where)
    values = {key: _number(item.get(key, p.default), p, key, where) for key, p in known.items()}
    return Segment(kind, seconds, values)


def _number(value: Any, parameter: Parameter, key: str, where: str) -> float:
    if type(value) not in (int, float) or not parameter.low <= value <= parameter.high:
        raise BadInputError(
            f"{where}: {key} must be a number from {parameter.low:g} to {parameter.high:g}, not {value!r}"
        )
    return float(value)
