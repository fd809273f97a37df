"""Rhythm state as bytes: canonical CBOR of plain values, so that equal states give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cbor2

from edge.errors import AnyecgError

VERSION = 1


class Part:
    """Something with state: the attributes named in `STATE` hold only plain numbers, strings, bytes and lists."""

    STATE: ClassVar[tuple[str, ...]] = ()

    def save(self) -> list[Any]:
        """Return the state as plain values."""
        return [getattr(self, name) for name in self.STATE]

    def load(self, values: Sequence[Any]) -> None:
        """Take over what `save` returned."""
        for name, value in zip(self.STATE, values, strict=True):
            setattr(self, name, value)


def dump(identity: Sequence[Any], parts: Sequence[Part]) -> bytes:
    """Return the state of all parts, bound to who it belongs to."""
    return cbor2.dumps([VERSION, list(identity), [part.save() for part in parts]], canonical=True)


def restore(data: bytes, identity: Sequence[Any], parts: Sequence[Part]) -> None:
    """Fill the parts from `data`.

    Raises AnyecgError when it is damaged, or of another version, recording or rules table.
    """
    try:
        version, owner, values = cbor2.loads(data)
    except (cbor2.CBORDecodeError, TypeError, ValueError) as error:
        raise AnyecgError(f"rhythm state is damaged ({error}); analyse the recording again") from error
    if version != VERSION:
        raise AnyecgError(f"rhythm state has version {version}, this code reads {VERSION}; analyse the recording again")
    if owner != list(identity):
        raise AnyecgError(
            f"rhythm state belongs to {owner}, not to {list(identity)} (recording, rate, leads, rules); "
            "analyse the recording again"
        )
    for part, saved in zip(parts, values, strict=True):
        part.load(saved)
