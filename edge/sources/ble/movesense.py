"""Movesense GATT sensor-data protocol (GSP): ECG by subscription.

Source: movesense.com, `gatt_sensordata_protocol`, and the gatt_sensordata_app firmware. Data of a subscription is a
u32 ms stamp of the first sample and 16 int32 counts; what does not fit one notification follows in a second part.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from edge.sources.ble.frame import Frame, FrameError

SERVICE = "34802252-7185-4d5d-b431-630e7050e8f0"
WRITE = "34800001-7185-4d5d-b431-630e7050e8f0"
NOTIFY = "34800002-7185-4d5d-b431-630e7050e8f0"

HELLO, SUBSCRIBE, UNSUBSCRIBE = 0, 1, 2
RESPONSE, DATA, DATA_REST = 1, 2, 3
ECG_REF = 0x45
RATES_HZ = (125.0, 128.0, 200.0, 250.0, 256.0, 500.0, 512.0)
UV_PER_LSB = 0.381469726563
FRAME_SAMPLES = 16
_ECG_BYTES = 4 + 4 * FRAME_SAMPLES
_WRAP_NS = 2**32 * 1_000_000
MAX_PARTS = 8


def ecg_path(fs_hz: float) -> bytes:
    """Return the resource that is subscribed to."""
    return f"/Meas/ECG/{fs_hz:g}".encode("ascii")


def command(code: int, ref: int, path: bytes = b"") -> bytes:
    """Return a command of reference `ref` (1 to 255)."""
    return bytes((code, ref)) + path


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a command; statuses are those of HTTP (200 is good)."""

    ref: int
    status: int


@dataclass(slots=True)
class Reader:
    """Joins the two parts of a data message and unwraps the ms stamp (2^32 ms are 49.7 days)."""

    _parts: dict[int, bytes] = field(default_factory=dict)
    _before_ns: int | None = None

    def read(self, data: bytes) -> Response | Frame | None:
        """Read one notification; None if more has to come or nobody asked for it. Raises FrameError."""
        if len(data) < 2:
            raise FrameError("short", f"GSP message of {len(data)} bytes")
        kind, ref = data[0], data[1]
        if kind == RESPONSE:
            if len(data) < 4:
                raise FrameError("short", f"GSP response of {len(data)} bytes")
            return Response(ref, int.from_bytes(data[2:4], "little"))
        if ref != ECG_REF:
            return None
        if kind == DATA:
            self._parts.pop(ref, None)
            body = data[2:]
        elif kind == DATA_REST:
            if ref not in self._parts:
                raise FrameError("part", "GSP second part without a first")
            body = self._parts.pop(ref) + data[2:]
        else:
            return None
        if len(body) < _ECG_BYTES:
            self._parts[ref] = body
            return None
        if len(body) != _ECG_BYTES:
            raise FrameError("length", f"GSP ECG of {len(body)} bytes, not {_ECG_BYTES}")
        (stamp_ms,) = struct.unpack_from("<I", body)
        samples = np.frombuffer(body, "<i4", offset=4).astype(np.int32)
        return Frame(samples[np.newaxis], None, first_ns=self._unwrap(stamp_ms * 1_000_000))

    def _unwrap(self, stamp_ns: int) -> int:
        if self._before_ns is not None:
            turns = round((self._before_ns - stamp_ns) / _WRAP_NS)
            near = stamp_ns + turns * _WRAP_NS
            stamp_ns = near if near >= 0 else stamp_ns
        self._before_ns = stamp_ns
        return stamp_ns
