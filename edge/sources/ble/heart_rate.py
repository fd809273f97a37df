"""Bluetooth SIG Heart Rate (0x180D) and Battery (0x180F) services.

Source: Heart Rate Service 1.0, section 3.1.1 (flags, value formats, RR-Interval in 1/1024 s); Battery Service 1.1.
"""

from __future__ import annotations

import struct

from edge.sources.ble.frame import FrameError, Heart

SERVICE = "0000180d-0000-1000-8000-00805f9b34fb"
MEASUREMENT = "00002a37-0000-1000-8000-00805f9b34fb"
BATTERY_SERVICE = "0000180f-0000-1000-8000-00805f9b34fb"
BATTERY_LEVEL = "00002a19-0000-1000-8000-00805f9b34fb"
_HR_16, _CONTACT, _CONTACT_SUPPORTED, _ENERGY, _RR = 1, 2, 4, 8, 16


def decode_measurement(data: bytes) -> Heart:
    """Read one Heart Rate Measurement. Raises FrameError."""
    if len(data) < 2:
        raise FrameError("short", f"heart rate measurement of {len(data)} bytes")
    flags = data[0]
    at = 3 if flags & _HR_16 else 2
    needed = at + (2 if flags & _ENERGY else 0)
    if len(data) < needed:
        raise FrameError("short", f"heart rate measurement of {len(data)} bytes, its flags promise {needed}")
    hr_bpm = int.from_bytes(data[1:at], "little")
    contact = bool(flags & _CONTACT) if flags & _CONTACT_SUPPORTED else None
    energy_kj = None
    if flags & _ENERGY:
        energy_kj = int.from_bytes(data[at : at + 2], "little")
        at += 2
    rest = data[at:]
    if not flags & _RR:
        rest = b""
    if len(rest) % 2:
        raise FrameError("length", f"{len(rest)} bytes of RR intervals are no whole number of them")
    rr = struct.unpack(f"<{len(rest) // 2}H", rest)
    return Heart(hr_bpm, contact, tuple(value / 1024 for value in rr), energy_kj)


def decode_battery(data: bytes) -> int:
    """Return the battery level in percent. Raises FrameError."""
    if len(data) != 1 or data[0] > 100:
        raise FrameError("battery", f"battery level {data[:4].hex() or 'empty'} is no percentage")
    return data[0]
