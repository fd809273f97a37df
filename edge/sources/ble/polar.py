"""Polar Measurement Data (PMD): ECG and accelerometer of the H10.

Source: Polar BLE SDK, `technical_documentation/online_measurement.pdf` and its Kotlin client; checked against
bleakheart and polar-python on an emulated strap.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from edge.sources.ble.frame import Frame, FrameError, Motion, int24_le

SERVICE = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
CONTROL = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"

ECG, ACC = 0, 2
GET_SETTINGS, START, STOP = 1, 2, 3
RATE, RESOLUTION, RANGE, CHANNELS = 0, 1, 2, 4
OK, ALREADY_IN_STATE = 0, 6
ERRORS = (
    *("success", "invalid op code", "invalid measurement type", "not supported", "invalid length"),
    *("invalid parameter", "already in state", "invalid resolution", "invalid sample rate", "invalid range"),
    *("invalid MTU", "invalid number of channels", "invalid state", "device in charger"),
)
FS_HZ = 130.0
UV_PER_LSB = 1.0
HEADER_BYTES = 10
_SETTING_BYTES = {RATE: 2, RESOLUTION: 2, RANGE: 2, 3: 4, CHANNELS: 1, 5: 4}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the control point indicates after a command."""

    op: int
    measurement: int
    error: int
    settings: dict[int, tuple[int, ...]]
    """Setting → allowed values."""

    @property
    def error_text(self) -> str:
        return ERRORS[self.error] if self.error < len(ERRORS) else f"error {self.error}"


def decode_features(data: bytes) -> set[int]:
    """Return the measurement types a strap offers, from a read of the control point."""
    if len(data) < 2 or data[0] != 0x0F:
        raise FrameError("control", f"the control point reads {data[:4].hex()}, not 0f and a bit mask")
    mask = int.from_bytes(data[1:3], "little")
    return {bit for bit in range(16) if mask >> bit & 1}


def command(op: int, measurement: int, settings: dict[int, int] | None = None) -> bytes:
    """Return a control point command; `settings` are what START chooses."""
    out = bytearray((op, measurement))
    for key, value in (settings or {}).items():
        out += bytes((key, 1)) + value.to_bytes(_SETTING_BYTES[key], "little")
    return bytes(out)


def decode_reply(data: bytes) -> Reply:
    """Read an indication of the control point. Raises FrameError."""
    if len(data) < 4 or data[0] != 0xF0:
        raise FrameError("control", f"control point reply {data[:4].hex()} does not begin with f0")
    settings: dict[int, tuple[int, ...]] = {}
    at = 5
    while data[3] == OK and at + 2 <= len(data):
        key, count = data[at], data[at + 1]
        width = _SETTING_BYTES.get(key)
        if width is None or at + 2 + count * width > len(data):
            break  # newer firmware adds settings behind those we read
        at += 2
        settings[key] = tuple(
            int.from_bytes(data[at + i * width : at + (i + 1) * width], "little") for i in range(count)
        )
        at += count * width
    return Reply(data[1], data[2], data[3], settings)


def decode_data(data: bytes) -> Frame | Motion | None:
    """Read one notification of the data characteristic; None for a measurement nobody asked for.

    Stamps are ns since 2000-01-01 by the strap's clock, of the last sample. ECG is int24 µV, type 0 only: a
    compressed or unknown type is refused rather than guessed. Raises FrameError.
    """
    if len(data) < HEADER_BYTES:
        raise FrameError("short", f"PMD frame of {len(data)} bytes, its header has {HEADER_BYTES}")
    measurement, frame_type = data[0] & 0x3F, data[9]
    (stamp,) = struct.unpack_from("<Q", data, 1)
    if stamp >= 1 << 62:
        raise FrameError("stamp", f"PMD stamp {stamp} lies beyond the year 2100")
    body = data[HEADER_BYTES:]
    if measurement == ECG:
        if frame_type != 0:
            raise FrameError("frame_type", f"ECG frame type {frame_type:#04x}; only type 0 is documented")
        if not body or len(body) % 3:
            raise FrameError("length", f"ECG frame with {len(body)} bytes of int24 samples")
        return Frame(int24_le(body)[np.newaxis], stamp)
    if measurement == ACC:
        if frame_type != 1:
            raise FrameError("frame_type", f"ACC frame type {frame_type:#04x}; only type 1 is read")
        if not body or len(body) % 6:
            raise FrameError("length", f"ACC frame with {len(body)} bytes of int16 triples")
        return Motion(np.frombuffer(body, "<i2").reshape(-1, 3).astype(np.int32), stamp)
    return None
