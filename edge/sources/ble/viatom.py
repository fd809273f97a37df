"""Viatom / Wellue ER1, ER2, DuoEK: EXPERIMENTAL, never seen on hardware by us.

Source: public reverse engineering of the Lepu protocol (viatom-ble, lepu demo applications): frame
`A5 cmd ~cmd 00 seq len16LE payload crc8`, real-time data polled with command 0x03 and payload 7D. The payload
begins with 20 bytes of state (0-1 heart rate, 3 battery in percent, 8 run state), then a u16 sample count and int16
samples. The scale is (1.0035 · 1800) / (4096 · 178.74) mV per unit according to the same sources; unverified.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge.chunk import MISSING
from edge.sources.ble.frame import Frame, FrameError

SERVICE = "14839ac4-7d7e-415c-9a42-167340cf2339"
WRITE = "8b00ace7-eb0b-49b0-bbe9-9aee0a26e1a3"
NOTIFY = "0734594a-a8e7-4b1a-a6b1-cd5243059a57"

FS_HZ = 125.0
UV_PER_LSB = 1000 * (1.0035 * 1800) / (4096 * 178.74)
POLL_S = 0.5
REALTIME = 0x03
HEADER_BYTES = 7
STATE_BYTES = 20
MAX_PAYLOAD_BYTES = 4096
_MISSING_IN = 0x7FFF


@dataclass(frozen=True, slots=True)
class Poll:
    """The answer to one poll."""

    frame: Frame | None
    hr_bpm: int
    battery_percent: int


def _crc_table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
        table.append(crc)
    return table


_CRC = _crc_table()


def crc8(data: bytes) -> int:
    """CRC-8 with polynomial 0x07, as the protocol uses it."""
    crc = 0
    for byte in data:
        crc = _CRC[crc ^ byte]
    return crc


def command(code: int, seq: int, payload: bytes = b"") -> bytes:
    """Return a command frame."""
    head = bytes((0xA5, code, code ^ 0xFF, 0, seq & 0xFF)) + len(payload).to_bytes(2, "little")
    return head + payload + bytes((crc8(head + payload),))


def decode_payload(payload: bytes) -> Poll:
    """Read the payload of a real-time answer. Raises FrameError."""
    if len(payload) < STATE_BYTES + 2:
        raise FrameError("short", f"real-time payload of {len(payload)} bytes")
    count = int.from_bytes(payload[STATE_BYTES : STATE_BYTES + 2], "little")
    body = payload[STATE_BYTES + 2 :]
    if len(body) < 2 * count:
        raise FrameError("length", f"{len(body)} bytes where {count} samples are announced")
    samples = np.frombuffer(body, "<i2", count=count).astype(np.int32)
    samples[samples == _MISSING_IN] = MISSING
    frame = Frame(samples[np.newaxis], None) if count else None
    return Poll(frame, int.from_bytes(payload[:2], "little"), min(payload[3], 100))


@dataclass(slots=True)
class Reader:
    """Joins notifications into frames; holds at most one frame's bytes."""

    _held: bytearray = field(default_factory=bytearray)

    def read(self, data: bytes) -> list[Poll]:
        """Return the answers that are complete with these bytes. Raises FrameError for the first bad one."""
        self._held += data
        polls = []
        while (start := self._held.find(0xA5)) >= 0:
            del self._held[:start]
            if len(self._held) < HEADER_BYTES:
                break
            code, inverse = self._held[1], self._held[2]
            length = int.from_bytes(self._held[5:7], "little")
            if code ^ inverse != 0xFF or length > MAX_PAYLOAD_BYTES:
                del self._held[0]
                continue
            end = HEADER_BYTES + length
            if len(self._held) <= end:
                break
            frame, crc = bytes(self._held[:end]), self._held[end]
            if crc8(frame) != crc:
                del self._held[0]
                raise FrameError("crc", "a frame's checksum does not match")
            del self._held[: end + 1]
            if code == REALTIME:
                polls.append(decode_payload(frame[HEADER_BYTES:]))
        else:
            self._held.clear()
        return polls
