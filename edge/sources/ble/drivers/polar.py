"""Starting and stopping sensors with Polar Measurement Data."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from edge.sources.ble import polar
from edge.sources.ble.bindings import Binding
from edge.sources.ble.drivers.driver import REPLY_TIMEOUT_S, Sink, StartRefusedError, notify
from edge.sources.ble.frame import Frame

if TYPE_CHECKING:
    from bleak import BleakClient

MOTION_HZ = 25
MOTION_RANGE_G = 2


class PolarDriver:
    """Polar H10 and other sensors with PMD."""

    service = polar.SERVICE
    stamped = True
    has_ecg = True
    fs_hz = polar.FS_HZ
    uv_per_lsb = (polar.UV_PER_LSB,)

    def __init__(self, binding: Binding) -> None:
        self.leads = (binding.lead,)
        self._motion = binding.motion
        self._replies: asyncio.Queue[polar.Reply] = asyncio.Queue()
        self._streams: list[int] = []

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        self._replies, self._streams = asyncio.Queue(), []
        await notify(client, polar.CONTROL, self._on_control, sink)
        await notify(client, polar.DATA, partial(_on_data, sink), sink, acquire=acquire)
        offered = polar.decode_features(bytes(await client.read_gatt_char(polar.CONTROL)))
        if polar.ECG not in offered:
            raise StartRefusedError("this sensor offers no ECG")
        await self._begin(client, polar.ECG, {polar.RATE: round(self.fs_hz), polar.RESOLUTION: 14})
        if self._motion and polar.ACC in offered:
            settings = {polar.RATE: MOTION_HZ, polar.RESOLUTION: 16, polar.RANGE: MOTION_RANGE_G}
            with contextlib.suppress(StartRefusedError):  # context only: the ECG goes on without it
                await self._begin(client, polar.ACC, settings)

    async def stop(self, client: BleakClient) -> None:
        for measurement in list(self._streams):
            await self._request(client, polar.STOP, measurement)
        self._streams = []

    async def _begin(self, client: BleakClient, measurement: int, settings: dict[int, int]) -> None:
        await self._request(client, polar.STOP, measurement)
        allowed = (await self._request(client, polar.GET_SETTINGS, measurement)).settings
        for key, wanted in settings.items():
            if key in allowed and wanted not in allowed[key]:
                raise StartRefusedError(f"setting {key} allows {allowed[key]}, not {wanted}")
        self._streams.append(measurement)  # whatever the answer to START, it must be stopped
        reply = await self._request(client, polar.START, measurement, settings)
        if reply.error not in (polar.OK, polar.ALREADY_IN_STATE):
            self._streams.remove(measurement)
            raise StartRefusedError(f"the sensor refuses to start: {reply.error_text}")

    async def _request(
        self, client: BleakClient, op: int, measurement: int, settings: dict[int, int] | None = None
    ) -> polar.Reply:
        while not self._replies.empty():
            self._replies.get_nowait()
        await client.write_gatt_char(polar.CONTROL, polar.command(op, measurement, settings), response=True)
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            while True:
                reply = await self._replies.get()
                if (reply.op, reply.measurement) == (op, measurement):
                    return reply

    def _on_control(self, data: bytes) -> None:
        if data[:1] == b"\xf0":  # BlueZ also reports what is read from here
            self._replies.put_nowait(polar.decode_reply(data))


def _on_data(sink: Sink, data: bytes) -> None:
    what = polar.decode_data(data)
    if isinstance(what, Frame):
        sink.on_frame(what)
    elif what is not None:
        sink.on_motion(what)
