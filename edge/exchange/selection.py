"""What leaves the store: stretches of recordings, their samples slice by slice, and what was read in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from edge.chunk import MISSING
from edge.encoder.contract import BEAT_CLASSES
from edge.errors import BadInputError
from edge.exchange.disguise import Disguise
from edge.store import marks, queries, waveform

NS = queries.NS
CLOCK_JUMP_S = 1.0
"""Where the clock of a recording jumps farther, a new file begins: formats know one start time and one rate."""
SLICE_S = 600.0
MAX_FILES = 1_000

Kind = Literal["beat", "event", "symptom", "note", "clock"]


@dataclass(frozen=True, slots=True)
class Note:
    """Something at a sample of a stretch, counted from its first."""

    sample: int
    length: int
    kind: Kind
    text: str
    """Of a beat its AAMI class, of an event its rule, else words."""
    detail: str = ""
    """Of an event its severity and id."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Samples [first, last) of one recording whose clock runs evenly."""

    recording: queries.Recording
    first: int
    last: int
    start_ns: int

    @property
    def n(self) -> int:
        return self.last - self.first


def stretches(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> list[Stretch]:
    """Return what was recorded in [start_ns, end_ns), one stretch per recording and even run of its clock.

    Raises:
        BadInputError: an unknown wearer, nothing recorded, or more than `MAX_FILES` stretches.
    """
    queries.find_wearer(conn, wearer)
    found: list[Stretch] = []
    for recording in queries.recordings(conn, wearer):
        borders = _jumps(recording)
        for first, last in recording.sample_spans(start_ns, end_ns):
            cuts = [first, *(b for b in borders if first < b < last), last]
            found += [Stretch(recording, a, b, recording.to_utc_ns(a)) for a, b in pairwise(cuts)]
    if not found:
        raise BadInputError(f"nothing of {wearer} was recorded in this period; `anyecg trends` shows what was")
    if len(found) > MAX_FILES:
        raise BadInputError(f"this period falls into {len(found)} stretches: export a shorter one")
    return sorted(found, key=lambda stretch: (stretch.start_ns, stretch.recording.id))


def _jumps(recording: queries.Recording) -> list[int]:
    """Return the samples before which the clock is off by more than `CLOCK_JUMP_S` against the run it is in.

    A jump, or the drift of a device whose true rate is not the nominal one.
    """
    most_ns = CLOCK_JUMP_S * NS
    nominal_ns = NS / recording.fs_hz
    borders: list[int] = []
    base0, base_ns, _ = recording.segments[0]
    ends = [*(segment.index0 for segment in recording.segments[1:]), recording.end_sample]
    for segment, end in zip(recording.segments, ends, strict=True):
        drift_ns = NS / segment.rate_hz - nominal_ns
        at = segment.index0
        while at < end:
            off_ns = segment.utc_at(at) - base_ns - round((at - base0) * nominal_ns)
            if abs(off_ns) > most_ns:
                borders.append(at)
                base0, base_ns, off_ns = at, segment.utc_at(at), 0
            if drift_ns == 0:
                break
            at += int((most_ns - math.copysign(off_ns, off_ns * drift_ns)) / abs(drift_ns)) + 1
    return borders


def slices(conn: Connection, stretch: Stretch, step: int) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Yield (first sample within the stretch, int32 [leads, ≤ step]), `MISSING` where nothing was recorded."""
    for at in range(0, stretch.n, step):
        stop = min(at + step, stretch.n)
        yield at, waveform.read(conn, stretch.recording.id, stretch.first + at, stretch.first + stop).samples


def greatest(conn: Connection, stretch: Stretch) -> int:
    """Return the greatest magnitude of a recorded sample; 0 where there is none."""
    most = 0
    for _, samples in slices(conn, stretch, round(SLICE_S * stretch.recording.fs_hz)):
        known = samples[samples != MISSING]
        if known.size:
            most = max(most, -int(known.min()), int(known.max()))
    return most


def notes(conn: Connection, stretch: Stretch, hide: Disguise) -> list[Note]:
    """Return beats (as people corrected them), events, symptoms and notes of a stretch by sample.

    False alarms are left out, corrected episodes are what the person said.
    """
    recording, first, last = stretch.recording, stretch.first, stretch.last
    beats = marks.corrected_beats(conn, recording, first, last)
    found = [Note(int(b["sample"]) - first, 0, "beat", BEAT_CLASSES[int(b["type"])]) for b in beats]
    end_ns = stretch.start_ns + round(stretch.n * NS / recording.fs_hz)
    for row in events(conn, recording.wearer, stretch.start_ns, end_ns):
        begin, end = max(row["start_sample"], first), min(row["end_sample"], last)
        if row["recording_id"] == recording.id and begin < end:
            detail = f"{row['severity']} {hide.event(row['id'])}"
            found.append(Note(begin - first, end - begin, "event", row["rule"], detail))
    for mark in marks.in_period(conn, recording.wearer, stretch.start_ns, end_ns, kinds=("symptom", "note")):
        sample = round((mark.at_ns - stretch.start_ns) * recording.fs_hz / NS)
        kind: Kind = "symptom" if mark.kind == "symptom" else "note"
        words = " ".join(hide.text(mark.note).split())
        if 0 <= sample < stretch.n and (kind == "symptom" or words):
            found.append(Note(sample, 0, kind, words))
    for index0, utc_ns, _ in recording.segments:
        if first < index0 < last:
            shift_s = (utc_ns - stretch.start_ns - round((index0 - first) * NS / recording.fs_hz)) / NS
            if abs(shift_s) >= 0.0005:
                found.append(Note(index0 - first, 0, "clock", f"clock {shift_s:+.3f} s"))
    return sorted(found, key=lambda note: (note.sample, note.kind, note.text))


def events(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Return the findings that count, corrected by people, with those only people saw.

    Raises:
        BadInputError: more than one query may return.
    """
    rows = queries.findings(conn, wearer=wearer, start_ns=start_ns, end_ns=end_ns)
    if len(rows) == queries.MAX_FINDINGS:
        raise BadInputError(f"there are {len(rows)} events or more in this period: export a shorter one")
    rows = marks.correct_findings(conn, rows) + marks.human_episodes(conn, wearer, start_ns, end_ns)
    return sorted((r for r in rows if r["verdict"] != "false"), key=lambda row: (row["start_ns"], row["id"]))


def file_name(stretch: Stretch, hide: Disguise, taken: Sequence[str]) -> str:
    """Return `anna-patch-20260328T110000Z`, plain ASCII, with a number where that is taken."""
    at = hide.time(stretch.start_ns) // NS
    stamp = np.datetime64(at, "s").astype(str).replace("-", "").replace(":", "")
    words = f"{hide.wearer}-{hide.device(stretch.recording.device)}-{stamp}Z"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in words)[:80]
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    return name
