"""The chunk on the wire: CBOR with RFC 8746 typed arrays, or JSON. Schema: docs/schema/chunk.schema.json."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cbor2
import numpy as np
from numpy.typing import NDArray

from edge.chunk import FS_RANGE_HZ, MAX_LEADS, MISSING, Chunk
from edge.errors import BadInputError
from edge.sources import cbor
from edge.sources.leads import UV_PER_LSB_RANGE, plausible_scale

VERSION = 1
MAX_PAYLOAD_BYTES = 256 * 1024
MAX_CHUNK_S = 10.0
MAX_INT = 2**63 - 1
MAX_NS = 2**62 - 1
"""Largest stamp (year 2116), so that stamp + duration stays within 64 bits."""
ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
LEAD = re.compile(r"[!-~]([ -~]{0,30}[!-~])?")
EXTENSION_PREFIX = "x_"
"""Fields of the maker's own begin with this and are ignored."""

Reason = Literal[
    "too_large",
    "topic",
    "syntax",
    "version",
    "unknown_field",
    "missing_field",
    "identity",
    "leads",
    "rate",
    "sequence",
    "stamp",
    "scale",
    "samples",
    "contact",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""What a refused message is counted under."""
_SELF_DESCRIBED = b"\xd9\xd9\xf7"
_REQUIRED = ("leads", "fs_hz", "boot", "seq", "oldest", "device_time_ns", "uv_per_lsb", "samples")
_OPTIONAL = ("v", "wearer", "device", "utc_ns", "contact")


class PayloadError(BadInputError):
    """A message that is not a chunk; `reason` is what it is counted under."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Ack:
    """End-to-end acknowledgement: every chunk of `boot` up to `seq` is committed or was given up by the sender."""

    boot: int
    seq: int


def decode(payload: bytes, wearer: str, device: str) -> Chunk:
    """Return the chunk in `payload`, CBOR or JSON, that came under the topic of `wearer` and `device`.

    Raises PayloadError, and nothing else, whatever the bytes.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PayloadError("too_large", f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are read")
    fields = _parse(payload)
    _check_fields(fields, wearer, device)
    leads = fields["leads"]
    if not isinstance(leads, list) or not 1 <= len(leads) <= MAX_LEADS:
        raise PayloadError("leads", f"leads must be a list of 1 to {MAX_LEADS} names")
    chunk = Chunk(
        wearer=wearer,
        device=device,
        leads=tuple(leads),
        fs_hz=_number(fields["fs_hz"], "rate", "fs_hz"),
        boot=_integer(fields["boot"], "sequence", "boot"),
        seq=_integer(fields["seq"], "sequence", "seq"),
        oldest=_integer(fields["oldest"], "sequence", "oldest"),
        device_time_ns=_integer(fields["device_time_ns"], "stamp", "device_time_ns"),
        utc_ns=None if fields.get("utc_ns") is None else _integer(fields["utc_ns"], "stamp", "utc_ns"),
        samples=_samples(fields["samples"], len(leads)),
        uv_per_lsb=_scales(fields["uv_per_lsb"], len(leads)),
        contact=_contact(fields.get("contact")),
    )
    check(chunk)
    return chunk


def encode(chunk: Chunk, form: Literal["cbor", "json"] = "cbor") -> bytes:
    """Return `chunk` as a payload; int16 where the values allow it. Raises PayloadError as `decode` would."""
    check(chunk)
    fields: dict[str, Any] = {
        "v": VERSION,
        "leads": list(chunk.leads),
        "fs_hz": chunk.fs_hz,
        "boot": chunk.boot,
        "seq": chunk.seq,
        "oldest": chunk.oldest,
        "device_time_ns": chunk.device_time_ns,
        "uv_per_lsb": list(chunk.uv_per_lsb),
    }
    if chunk.utc_ns is not None:
        fields["utc_ns"] = chunk.utc_ns
    if chunk.contact is not None:
        fields["contact"] = chunk.contact
    if form == "json":
        fields["samples"] = [[None if x == MISSING else x for x in row] for row in chunk.samples.tolist()]
        payload = json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()
    else:
        fields["samples"] = [_typed_array(row) for row in chunk.samples]
        payload = cbor2.dumps(fields)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PayloadError(
            "too_large", f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES}; send less at once"
        )
    return payload


def check(chunk: Chunk) -> None:
    """Raise PayloadError unless every field of `chunk` is within its limits."""
    for kind, value in (("wearer", chunk.wearer), ("device", chunk.device)):
        if not ID.fullmatch(value):
            raise PayloadError("identity", f"{kind} {value!r} must match {ID.pattern}")
    if not 1 <= len(chunk.leads) <= MAX_LEADS:
        raise PayloadError("leads", f"{len(chunk.leads)} leads, 1 to {MAX_LEADS} are possible")
    for lead in chunk.leads:
        if not isinstance(lead, str) or not LEAD.fullmatch(lead):
            raise PayloadError("leads", f"lead name {_show(lead)} must be 1 to 32 printable ASCII characters")
    if not FS_RANGE_HZ[0] <= chunk.fs_hz <= FS_RANGE_HZ[1]:
        raise PayloadError("rate", f"fs_hz {chunk.fs_hz} is outside {FS_RANGE_HZ[0]:g}-{FS_RANGE_HZ[1]:g}")
    if not (0 <= chunk.boot <= MAX_INT and 0 <= chunk.oldest <= chunk.seq <= MAX_INT):
        raise PayloadError("sequence", "boot, seq and oldest must be 0 to 2^63-1, and oldest not above seq")
    if not (0 <= chunk.device_time_ns <= MAX_NS and (chunk.utc_ns is None or 0 <= chunk.utc_ns <= MAX_NS)):
        raise PayloadError("stamp", "device_time_ns and utc_ns must be 0 to 2^62-1")
    low, high = UV_PER_LSB_RANGE
    if len(chunk.uv_per_lsb) != len(chunk.leads) or not all(map(plausible_scale, chunk.uv_per_lsb)):
        raise PayloadError("scale", f"uv_per_lsb must be one number of {low:g} to {high:g} per lead")
    longest = math.floor(MAX_CHUNK_S * chunk.fs_hz)
    if len(chunk.samples) != len(chunk.leads) or not 1 <= chunk.n <= longest:
        raise PayloadError("samples", f"samples must be 1 to {longest} values ({MAX_CHUNK_S:g} s) for each lead")


def encode_ack(ack: Ack) -> bytes:
    """Return the payload of the acknowledgement topic: JSON, so that any maker can read it."""
    return b'{"boot":%d,"seq":%d}' % (ack.boot, ack.seq)


def decode_ack(payload: bytes) -> Ack:
    """Raises PayloadError for anything but what `encode_ack` writes (field order and spaces aside)."""
    fields = _parse(payload[:MAX_PAYLOAD_BYTES])
    if not {"boot", "seq"} <= fields.keys():
        raise PayloadError("missing_field", "an acknowledgement needs boot and seq")
    return Ack(_integer(fields["boot"], "sequence", "boot"), _integer(fields["seq"], "sequence", "seq"))


def _parse(payload: bytes) -> dict[str, Any]:
    parse: Callable[[bytes], Any] = cbor.loads
    data = payload.removeprefix(_SELF_DESCRIBED)
    if data == payload and payload.lstrip()[:1] == b"{":
        parse = _loads_json
    try:
        fields = parse(data)
    except (ValueError, RecursionError) as error:
        raise PayloadError("syntax", f"neither a CBOR map nor a JSON object: {str(error)[:200]}") from None
    if not isinstance(fields, dict):
        raise PayloadError("syntax", f"a chunk is a map, not {type(fields).__name__}")
    return fields


def _loads_json(payload: bytes) -> Any:
    return json.loads(payload.decode(), parse_constant=_no_constant, object_pairs_hook=_unique)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field comes twice")
    return fields


def _check_fields(fields: dict[str, Any], wearer: str, device: str) -> None:
    version = fields.get("v")
    if type(version) not in (int, float) or version != VERSION:
        raise PayloadError("version", f"v must be {VERSION}, not {_show(version)}")
    for name in fields:
        if name not in _REQUIRED and name not in _OPTIONAL and not name.startswith(EXTENSION_PREFIX):
            raise PayloadError("unknown_field", f"field {_show(name)} is not known; your own begin with x_")
    for name in _REQUIRED:
        if name not in fields:
            raise PayloadError("missing_field", f"field {name!r} is missing")
    for name, expected in (("wearer", wearer), ("device", device)):
        if name in fields and fields[name] != expected:
            raise PayloadError("identity", f"{name} {_show(fields[name])} is not the topic's {expected!r}")


def _show(value: Any) -> str:
    """A stranger's value as it may stand in a message: short, escaped, never nested."""
    if isinstance(value, str):
        return repr(value[:80])
    return repr(value)[:40] if value is None or isinstance(value, (bool, float)) else type(value).__name__


def _integer(value: Any, reason: Reason, name: str) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise PayloadError(reason, f"{name} must be a whole number")


def _number(value: Any, reason: Reason, name: str) -> float:
    if type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:
            pass
    raise PayloadError(reason, f"{name} must be a number")


def _scales(value: Any, leads: int) -> tuple[float, ...]:
    if isinstance(value, list):
        return tuple(_number(scale, "scale", "uv_per_lsb") for scale in value)
    return (_number(value, "scale", "uv_per_lsb"),) * leads


def _contact(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise PayloadError("contact", "contact must be true, false or null")


def _samples(value: Any, leads: int) -> NDArray[np.int32]:
    if not isinstance(value, list) or len(value) != leads:
        raise PayloadError("samples", f"samples must be a list of {leads} arrays, one per lead")
    rows = [row if isinstance(row, np.ndarray) else _row(row) for row in value]
    if len({row.size for row in rows}) != 1:
        raise PayloadError("samples", "every lead must have the same number of samples")
    return np.stack(rows)


def _row(value: Any) -> NDArray[np.int32]:
    if not isinstance(value, list):
        raise PayloadError("samples", "each lead's samples must be a typed array (CBOR) or a list (JSON)")
    row = [MISSING if x is None else _integer(x, "samples", "a sample") for x in value]
    if any(not MISSING < x <= -MISSING - 1 for x, given in zip(row, value, strict=True) if given is not None):
        raise PayloadError("samples", "a sample is outside ±(2^31 - 1); null marks a missing one")
    return np.array(row, np.int32)


def _typed_array(row: NDArray[np.int32]) -> cbor2.CBORTag:
    recorded = row[row != MISSING]
    if recorded.size == 0 or (recorded.min() > -(2**15) and recorded.max() < 2**15):
        return cbor2.CBORTag(77, np.where(row == MISSING, -(2**15), row).astype("<i2").tobytes())
    return cbor2.CBORTag(78, row.astype("<i4").tobytes())
