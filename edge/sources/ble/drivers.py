"""What each kind of device wants written and subscribed to before it streams, and to stop. Decoding is elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edge.errors import AnyecgError
from edge.sources.ble import heart_rate, movesense, polar, viatom
from edge.sources.ble.bindings import Binding
from edge.sources.ble.frame import Frame, FrameError, Heart, Motion
from edge.sources.ble.generic import Profile, Reader

if TYPE_CHECKING:
    from bleak import BleakClient
    from bleak.backends.characteristic import BleakGATTCharacteristic

REPLY_TIMEOUT_S = 3.0
MOTION_HZ = 25
MOTION_RANGE_G = 2


class StartRefusedError(AnyecgError):
    """The device's firmware does not start the stream."""


class Sink(Protocol):
    """Where decoded notifications go; `Session` is one."""

    def on_frame(self, frame: Frame) -> None: ...
    def on_heart(self, heart: Heart) -> None: ...
    def on_battery(self, percent: int) -> None: ...
    def on_motion(self, motion: Motion) -> None: ...
    def on_bad(self, error: FrameError) -> None: ...


class Driver(Protocol):
    """Starts and stops the stream of one connection."""

    @property
    def service(self) -> str: ...
    @property
    def stamped(self) -> bool:
        """Whether frames carry the device's clock."""
        ...

    @property
    def has_ecg(self) -> bool: ...
    @property
    def fs_hz(self) -> float: ...
    @property
    def uv_per_lsb(self) -> tuple[float, ...]: ...
    @property
    def leads(self) -> tuple[str, ...]: ...

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        """Subscribe and start; a stream that a crashed gateway left running is stopped first.

        Raises StartRefusedError, or what bleak raises.
        """
        ...

    async def stop(self, client: BleakClient) -> None:
        """Stop the stream; the connection must still stand."""
        ...


async def notify(
    client: BleakClient, characteristic: str, callback: Callable[[bytes], None], *, acquire: bool = False
) -> None:
    """Subscribe; `acquire` takes a socket from BlueZ instead of D-Bus signals."""

    def received(_: BleakGATTCharacteristic, data: bytearray) -> None:
        callback(bytes(data))

    await client.start_notify(characteristic, received, bluez={"use_start_notify": not acquire})


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
        self._sink: Sink | None = None
        self._replies: asyncio.Queue[polar.Reply] = asyncio.Queue()
        self._streams: list[int] = []

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        self._sink, self._replies, self._streams = sink, asyncio.Queue(), []
        await notify(client, polar.CONTROL, self._on_control)
        await notify(client, polar.DATA, self._on_data, acquire=acquire)
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
            with contextlib.suppress(FrameError):
                self._replies.put_nowait(polar.decode_reply(data))

    def _on_data(self, data: bytes) -> None:
        assert self._sink is not None
        try:
            what = polar.decode_data(data)
        except FrameError as error:
            self._sink.on_bad(error)
            return
        if isinstance(what, Frame):
            self._sink.on_frame(what)
        elif what is not None:
            self._sink.on_motion(what)


class MovesenseDriver:
    """Movesense sensors with the GATT sensor-data firmware."""

    service = movesense.SERVICE
    stamped = True
    has_ecg = True
    uv_per_lsb = (movesense.UV_PER_LSB,)

    def __init__(self, binding: Binding) -> None:
        self.leads = (binding.lead,)
        self.fs_hz = binding.fs_hz or 128.0
        self._sink: Sink | None = None
        self._reader = movesense.Reader()
        self._responses: asyncio.Queue[movesense.Response] = asyncio.Queue()
        self._streams = False

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        self._sink, self._reader, self._responses = sink, movesense.Reader(), asyncio.Queue()
        await notify(client, movesense.NOTIFY, self._on_data, acquire=acquire)
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

    def _on_data(self, data: bytes) -> None:
        assert self._sink is not None
        try:
            what = self._reader.read(data)
        except FrameError as error:
            self._sink.on_bad(error)
            return
        if isinstance(what, movesense.Response):
            self._responses.put_nowait(what)
        elif what is not None:
            self._sink.on_frame(what)


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


class ViatomDriver:
    """Viatom/Wellue ER1, ER2, DuoEK: polled. EXPERIMENTAL."""

    service = viatom.SERVICE
    stamped = False
    has_ecg = True
    fs_hz = viatom.FS_HZ
    uv_per_lsb = (viatom.UV_PER_LSB,)

    def __init__(self, binding: Binding) -> None:
        self.leads = (binding.lead,)
        self._sink: Sink | None = None
        self._reader = viatom.Reader()
        self._poller: asyncio.Task[None] | None = None

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        self._sink, self._reader = sink, viatom.Reader()
        await notify(client, viatom.NOTIFY, self._on_data, acquire=acquire)
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

    def _on_data(self, data: bytes) -> None:
        assert self._sink is not None
        try:
            polls = self._reader.read(data)
        except FrameError as error:
            self._sink.on_bad(error)
            return
        for poll in polls:
            self._sink.on_battery(poll.battery_percent)
            if poll.frame is not None:
                self._sink.on_frame(poll.frame)


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
        self._reader = Reader(profile)
        self._sink: Sink | None = None

    async def start(self, client: BleakClient, sink: Sink, *, acquire: bool) -> None:
        self._sink, self._reader = sink, Reader(self._profile)
        await notify(client, self._profile.notify, self._on_data, acquire=acquire)
        commands = self._profile.commands
        if commands is not None:
            if commands.stop:
                await client.write_gatt_char(commands.characteristic, bytes.fromhex(commands.stop))
            await client.write_gatt_char(commands.characteristic, bytes.fromhex(commands.start))

    async def stop(self, client: BleakClient) -> None:
        commands = self._profile.commands
        if commands is not None and commands.stop:
            await client.write_gatt_char(commands.characteristic, bytes.fromhex(commands.stop))

    def _on_data(self, data: bytes) -> None:
        assert self._sink is not None
        try:
            self._sink.on_frame(self._reader.read(data))
        except FrameError as error:
            self._sink.on_bad(error)


KINDS: dict[str, Callable[[Binding], Driver]] = {
    "polar": PolarDriver,
    "movesense": MovesenseDriver,
    "heart_rate": HeartRateDriver,
    "viatom": ViatomDriver,
}
SERVICES = {polar.SERVICE: "polar", movesense.SERVICE: "movesense", viatom.SERVICE: "viatom"}
"""Service → kind; heart rate is offered by most straps and says nothing of ECG."""


def driver_of(binding: Binding, profiles: dict[str, Profile]) -> Driver:
    """Return the driver of a bound device; a kind that is no built-in names a profile."""
    make = KINDS.get(binding.kind)
    return make(binding) if make is not None else GenericDriver(profiles[binding.kind])


def kind_of(name: str | None, services: list[str], profiles: dict[str, Profile]) -> str | None:
    """Return what an advertisement promises, None if it is nothing of ours.

    A Polar H10 advertises the heart rate service only: its name tells it.
    """
    offered = {uuid.lower() for uuid in services}
    for profile in profiles.values():
        if profile.service in offered:
            return profile.name
    for service, kind in SERVICES.items():
        if service in offered:
            return kind
    if name is not None and name.startswith("Polar H10"):
        return "polar"
    if name is not None and name.startswith("Movesense"):
        return "movesense"
    return "heart_rate" if heart_rate.SERVICE in offered else None
