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


def counted(pvcs: int, svpbs: int) -> str:
    """Return numbers of ectopic beats in words, empty without any: `3 PVCs and 1 SVPB`."""
    found = [(pvcs, "PVC"), (svpbs, "SVPB")]
    return " and ".join(f"{number} {name}{'s' if number > 1 else ''}" for number, name in found if number)


def report_grammar(rate_bpm: int | None, pvcs: int, svpbs: int) -> str:
    """Return the GBNF of a report: rhythm, rate if there is one, ectopy, conduction, quality.

    Numbers are those that the model was shown and can only be written as they are; words are its choice.
    """
    rate, what = f'"{rate_bpm}"', f'"{counted(pvcs, svpbs)}"'
    start = _filled(ALONE, rhythm="rhythm") if rate_bpm is None else _filled(WITH_RATE, rhythm="rhythm", rate=rate)
    return "\n".join(
        (
            f'root ::= " " {start} ectopy conduction quality "\\n"',
            f"rhythm ::= {_any_of([upper(name) for name in RHYTHM_NAMES.values()])}",
            f"ectopy ::= {_filled(ECTOPY, what=what) if pvcs or svpbs else _any_of(NO_ECTOPY)}",
            f"conduction ::= {_any_of([text for one in CONDUCTION.values() for text in one])}",
            f"quality ::= {_any_of([text for one in QUALITY.values() for text in one])}",
            "",
        )
    )
