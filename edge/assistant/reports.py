"""The phrases of a report: as it was learnt, so as it may be written (grammar) and is understood (attributes)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge.assistant.wording import RHYTHM_NAMES

WITH_RATE = ("{rhythm}, {rate} bpm.", "{rhythm} at {rate} bpm.", "{rhythm} with a rate of {rate} bpm.")
ALONE = ("{rhythm}.", "Rhythm: {rhythm}.")
ECTOPY = (" {what}.", " Ectopy: {what}.", " There are {what}.")
NO_ECTOPY = (" No ectopy.", " No ectopic beats.", " Ectopy: none.")
CONDUCTION = {
    "narrow": (" Narrow QRS.", " QRS narrow.", " Conduction normal."),
    "LBBB": (" Left bundle branch block.", " LBBB."),
    "RBBB": (" Right bundle branch block.", " RBBB."),
    "paced": (" Ventricular pacing.", " Paced beats."),
}
QUALITY = {
    "good": (" Good quality.", " Quality good.", " Readable throughout."),
    "partly": (" Partly unreadable.", " Noise in part."),
    "poor": (" Poor quality.", " Unreadable."),
}
MIN_BPM, MAX_BPM = 20, 300
_RATE = re.compile(r"(\d{1,3}) bpm")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a report says; None where it says nothing."""

    rhythm: str | None
    rate_bpm: int | None
    pvcs: int | None
    svpbs: int | None
    conduction: str | None
    quality: str | None


def upper(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def read_report(text: str) -> Attributes:
    """Return what a report says; a rate outside 20 to 300 bpm is none."""
    lower = f" {text.strip().lower()}"
    rhythm = next((name for name, said in RHYTHM_NAMES.items() if said in lower), None)
    rate = _RATE.search(lower)
    bpm = int(rate[1]) if rate and MIN_BPM <= int(rate[1]) <= MAX_BPM else None
    ectopy_told = any(said.strip().lower() in lower for said in NO_ECTOPY)
    counts = {name: re.search(rf"(\d+) {name}s?\b", lower) for name in ("pvc", "svpb")}
    ectopy_told = ectopy_told or any(counts.values())
    number = {name: int(found[1]) if found else (0 if ectopy_told else None) for name, found in counts.items()}

    def which(phrases: dict[str, tuple[str, ...]]) -> str | None:
        return next((name for name, said in phrases.items() if any(one.lower() in lower for one in said)), None)

    return Attributes(rhythm, bpm, number["pvc"], number["svpb"], which(CONDUCTION), which(QUALITY))


def _any_of(texts: Sequence[str]) -> str:
    return "(" + " | ".join('"' + text + '"' for text in texts) + ")"


def _filled(templates: Sequence[str], **rules: str) -> str:
    """Return GBNF alternatives of templates whose slots are rules."""
    out = []
    for template in templates:
        parts = re.split(r"(\{\w+\})", template)
        out.append(" ".join(rules[p[1:-1]] if p.startswith("{") else f'"{p}"' for p in parts if p))
    return "(" + " | ".join(out) + ")"


_RULES = "\n".join(
    (
        f"rhythm ::= {_any_of([upper(name) for name in RHYTHM_NAMES.values()])}",
        "rate ::= [1-9] [0-9] [0-9]?",
        f"ectopy ::= {_filled(ECTOPY, what='what')} | {_any_of(NO_ECTOPY)}",
        'what ::= number (" PVCs" | " PVC") (" and " number (" SVPBs" | " SVPB"))? | number (" SVPBs" | " SVPB")',
        "number ::= [1-9] [0-9]?",
        f"conduction ::= {_any_of([text for one in CONDUCTION.values() for text in one])}",
        f"quality ::= {_any_of([text for one in QUALITY.values() for text in one])}",
        "",
    )
)


def report_grammar(*, rate: bool) -> str:
    """Return the GBNF of a report: rhythm, rate if there are beats to tell it from, ectopy, conduction, quality."""
    start = _filled(WITH_RATE, rhythm="rhythm", rate="rate") if rate else _filled(ALONE, rhythm="rhythm")
    return f'root ::= " " {start} ectopy conduction quality "\\n"\n{_RULES}'
