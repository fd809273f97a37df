"""Reading an EDF or EDF+ file. https://www.edfplus.info/specs/edf.html, https://www.edfplus.info/specs/edfplus.html"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import edfio
import numpy as np
from edfio.edf_annotations import _get_data_record_onset
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.errors import BadInputError
from edge.sources.leads import SignalInfo, choose, lead_name, plausible_scale
from edge.sources.record import MAX_REMARKS, MAX_SAMPLES, Record, Remark

_ANONYMOUS = date(1985, 1, 1)
"""EDF+ clause 2.1.3.3: the start date of a file whose date was removed."""
NOT_RECORDED = "not recorded"
"""Annotation with a duration, of all signals or of `signal N` (from 1): what the samples hold there is a filler."""
_HOLE = re.compile(
    rb"\+(\d{1,12}(?:\.\d{1,12})?)\x15(\d{1,12}(?:\.\d{1,12})?)\x14not recorded(?:: signal (\d{1,4}))?\x14"
)


_REMARK = re.compile(rb"\+(\d{1,12}(?:\.\d{1,12})?)\x14(symptom|note)(?:: ([^\x00\x14]{1,1000}))?\x14")


def read_edf(path: Path, leads: Sequence[str | int] | None) -> Record:
    """Read the file at `path`; see `edge.sources.record.read_record`."""
    records = _check_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # edfio warns of what _check_size has judged
            edf = edfio.read_edf(path, lazy_load_data=True)
            signals = [s for s in edf.signals if s.samples_per_data_record > 0]
            infos = [SignalInfo(s.label, s.physical_dimension, s.sampling_frequency) for s in signals]
            starts = _record_starts_s(edf, records)
            duration_s = float(edf.data_record_duration)
            holes = _holes(edf, starts[0])
            remarks = _remarks(edf, starts[0])
            start_utc_ns = _start_utc_ns(edf, starts[0])
    except BadInputError:
        raise
    except Exception as error:
        raise BadInputError(f"{path}: not a readable EDF file ({type(error).__name__}: {error})") from None
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise BadInputError(f"{path}: data records of {duration_s} s are impossible for an ECG")
    chosen, notes = choose(infos, leads, str(path))
    fs_hz = infos[chosen[0]].fs_hz
    per_record = signals[chosen[0]].samples_per_data_record
    first = np.rint((starts - starts[0]) * fs_hz)
    if np.any(np.diff(first) < per_record):
        raise BadInputError(f"{path}: its data records overlap or go back in time")
    length = int(first[-1]) + per_record
    if length * len(chosen) > MAX_SAMPLES:
        raise BadInputError(
            f"{path}: {length} samples in {len(chosen)} leads, holes included, is too long; choose fewer leads"
        )
    samples = np.full((len(chosen), length), MISSING, np.int32)
    scales: list[float] = []
    runs = _runs(first.astype(np.int64), per_record)
    for row, i in zip(samples, chosen, strict=True):
        gain, offset, sign = _calibration(path, signals[i], infos[i])
        scales.append(gain)
        stored = signals[i].digital
        for source, begin, count in runs:
            row[begin : begin + count] = stored[source : source + count]
            row[begin : begin + count] += offset
            row[begin : begin + count] *= sign
        for begin_s, end_s, signal in holes:
            if signal in (None, i):
                row[max(round(begin_s * fs_hz), 0) : max(round(end_s * fs_hz), 0)] = MISSING
    if holes:  # the file ends where the last recorded sample does, not with its last data record
        recorded = np.flatnonzero((samples != MISSING).any(axis=0))
        samples = samples[:, : int(recorded[-1]) + 1 if recorded.size else 0]
    if not samples.shape[1]:
        raise BadInputError(f"{path}: nothing in it was recorded")
    return Record(
        name=path.stem,
        leads=tuple(lead_name(infos[i].name) for i in chosen),
        fs_hz=fs_hz,
        uv_per_lsb=tuple(scales),
        samples=samples,
        start_utc_ns=start_utc_ns,
        path=path,
        notes=notes,
        remarks=tuple(Remark(round(at_s * fs_hz), kind, text) for at_s, kind, text in remarks),
    )


def _runs(first: NDArray[np.int64], per_record: int) -> list[tuple[int, int, int]]:
    """Contiguous data records as (sample in the file, sample on the grid, count), from each record's grid index."""
    breaks = [0, *(np.flatnonzero(np.diff(first) != per_record) + 1).tolist(), len(first)]
    return [(a * per_record, int(first[a]), (b - a) * per_record) for a, b in pairwise(breaks)]


def _check_size(path: Path) -> int:
    """Return the number of data records; raises BadInputError unless the file holds what its header declares."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(256)
            if len(head) < 256 or head[:8].strip() != b"0":
                raise BadInputError(f"{path}: not an EDF file (its header does not start with version 0)")
            count, header_bytes, declared = int(head[252:256]), int(head[184:192]), int(head[236:244])
            if not 1 <= count <= 9999 or header_bytes != 256 * (count + 1) or size < header_bytes:
                raise BadInputError(f"{path}: truncated or damaged EDF header ({count} signals, {size} bytes)")
            file.seek(256 + count * 216)
            widths = [int(file.read(8)) for _ in range(count)]
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise BadInputError(f"{path}: damaged EDF header (a number is not a number)") from None
    if min(widths) < 0 or sum(widths) == 0 or declared < -1 or declared == 0:
        raise BadInputError(f"{path}: damaged EDF header (no samples declared)")
    there = (size - header_bytes) // (2 * sum(widths))
    if declared == -1:
        declared = there  # EDF+ clause 2.1.3.8: a file still being recorded
    if there < declared or there == 0:
        raise BadInputError(f"{path}: truncated, {there} complete data records where the header promises {declared}")
    return declared


def _record_starts_s(edf: edfio.Edf, records: int) -> Any:
    """Start of each data record in seconds from the header's start time [records]."""
    clock: Any = edf._timekeeping_signal if edf.reserved.startswith("EDF+") else None
    if clock is None:
        return np.arange(records) * float(edf.data_record_duration)
    width = 2 * clock.samples_per_data_record
    raw = np.frombuffer(clock.digital.tobytes(), np.uint8)[: records * width].reshape(records, width)
    if edf.reserved.startswith("EDF+D"):
        return np.array([float(_get_data_record_onset(row)) for row in raw])
    return float(_get_data_record_onset(raw[0])) + np.arange(records) * float(edf.data_record_duration)


def _holes(edf: edfio.Edf, first_s: float) -> list[tuple[float, float, int | None]]:
    """Return (begin, end, signal or None for all) of every `NOT_RECORDED` annotation, seconds from the first sample."""
    clock: Any = edf._timekeeping_signal if edf.reserved.startswith("EDF+") else None
    if clock is None:
        return []
    found = []
    for onset, duration, signal in _HOLE.findall(clock.digital.tobytes()):
        begin_s = float(onset) - first_s
        found.append((begin_s, begin_s + float(duration), int(signal) - 1 if signal else None))
    return found


def _remarks(edf: edfio.Edf, first_s: float) -> list[tuple[float, Any, str]]:
    """Return (seconds from the first sample, kind, text) of the symptoms and notes of an export of ours."""
    clock: Any = edf._timekeeping_signal if edf.reserved.startswith("EDF+") else None
    if clock is None:
        return []
    found = islice(_REMARK.finditer(clock.digital.tobytes()), MAX_REMARKS)
    return [(float(m[1]) - first_s, m[2].decode(), (m[3] or b"").decode("utf-8", "replace")) for m in found]


def _start_utc_ns(edf: edfio.Edf, first_s: float) -> int | None:
    """`first_s`: onset of the first data record, the fraction of the start second in EDF+."""
    try:
        day = edf.startdate
    except edfio.AnonymizedDateError:
        return None
    if day == _ANONYMOUS:
        return None
    clock = edf.starttime.replace(microsecond=0)
    whole = datetime.combine(day, clock, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return round(whole.total_seconds()) * 1_000_000_000 + round(first_s * 1e9)


def _calibration(path: Path, signal: Any, info: SignalInfo) -> tuple[float, int, int]:
    """Return (µV per LSB > 0, offset to add in whole LSB, sign)."""
    try:
        low, high = signal.digital_min, signal.digital_max
        span = signal.physical_max - signal.physical_min
    except ValueError as error:
        raise BadInputError(f"{path}: signal {info.name} has a damaged calibration ({error})") from None
    unit = info.uv_per_unit
    if high <= low or unit is None or not math.isfinite(span) or not plausible_scale(abs(span) * unit / (high - low)):
        raise BadInputError(f"{path}: signal {info.name} has an impossible calibration")
    gain = span / (high - low)
    offset = round(signal.physical_max / gain - high)
    if abs(offset) > 2**30:
        raise BadInputError(f"{path}: signal {info.name} has an impossible offset")
    return abs(gain) * unit, offset, 1 if gain > 0 else -1
