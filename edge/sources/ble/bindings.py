"""`devices.toml` in the state folder: which device is worn by whom.

Not in `config.toml`, which is a person's own file with comments that a program would lose; not in the database, which
the daemon alone writes. `anyecg devices add|remove` writes it whole; the daemon reads it again when told to.
"""

from __future__ import annotations

import fcntl
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edge.config import Identifier
from edge.errors import BadInputError
from edge.sources.ble.generic import Profile, read_profile

FILE_NAME = "devices.toml"
PROFILE_FOLDER = "ble-profiles"
MAX_DEVICES = 64
MAX_FILE_BYTES = 200_000
Address = Annotated[str, StringConstraints(to_upper=True, pattern=r"(?i)^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]


class Binding(BaseModel):
    """One device on one wearer; the table's name is the device's id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wearer: Identifier
    address: Address
    kind: Identifier
    """polar, movesense, heart_rate, viatom, or the name of a profile."""
    name: Annotated[str, StringConstraints(max_length=64)] = ""
    """As advertised when it was bound."""
    lead: Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]{0,30}[!-~])?$")] = "ECG"
    fs_hz: Annotated[float, Field(ge=50, le=2000)] | None = None
    """Rate to ask for, of devices that offer several (Movesense)."""
    motion: bool = True
    """Also read the accelerometer, if there is one."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: Annotated[dict[Identifier, Binding], Field(max_length=MAX_DEVICES)] = {}


def read_bindings(state: Path) -> dict[str, Binding]:
    """Return device id → binding; none without a file. Raises `BadInputError` naming file and key."""
    path = state / FILE_NAME
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInputError(f"{path} is larger than {MAX_FILE_BYTES} bytes; that is no list of devices")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        found = _File.model_validate(values).devices
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{path}: not TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInputError(f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    addresses: dict[str, str] = {}
    for device, binding in found.items():
        if binding.address in addresses:
            raise BadInputError(f"{path}: {device} and {addresses[binding.address]} are both {binding.address}")
        addresses[binding.address] = device
    return dict(found)


def read_profiles(state: Path) -> dict[str, Profile]:
    """Return name → profile of every TOML file in the profile folder. Raises `BadInputError` naming file and key."""
    found: dict[str, Profile] = {}
    for path in sorted((state / PROFILE_FOLDER).glob("*.toml"))[:MAX_DEVICES]:
        profile = read_profile(path)
        found[profile.name] = profile
    return found


def change_bindings(state: Path, change: Callable[[dict[str, Binding]], None]) -> None:
    """Read, change and write the file; nobody else can in between, and a reader sees the old or the new one."""
    state.mkdir(parents=True, exist_ok=True)
    with _locked(state):
        bindings = read_bindings(state)
        change(bindings)
        if len(bindings) > MAX_DEVICES:
            raise BadInputError(f"at most {MAX_DEVICES} devices can be bound")
        text = "# Written by `anyecg devices`.\n" + "".join(
            f"\n[devices.{device}]\n" + "".join(_lines(binding)) for device, binding in sorted(bindings.items())
        )
        fresh = state / f".{FILE_NAME}.new"
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, state / FILE_NAME)


def _lines(binding: Binding) -> Iterator[str]:
    for key, value in binding.model_dump(exclude_defaults=True).items():
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}\n"


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    with (state / f".{FILE_NAME}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
