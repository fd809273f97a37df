"""The Bluetooth adapter, shared by all devices: one scan for everybody who waits, one connection attempt at a time.

BlueZ answers InProgress to those who connect while others do, and few adapters connect while they scan, so both take
turns under one lock. A scan ends as soon as somebody wanted is seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from bleak import BleakAdapter, BleakScanner
from bleak.args.bluez import BlueZAdapterArgs, BlueZClientArgs, BlueZScannerArgs
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakBluetoothNotAvailableError, BleakDBusError, BleakError
from dbus_fast.errors import DBusError

SCAN_S = 3.0
PAUSE_S = 0.5
RETRY_S = 2.0
"""How often an adapter that is off or a bus that is down is tried again."""
MAX_SEEN = 256
RADIO_ERRORS: tuple[type[BaseException], ...] = (BleakError, DBusError, TimeoutError, OSError, EOFError)
"""What bleak and dbus-fast raise when the radio, BlueZ or the bus fail."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """The last thing heard of a device."""

    address: str
    name: str | None
    rssi: int
    services: tuple[str, ...]
    heard_s: float


@dataclass(frozen=True, slots=True)
class _Wanted:
    services: frozenset[str]
    connected: bool
    future: asyncio.Future[BLEDevice]


class Radio:
    """Finds devices; belongs to one event loop."""

    def __init__(self, adapter: str | None = None) -> None:
        """`adapter`: such as hci0; None for the first one that is powered."""
        self.lock = asyncio.Lock()
        """Held while scanning and while connecting."""
        self.problem: str | None = None
        """Why there is no Bluetooth at the moment."""
        self.seen: dict[str, Advertisement] = {}
        self._adapter = adapter
        self._wanted: dict[str, _Wanted] = {}
        self._wake = asyncio.Event()

    @property
    def client_args(self) -> BlueZClientArgs:
        return {} if self._adapter is None else {"adapter": self._adapter}

    async def find(self, address: str, services: frozenset[str], *, connected: bool) -> BLEDevice:
        """Wait until a device is heard; `run` must be running.

        `connected`: also take one that BlueZ says is connected (by a process that is gone). After a crash of BlueZ
        bleak remembers connections that are none, so a caller that failed once insists on hearing the device.
        """
        future: asyncio.Future[BLEDevice] = asyncio.get_running_loop().create_future()
        self._wanted[address] = _Wanted(services, connected, future)
        self._wake.set()
        try:
            return await future
        finally:
            self._wanted.pop(address, None)

    async def run(self) -> None:
        """Scan for ever while somebody is wanted."""
        while True:
            await self._wake.wait()
            if not self._wanted:
                self._wake.clear()
                continue
            try:
                async with self.lock:
                    await self._take_connected()
                    await self._scan(SCAN_S)
                self._note(None)
                await asyncio.sleep(PAUSE_S)
            except RADIO_ERRORS as error:
                self._note(reason_of(error))
                await asyncio.sleep(RETRY_S)

    async def survey(self, seconds: float) -> list[Advertisement]:
        """Listen for a while and return everything heard, strongest first. Raises one of `RADIO_ERRORS`."""
        async with self.lock, self._scanner(self._heard):
            await asyncio.sleep(seconds)
        return sorted(self.seen.values(), key=lambda found: -found.rssi)

    async def _scan(self, seconds: float) -> None:
        found: dict[str, BLEDevice] = {}
        enough = asyncio.Event()

        def heard(device: BLEDevice, advertisement: AdvertisementData) -> None:
            self._heard(device, advertisement)
            address = device.address.upper()
            if address in self._wanted:
                found[address] = device
                enough.set()

        async with self._scanner(heard):
            try:
                async with asyncio.timeout(seconds):
                    await enough.wait()
            except TimeoutError:
                pass
        for address, device in found.items():
            self._resolve(address, device)

    async def _take_connected(self) -> None:
        """A connected device does not advertise; after a crash its connection is still there."""
        wanted = {address: item for address, item in self._wanted.items() if item.connected}
        if not wanted:
            return
        services = sorted(frozenset[str]().union(*(item.services for item in wanted.values())))
        args: BlueZAdapterArgs = {} if self._adapter is None else {"adapter": self._adapter}
        for device in await (await BleakAdapter.get(bluez=args)).get_connected_devices(services):
            if device.address.upper() in wanted:
                self._resolve(device.address.upper(), device)

    def _resolve(self, address: str, device: BLEDevice) -> None:
        wanted = self._wanted.get(address)
        if wanted is not None and not wanted.future.done():
            wanted.future.set_result(device)

    def _heard(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        address = device.address.upper()
        self.seen.pop(address, None)
        self.seen[address] = Advertisement(
            address, device.name, advertisement.rssi, tuple(advertisement.service_uuids), time.monotonic()
        )
        if len(self.seen) > MAX_SEEN:
            del self.seen[next(iter(self.seen))]

    def _scanner(self, heard: Callable[[BLEDevice, AdvertisementData], None]) -> BleakScanner:
        args: BlueZScannerArgs = {} if self._adapter is None else {"adapter": self._adapter}
        return BleakScanner(heard, bluez=args)

    def _note(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            if problem is None:
                log.info("bluetooth is there")
            else:
                log.warning("no bluetooth", reason=problem)


def reason_of(error: BaseException) -> str:
    """Return what went wrong in words for an operator."""
    if isinstance(error, BleakBluetoothNotAvailableError):
        return f"{error.args[0]} (bluetoothctl power on, or rfkill unblock bluetooth)"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "the system D-Bus does not answer: is dbus running?"
    if isinstance(error, BleakDBusError):
        name = error.dbus_error
        if name.endswith(("ServiceUnknown", "NameHasNoOwner")):
            return "BlueZ does not run: systemctl start bluetooth"
        if name.endswith("AccessDenied"):
            return "BlueZ refuses this user: add it to the group bluetooth"
        return f"{name.rsplit('.', 1)[-1]}: {error.dbus_error_details or 'no details'}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
