"""Subscribing and unsubscribing at Movesense sensors."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from edge.sources.ble import movesense
from edge.sources.ble.bindings import Binding
from edge.sources.ble.drivers.driver import REPLY_TIMEOUT_S, Sink, StartRefusedError, notify

if TYPE_CHECKING:
    from bleak import BleakClient


class MovesenseDriver:
    """Movesense sensors with the GATT sensor-data firmware."""

    service = movesense.SERVICE
    stamped = True
    has_ecg = True
    uv_per_lsb = (movesense.UV_PER_LSB,)

    def __init__(self, binding: Binding) -> None:
        self.leads = (binding.lead,)
        self.fs_hz = binding.fs_hz or 128.0
        self._reader = movesense.Reader()
        self._responses: asyncio.Queue[movesense.Response] = asyncio.Queue()
        self._streams = False

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        self._reader, self._responses = movesense.Reader(), asyncio.Queue()
        await notify(client, movesense.NOTIFY, partial(self._on_data, sink), sink, acquire=acquire)
        for code, ref in ((movesense.HELLO, 1), (movesense.UNSUBSCRIBE, movesense.ECG_REF)):
            with contextlib.suppress(TimeoutError):  # older firmware answers neither
                await self._request(client, code, ref, timeout_s=1.0)
        self._streams = True
        path = movesense.ecg_path(self.fs_hz)
        response = await self._request(client, movesense.SUBSCRIBE, movesense.ECG_REF, path)
        if response.status >= 300:
            self._streams = False
            raise StartRefusedError(f"the sensor refuses {path.decode()}: status {response.status}")

    async def stop(self, client: BleakClient) -> None:
        if self._streams:
            self._streams = False
            await self._request(client, movesense.UNSUBSCRIBE, movesense.ECG_REF)

    async def _request(
        self, client: BleakClient, code: int, ref: int, path: bytes = b"", timeout_s: float = REPLY_TIMEOUT_S
    ) -> movesense.Response:
        while not self._responses.empty():
            self._responses.get_nowait()
        await client.write_gatt_char(movesense.WRITE, movesense.command(code, ref, path), response=True)
        async with asyncio.timeout(timeout_s):
            while True:
                response = await self._responses.get()
                if response.ref == ref:
                    return response

    def _on_data(self, sink: Sink, data: bytes) -> None:
        what = self._reader.read(data)
        if isinstance(what, movesense.Response):
            self._responses.put_nowait(what)
        elif what is not None:
            sink.on_frame(what)
