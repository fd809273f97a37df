"""What a Holter report says, as figures: read from the database, corrected by people, over what could be read.

Beats that two devices saw are counted once (`edge.report.pieces`). False alarms count nowhere; corrected episodes and
episodes that only a person saw count as what the person said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from edge.encoder.contract import BEAT_CLASSES
from edge.errors import BadInputError
from edge.report import ectopy, hrv
from edge.report.ectopy import Pattern
from edge.report.hrv import Hrv
from edge.report.pieces import Piece, Span, days, hours, overlap, pieces
from edge.report.series import Series, read_series
from edge.rhythm.events import SYSTEM_RULES
from edge.store import marks, queries, tables
from edge.store.marks import Mark

NS = queries.NS
MINUTE_NS = queries.MINUTE_NS
MAX_DAYS = 35
SIGNAL_RULES = ("gap", "lead_off", "flat", "unreadable", *SYSTEM_RULES)
UNREADABLE_RULES = ("lead_off", "flat", "unreadable")
NOT_SINUS = ("af", "svt", "vt", "vf")
"""NN intervals are not taken from these."""
_N, _S, _V = (BEAT_CLASSES.index(c) for c in "NSV")
WINDOW_RR = 5
"""Lowest and highest heart rate are means of so many successive RR intervals, as in the trends."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A finding, as it counts."""

    id: str
    rule: str
    severity: str
    state: str
    recording_id: int
    start_ns: int
    end_ns: int
    start_sample: int
    end_sample: int
    evidence: dict[str, Any]
    verdict: str | None
    """confirm, episode (corrected or added by a person) or None; false alarms are kept apart."""

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / NS


@dataclass(frozen=True, slots=True)
class Rate:
    """A heart rate and the minute it is from."""

    bpm: float
    at_ns: int


@dataclass(frozen=True, slots=True)
class Minute:
    """A trend minute that counts."""

    utc_ns: int
    hr_bpm: float | None
    low_bpm: float | None
    high_bpm: float | None
    readable_s: float
    recorded_s: float
    rhythm: str


@dataclass(frozen=True, slots=True)
class Figures:
    """A period, a day or an hour."""

    start_ns: int
    end_ns: int
    recorded_s: float
    readable_s: float
    mean_bpm: float | None
    lowest: Rate | None
    highest: Rate | None
    beats: dict[str, int]
    """Per AAMI class."""
    pauses: int
    af_s: float
    """AF within readable time."""
    hrv: Hrv

    @property
    def all_beats(self) -> int:
        return sum(self.beats.values())

    @property
    def af_share(self) -> float | None:
        """AF burden: AF within readable time over readable time."""
        return self.af_s / self.readable_s if self.readable_s > 0 else None

    def per_hour(self, count: int) -> float | None:
        """Return a count per hour of readable time."""
        return 3600 * count / self.readable_s if self.readable_s > 0 else None

    def share(self, kind: str) -> float | None:
        """Return which part of all beats is of a class."""
        return self.beats[kind] / self.all_beats if self.all_beats else None


@dataclass(slots=True)
class Holter:
    """Everything a report is written from."""

    wearer: str
    timezone: str
    start_ns: int
    end_ns: int
    pieces: list[Piece]
    coverage: queries.Coverage
    total: Figures
    hours: list[Figures]
    days: list[Figures]
    minutes: list[Minute]
    series: Series
    patterns: dict[str, list[Pattern]]
    episodes: dict[str, list[Episode]]
    """By rule, in time."""
    false_alarms: list[Episode]
    marks: list[Mark]
    """Everything people said in the period, undone marks included."""
    analyses: list[dict[str, Any]]
    """The versions that read it."""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def recordings(self) -> list[queries.Recording]:
        return list({piece.recording.id: piece.recording for piece in self.pieces}.values())


def read_holter(conn: Connection, wearer: str, start_ns: int, end_ns: int, tz: tzinfo) -> Holter:
    """Return the figures of [start_ns, end_ns); hours and days are those of `tz`.

    Raises:
        BadInputError: an unknown wearer, an impossible period, or nothing recorded in it.
    """
    person = queries.find_wearer(conn, wearer)
    if not 0 < end_ns - start_ns <= MAX_DAYS * 86_400 * NS:
        raise BadInputError(f"a report covers more than nothing and at most {MAX_DAYS} days: choose another period")
    parts = pieces(conn, wearer, start_ns, end_ns)
    if not parts:
        raise BadInputError(f"nothing of {wearer} was recorded in this period; `anyecg trends` shows what was")
    start_ns, end_ns = max(start_ns, parts[0].start_ns), min(end_ns, max(piece.end_ns for piece in parts))
    episodes, false_alarms = _episodes(conn, wearer, start_ns, end_ns, parts)
    rows = _own_minutes(queries.trends(conn, wearer, start_ns, end_ns), parts)
    unreadable: dict[int, list[Span]] = defaultdict(list)
    for rule in UNREADABLE_RULES:
        for episode in episodes.get(rule, ()):
            unreadable[episode.recording_id].append((episode.start_sample, episode.end_sample))
    doubtful = {(r["recording_id"], r["minute"]) for r in rows if r["readable_s"] < min(r["recorded_s"], 60) - 0.5}
    series = read_series(conn, parts, unreadable, doubtful)
    said = marks.in_period(conn, wearer, start_ns, end_ns, undone=True)
    minutes = _minutes(rows, series, said)
    recorded = queries.recorded_spans(conn, wearer, start_ns, end_ns)
    normal = _normal(series, episodes)
    found = _Found(series, normal, minutes, recorded, episodes)
    return Holter(
        wearer=wearer,
        timezone=person.timezone,
        start_ns=start_ns,
        end_ns=end_ns,
        pieces=parts,
        coverage=queries.coverage(conn, wearer, start_ns, end_ns),
        total=found.figures(start_ns, end_ns),
        hours=[found.figures(a, b) for a, b in hours(start_ns, end_ns, tz)],
        days=[found.figures(a, b) for a, b in days(start_ns, end_ns, tz)],
        minutes=minutes,
        series=series,
        patterns=ectopy.find(series.kind, series.interval_s),
        episodes=episodes,
        false_alarms=false_alarms,
        marks=said,
        analyses=_analyses(conn, parts),
    )


def _episodes(
    conn: Connection, wearer: str, start_ns: int, end_ns: int, parts: Sequence[Piece]
) -> tuple[dict[str, list[Episode]], list[Episode]]:
    rows = queries.findings(conn, wearer=wearer, start_ns=start_ns, end_ns=end_ns)
    if len(rows) == queries.MAX_FINDINGS:
        raise BadInputError(f"there are {len(rows)} events or more in this period: report on a shorter one")
    rows = marks.correct_findings(conn, rows) + marks.human_episodes(conn, wearer, start_ns, end_ns)
    own: dict[int, list[Span]] = defaultdict(list)
    for piece in parts:
        own[piece.recording.id].append((piece.start_ns, piece.end_ns))
    counted: dict[str, list[Episode]] = defaultdict(list)
    false_alarms = []
    for row in sorted(rows, key=lambda row: (row["start_ns"], row["id"])):
        is_signal = row["rule"] in SIGNAL_RULES
        if not is_signal and not overlap(row["start_ns"], row["end_ns"] + 1, own[row["recording_id"]]):
            continue  # another device spoke for this time
        episode = Episode(**{name: row[name] for name in Episode.__slots__})
        if episode.verdict == "false":
            false_alarms.append(episode)
        else:
            counted[episode.rule].append(episode)
    return dict(counted), false_alarms


def _own_minutes(rows: Sequence[dict[str, Any]], parts: Sequence[Piece]) -> list[dict[str, Any]]:
    """Return the trend minutes whose middle lies in a piece of their own recording."""
    own: dict[int, list[Span]] = defaultdict(list)
    for piece in parts:
        own[piece.recording.id].append((piece.start_ns, piece.end_ns))
    half = MINUTE_NS // 2
    return [r for r in rows if overlap(r["utc_ns"] + half, r["utc_ns"] + half + 1, own[r["recording_id"]])]


def _minutes(rows: Sequence[dict[str, Any]], series: Series, said: Sequence[Mark]) -> list[Minute]:
    """Return the trend minutes; those in which a person corrected a beat are measured again."""
    corrected = [mark.at_ns for mark in said if mark.kind == "beat" and mark.undone_ns is None]
    found = []
    for row in rows:
        rates = (row["hr_bpm"], row["hr_min_bpm"], row["hr_max_bpm"])
        if any(row["utc_ns"] <= at < row["utc_ns"] + MINUTE_NS for at in corrected):
            rates = _rates(series.interval_s[series.between(row["utc_ns"], row["utc_ns"] + MINUTE_NS)])
        mean, low, high = rates
        found.append(
            Minute(
                utc_ns=row["utc_ns"],
                hr_bpm=mean,
                low_bpm=mean if low is None else low,
                high_bpm=mean if high is None else high,
                readable_s=row["readable_s"],
                recorded_s=row["recorded_s"],
                rhythm=row["rhythm"],
            )
        )
    return found


def _rates(interval_s: Any) -> tuple[float | None, float | None, float | None]:
    known = interval_s[np.isfinite(interval_s)]
    if known.size < WINDOW_RR:
        return None, None, None
    means = np.convolve(known, np.full(WINDOW_RR, 1 / WINDOW_RR), "valid")
    mean = 60 / float(known.mean())
    return mean, min(60 / float(means.max()), mean), max(60 / float(means.min()), mean)


def _normal(series: Series, episodes: dict[str, list[Episode]]) -> Any:
    """Whether each interval lies between two N beats, outside AF and tachycardias."""
    normal = series.kind == _N
    normal[1:] &= series.kind[:-1] == _N
    for rule in NOT_SINUS:
        for episode in episodes.get(rule, ()):
            normal[series.between(episode.start_ns, episode.end_ns)] = False
    return normal


def _analyses(conn: Connection, parts: Sequence[Piece]) -> list[dict[str, Any]]:
    ids = {piece.recording.id for piece in parts}
    finding, cursor, analysis = tables.finding, tables.cursor, tables.analysis
    used = {
        int(row[0])
        for column, where in (
            (finding.c.analysis_id, finding.c.recording_id),
            (cursor.c.analysis_id, cursor.c.recording_id),
        )
        for row in conn.execute(select(column).where(where.in_(ids)).distinct())
    }
    rows = conn.execute(select(analysis).where(analysis.c.id.in_(used)).order_by(analysis.c.id)).mappings()
    return [dict(row) for row in rows]


@dataclass(frozen=True, slots=True)
class _Found:
    """What the figures of any part of the period are taken from."""

    series: Series
    normal: Any
    minutes: Sequence[Minute]
    recorded: Sequence[Span]
    episodes: dict[str, list[Episode]]

    def figures(self, start_ns: int, end_ns: int) -> Figures:
        inside = self.series.between(start_ns, end_ns)
        counts = np.bincount(self.series.kind[inside], minlength=len(BEAT_CLASSES))
        half = MINUTE_NS // 2
        known = [m for m in self.minutes if m.hr_bpm is not None and start_ns <= m.utc_ns + half < end_ns]
        weight = sum(m.readable_s for m in known)
        recorded_s = overlap(start_ns, end_ns, self.recorded) / NS
        af = queries.merge([(e.start_ns, e.end_ns) for e in self.episodes.get("af", ())])
        readable_s = af_s = 0.0
        for m in self.minutes:
            share = queries.overlap_share(m.utc_ns, start_ns, end_ns)
            if share:
                readable_s += m.readable_s * share
                low, high = max(m.utc_ns, start_ns), min(m.utc_ns + MINUTE_NS, end_ns)
                af_s += min(overlap(low, high, af) / NS, m.readable_s * share)
        lowest = min(known, key=lambda m: m.low_bpm or 0.0, default=None)
        highest = max(known, key=lambda m: m.high_bpm or 0.0, default=None)
        pauses = [e for e in self.episodes.get("pause", ()) if start_ns <= e.start_ns < end_ns]
        return Figures(
            start_ns=start_ns,
            end_ns=end_ns,
            recorded_s=recorded_s,
            readable_s=min(readable_s, recorded_s),
            mean_bpm=sum((m.hr_bpm or 0.0) * m.readable_s for m in known) / weight if weight > 0 else None,
            lowest=None if lowest is None else Rate(lowest.low_bpm or 0.0, lowest.utc_ns),
            highest=None if highest is None else Rate(highest.high_bpm or 0.0, highest.utc_ns),
            beats={name: int(n) for name, n in zip(BEAT_CLASSES, counts, strict=True)},
            pauses=sum(pause_count(e) for e in pauses),
            af_s=af_s,
            hrv=hrv.measure(self.series.utc_ns[inside] / NS, self.series.interval_s[inside], self.normal[inside]),
        )


def pause_count(episode: Episode) -> int:
    """Return how many pauses a pause finding holds."""
    return max(int(episode.evidence.get("pauses", 1)), 1)


def pause_s(episode: Episode) -> float:
    """Return the longest pause of a pause finding."""
    return float(episode.evidence.get("longest_s", episode.seconds))
