"""Reading a WFDB record. https://wfdb.io/spec/header-files.html, https://wfdb.io/spec/signal-files.html"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray

from edge.analysis_files import EXTENSION
from edge.chunk import MISSING
from edge.errors import BadInputError
from edge.sources.leads import SignalInfo, choose, lead_name, plausible_scale
from edge.sources.record import MAX_REMARKS, MAX_SAMPLES, Record, Remark

MAX_HEADER_BYTES = 4 << 20
MAX_ANNOTATION_BYTES = 64 << 20
_BYTES_PER_SAMPLE = dict.fromkeys(("8", "80"), 1.0)
_BYTES_PER_SAMPLE |= dict.fromkeys(("16", "61", "160"), 2.0)
_BYTES_PER_SAMPLE |= {"24": 3.0, "32": 4.0, "212": 1.5, "310": 4 / 3, "311": 4 / 3}
_INVALID_BITS = {"80": 8, "508": 8, "310": 10, "311": 10, "212": 12, "24": 24, "524": 24, "32": 32}
_INVALID_BITS |= dict.fromkeys(("16", "61", "160", "516"), 16)
"""Signal format → its width: the most negative value means "not recorded" (format 8 has no such value)."""
_SLICEABLE = _BYTES_PER_SAMPLE.keys() - {"8"}
"""Formats that can be read from any frame on."""
MAX_COMPRESSED = 2**26
"""Most samples of a FLAC file: it is unpacked whole, and a few bytes of it may hold any number."""
_SLICE_FRAMES = 1 << 20
"""Frames converted at a time: what a day of signal costs beyond its own size stays small."""


def read_wfdb(path: Path, leads: Sequence[str | int] | None) -> Record:
    """Read the record at `path` (no extension); see `edge.sources.record.read_record`."""
    header = _header(path)
    if isinstance(header, wfdb.MultiRecord):
        layout, pieces = _segments(path, header)
    else:
        layout, pieces = header, [(path, header, 0)]
    infos = _signals(path, layout)
    chosen, notes = choose(infos, leads, str(path))
    fs_hz = infos[chosen[0]].fs_hz
    per_frame = round(fs_hz / layout.fs)
    length = int(header.sig_len) * per_frame
    if length * len(chosen) > MAX_SAMPLES:
        raise BadInputError(
            f"{path}: {length} samples in {len(chosen)} leads is too long; choose fewer leads or cut it"
        )
    for place, segment, _ in pieces:
        if segment is not None:
            _check_files(place, segment)
    fixed = not isinstance(header, wfdb.MultiRecord) or header.layout == "fixed"
    reads = [
        (start * per_frame, place, segment, _channels(place, segment, layout, chosen, fixed))
        for place, segment, start in pieces
        if segment is not None
    ]
    uv_per_lsb = _finest_uv_per_lsb(path, reads, [infos[i].name for i in chosen])
    samples = np.full((len(chosen), length), MISSING, np.int32)
    for start, place, segment, channels in reads:
        _fill(samples[:, start:], place, segment, channels, uv_per_lsb)
    remarks, trouble = _remarks(path, fs_hz)
    return Record(
        name=path.name,
        leads=tuple(lead_name(infos[i].name) for i in chosen),
        fs_hz=fs_hz,
        uv_per_lsb=uv_per_lsb,
        samples=samples,
        start_utc_ns=_start_utc_ns(header),
        path=path,
        notes=(*notes, *trouble),
        remarks=remarks,
    )


def _remarks(path: Path, fs_hz: float) -> tuple[tuple[Remark, ...], tuple[str, ...]]:
    """Return the symptoms and notes in an annotation file of ours beside the record, and what was wrong with it."""
    file = path.parent / f"{path.name}.{EXTENSION}"
    try:
        if file.stat().st_size > MAX_ANNOTATION_BYTES:
            return (), (f"{file.name} is larger than {MAX_ANNOTATION_BYTES} bytes and was not read",)
        found = wfdb.rdann(str(path.absolute()), EXTENSION)
    except FileNotFoundError:
        return (), ()
    except Exception as error:
        return (), (f"{file.name} cannot be read ({type(error).__name__}: {error})",)
    scale = fs_hz / (found.fs or fs_hz)
    remarks: list[Remark] = []
    for sample, aux in zip(found.sample.tolist(), found.aux_note, strict=True):
        kind, _, text = aux.rstrip("\0").partition(" ")
        if kind in ("symptom", "note") and sample >= 0 and len(remarks) < MAX_REMARKS:
            remarks.append(Remark(round(sample * scale), kind, text))
    return tuple(remarks), ()


def _header(path: Path) -> Any:
    file = path.parent / (path.name + ".hea")
    try:
        size = file.stat().st_size
    except OSError as error:
        raise BadInputError(f"{file}: {error.strerror}") from None
    if not 0 < size <= MAX_HEADER_BYTES:
        raise BadInputError(f"{file}: a WFDB header of {size} bytes is empty or too large")
    _check_numbers(file)
    try:
        header = wfdb.rdheader(str(path.absolute()))
    except Exception as error:
        raise BadInputError(f"{file}: not a WFDB header ({type(error).__name__}: {error})") from None
    if not header.n_sig:
        raise BadInputError(f"{file}: the record has no signals")
    if not isinstance(header, wfdb.MultiRecord):
        if header.file_name is None or len(header.file_name) != header.n_sig:
            raise BadInputError(f"{file}: declares {header.n_sig} signals but does not describe them all")
        if header.sig_len is None:
            header.sig_len = _length_from_file(path, header)
    if header.sig_len is None or header.sig_len < 1:
        raise BadInputError(f"{file}: the record has no samples")
    return header


def _check_numbers(file: Path) -> None:
    """Refuse negative counts and rates in the record line, whose sign wfdb overlooks."""
    with file.open(encoding="latin-1") as lines:
        record = next((line.split() for line in lines if line.strip() and not line.startswith("#")), [])
    for name, text in zip(("number of signals", "sampling rate", "number of samples"), record[1:4], strict=False):
        if text.startswith("-"):
            raise BadInputError(f"{file}: {name} {text[:20]} is negative")


def _segments(path: Path, header: Any) -> tuple[Any, list[tuple[Path, Any, int]]]:
    """Return the header that names the signals, and (path, header or None, first frame) of every segment."""
    if sum(header.seg_len) != header.sig_len:
        raise BadInputError(f"{path}.hea: its segments add up to {sum(header.seg_len)} samples, not {header.sig_len}")
    pieces: list[tuple[Path, Any, int]] = []
    start = 0
    layout = None
    for name, length in zip(header.seg_name, header.seg_len, strict=True):
        if name == "~":
            start += length
            continue
        if Path(name).name != name:
            raise BadInputError(f"{path}.hea: segment {name!r} lies outside the record's folder")
        place = path.parent / name
        if length == 0:
            if layout is None:
                layout = _layout(place)
            continue
        segment = _header(place)
        if isinstance(segment, wfdb.MultiRecord) or segment.sig_len != length or segment.fs != header.fs:
            raise BadInputError(f"{place}.hea: this segment does not fit its record {path.name} (length or rate)")
        layout = layout or segment
        pieces.append((place, segment, start))
        start += length
    if layout is None:
        raise BadInputError(f"{path}.hea: the record has only empty segments")
    return layout, pieces


def _layout(place: Path) -> Any:
    """The layout header of a variable-layout record: names without samples."""
    try:
        layout = wfdb.rdheader(str(place.absolute()))
    except Exception as error:
        raise BadInputError(f"{place}.hea: not a WFDB header ({type(error).__name__}: {error})") from None
    if isinstance(layout, wfdb.MultiRecord) or not layout.sig_name or len(layout.sig_name) != layout.n_sig:
        raise BadInputError(f"{place}.hea: not a layout header")
    return layout


def _signals(path: Path, header: Any) -> list[SignalInfo]:
    fs = float(header.fs)
    if not (math.isfinite(fs) and fs > 0):
        raise BadInputError(f"{path}.hea: sampling rate {fs} is impossible")
    return [
        SignalInfo(name=header.sig_name[i] or "unknown", unit=header.units[i] or "mV", fs_hz=fs * _per_frame(header, i))
        for i in range(header.n_sig)
    ]


def _per_frame(header: Any, channel: int) -> int:
    return int(header.samps_per_frame[channel] or 1)


def _length_from_file(path: Path, header: Any) -> int:
    first = header.file_name[0]
    frame = sum(_per_frame(header, i) for i, name in enumerate(header.file_name) if name == first)
    width = _BYTES_PER_SAMPLE.get(header.fmt[0])
    if width is None:
        raise BadInputError(f"{path}.hea: says no length, and format {header.fmt[0]} does not tell it")
    return int((_file_size(path, first) - (header.byte_offset[0] or 0)) / width) // frame


def _file_size(path: Path, name: str) -> int:
    if Path(name).name != name:
        raise BadInputError(f"{path}.hea: signal file {name!r} lies outside the record's folder")
    try:
        return (path.parent / name).stat().st_size
    except OSError as error:
        raise BadInputError(f"{path.parent / name}: {error.strerror}") from None


def _check_files(path: Path, header: Any) -> None:
    """Raise BadInputError unless every signal file is as large as the header says."""
    for name in dict.fromkeys(header.file_name):
        if name == "~":
            continue
        size = _file_size(path, name)
        members = [i for i, other in enumerate(header.file_name) if other == name]
        frame = sum(_per_frame(header, i) for i in members)
        if header.sig_len * frame > 4 * MAX_SAMPLES:
            raise BadInputError(f"{path}: {header.sig_len} frames of {frame} samples in {name} is too long")
        width = _BYTES_PER_SAMPLE.get(header.fmt[members[0]])
        if width is None and header.sig_len * frame > MAX_COMPRESSED:
            raise BadInputError(
                f"{path}: {header.sig_len} frames of {frame} compressed samples is too long; unpack or cut it"
            )
        needed = 0 if width is None else (header.byte_offset[members[0]] or 0) + int(header.sig_len * frame * width)
        if size < needed:
            raise BadInputError(f"{path.parent / name}: truncated, {size} bytes where the header promises {needed}")


def _channels(place: Path, segment: Any, layout: Any, chosen: list[int], fixed: bool) -> list[int | None]:
    """Where in `segment` each chosen lead lies: by position in fixed layouts, by name in variable ones."""
    if segment is layout:
        return list(chosen)
    result: list[int | None] = []
    for i in chosen:
        if fixed:
            channel = i if i < segment.n_sig else None
        else:
            names = list(segment.sig_name)
            channel = names.index(layout.sig_name[i]) if layout.sig_name[i] in names else None
        if channel is not None and _per_frame(segment, channel) != _per_frame(layout, i):
            raise BadInputError(f"{place}.hea: {segment.sig_name[channel]} has another rate than in the other segments")
        result.append(channel)
    return result


def _uv_per_lsb(place: Path, segment: Any, channel: int) -> float:
    """Signed: a negative gain means an inverted signal."""
    gain = float(segment.adc_gain[channel] or 200.0)
    unit = SignalInfo("", segment.units[channel] or "mV", 1.0).uv_per_unit
    if unit is None or not math.isfinite(gain) or not plausible_scale(abs(unit / gain)):
        raise BadInputError(f"{place}.hea: gain {gain} per {segment.units[channel]} is impossible")
    return unit / gain


def _finest_uv_per_lsb(
    path: Path, reads: Sequence[tuple[int, Path, Any, list[int | None]]], names: list[str]
) -> tuple[float, ...]:
    finest: list[float] = []
    for lead, name in enumerate(names):
        found = [
            abs(_uv_per_lsb(place, segment, channel))
            for _, place, segment, channels in reads
            if (channel := channels[lead]) is not None
        ]
        if not found:
            raise BadInputError(f"{path}: lead {name} is in none of the record's segments")
        finest.append(min(found))
    return tuple(finest)


def _fill(
    target: NDArray[np.int32], place: Path, segment: Any, channels: list[int | None], uv_per_lsb: tuple[float, ...]
) -> None:
    """Write one segment's samples at the start of `target` [leads, ≥ n]."""
    present = [c for c in channels if c is not None and segment.file_name[c] != "~"]
    if not present:
        return
    frames = int(segment.sig_len)
    formats = {segment.fmt[c] for c in present}
    step = _SLICE_FRAMES if formats <= _SLICEABLE and not any(segment.skew) else frames
    for first in range(0, frames, step):
        digital = _read_digital(place, present, first, min(first + step, frames))
        for lead, channel in enumerate(channels):
            if channel is None or channel not in present:
                continue
            values = digital[present.index(channel)].astype(np.int64)
            missing = values == -(2 ** (_INVALID_BITS.get(segment.fmt[channel], 63) - 1))
            values[missing] = 0
            values -= int(segment.baseline[channel] or 0)
            own = _uv_per_lsb(place, segment, channel)
            if own < 0:
                values = -values
            if abs(own) != uv_per_lsb[lead]:
                values = np.rint(values * (abs(own) / uv_per_lsb[lead])).astype(np.int64)
            if values.size and max(-int(values.min()), int(values.max())) >= -MISSING:
                raise BadInputError(f"{place}: lead {segment.sig_name[channel]} exceeds 32 bits after its baseline")
            values[missing] = MISSING
            start = first * _per_frame(segment, channel)
            target[lead, start : start + values.size] = values


def _read_digital(place: Path, channels: list[int], first: int, last: int) -> Any:
    """Digital values of the given signals, frames [first, last), one array per signal."""
    try:
        return wfdb.rdrecord(
            str(place.absolute()),
            sampfrom=first,
            sampto=last,
            channels=channels,
            physical=False,
            smooth_frames=False,
            return_res=32,
        ).e_d_signal
    except Exception as error:
        raise BadInputError(f"{place}: cannot be read ({type(error).__name__}: {error})") from None


def _start_utc_ns(header: Any) -> int | None:
    if header.base_date is None:
        return None
    when = datetime.combine(header.base_date, header.base_time or datetime.min.time(), tzinfo=UTC)
    return round((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6) * 1000
