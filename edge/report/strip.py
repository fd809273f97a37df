"""A few seconds of ECG with what was read in them, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from edge.assistant.localtime import iso_utc, show, zone
from edge.chunk import MISSING
from edge.encoder.contract import BEAT_CLASSES
from edge.errors import BadInputError
from edge.exchange.disguise import Disguise, plain
from edge.sources.record import Record
from edge.store import marks, queries, waveform

MIN_S, MAX_S = 1.0, 90.0
AS_RECORDED = "none (as recorded)"
MONITOR_HZ = (0.5, 40.0)
"""The band of `--filter monitor`: without drift and mains hum. ST needs 0.05 Hz (Kligfield et al., recommendations for
the standardization and interpretation of the electrocardiogram, Circulation 115:1306-1324, 2007)."""
ST_NOTE = "ST not interpretable"
"""At either band: what the device itself filtered is not known."""
SETTLE_S = 4.0
"""Read so much more at both ends of a strip that is filtered."""
FOOTER = "Research software, not a medical device"


@dataclass(frozen=True, slots=True)
class Mark:
    """A finding over the strip, in seconds from its start; it may begin before and end after it."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Strip:
    """One recording's span."""

    title: str
    when: str
    """Local time of the first sample with its zone, or what is known instead."""
    start_ns: int | None
    leads: tuple[str, ...]
    fs_hz: float
    mv: NDArray[np.float32]
    """[leads, n], NaN where nothing was recorded."""
    beats: tuple[tuple[float, str], ...]
    """(seconds from the start, AAMI class)."""
    marks: tuple[Mark, ...]
    filter_band: str = AS_RECORDED
    wearer: str = ""
    device: str = ""

    @property
    def seconds(self) -> float:
        return int(self.mv.shape[1]) / self.fs_hz

    def as_json(self) -> dict[str, Any]:
        """Return everything drawn; a missing sample is null."""
        return {
            "title": self.title,
            "start": None if self.start_ns is None else iso_utc(self.start_ns),
            "local_time": self.when,
            "seconds": self.seconds,
            "fs_hz": self.fs_hz,
            "wearer": self.wearer or None,
            "device": self.device or None,
            "filter": self.filter_band,
            "st": ST_NOTE,
            "mv": {
                lead: [round(float(v), 4) if np.isfinite(v) else None for v in row]
                for lead, row in zip(self.leads, self.mv, strict=True)
            },
            "beats": [{"t_s": round(t, 4), "type": kind} for t, kind in self.beats],
            "marks": [
                {"label": m.label, "start_s": round(m.start_s, 4), "end_s": round(m.end_s, 4)} for m in self.marks
            ],
        }


def check_seconds(seconds: float) -> float:
    """Return `seconds` if a strip can be that long.

    Raises:
        BadInputError: shorter than `MIN_S` or longer than `MAX_S`.
    """
    if not MIN_S <= seconds <= MAX_S:
        raise BadInputError(f"a strip of {seconds:g} s: choose {MIN_S:g} to {MAX_S:g} s")
    return seconds


def of_event(
    conn: Connection,
    event_id: str,
    seconds: float,
    lead: str | None = None,
    *,
    monitor: bool = False,
    disguise: Disguise | None = None,
) -> Strip:
    """Return the strip around a finding: all of it if it fits, else its beginning with a fifth of lead-in.

    A symptom lies in the middle of its finding, and of its strip.
    """
    row = marks.find_episode(conn, event_id)
    recording = queries.find_recording(conn, row["recording_id"])
    length_s = (row["end_sample"] - row["start_sample"]) / recording.fs_hz
    around_s = (check_seconds(seconds) - length_s) / 2
    before_s = max(around_s, seconds / 5)
    if row["rule"] == "symptom":
        before_s = around_s
    elif around_s >= 0:
        before_s = min(before_s, 2 * around_s)
    first = max(row["start_sample"] - round(before_s * recording.fs_hz), 0)
    return of_span(conn, recording, first, seconds, lead, event=row, monitor=monitor, disguise=disguise)


def of_wearer(
    conn: Connection,
    wearer: str,
    at_ns: int,
    seconds: float,
    lead: str | None = None,
    *,
    monitor: bool = False,
    disguise: Disguise | None = None,
) -> Strip:
    """Return the strip that begins at `at_ns`, of the device that recorded most of it.

    Raises:
        BadInputError: no recording covers any of it.
    """
    check_seconds(seconds)
    tz = zone(queries.find_wearer(conn, wearer).timezone)
    best: tuple[int, queries.Recording, int] | None = None
    for recording in queries.recordings(conn, wearer):
        for first, last in recording.sample_spans(at_ns, at_ns + round(seconds * queries.NS)):
            if best is None or last - first > best[0]:
                best = (last - first, recording, first)
    if best is None:
        known = queries.recorded_range(conn, wearer)
        span = f"; recordings reach from {show(known[0], tz)} to {show(known[1], tz)}" if known else ""
        raise BadInputError(f"nothing of {wearer} was recorded at {show(at_ns, tz)}{span}")
    return of_span(conn, best[1], best[2], seconds, lead, monitor=monitor, disguise=disguise)


def of_record(record: Record, from_s: float, to_s: float, *, monitor: bool = False) -> Strip:
    """Return a span of a recording on disk; no beats, since nothing has read it."""
    check_seconds(to_s - from_s)
    if not 0 <= from_s < record.duration_s:
        raise BadInputError(f"{record.name} lasts {record.duration_s:.1f} s: nothing begins at {from_s:g} s")
    first, last = round(from_s * record.fs_hz), round(to_s * record.fs_hz)
    margin = round(SETTLE_S * record.fs_hz) if monitor else 0
    begin = max(first - margin, 0)
    mv, band = _millivolts(record.samples[:, begin : last + margin], record.uv_per_lsb), AS_RECORDED
    if monitor:
        mv, band = monitor_band(mv, record.fs_hz)
    start_ns = None if record.start_utc_ns is None else record.start_utc_ns + round(from_s * queries.NS)
    clock = "" if start_ns is None else f", {show(start_ns, ZoneInfo('UTC'))} by the file's clock"
    return Strip(
        title=f"record {record.name}",
        when=f"from {from_s:g} s{clock}",
        start_ns=start_ns,
        leads=record.leads,
        fs_hz=record.fs_hz,
        mv=mv[:, first - begin : min(last, record.n) - begin],
        beats=(),
        marks=(),
        filter_band=band,
    )


def of_span(
    conn: Connection,
    recording: queries.Recording,
    first: int,
    seconds: float,
    lead: str | None = None,
    *,
    event: dict[str, Any] | None = None,
    monitor: bool = False,
    disguise: Disguise | None = None,
) -> Strip:
    """Return `seconds` of a recording from sample `first` on, with its beats as people corrected them.

    Args:
        conn: the database.
        recording: what is drawn.
        first: its first sample.
        seconds: length.
        lead: only this one.
        event: a row of `queries.findings` that the strip is about.
        monitor: filter to `MONITOR_HZ`.
        disguise: who is named and when it was; by default the truth.
    """
    fs_hz = recording.fs_hz
    last = first + round(seconds * fs_hz)
    rows = _lead_rows(recording, lead)
    margin = round(SETTLE_S * fs_hz) if monitor else 0
    data = waveform.read(conn, recording.id, first - margin, last + margin)
    mv = _millivolts(data.samples[rows], [recording.uv_per_lsb[n] for n in rows])
    band = AS_RECORDED
    if monitor:
        filtered, band = monitor_band(mv, fs_hz)
        mv = filtered[:, margin : margin + last - first]
    start_ns = recording.to_utc_ns(first)
    hide = disguise or plain(recording.wearer, zone(queries.find_wearer(conn, recording.wearer).timezone))
    found = queries.findings(
        conn, wearer=recording.wearer, start_ns=start_ns, end_ns=recording.to_utc_ns(last), limit=20
    )
    shown = [
        row for row in found if row["recording_id"] == recording.id and (event is None or row["id"] != event["id"])
    ]
    spans = [_mark(row, first, fs_hz) for row in ([event] if event else []) + shown]
    beats = marks.corrected_beats(conn, recording, first, last)
    device = hide.device(recording.device)
    named = f"event {hide.event(event['id'])}: {event['rule']}, {event['severity']}" if event else ""
    return Strip(
        title="   ".join(part for part in (f"{hide.wearer} / {device}", named) if part),
        when=hide.show(start_ns),
        start_ns=hide.time(start_ns),
        leads=tuple(recording.leads[n] for n in rows),
        fs_hz=fs_hz,
        mv=mv,
        beats=tuple(((int(b["sample"]) - first) / fs_hz, BEAT_CLASSES[int(b["type"])]) for b in beats),
        marks=tuple(spans),
        filter_band=band,
        wearer=hide.wearer,
        device=device,
    )


def monitor_band(mv: NDArray[np.float32], fs_hz: float) -> tuple[NDArray[np.float32], str]:
    """Return [leads, n] filtered forward and backward (second-order Butterworth, no phase shift), and the band.

    Runs between missing samples are filtered on their own; those shorter than half a second are left as they are.
    """
    from scipy.signal import butter, sosfiltfilt

    low, high = MONITOR_HZ
    whole = fs_hz > 2.2 * high
    sections = butter(2, (low, high) if whole else low, "bandpass" if whole else "highpass", fs=fs_hz, output="sos")
    filtered = mv.copy()
    for row in filtered:
        edges = np.flatnonzero(np.diff(np.concatenate(([0], np.isfinite(row), [0]))))
        for a, b in zip(edges[::2], edges[1::2], strict=True):
            if b - a >= fs_hz / 2:
                row[a:b] = sosfiltfilt(sections, row[a:b].astype(np.float64))
    return filtered, f"{low:g}-{high:g} Hz" if whole else f"from {low:g} Hz"


def _mark(row: dict[str, Any], first: int, fs_hz: float) -> Mark:
    return Mark(row["rule"], (row["start_sample"] - first) / fs_hz, (row["end_sample"] - first) / fs_hz)


def _lead_rows(recording: queries.Recording, lead: str | None) -> list[int]:
    if lead is None:
        return list(range(len(recording.leads)))
    if lead in recording.leads:
        return [recording.leads.index(lead)]
    raise BadInputError(f"there is no lead {lead!r} in this recording: {', '.join(recording.leads)}")


def _millivolts(samples: NDArray[np.int32], uv_per_lsb: Sequence[float]) -> NDArray[np.float32]:
    scale = np.asarray(uv_per_lsb, np.float64)[:, None] / 1000
    return np.where(samples == MISSING, np.nan, samples * scale).astype(np.float32)
