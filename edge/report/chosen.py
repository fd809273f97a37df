"""Which strips a Holter report shows.

Holter practice keeps, per type and day, the extreme (fastest, slowest or longest), the longest and the second longest
episode, and every strip of a symptom. Beat patterns count as types; so do the lowest and highest heart rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge.report.holter import WINDOW_RR, Episode, Holter, Rate, pause_s
from edge.report.series import Series
from edge.store import queries

NS = queries.NS
STRIP_S = 6.8
"""What fits across A4 at 25 mm/s."""
LEAD_IN_S = 1.5
"""Before the onset of what a strip shows."""
MAX_STRIPS = 80
TYPES = (
    *("vf", "vt", "asystole", "pause", "af", "svt", "bradycardia", "tachycardia"),
    *("v_run", "s_run", "lowest", "highest", "couplet", "bigeminy", "trigeminy", "v_single", "s_single"),
)
"""In the order of importance: what exceeds `MAX_STRIPS` is left out from the end."""
NAMES = {
    "vf": "Ventricular fibrillation or flutter",
    "vt": "Ventricular tachycardia",
    "asystole": "Asystole",
    "pause": "Pause",
    "af": "Atrial fibrillation or flutter",
    "svt": "Supraventricular tachycardia",
    "bradycardia": "Bradycardia",
    "tachycardia": "Tachycardia",
    "v_run": "Ventricular run",
    "s_run": "Supraventricular run",
    "lowest": "Lowest heart rate",
    "highest": "Highest heart rate",
    "couplet": "Ventricular couplet",
    "bigeminy": "Ventricular bigeminy",
    "trigeminy": "Ventricular trigeminy",
    "v_single": "Ventricular ectopic beat",
    "s_single": "Supraventricular ectopic beat",
    "symptom": "Symptom",
}
_SLOW = ("bradycardia",)
_LONG = ("pause", "asystole", "vf")
"""Rate says nothing here."""
_ONE = ("couplet", "v_single", "s_single", "lowest", "highest")
"""Types of which the extreme says all."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One strip."""

    type: str
    why: str
    recording_id: int
    at_sample: int
    """What the strip is about begins here."""
    at_ns: int
    seconds: float
    """How long that lasts."""
    rate_bpm: float | None
    event_id: str = ""
    note: str = ""


def choose(holter: Holter) -> tuple[list[Choice], int]:
    """Return the strips by day and type, and how many more there were than `MAX_STRIPS`."""
    symptoms = list(_symptoms(holter))
    picked: list[tuple[int, int, Choice]] = []
    for day, figures in enumerate(holter.days):
        for rank, kind in enumerate(TYPES):
            picked += [(day, rank, choice) for choice in _of_type(holter, kind, figures.start_ns, figures.end_ns)]
    room = max(MAX_STRIPS - len(symptoms), 0)
    kept = sorted(sorted(picked, key=lambda item: item[1])[:room], key=lambda item: item[:2])
    return [*symptoms, *(choice for _, _, choice in kept)], len(picked) - len(kept)


def _of_type(holter: Holter, kind: str, start_ns: int, end_ns: int) -> list[Choice]:
    if kind in ("lowest", "highest"):
        found = list(_rates(holter, kind, start_ns, end_ns))
    elif kind in holter.patterns:
        found = list(_patterns(holter, kind, start_ns, end_ns))
    else:
        found = [_episode(holter, e) for e in holter.episodes.get(kind, ()) if start_ns <= e.start_ns < end_ns]
        if kind == "pause":  # those that are asystoles are shown as such
            silent = holter.episodes.get("asystole", ())
            found = [c for c in found if not any(a.start_ns <= c.at_ns < a.end_ns for a in silent)]
    if not found:
        return []
    unknown = 1e9 if kind in _SLOW else -1.0

    def rate(choice: Choice) -> float:
        return unknown if choice.rate_bpm is None else choice.rate_bpm

    by_length = sorted(found, key=lambda choice: (-choice.seconds, choice.at_ns))
    if kind in _LONG:
        return _named(by_length[:3], ("longest", "second longest", "third longest"))
    slow = kind in _SLOW or kind == "lowest"
    extreme = (min if slow else max)(found, key=rate)
    if kind in _ONE:
        words = {"couplet": "fastest", "lowest": "", "highest": ""}.get(kind, "shortest coupling")
        return _named([extreme], (words,))
    rest = [choice for choice in by_length if choice != extreme]
    first = "slowest" if slow else "fastest"
    if extreme == by_length[0]:
        return _named([extreme, *rest[:1]], (f"{first} and longest", "second longest"))
    return _named([extreme, *rest[:2]], (first, "longest", "second longest"))


def _named(choices: list[Choice], reasons: tuple[str, ...]) -> list[Choice]:
    return [replace(choice, why=why) for choice, why in zip(choices, reasons, strict=False)]


def _episode(holter: Holter, episode: Episode) -> Choice:
    rate = _episode_bpm(holter.series, episode)
    seconds = pause_s(episode) if episode.rule == "pause" else episode.seconds
    at_sample, at_ns = episode.start_sample, episode.start_ns
    if at_ns < holter.start_ns:  # it began before the period
        at_sample += round((holter.start_ns - at_ns) / NS * _fs_hz(holter, episode.recording_id))
        at_ns = holter.start_ns
    return Choice(episode.rule, "", episode.recording_id, at_sample, at_ns, seconds, rate, episode.id)


def _fs_hz(holter: Holter, recording_id: int) -> float:
    return next((r.fs_hz for r in holter.recordings if r.id == recording_id), 0.0)


def _episode_bpm(series: Series, episode: Episode) -> float | None:
    """Return the engine's extreme rate of an episode, or else the mean rate of its beats."""
    for name in ("min_bpm",) if episode.rule in _SLOW else ("max_bpm",):
        if name in episode.evidence:
            return float(episode.evidence[name])
    if episode.rule in _LONG:
        return None
    inside = series.interval_s[series.between(episode.start_ns, episode.end_ns)]
    known = inside[np.isfinite(inside)]
    return 60 / float(known.mean()) if known.size else None


def _patterns(holter: Holter, kind: str, start_ns: int, end_ns: int) -> Iterator[Choice]:
    series = holter.series
    taken = [(e.start_ns, e.end_ns) for rule in ("vt", "vf", "svt") for e in holter.episodes.get(rule, ())]
    for pattern in holter.patterns[kind]:
        at_ns, last_ns = int(series.utc_ns[pattern.first]), int(series.utc_ns[pattern.last - 1])
        if not start_ns <= at_ns < end_ns or any(a < last_ns and at_ns < b for a, b in taken):
            continue
        rate = pattern.rate_bpm
        if rate is None and np.isfinite(series.interval_s[pattern.first]):
            rate = 60 / float(series.interval_s[pattern.first])
        note = f"{pattern.beats} beats" if pattern.beats > 2 else ""
        place = int(series.recording[pattern.first]), int(series.sample[pattern.first])
        yield Choice(kind, "", *place, at_ns, (last_ns - at_ns) / NS, rate, note=note)


def _rates(holter: Holter, kind: str, start_ns: int, end_ns: int) -> Iterator[Choice]:
    """The window of `WINDOW_RR` intervals with the day's lowest or highest rate, within its minute."""
    figures = next(d for d in holter.days if (d.start_ns, d.end_ns) == (start_ns, end_ns))
    rate: Rate | None = getattr(figures, kind)
    if rate is None:
        return
    series = holter.series
    inside = series.between(rate.at_ns - 10 * NS, rate.at_ns + queries.MINUTE_NS + NS)
    intervals = series.interval_s[inside]
    if intervals.size < WINDOW_RR:
        return
    means = np.convolve(np.where(np.isfinite(intervals), intervals, np.nan), np.full(WINDOW_RR, 1 / WINDOW_RR), "valid")
    if not np.isfinite(means).any():
        return
    at = inside.start + int(np.nanargmin(np.abs(60 / means - rate.bpm)))
    place = int(series.recording[at]), int(series.sample[at])
    yield Choice(kind, "", *place, int(series.utc_ns[at]), WINDOW_RR * 60 / rate.bpm, rate.bpm)


def _symptoms(holter: Holter) -> Iterator[Choice]:
    for mark in holter.marks:
        if mark.kind != "symptom" or mark.undone_ns is not None:
            continue
        for piece in holter.pieces:
            if piece.start_ns <= mark.at_ns < piece.end_ns:
                spans = piece.recording.sample_spans(mark.at_ns, mark.at_ns + NS)
                if spans:
                    at, place = spans[0][0], piece.recording.id
                    yield Choice("symptom", mark.note, place, at, mark.at_ns, 0.0, None)
                break


def first_sample(choice: Choice, fs_hz: float, seconds: float = STRIP_S) -> int:
    """Return where a strip of a choice begins: what is short is centred, what is long shown from its onset."""
    middle_s = 0.0 if choice.type == "symptom" else choice.seconds / 2
    before_s = max(seconds / 2 - middle_s, LEAD_IN_S)
    return max(choice.at_sample - round(before_s * fs_hz), 0)
