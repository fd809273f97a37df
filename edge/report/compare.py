"""Two periods side by side."""

from __future__ import annotations

from functools import partial

from edge.exchange.disguise import Disguise
from edge.report import plots
from edge.report.compose import DASH, minute, summary_facts
from edge.report.document import Block, Document, Heading, Plot, Table, Words
from edge.report.holter import Figures, Holter, Rate
from edge.report.strip import FOOTER

_WIDTHS = (54.0, 44.0, 44.0, 44.0)


def compare(before: Holter, after: Holter, hide: Disguise) -> Document:
    """Return a document with the figures of both periods, what changed, and both courses of the heart rate."""
    names = tuple(f"{minute(h.start_ns, hide)} to {minute(h.end_ns, hide)}" for h in (before, after))
    blocks: list[Block] = [
        Words(f"A: {names[0]}. B: {names[1]}. Rates and shares are of readable time, which differs between the two."),
        Table(("", "A", "B", "B - A"), _rows(before.total, after.total), _WIDTHS),
    ]
    for letter, holter in (("A", before), ("B", after)):
        blocks.append(Heading(f"{letter}: {minute(holter.start_ns, hide)} to {minute(holter.end_ns, hide)}"))
        whole = partial(plots.day, holter=holter, span=holter.total, hide=hide)
        blocks.append(Plot(52, whole, f"heart rate, rhythm and ectopic beats of period {letter}"))
    for letter, holter in (("A", before), ("B", after)):
        blocks.append(Heading(f"{letter} in words", new_page=letter == "A"))
        rows = [(group, name, value) for group, facts in summary_facts(holter, hide) for name, value in facts]
        blocks.append(Table(("", "", ""), rows, (52.0, 44.0, 90.0), left=3))
    blocks.append(Words(f"{FOOTER}. A difference between two periods may be chance.", strong=True))
    return Document(f"Two periods: {hide.wearer}", f"{hide.wearer}   A and B side by side", blocks)


def _rows(a: Figures, b: Figures) -> list[tuple[str, ...]]:
    def per_hour(f: Figures, kind: str) -> float | None:
        return f.per_hour(f.beats[kind])

    def of(name: str, x: float | None, y: float | None, digits: int, unit: str) -> tuple[str, ...]:
        shown = [DASH if v is None else f"{v:,.{digits}f} {unit}".rstrip() for v in (x, y)]
        change = DASH if x is None or y is None else f"{y - x:+,.{digits}f} {unit}".rstrip()
        return name, *shown, change

    def bpm(found: Rate | None) -> float | None:
        return None if found is None else found.bpm

    def share(f: Figures) -> float | None:
        return None if f.af_share is None else 100 * f.af_share

    return [
        of("Length", (a.end_ns - a.start_ns) / 3.6e12, (b.end_ns - b.start_ns) / 3.6e12, 1, "h"),
        of("Recorded", a.recorded_s / 3600, b.recorded_s / 3600, 1, "h"),
        of("Readable", a.readable_s / 3600, b.readable_s / 3600, 1, "h"),
        of("Mean heart rate", a.mean_bpm, b.mean_bpm, 0, "bpm"),
        of("Lowest heart rate", bpm(a.lowest), bpm(b.lowest), 0, "bpm"),
        of("Highest heart rate", bpm(a.highest), bpm(b.highest), 0, "bpm"),
        of("AF burden", share(a), share(b), 2, "%"),
        of("Ventricular beats", a.beats["V"], b.beats["V"], 0, ""),
        of("Ventricular beats per hour", per_hour(a, "V"), per_hour(b, "V"), 1, ""),
        of("Supraventricular beats", a.beats["S"], b.beats["S"], 0, ""),
        of("Supraventricular beats per hour", per_hour(a, "S"), per_hour(b, "S"), 1, ""),
        of("Pauses", a.pauses, b.pauses, 0, ""),
        of("SDNN", a.hrv.sdnn_ms, b.hrv.sdnn_ms, 0, "ms"),
        of("RMSSD", a.hrv.rmssd_ms, b.hrv.rmssd_ms, 0, "ms"),
        of("pNN50", a.hrv.pnn50_percent, b.hrv.pnn50_percent, 1, "%"),
    ]
