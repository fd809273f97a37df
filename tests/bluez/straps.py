"""Emulated wearables: what they answer, stream and log. Times are real seconds times `speed`."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluez.emulation import Characteristic, DBusError, Peripheral, Service
from edge.sources.ble import heart_rate, movesense, polar, viatom

POLAR_2019_NS = 599_616_000_000_000_000
"""2019-01-01 in ns since 2000: what a strap's clock says after it was shut down."""
FRAME_SAMPLES = 73


class Streamer(Peripheral):
    """A device that samples all the time at `fs_hz` of its own clock and sends while it streams.

    The sample with index i (from `samples`, then from the start again) is taken at real time
    start + i / fs · (1 + drift) / speed. `sent` logs which were given to the radio.
    """

    fs_hz = 130.0
    frame_samples = FRAME_SAMPLES

    def __init__(
        self,
        address: str,
        name: str,
        advertised: list[str],
        samples: NDArray[np.int32],
        *,
        speed: float = 1.0,
        drift_ppm: float = 0.0,
        jitter_s: float = 0.0,
        loses: Callable[[int], bool] = lambda frame: False,
        repeats: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(address, name, advertised)
        self.samples = samples
        self.speed, self.drift, self.jitter_s, self.loses, self.repeats = (
            speed,
            drift_ppm * 1e-6,
            jitter_s,
            loses,
            repeats,
        )
        self.sent: list[tuple[int, int]] = []
        """(first index, how many) of every frame that was notified."""
        self.stamp_offset_ns = 0
        self.streaming = False
        self.starts = self.stops = 0
        self.start_s = time.monotonic()
        self._random = random.Random(seed)
        self._task: asyncio.Task[None] | None = None

    def power_on(self) -> None:
        """Sample 0 is taken now."""
        self.start_s = time.monotonic()

    def real_s(self, index: int) -> float:
        """When sample `index` is taken, by the machine's monotonic clock."""
        return self.start_s + index / self.fs_hz * (1 + self.drift) / self.speed

    def device_ns(self, index: int) -> int:
        return round(index * 1e9 / self.fs_hz) + self.stamp_offset_ns

    @property
    def exhausted(self) -> bool:
        return not self.repeats and self.real_s(len(self.samples)) < time.monotonic()

    def begin(self) -> None:
        self.streaming = True
        self.starts += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._stream())

    def end(self) -> None:
        self.streaming = False
        self.stops += 1

    def on_disconnected(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def frame(self, first: int, samples: NDArray[np.int32]) -> list[bytes]:
        """Return the notifications that carry samples from index `first`."""
        raise NotImplementedError

    def data_uuid(self) -> str:
        raise NotImplementedError

    def send(self, parts: list[bytes]) -> bool:
        """Notify all parts of a frame; whether somebody heard the whole of it."""
        return all([self.notify(self.data_uuid(), part) for part in parts])  # noqa: C419

    async def _stream(self) -> None:
        now = (time.monotonic() - self.start_s) * self.speed / (1 + self.drift) * self.fs_hz
        first = int(now) + 1
        number = 0
        while self.streaming:
            end = first + self.frame_samples
            if not self.repeats and end > len(self.samples):
                return
            await asyncio.sleep(
                max(0.0, self.real_s(end - 1) + self._random.random() * self.jitter_s - time.monotonic())
            )
            if not self.streaming:
                return
            block = self.samples[np.arange(first, end) % len(self.samples)]
            if not self.loses(number) and self.send(self.frame(first, block)):
                self.sent.append((first, self.frame_samples))
            number += 1
            first = end


class H10(Streamer):
    """A Polar H10: PMD, heart rate, battery."""

    def __init__(
        self, address: str, samples: NDArray[np.int32], name: str = "Polar H10 12345678", **options: Any
    ) -> None:
        super().__init__(address, name, [heart_rate.SERVICE], samples, **options)
        self.stamp_offset_ns = POLAR_2019_NS
        self.services = [
            Service(
                polar.SERVICE,
                [Characteristic(polar.CONTROL, ("read", "write", "indicate")), Characteristic(polar.DATA, ("notify",))],
            ),
            Service(heart_rate.SERVICE, [Characteristic(heart_rate.MEASUREMENT, ("notify",))]),
            Service(heart_rate.BATTERY_SERVICE, [Characteristic(heart_rate.BATTERY_LEVEL, ("read", "notify"))]),
        ]
        self.battery = 80
        self.contact = True
        self.refuses = 0
        """PMD error of the next START, 0 for none."""
        self.motion = False
        self._heart: asyncio.Task[None] | None = None
        self._acc: asyncio.Task[None] | None = None

    def data_uuid(self) -> str:
        return polar.DATA

    def frame(self, first: int, samples: NDArray[np.int32]) -> list[bytes]:
        stamp_ns = self.device_ns(first + len(samples) - 1)
        body = b"".join(int(v).to_bytes(3, "little", signed=True) for v in samples)
        return [bytes((polar.ECG,)) + struct.pack("<Q", stamp_ns) + b"\0" + body]

    async def read(self, characteristic: Characteristic) -> bytes:
        if characteristic.uuid == polar.CONTROL:
            return bytes((0x0F, 0b101)) + bytes(15)
        if characteristic.uuid == heart_rate.BATTERY_LEVEL:
            return bytes((self.battery,))
        return await super().read(characteristic)

    async def write(self, characteristic: Characteristic, value: bytes) -> None:
        if characteristic.uuid != polar.CONTROL:
            return await super().write(characteristic, value)
        if not characteristic.notifies:
            raise DBusError("ImproperlyConfigured", "CCCD improperly configured")
        op, measurement = value[0], value[1]
        self.notify(polar.CONTROL, bytes((0xF0, op, measurement)) + self._perform(op, measurement))
        return None

    def _perform(self, op: int, measurement: int) -> bytes:
        if op == polar.GET_SETTINGS:
            if measurement == polar.ECG:
                return bytes.fromhex("0000000182000101 0e00".replace(" ", ""))
            return bytes.fromhex("00000004c80064003200190001011000 0203020004000800".replace(" ", ""))
        is_ecg = measurement == polar.ECG
        running = self.streaming if is_ecg else self.motion
        if op == polar.START:
            if is_ecg and self.refuses:
                error, self.refuses = self.refuses, 0
                return bytes((error, 0))
            if running:
                return bytes((polar.ALREADY_IN_STATE, 0))
            if is_ecg:
                self.begin()
            else:
                self.motion = True
                self._acc = asyncio.get_running_loop().create_task(self._shake())
        elif op == polar.STOP:
            if not running:
                return bytes((polar.ALREADY_IN_STATE, 0))
            if is_ecg:
                self.end()
            else:
                self.motion = False
        return bytes((0, 0))

    def on_connected(self) -> None:
        self._heart = asyncio.get_running_loop().create_task(self._beat())

    def on_disconnected(self) -> None:
        super().on_disconnected()
        for task in (self._heart, self._acc):
            if task is not None:
                task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1.0 / self.speed)
            flags = 0x10 | 0x04 | (0x02 if self.contact else 0)
            self.notify(heart_rate.MEASUREMENT, bytes((flags, 61)) + struct.pack("<H", 1007))

    async def _shake(self) -> None:
        while self.motion:
            await asyncio.sleep(1.0 / self.speed)
            stamp = struct.pack("<Q", self.device_ns(int((time.monotonic() - self.start_s) * self.speed * self.fs_hz)))
            self.notify(polar.DATA, bytes((polar.ACC,)) + stamp + b"\1" + struct.pack("<hhh", 20, -30, 990) * 25)


class Movesense(Streamer):
    """A Movesense sensor with the GSP firmware."""

    fs_hz = 128.0
    frame_samples = movesense.FRAME_SAMPLES

    def __init__(self, address: str, samples: NDArray[np.int32], **options: Any) -> None:
        super().__init__(address, "Movesense 123", [movesense.SERVICE], samples, **options)
        self.services = [
            Service(
                movesense.SERVICE,
                [Characteristic(movesense.WRITE, ("write",)), Characteristic(movesense.NOTIFY, ("notify",))],
            )
        ]
        self.stamp_offset_ns = 5_000_000_000
        self.two_parts = True

    def data_uuid(self) -> str:
        return movesense.NOTIFY

    def frame(self, first: int, samples: NDArray[np.int32]) -> list[bytes]:
        stamp_ms = self.device_ns(first) // 1_000_000 % 2**32
        body = struct.pack("<I", stamp_ms) + samples.astype("<i4").tobytes()
        ref = bytes((movesense.ECG_REF,))
        if self.two_parts:
            return [b"\x02" + ref + body[:40], b"\x03" + ref + body[40:]]
        return [b"\x02" + ref + body]

    async def write(self, characteristic: Characteristic, value: bytes) -> None:
        if characteristic.uuid != movesense.WRITE:
            return await super().write(characteristic, value)
        code, ref = value[0], value[1]
        status = 200
        if code == movesense.SUBSCRIBE:
            if value[2:] == movesense.ecg_path(self.fs_hz):
                self.begin()
            else:
                status = 404
        elif code == movesense.UNSUBSCRIBE:
            if self.streaming:
                self.end()
            else:
                status = 404
        self.notify(movesense.NOTIFY, bytes((1, ref)) + struct.pack("<H", status))
        return None


class RrStrap(Peripheral):
    """A plain heart rate strap."""

    def __init__(self, address: str, rr_s: list[float], speed: float = 1.0) -> None:
        super().__init__(address, "HRM 42", [heart_rate.SERVICE])
        self.services = [Service(heart_rate.SERVICE, [Characteristic(heart_rate.MEASUREMENT, ("notify",))])]
        self.rr_s, self.speed = rr_s, speed
        self._task: asyncio.Task[None] | None = None

    def on_connected(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._beat())

    def on_disconnected(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _beat(self) -> None:
        while not self.characteristic(heart_rate.MEASUREMENT).notifies:
            await asyncio.sleep(0.01)
        at_s = time.monotonic()
        for rr in self.rr_s:
            at_s += rr / self.speed
            await asyncio.sleep(max(0.0, at_s - time.monotonic()))
            self.notify(heart_rate.MEASUREMENT, bytes((0x10, round(60 / rr))) + struct.pack("<H", round(rr * 1024)))


class Described(Streamer):
    """A device of no known make, described by `PROFILE`; it counts its frames and has no clock."""

    fs_hz = 250.0
    frame_samples = 25
    SERVICE = "0000a000-1111-2222-3333-444444444444"
    NOTIFY = "0000a001-1111-2222-3333-444444444444"
    COMMAND = "0000a002-1111-2222-3333-444444444444"
    PROFILE = f"""
name = "acme"
service = "{SERVICE}"
notify = "{NOTIFY}"
fs_hz = 250
uv_per_lsb = 1.0
leads = ["II"]
sample = "int16le"
header_bytes = 2
counter = {{offset = 0, type = "uint16le"}}
commands = {{characteristic = "{COMMAND}", start = "01", stop = "00"}}
"""

    def __init__(self, address: str, samples: NDArray[np.int32], **options: Any) -> None:
        super().__init__(address, "ACME 1", [self.SERVICE], samples, **options)
        self.services = [
            Service(self.SERVICE, [Characteristic(self.NOTIFY, ("notify",)), Characteristic(self.COMMAND, ("write",))])
        ]

    def data_uuid(self) -> str:
        return self.NOTIFY

    def frame(self, first: int, samples: NDArray[np.int32]) -> list[bytes]:
        return [struct.pack("<H", first // self.frame_samples % 2**16) + samples.astype("<i2").tobytes()]

    async def write(self, characteristic: Characteristic, value: bytes) -> None:
        if value == b"\1":
            self.begin()
        elif self.streaming:
            self.end()


class Er1(Peripheral):
    """A Viatom ER1 that answers a poll with what it took since the last one: 0, 1, 2, …"""

    def __init__(self, address: str) -> None:
        super().__init__(address, "ER1 0001", [viatom.SERVICE])
        self.services = [
            Service(
                viatom.SERVICE,
                [Characteristic(viatom.WRITE, ("write-without-response",)), Characteristic(viatom.NOTIFY, ("notify",))],
            )
        ]
        self.polls = 0
        self._next = 0

    async def write(self, characteristic: Characteristic, value: bytes) -> None:
        assert value[:3] == b"\xa5\x03\xfc"
        self.polls += 1
        values = range(self._next, self._next + 62)
        self._next += 62
        payload = struct.pack("<HBB", 60, 0, 64) + bytes(16) + struct.pack("<H62h", 62, *values)
        answer = viatom.command(viatom.REALTIME, value[4], payload)
        for at in range(0, len(answer), 20):
            self.notify(viatom.NOTIFY, answer[at : at + 20])
