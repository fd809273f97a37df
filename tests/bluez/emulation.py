"""org.bluez on a private bus: adapter, devices, GATT, both ways of notification, and the ways it fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

ADAPTER = "/org/bluez/hci0"
ADVERTISE_S = 0.1
Properties = dict[str, Variant]
OBJECTS = "org.freedesktop.DBus.ObjectManager"
PROPERTIES = "org.freedesktop.DBus.Properties"


class DBusError(Exception):
    """Answered as a D-Bus error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name, self.text = f"org.bluez.Error.{name}", text


@dataclass(eq=False)
class Characteristic:
    """One characteristic of a peripheral."""

    uuid: str
    flags: tuple[str, ...]
    path: str = ""
    subscribers: set[str] = field(default_factory=set)
    """Unique names of clients with StartNotify."""
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    """The same with AcquireNotify."""

    @property
    def notifies(self) -> bool:
        return bool(self.subscribers or self.sockets)


@dataclass(eq=False)
class Service:
    uuid: str
    characteristics: list[Characteristic]


class Peripheral:
    """A device out there; subclasses answer reads and writes and send notifications."""

    services: list[Service]

    def __init__(self, address: str, name: str, advertised: list[str]) -> None:
        self.address, self.name, self.advertised = address, name, advertised
        self.services = []
        self.rssi = -60
        self.visible = True
        """Advertises and accepts connections."""
        self.connect_errors: list[str] = []
        """Texts of org.bluez.Error.Failed for the next attempts."""
        self.mtu = 247
        self.connected_by: str | None = None
        self.connections = 0
        self.bluez: Bluez | None = None

    @property
    def path(self) -> str:
        return f"{ADAPTER}/dev_{self.address.replace(':', '_')}"

    def characteristic(self, uuid: str) -> Characteristic:
        return next(c for s in self.services for c in s.characteristics if c.uuid == uuid.lower())

    def notify(self, uuid: str, value: bytes) -> bool:
        """Send a notification; False if nobody is connected and subscribed."""
        assert self.bluez is not None
        return self.bluez.notify(self, self.characteristic(uuid), value)

    async def read(self, characteristic: Characteristic) -> bytes:
        raise DBusError("NotPermitted", "Read not permitted")

    async def write(self, characteristic: Characteristic, value: bytes) -> None:
        raise DBusError("NotPermitted", "Write not permitted")

    def on_connected(self) -> None:
        """The link stands."""

    def on_disconnected(self) -> None:
        """The link is gone, whoever ended it."""

    def drop(self) -> None:
        """The link breaks, as out of range."""
        assert self.bluez is not None
        self.bluez.disconnect(self)


class Bluez:
    """Owns org.bluez on one bus; lives on one event loop."""

    def __init__(self) -> None:
        self.peripherals: dict[str, Peripheral] = {}
        self.powered = self.plugged = True
        self.connect_delay_s = 0.05
        self._bus: MessageBus | None = None
        self._known: set[str] = set()
        self._scanners: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._advertiser: asyncio.Task[None] | None = None
        self._next_handle = 1

    async def start(self, address: str) -> None:
        self._bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
        # dbus-fast 5.2 ends the connection when the socket is full, which many straps on a busy machine can bring about
        self._bus._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        self._bus.add_message_handler(self._handle)
        await self._bus.request_name("org.bluez")
        rule = "type='signal',interface='org.freedesktop.DBus',member='NameOwnerChanged'"
        await self._bus.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="AddMatch",
                signature="s",
                body=[rule],
            )
        )
        self._advertiser = asyncio.get_running_loop().create_task(self._advertise())

    async def stop(self) -> None:
        if self._advertiser is not None:
            self._advertiser.cancel()
            await asyncio.gather(self._advertiser, *self._tasks, return_exceptions=True)
        for peripheral in self.peripherals.values():
            self.disconnect(peripheral, tell=False)
        self._known.clear()
        self._scanners.clear()
        if self._bus is not None:
            self._bus.disconnect()
            self._bus = None

    def add(self, peripheral: Peripheral) -> None:
        """Put a device within range."""
        peripheral.bluez = self
        self.peripherals[peripheral.path] = peripheral
        for service in peripheral.services:
            for characteristic in service.characteristics:
                characteristic.uuid = characteristic.uuid.lower()

    def power(self, on: bool) -> None:
        """Switch the adapter; off ends every connection and scan."""
        self.powered = on
        if not on:
            for peripheral in self.peripherals.values():
                self.disconnect(peripheral)
            self._scanners.clear()
        self._changed(ADAPTER, "org.bluez.Adapter1", {"Powered": Variant("b", on)})

    def plug(self, there: bool) -> None:
        """Pull the adapter out, or put it in again: BlueZ forgets its devices."""
        if not there:
            self.power(False)
            for path in list(self._known):
                self._signal("/", OBJECTS, "InterfacesRemoved", "oas", [path, ["org.bluez.Device1"]])
            self._known.clear()
        self.plugged = self.powered = there
        if there:
            interfaces = self._objects()[ADAPTER]
            self._signal("/", OBJECTS, "InterfacesAdded", "oa{sa{sv}}", [ADAPTER, interfaces])
        else:
            self._signal("/", OBJECTS, "InterfacesRemoved", "oas", [ADAPTER, ["org.bluez.Adapter1"]])

    def disconnect(self, peripheral: Peripheral, *, tell: bool = True) -> None:
        """End a link."""
        if peripheral.connected_by is None:
            return
        peripheral.connected_by = None
        for service in peripheral.services:
            for characteristic in service.characteristics:
                characteristic.subscribers.clear()
                for sock in characteristic.sockets.values():
                    sock.close()
                characteristic.sockets.clear()
        peripheral.on_disconnected()
        if not tell or self._bus is None:
            return
        changed = {"Connected": Variant("b", False), "ServicesResolved": Variant("b", False)}
        self._changed(peripheral.path, "org.bluez.Device1", changed)
        for path, interfaces in self._gatt(peripheral).items():
            self._signal("/", OBJECTS, "InterfacesRemoved", "oas", [path, list(interfaces)])

    def notify(self, peripheral: Peripheral, characteristic: Characteristic, value: bytes) -> bool:
        if peripheral.connected_by is None or not characteristic.notifies or self._bus is None:
            return False
        assert len(value) <= peripheral.mtu - 3, f"{len(value)} bytes do not fit an MTU of {peripheral.mtu}"
        for name, sock in list(characteristic.sockets.items()):
            try:
                sock.send(value)
            except OSError:
                characteristic.sockets.pop(name).close()
        if characteristic.subscribers:
            self._changed(characteristic.path, "org.bluez.GattCharacteristic1", {"Value": Variant("ay", value)})
        return True

    async def _advertise(self) -> None:
        while True:
            if self._scanners and self.powered:
                for peripheral in self.peripherals.values():
                    if not peripheral.visible or peripheral.connected_by is not None:
                        continue
                    if peripheral.path not in self._known:
                        self._known.add(peripheral.path)
                        interfaces = {"org.bluez.Device1": self._device(peripheral)}
                        self._signal("/", OBJECTS, "InterfacesAdded", "oa{sa{sv}}", [peripheral.path, interfaces])
                    else:
                        rssi = {"RSSI": Variant("n", peripheral.rssi)}
                        self._changed(peripheral.path, "org.bluez.Device1", rssi)
            await asyncio.sleep(ADVERTISE_S)

    def _handle(self, message: Message) -> bool | None:
        if message.message_type is MessageType.SIGNAL and message.member == "NameOwnerChanged":
            name, _, new_owner = message.body
            if not new_owner:
                self._forget_client(name)
            return None
        if message.message_type is not MessageType.METHOD_CALL or message.path is None:
            return None
        if not message.path.startswith("/org/bluez") and message.member != "GetManagedObjects":
            return None
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _answer(self, message: Message) -> None:
        try:
            signature, body, fds = await self._perform(message)
            reply = Message.new_method_return(message, signature, body, fds)
        except DBusError as failure:
            reply = Message.new_error(message, failure.name, failure.text)
        if self._bus is not None:
            await self._bus.send(reply)
        for fd in reply.unix_fds:
            with contextlib.suppress(OSError):
                socket.close(fd)

    async def _perform(self, message: Message) -> tuple[str, list[Any], list[int]]:
        path, member, sender = str(message.path), message.member, str(message.sender)
        if member == "GetManagedObjects":
            return "a{oa{sa{sv}}}", [self._objects()], []
        if message.interface == "org.bluez.Adapter1":
            if not self.powered and member == "StartDiscovery":
                raise DBusError("NotReady", "Resource Not Ready")
            if member == "StartDiscovery":
                self._scanners.add(sender)
            elif member == "StopDiscovery":
                self._scanners.discard(sender)
            return "", [], []
        if message.interface == "org.bluez.Device1":
            await self._device_call(path, str(member), sender)
            return "", [], []
        for peripheral in self.peripherals.values():
            for service in peripheral.services:
                for characteristic in service.characteristics:
                    if characteristic.path == path and peripheral.connected_by is not None:
                        return await self._characteristic_call(peripheral, characteristic, message)
        raise DBusError("Failed", "Not connected")

    async def _device_call(self, path: str, member: str, sender: str) -> None:
        peripheral = self.peripherals.get(path)
        if peripheral is None:
            raise DBusError("DoesNotExist", "Does Not Exist")
        if member == "Disconnect":
            self.disconnect(peripheral)
            return
        if not self.powered:
            raise DBusError("NotReady", "Resource Not Ready")
        await asyncio.sleep(self.connect_delay_s)
        if peripheral.connect_errors:
            text = peripheral.connect_errors.pop(0)
            if text == "le-connection-abort-by-local":
                self._changed(path, "org.bluez.Device1", {"Connected": Variant("b", True)})
                asyncio.get_running_loop().call_later(
                    0.05, self._changed, path, "org.bluez.Device1", {"Connected": Variant("b", False)}
                )
            raise DBusError("Failed", text)
        if not peripheral.visible:
            raise DBusError("Failed", "le-connection-timeout")
        peripheral.connected_by = sender
        peripheral.connections += 1
        self._changed(path, "org.bluez.Device1", {"Connected": Variant("b", True)})
        for gatt_path, interfaces in self._gatt(peripheral).items():
            self._signal("/", OBJECTS, "InterfacesAdded", "oa{sa{sv}}", [gatt_path, interfaces])
        resolved = {"ServicesResolved": Variant("b", True)}
        asyncio.get_running_loop().call_later(0.02, self._changed, path, "org.bluez.Device1", resolved)
        peripheral.on_connected()

    async def _characteristic_call(
        self, peripheral: Peripheral, characteristic: Characteristic, message: Message
    ) -> tuple[str, list[Any], list[int]]:
        member, sender = message.member, str(message.sender)
        if member == "ReadValue":
            return "ay", [await peripheral.read(characteristic)], []
        if member == "WriteValue":
            await peripheral.write(characteristic, bytes(message.body[0]))
        elif member == "StartNotify":
            if characteristic.sockets:
                raise DBusError("NotPermitted", "Notify acquired")
            characteristic.subscribers.add(sender)
        elif member == "StopNotify":
            characteristic.subscribers.discard(sender)
        elif member == "AcquireNotify":
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            characteristic.sockets[sender] = ours
            return "hq", [0, peripheral.mtu], [theirs.detach()]
        return "", [], []

    def _forget_client(self, name: str) -> None:
        """A client has left the bus: its scan and its notifications end, the link stays (as BlueZ does it)."""
        self._scanners.discard(name)
        for peripheral in self.peripherals.values():
            for service in peripheral.services:
                for characteristic in service.characteristics:
                    characteristic.subscribers.discard(name)
                    sock = characteristic.sockets.pop(name, None)
                    if sock is not None:
                        sock.close()

    def _objects(self) -> dict[str, dict[str, Properties]]:
        if not self.plugged:
            return {}
        found: dict[str, dict[str, Properties]] = {
            ADAPTER: {
                "org.bluez.Adapter1": {
                    "Address": Variant("s", "00:00:00:00:00:01"),
                    "Name": Variant("s", "emulation"),
                    "Alias": Variant("s", "emulation"),
                    "Powered": Variant("b", self.powered),
                    "Roles": Variant("as", ["central", "peripheral"]),
                }
            }
        }
        for path, peripheral in self.peripherals.items():
            if path in self._known:
                found[path] = {"org.bluez.Device1": self._device(peripheral)}
                if peripheral.connected_by is not None:
                    found.update(self._gatt(peripheral))
        return found

    def _device(self, peripheral: Peripheral) -> Properties:
        up = peripheral.connected_by is not None
        return {
            "Address": Variant("s", peripheral.address),
            "AddressType": Variant("s", "random"),
            "Name": Variant("s", peripheral.name),
            "Alias": Variant("s", peripheral.name),
            "Adapter": Variant("o", ADAPTER),
            "Paired": Variant("b", False),
            "Connected": Variant("b", up),
            "ServicesResolved": Variant("b", up),
            "UUIDs": Variant("as", [s.uuid for s in peripheral.services] if up else peripheral.advertised),
            "RSSI": Variant("n", peripheral.rssi),
        }

    def _gatt(self, peripheral: Peripheral) -> dict[str, dict[str, Properties]]:
        found: dict[str, dict[str, Properties]] = {}
        handle = 0x0A
        for service in peripheral.services:
            service_path = f"{peripheral.path}/service{handle:04x}"
            handle += 1
            found[service_path] = {
                "org.bluez.GattService1": {
                    "UUID": Variant("s", service.uuid),
                    "Device": Variant("o", peripheral.path),
                    "Primary": Variant("b", True),
                }
            }
            for characteristic in service.characteristics:
                characteristic.path = f"{service_path}/char{handle:04x}"
                handle += 2
                properties = {
                    "UUID": Variant("s", characteristic.uuid),
                    "Service": Variant("o", service_path),
                    "Flags": Variant("as", list(characteristic.flags)),
                    "MTU": Variant("q", peripheral.mtu),
                }
                if "notify" in characteristic.flags or "indicate" in characteristic.flags:
                    properties["NotifyAcquired"] = Variant("b", False)
                    properties["Notifying"] = Variant("b", False)
                found[characteristic.path] = {"org.bluez.GattCharacteristic1": properties}
        return found

    def _changed(self, path: str, interface: str, properties: Properties) -> None:
        self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, properties, []])

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        if self._bus is None or not self._bus.connected:
            return
        message = Message(
            message_type=MessageType.SIGNAL,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body,
        )
        self._bus.send(message)
