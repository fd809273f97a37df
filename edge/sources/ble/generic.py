"""A device described in TOML: one notify characteristic, a header, samples of one format. docs/ble.md explains it.

The description is checked when it is read; decoding is a pure function of the description and the bytes.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from edge.chunk import FS_RANGE_HZ, MAX_LEADS, MISSING
from edge.errors import BadInputError
from edge.sources.ble.frame import Frame, FrameError, int24_le

MAX_FILE_BYTES = 100_000
Uuid = Annotated[str, StringConstraints(to_lower=True, pattern=r"(?i)^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$")]
Hex = Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2} ?){0,64}$")]
Integer = Literal["uint8", "uint16le", "uint32le", "uint64le", "uint16be", "uint32be", "uint64be"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Stamp(_Table):
    """Where a frame says when it was taken."""

    offset: Annotated[int, Field(ge=0, le=512)]
    type: Integer = "uint32le"
    unit_ns: Annotated[int, Field(ge=1, le=10**9)] = 1_000_000
    """Nanoseconds per count of the stamp."""
    of: Literal["first", "last"] = "first"
    """Which sample of the frame it belongs to."""


class Counter(_Table):
    """Where a frame counts itself; it shows lost frames of devices without stamps."""

    offset: Annotated[int, Field(ge=0, le=512)]
    type: Literal["uint8", "uint16le", "uint16be", "uint32le", "uint32be"] = "uint8"


class Contact(_Table):
    """A bit that says whether the electrodes touch the body."""

    offset: Annotated[int, Field(ge=0, le=512)]
    bit: Annotated[int, Field(ge=0, le=7)] = 0
    off_when: Literal[0, 1] = 1
    """Value of the bit that means off the body."""


class Commands(_Table):
    """What to write to make the device stream, and to stop it."""

    characteristic: Uuid
    start: Hex
    """Bytes in hexadecimal."""
    stop: Hex = ""


class Profile(_Table):
    """The whole file."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    service: Uuid
    notify: Uuid
    fs_hz: Annotated[float, Field(ge=FS_RANGE_HZ[0], le=FS_RANGE_HZ[1])]
    uv_per_lsb: Annotated[float, Field(gt=0, le=1e6)]
    leads: Annotated[list[str], Field(min_length=1, max_length=MAX_LEADS)] = ["ECG"]
    """Names; samples of several leads alternate."""
    sample: Literal["int16le", "int16be", "int24le", "int32le", "int32be", "uint16le", "uint16be"] = "int16le"
    zero: int = 0
    """Digital value of 0 mV, subtracted."""
    missing: int | None = None
    """Digital value that means that no sample was taken."""
    header_bytes: Annotated[int, Field(ge=0, le=64)] = 0
    trailer_bytes: Annotated[int, Field(ge=0, le=64)] = 0
    stamp: Stamp | None = None
    counter: Counter | None = None
    contact: Contact | None = None
    commands: Commands | None = None

    @model_validator(mode="after")
    def _fields_lie_in_the_header(self) -> Self:
        for name in ("stamp", "counter", "contact"):
            part: Stamp | Counter | Contact | None = getattr(self, name)
            if part is None:
                continue
            end = part.offset + (1 if isinstance(part, Contact) else _width(part.type))
            if end > self.header_bytes:
                raise ValueError(f"{name} ends at byte {end}, behind the header of {self.header_bytes} bytes")
        return self


@dataclass(slots=True)
class Reader:
    """Decodes the notifications of one connection; remembers stamp and counter only."""

    profile: Profile
    _stamp: int | None = field(default=None)
    _count: int | None = field(default=None)

    def read(self, data: bytes) -> Frame:
        """Read one notification. Raises FrameError."""
        p = self.profile
        if len(data) <= p.header_bytes + p.trailer_bytes:
            raise FrameError("short", f"{len(data)} bytes, header and trailer have {p.header_bytes + p.trailer_bytes}")
        samples = _samples(p, data[p.header_bytes : len(data) - p.trailer_bytes])
        stamp_ns = None if p.stamp is None else self._unwrapped(p.stamp, data) * p.stamp.unit_ns
        if stamp_ns is not None and stamp_ns >= 1 << 62:
            raise FrameError("stamp", f"stamp {stamp_ns} ns lies beyond the year 2116")
        contact = None
        if p.contact is not None:
            contact = (data[p.contact.offset] >> p.contact.bit & 1) != p.contact.off_when
        of_last = p.stamp is not None and p.stamp.of == "last"
        return Frame(
            samples,
            last_ns=stamp_ns if of_last else None,
            first_ns=None if of_last else stamp_ns,
            lost=self._lost(data),
            contact=contact,
        )

    def _unwrapped(self, stamp: Stamp, data: bytes) -> int:
        value = _integer(data, stamp.offset, stamp.type)
        turn = 1 << 8 * _width(stamp.type)
        if self._stamp is not None:
            near = value + round((self._stamp - value) / turn) * turn
            value = near if near >= 0 else value
        self._stamp = value
        return value

    def _lost(self, data: bytes) -> int:
        counter = self.profile.counter
        if counter is None:
            return 0
        value = _integer(data, counter.offset, counter.type)
        before, self._count = self._count, value
        turn = 1 << 8 * _width(counter.type)
        lost = 0 if before is None else (value - before - 1) % turn
        return lost if lost < turn // 2 else 0  # the device counts anew


def read_profile(path: Path) -> Profile:
    """Read a description. Raises `BadInputError` naming file and key."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInputError(f"{path} is larger than {MAX_FILE_BYTES} bytes; that is no profile")
        return Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{path}: not TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "profile"
        raise BadInputError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def _samples(p: Profile, body: bytes) -> NDArray[np.int32]:
    width = _width(p.sample)
    if len(body) % (width * len(p.leads)):
        raise FrameError("length", f"{len(body)} bytes of {p.sample} in {len(p.leads)} leads")
    if p.sample == "int24le":
        values = int24_le(body).astype(np.int64)
    else:
        order = ">" if p.sample.endswith("be") else "<"
        kind = "u" if p.sample.startswith("u") else "i"
        values = np.frombuffer(body, f"{order}{kind}{width}").astype(np.int64)
    gone = np.zeros(len(values), np.bool_) if p.missing is None else values == p.missing
    values = np.clip(values - p.zero, MISSING + 1, 2**31 - 1)
    values[gone] = MISSING
    return np.ascontiguousarray(values.reshape(-1, len(p.leads)).T.astype(np.int32))


def _width(kind: str) -> int:
    return int("".join(filter(str.isdigit, kind))) // 8


def _integer(data: bytes, offset: int, kind: str) -> int:
    return int.from_bytes(data[offset : offset + _width(kind)], "big" if kind.endswith("be") else "little")
