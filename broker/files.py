"""Writing a broker's files: whole or not at all, and for nobody else's eyes."""

from __future__ import annotations

import fcntl
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.errors import BrokerError


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom mosquitto runs as: its secrets are his, the authority's stay with whoever set it up."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> Owner:
        """Look a user up. Raises `BrokerError` if there is none of that name."""
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise BrokerError(f"there is no user {name!r} here: install mosquitto, or give --owner") from None
        return cls(name, found.pw_uid, found.pw_gid)

    @classmethod
    def usual(cls) -> Owner:
        """Return mosquitto's own user where root sets it up and there is one, else whoever asks."""
        me = pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            try:
                return cls.named("mosquitto")
            except BrokerError:
                pass
        return cls.named(me)

    def take(self, path: Path, *, group_only: bool = False) -> None:
        """Make a path the owner's (or only his group's) where we may."""
        if os.geteuid() == 0:
            os.chown(path, -1 if group_only else self.uid, self.gid)


def put(path: Path, content: bytes, owner: Owner | None = None, mode: int = 0o600) -> None:
    """Replace a file: after a crash it is the old one or the new one. Raises `BrokerError`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.unlink(missing_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if owner is not None:
            owner.take(beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BrokerError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder: who changes the same broker meanwhile waits."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BrokerError(f"no broker in {folder} ({error.strerror}): `anyecg broker init` makes one") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
