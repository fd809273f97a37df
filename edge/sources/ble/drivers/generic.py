"""Starting and stopping what a TOML profile describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.sources.ble.drivers.driver import Sink, notify
from edge.sources.ble.generic import Profile, Reader

if TYPE_CHECKING:
    from bleak import BleakClient


class GenericDriver:
    """A device that a TOML profile describes."""

    has_ecg = True

    def __init__(self, profile: Profile) -> None:
        self.service = profile.service
        self.stamped = profile.stamp is not None
        self.fs_hz = profile.fs_hz
        self.leads = tuple(profile.leads)
        self.uv_per_lsb = (profile.uv_per_lsb,) * len(profile.leads)
        self._profile = profile

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        reader = Reader(self._profile)

        def take(data: bytes) -> None:
            sink.on_frame(reader.read(data))

        await notify(client, self._profile.notify, take, sink, acquire=acquire)
        commands = self._profile.commands
        if commands is not None:
            if commands.stop:
                await client.write_gatt_char(commands.characteristic, bytes.fromhex(commands.stop))
            await client.write_gatt_char(commands.characteristic, bytes.fromhex(commands.start))

    async def stop(self, client: BleakClient) -> None:
        commands = self._profile.commands
        if commands is not None and commands.stop:
            await client.write_gatt_char(commands.characteristic, bytes.fromhex(commands.stop))
