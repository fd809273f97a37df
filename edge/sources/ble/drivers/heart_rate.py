"""Straps with the standard heart rate service only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.sources.ble import heart_rate
from edge.sources.ble.bindings import Binding
from edge.sources.ble.drivers.driver import Sink, StartRefusedError

if TYPE_CHECKING:
    from bleak import BleakClient


class HeartRateDriver:
    """Any strap with the standard service: no ECG, RR intervals only. `keeper` subscribes to it for every device."""

    service = heart_rate.SERVICE
    stamped = False
    has_ecg = False
    fs_hz = 1024.0
    uv_per_lsb = (1.0,)

    def __init__(self, binding: Binding) -> None:
        self.leads = (binding.lead,)

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        if client.services.get_characteristic(heart_rate.MEASUREMENT) is None:
            raise StartRefusedError("this device has no heart rate measurement")

    async def stop(self, client: BleakClient) -> None:
        """Nothing was started."""
