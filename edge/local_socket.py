"""Sockets in the state folder: for the daemon's own user and root, however deep the folder lies."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import AnyecgError

MAX_PATH_BYTES = 107
"""`sun_path` of Linux, without its end."""


def listen(path: Path, who: str, backlog: int) -> socket.socket:
    """Return a socket that listens at `path`, readable for its owner alone; a stale one is replaced.

    Raises:
        AnyecgError: `who` (such as "a gateway") already answers there, or it cannot be made.
    """
    if is_served(path):
        raise AnyecgError(f"{who} already answers on {path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with address(path) as name:
            listener.bind(name)
        path.chmod(0o600)  # before listen: nobody can have connected
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise AnyecgError(f"cannot make the socket {path}: {error.strerror}") from None
    return listener


def refusal(writer: asyncio.StreamWriter) -> str | None:
    """Return why the caller at the other end is not served; None for this process's own user and root."""
    sock = writer.get_extra_info("socket")
    uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if uid not in (os.geteuid(), 0):
        return f"the gateway serves user {os.geteuid()} and root, not user {uid}"
    return None


def is_served(path: Path) -> bool:
    """Return whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with address(path) as name:
                probe.connect(name)
        except PermissionError:
            return True  # somebody's; who asks there is told what to do
        except OSError:
            return False
    return True


@contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield an address for `path` that fits `sun_path`, however deep the state folder lies."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
