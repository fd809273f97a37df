"""Checks of the machine: disk, clock, encryption at rest, Bluetooth. They need no gateway."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import struct
import time
from pathlib import Path

from edge.config import Config
from edge.doctor.check import Check
from edge.errors import AnyecgError

MB = 2**20
STA_UNSYNC = 0x0040
"""Source: adjtimex(2)."""
FS_IOC_GET_ENCRYPTION_POLICY_EX = 0xC0096616
"""Source: linux/fscrypt.h, _IOWR('f', 22, __u8[9])."""
BLUEZ_TIMEOUT_S = 5.0


def state_folder(state: Path) -> Check:
    """The folder is there, private, and can be written."""
    if not state.is_dir():
        return Check("state.missing", f"{state} does not exist")
    if os.statvfs(state).f_flag & os.ST_RDONLY:
        return Check("state.readonly", f"{state} lies on a read-only file system")
    mode = state.stat().st_mode & 0o777
    if mode & 0o077:
        return Check("state.open", f"{state} has mode {mode:o}")
    return Check("state.ok", f"{state} is private")


def disk(state: Path, config: Config) -> Check:
    """There is room for what comes."""
    found = os.statvfs(state if state.is_dir() else state.parent)
    free, total = found.f_bavail * found.f_frsize / MB, found.f_blocks * found.f_frsize / MB
    seen = f"{free:.0f} of {total:.0f} MB free, {config.retention.min_free_mb} wanted"
    if free < max(config.retention.reserve_mb, 8):
        return Check("disk.full", seen)
    return Check("disk.low" if free < config.retention.min_free_mb else "disk.ok", seen)


def clock(newest_ns: int | None) -> Check:
    """The clock is synchronised, and not before what it has stamped already (`newest_ns`)."""
    now_ns = time.time_ns()
    if newest_ns is not None and newest_ns > now_ns + 60 * 10**9:
        return Check("clock.behind", f"the newest data arrived {(newest_ns - now_ns) / 1e9:.0f} s in the future")
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        timex = ctypes.create_string_buffer(512)
        result = libc.adjtimex(timex)
    except (OSError, AttributeError):
        return Check("clock.unknown", "adjtimex is not there")
    if result < 0:
        return Check("clock.unknown", f"adjtimex: {os.strerror(ctypes.get_errno())}")
    (status,) = struct.unpack_from("i", timex.raw, _STATUS_OFFSET)
    if status & STA_UNSYNC:
        return Check("clock.unsynchronised", "the kernel says that nothing keeps its clock right")
    return Check("clock.ok", "synchronised")


_LONG = struct.calcsize("l")
_STATUS_OFFSET = 5 * _LONG
"""`struct timex`: modes (padded), offset, freq, maxerror, esterror, then status."""


def encryption(state: Path, sys_block: Path = Path("/sys/dev/block")) -> Check:
    """The state folder lies on LUKS, or in a folder that fscrypt encrypts."""
    folder = state if state.is_dir() else state.parent
    if _fscrypt(folder):
        return Check("encryption.ok", f"{folder} is encrypted by fscrypt")
    device = folder.stat().st_dev
    at = sys_block / f"{os.major(device)}:{os.minor(device)}"
    if not at.exists():
        return Check("encryption.unknown", f"{folder} lies on no block device of this machine")
    kinds = _layers(at.resolve())
    if any(kind.startswith("CRYPT-") for kind in kinds):
        return Check("encryption.ok", f"{folder} lies on LUKS")
    return Check("encryption.none", f"{folder} lies unencrypted on {at.resolve().name}")


def _layers(device: Path, depth: int = 0) -> list[str]:
    """Return the device-mapper kinds of a block device and of everything below it."""
    kinds = [uuid.read_text().strip()] if (uuid := device / "dm/uuid").exists() else []
    below = sorted((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
    for one in below if depth < 8 else []:
        kinds += _layers(one.resolve(), depth + 1)
    return kinds


def _fscrypt(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        policy = bytearray(struct.pack("Q", 24) + bytes(24))
        fcntl.ioctl(handle, FS_IOC_GET_ENCRYPTION_POLICY_EX, policy)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def bluetooth(state: Path, config: Config) -> Check:
    """BlueZ answers and has a powered adapter; off where no device is bound."""
    from edge.sources.ble.bindings import read_bindings

    try:
        bound = read_bindings(state)
    except AnyecgError as error:
        return Check("config.invalid", str(error))
    if not bound:
        return Check("bluetooth.off", "no Bluetooth device is bound")
    try:
        adapters = asyncio.run(_adapters())
    except Exception as error:
        return Check("bluetooth.missing", f"BlueZ does not answer on D-Bus: {error or type(error).__name__}")
    wanted = config.ble.adapter
    mine = {name: on for name, on in adapters.items() if wanted in (None, name)}
    if not mine:
        return Check("bluetooth.missing", f"no adapter{'' if wanted is None else f' {wanted}'}")
    if not any(mine.values()):
        return Check("bluetooth.unpowered", f"{', '.join(sorted(mine))} is not powered")
    return Check("bluetooth.ok", f"{', '.join(name for name, on in sorted(mine.items()) if on)} is powered")


async def _adapters() -> dict[str, bool]:
    """Return adapter → powered, as BlueZ tells."""
    from dbus_fast import BusType, Message, MessageType
    from dbus_fast.aio import MessageBus

    async with asyncio.timeout(BLUEZ_TIMEOUT_S):
        bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        try:
            asked = Message(
                destination="org.bluez",
                path="/",
                interface="org.freedesktop.DBus.ObjectManager",
                member="GetManagedObjects",
            )
            reply = await bus.call(asked)
            if reply is None or reply.message_type == MessageType.ERROR:
                raise AnyecgError("nobody is org.bluez" if reply is None else str(reply.body[0]))
            return {
                path.rsplit("/", 1)[1]: bool(found["org.bluez.Adapter1"]["Powered"].value)
                for path, found in reply.body[0].items()
                if "org.bluez.Adapter1" in found
            }
        finally:
            bus.disconnect()
