"""Samples, beats and times as the page takes them: base64 integers, milliseconds since 1970."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.chunk import MISSING
from edge.encoder.contract import BEAT_CLASSES
from edge.store import queries
from edge.store.waveform import Waveform

INT16_MISSING = -(2**15)


def ms(utc_ns: int) -> float:
    """Return ns UTC as milliseconds, exact to the microsecond: what a JavaScript number can hold."""
    return round(utc_ns / 1000) / 1000


def pack(samples: NDArray[np.int32]) -> dict[str, Any]:
    """Return int32 [leads, n] as `{"bits", "n", "data": [base64 little endian of each lead]}`.

    16 bits where all fit; a missing sample is the smallest number of its width.
    """
    missing = samples == MISSING
    narrow = bool((np.abs(np.where(missing, 0, samples).astype(np.int64)) < 2**15).all())
    rows = np.where(missing, INT16_MISSING, samples).astype("<i2") if narrow else samples.astype("<i4")
    return {
        "bits": 16 if narrow else 32,
        "n": int(samples.shape[1]),
        "data": [base64.b64encode(np.ascontiguousarray(row).tobytes()).decode() for row in rows],
    }


def wave(recording: queries.Recording, first: int, data: Waveform, rows: list[int]) -> dict[str, Any]:
    """Return a span of a recording with everything needed to draw it."""
    return {
        "recording": recording.id,
        "first": first,
        "fs_hz": recording.fs_hz,
        "t_ms": ms(recording.to_utc_ns(first)),
        "leads": [recording.leads[row] for row in rows],
        "uv_per_lsb": [recording.uv_per_lsb[row] for row in rows],
        "off": runs(data.contact_off),
        **pack(data.samples[rows]),
    }


def runs(flags: NDArray[np.bool_]) -> list[list[int]]:
    """Return where flags are set as [[first, end), …]."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2).tolist()


def beats(found: NDArray[np.void]) -> dict[str, Any]:
    """Return a `BEAT_DTYPE` array as `{"samples", "types": "NNV…", "confidence"}`."""
    return {
        "samples": found["sample"].tolist(),
        "types": "".join(BEAT_CLASSES[kind] for kind in found["type"]),
        "confidence": [round(float(value), 2) for value in found["confidence"]],
    }


def dump(document: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def event(name: str, document: Any) -> bytes:
    """Return one server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + dump(document) + b"\n\n"
