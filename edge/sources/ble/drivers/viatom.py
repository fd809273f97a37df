"""Polling Viatom and Wellue recorders."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from edge.sources.ble import viatom
from edge.sources.ble.bindings import Binding
from edge.sources.ble.drivers.driver import Sink, notify

if TYPE_CHECKING:
    from bleak import BleakClient


class ViatomDriver:
    """Viatom/Wellue ER1, ER2, DuoEK: polled. EXPERIMENTAL."""

    service = viatom.SERVICE
    stamped = False
    has_ecg = True
    fs_hz = viatom.FS_HZ
    uv_per_lsb = (viatom.UV_PER_LSB,)

    def __init__(self, binding: Binding) -> None:
        self.leads = (binding.lead,)
        self._reader = viatom.Reader()
        self._poller: asyncio.Task[None] | None = None

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        self._reader = viatom.Reader()
        await notify(client, viatom.NOTIFY, partial(self._on_data, sink), sink, acquire=acquire)
        self._poller = asyncio.create_task(self._poll(client), name="viatom-poll")

    async def stop(self, client: BleakClient) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
            self._poller = None

    async def _poll(self, client: BleakClient) -> None:
        seq = 0
        while client.is_connected:
            await client.write_gatt_char(viatom.WRITE, viatom.command(viatom.REALTIME, seq, b"\x7d"), response=False)
            seq = (seq + 1) & 0xFF
            await asyncio.sleep(viatom.POLL_S)

    def _on_data(self, sink: Sink, data: bytes) -> None:
        for poll in self._reader.read(data):
            sink.on_battery(poll.battery_percent)
            if poll.frame is not None:
                sink.on_frame(poll.frame)
