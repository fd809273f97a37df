"""The assistant's figures as Markdown tables, for docs/assistant.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.evaluate.page import table

WAY_NAMES = {
    "soft tokens": "**soft tokens**, both leads",
    "one lead": "soft tokens, first lead only",
    "heads alone": "the projector's heads alone",
    "zeroed": "control: rows zeroed, times left",
    "shuffled": "control: rows shuffled",
    "whole clip": "control: the whole clip, always",
    "nothing": "control: “none”, always",
}


def markdown(found: Mapping[str, Any]) -> str:
    """Return the tables of what was measured."""
    lines = [f"Projector `{found['projector']}` on encoder `{found['encoder']}`; people that neither has learnt."]
    for name, one in found.items():
        if name.startswith("localisation"):
            lines += ["", *_localisation(name, one)]
    if "reports" in found:
        lines += ["", *_reports(found["reports"])]
    if "comparisons" in found:
        ways = [key for key in next(iter(found["comparisons"].values())) if key != "questions"]
        rows = [
            (kind, one["questions"], *(f"{100 * one[way]:.1f}" for way in ways))
            for kind, one in found["comparisons"].items()
        ]
        lines += ["", *table(("comparison questions, exact, %", "asked", *ways), rows)]
    if "hours" in found:
        lines += ["", *_hours(found["hours"])]
    return "\n".join(lines)


def _localisation(name: str, found: Mapping[str, Any]) -> list[str]:
    labels = [label for label in next(iter(found["iou"].values())) if label not in ("macro", "by length")]
    rows = []
    for way, means in found["iou"].items():
        cells = [_pair(means[label]) for label in (*labels, "macro")]
        rows.append((WAY_NAMES[way], *cells, *(_shown(part["positives"]) for part in means["by length"].values())))
    lengths = list(next(iter(found["iou"].values()))["by length"])
    took = found.get("seconds_per_clip") or {}
    told = (
        f"{name[0].upper()}{name[1:]}: {found['questions']} questions, mean interval IoU in per cent, all / positives"
    )
    speed = f"; {took['median']} s per clip in the median, {took['p95']} s at p95" if took else ""
    return [
        f"{told}; by length positives only{speed}.",
        "",
        *table(("answered from", *labels, "macro", *lengths), rows),
    ]


def _reports(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, one in found.items():
        rhythm, quality, conduction = (_macro(one.get(key)) for key in ("rhythm", "quality", "conduction"))
        rate, classes = one.get("rate within 5 bpm"), one.get("superclass")
        ectopy = " / ".join(_f1(one.get(f"{kind} present")) for kind in ("PVC", "SVPB"))
        told = "–" if classes is None else ", ".join(f"{key} {_f1(each)}" for key, each in classes.items())
        rows.append((name, one["clips"], rhythm, _f1_of(rate), ectopy, conduction, quality, told))
    head = ("reports", "clips", "rhythm", "rate ± 5", "PVC / SVPB there", "conduction", "quality", "superclass F1")
    return [
        "Attributes of reports, with 95 % intervals: accuracy (macro F1) of what is known, F1 of what is there or not.",
        "",
        *table(head, rows),
    ]


def _hours(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (label, one["hours"], one["read_by_model_h"], *(_recall(one[who]) for who in ("model", "engine", "either")))
        for label, one in found.items()
    ]
    head = ("over whole records", "hours", "read by the model", "model", "engine", "either")
    return ["Recall of annotated spans, and false spans per hour.", "", *table(head, rows)]


def _recall(one: Mapping[str, Any]) -> str:
    return f"{100 * one['recall']:.1f} %, {one['false_per_hour']}"


def _pair(one: Mapping[str, Any]) -> str:
    return f"{_shown(one['all'])} / {_shown(one['positives'])}"


def _macro(one: Mapping[str, Any] | None) -> str:
    return "–" if one is None else f"{one['accuracy']:.2f}{_interval(one)} ({one['macro_f1']:.2f})"


def _f1(one: Mapping[str, Any] | None) -> str:
    return "–" if one is None else f"{one['f1']:.2f}{_interval(one)} (n {one['tp'] + one['fn']})"


def _interval(one: Mapping[str, Any]) -> str:
    return " {}-{}".format(*one["95 %"])


def _f1_of(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
