"""What a driver is, where it hands what it decodes, and how it subscribes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edge.errors import AnyecgError
from edge.sources.ble.frame import Frame, FrameError, Heart, Motion

if TYPE_CHECKING:
    from bleak import BleakClient
    from bleak.backends.characteristic import BleakGATTCharacteristic

REPLY_TIMEOUT_S = 3.0


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
    client: BleakClient, characteristic: str, take: Callable[[bytes], None], sink: Sink, *, acquire: bool = False
) -> None:
    """Subscribe; what `take` cannot read goes to the sink as bad, and the stream goes on.

    `acquire` takes a socket from BlueZ instead of D-Bus signals.
    """

    def received(_: BleakGATTCharacteristic, data: bytearray) -> None:
        try:
            take(bytes(data))
        except FrameError as error:
            sink.on_bad(error)

    await client.start_notify(characteristic, received, bluez={"use_start_notify": not acquire})
