"""The figures as Markdown tables, and the few that go into the card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edge.errors import BadInputError
from export.evaluate.report import Figures


def markdown(found: Figures) -> str:
    """Return the tables of every set that was scored."""
    lines = [
        f"Checkpoint `{found['checkpoint']}`, {found['runtime']}, the gateway's own `RhythmSession` with its default "
        "rules. Rates in per cent; counts are beats or seconds. “Average” is the mean over records.",
        "",
        *table(
            ("beats (EC57)", "class", "Se", "PPV", "F1", "TP", "FN", "FP", "average Se / PPV"),
            (row for name, title in _SETS for row in _beat_rows(found, name, title)),
        ),
        "",
        *table(("seconds", "rhythm", "Se", "PPV", "F1", "TP", "FN", "FP"), _second_rows(found)),
        "",
        f"vfdb: {found['vfdb']['noise_seconds_unread']} of {found['vfdb']['noise_seconds']} seconds marked NOISE were "
        "left unread.",
    ]
    if "noise" in found:
        noisy = [
            (f"{len(found['noise']['records'])} mitdb records, one lead, {snr}", kind, *_rates(one[kind]))
            for snr, one in found["noise"].items()
            if snr != "records"
            for kind in ("qrs", "V")
        ]
        read = ", ".join(
            f"{100 * one['read_share']:.0f} % at {snr}" for snr, one in found["noise"].items() if snr != "records"
        )
        lines += ["", *table(("in electrode motion", "class", "Se", "PPV", "F1", "TP", "FN", "FP"), noisy)]
        lines += ["", f"Read of the noisy seconds: {read}; the rest was withheld as unreadable."]
    if "cinc2017" in found:
        rows = [
            (f"cinc2017, {found['cinc2017']['records']} records", name, *_rates(found["cinc2017"][name]), one["auc"])
            for name, one in found["cinc2017"].items()
            if name != "records"
        ]
        lines += ["", *table(("records", "label", "Se", "PPV", "F1", "TP", "FN", "FP", "AUC"), rows)]
    rows = [
        (name, *(one[kind][key] for kind in ("qrs", "V", "S") for key in ("tp", "fn", "fp")))
        for name, one in found["mitdb"]["per_record"].items()
    ]
    head = ("record", "QRS TP", "FN", "FP", "V TP", "FN", "FP", "S TP", "FN", "FP")
    return "\n".join([*lines, "", "Every record of mitdb, one lead:", "", *table(head, rows)])


def interval_table(intervals: Mapping[str, Any]) -> str:
    """Return the bootstrap intervals over patients as a table."""
    rows = [
        (name, kind, *("–" if one[key] is None else f"{one[key][0]} – {one[key][1]}" for key in ("se", "ppv", "f1")))
        for name, kinds in intervals.items()
        for kind, one in kinds.items()
        if one is not None
    ]
    head = ("95 % interval over patients (2,000 resamples)", "class", "Se", "PPV", "F1")
    return "\n".join(table(head, rows))


def replace_section(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers `<!-- NAME: … -->` and `<!-- end of NAME -->` of a page.

    Raises `BadInputError` if the page has no such markers.
    """
    page = path.read_text(encoding="utf-8")
    found = re.search(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)", page, re.DOTALL)
    if found is None:
        raise BadInputError(f"{path} has no section between <!-- {name}: … --> and <!-- end of {name} -->")
    path.write_text(f"{page[: found.end(1)]}{text}\n{page[found.start(2) :]}", encoding="utf-8")


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """Return the lines of a Markdown table; None is told as “–”."""

    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join("–" if cell is None else str(cell) for cell in cells) + " |"

    return [line(head), line("---" for _ in head), *(line(row) for row in rows)]


def summary(found: Figures) -> Figures:
    """Return the figures for the card: gross rates and counts."""
    out: Figures = {}
    for name, _ in _SETS:
        for part in ("gross", "gross_without_232"):
            if part in found[name]:
                out[f"{name} {part}"] = {key: one for key, one in found[name][part].items() if key != "matrix"}
    return out | {"vfdb": found["vfdb"]["gross"]} | ({"cinc2017": found["cinc2017"]} if "cinc2017" in found else {})


_SETS = (
    ("mitdb", "mitdb, one lead"),
    ("mitdb_second_lead", "mitdb, second lead alone"),
    ("mitdb_two_leads", "mitdb, two leads"),
    ("svdb", "svdb, one lead"),
)


def _rates(one: Figures) -> tuple[Any, ...]:
    return tuple(one[key] for key in ("se", "ppv", "f1", "tp", "fn", "fp"))


def _beat_rows(found: Figures, name: str, title: str) -> Iterable[tuple[Any, ...]]:
    for part, suffix in (("gross", ""), ("gross_without_232", ", without 232")):
        for kind in ("qrs", "V", "S"):
            if part in found[name]:
                average = " / ".join(map(str, found[name]["average_se_ppv"][kind])) if part == "gross" else ""
                yield (title + suffix, kind, *_rates(found[name][part][kind]), average)


def _second_rows(found: Figures) -> Iterable[tuple[Any, ...]]:
    for part, suffix in (("gross", ""), ("gross_without_232", ", without 232")):
        if part in found["mitdb"]:
            yield (f"mitdb, one lead{suffix}", "AF or AFL", *_rates(found["mitdb"][part]["af_seconds"]))
    titles = {"vt_vf": "VT or VF", "vf": "VF", "asystole": "asystole", "af": "AF or AFL"}
    for name, one in found["vfdb"]["gross"].items():
        yield ("vfdb, one lead", titles[name], *_rates(one))
