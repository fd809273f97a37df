"""The wire format: what goes in comes out, the published schema agrees, and nothing a stranger sends does harm."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import jsonschema
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.chunk import FS_RANGE_HZ, MAX_LEADS, MISSING, Chunk
from edge.sources import payload
from edge.sources.leads import UV_PER_LSB_RANGE
from edge.sources.payload import Ack, PayloadError, decode, decode_ack, encode, encode_ack

SCHEMA = json.loads((Path(__file__).parent.parent / "docs/schema/chunk.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

CHUNK = Chunk(
    wearer="anna",
    device="patch-1",
    leads=("II", "V1"),
    fs_hz=250.0,
    boot=2**62 + 1,
    seq=7,
    oldest=3,
    device_time_ns=1_234_567_890_123_456_789,
    utc_ns=1_700_000_000_000_000_001,
    samples=np.array([[0, 1, -2, MISSING], [32767, -32767, 5, 6]], np.int32),
    uv_per_lsb=(5.0, 2.5),
    contact=True,
)


def same(a: Chunk, b: Chunk) -> bool:
    return replace(a, samples=None) == replace(b, samples=None) and bool(np.array_equal(a.samples, b.samples))


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    leads = draw(st.integers(1, MAX_LEADS))
    fs_hz = draw(st.floats(*FS_RANGE_HZ))
    n = draw(st.integers(1, 40))
    top = draw(st.sampled_from([100, 2**15 - 1, 2**15, 2**31 - 1]))
    value = st.one_of(st.integers(-top, top), st.just(MISSING))
    seq = draw(st.integers(0, 2**63 - 1))
    return Chunk(
        wearer=draw(st.from_regex(payload.ID, fullmatch=True)),
        device=draw(st.from_regex(payload.ID, fullmatch=True)),
        leads=tuple(draw(st.lists(st.from_regex(payload.LEAD, fullmatch=True), min_size=leads, max_size=leads))),
        fs_hz=fs_hz,
        boot=draw(st.integers(0, 2**63 - 1)),
        seq=seq,
        oldest=draw(st.integers(0, seq)),
        device_time_ns=draw(st.integers(0, 2**62 - 1)),
        utc_ns=draw(st.none() | st.integers(0, 2**62 - 1)),
        samples=np.array([draw(st.lists(value, min_size=n, max_size=n)) for _ in range(leads)], np.int32),
        uv_per_lsb=tuple(draw(st.lists(st.floats(*UV_PER_LSB_RANGE), min_size=leads, max_size=leads))),
        contact=draw(st.none() | st.booleans()),
    )


@settings(max_examples=150)
@given(chunks())
def test_round_trip_in_both_forms(chunk: Chunk) -> None:
    for form in ("cbor", "json"):
        data = encode(chunk, form)  # type: ignore[arg-type]
        assert same(decode(data, chunk.wearer, chunk.device), chunk)
        if form == "json":
            VALIDATOR.validate(json.loads(data))


def _fields(**changes: Any) -> dict[str, Any]:
    fields = {**json.loads(encode(CHUNK, "json")), **changes}
    return {name: value for name, value in fields.items() if value is not ...}


ACCEPTED: list[dict[str, Any]] = [
    _fields(),
    _fields(utc_ns=None, contact=None),
    _fields(utc_ns=..., contact=...),
    _fields(wearer="anna", device="patch-1"),
    _fields(uv_per_lsb=5, fs_hz=50),
    _fields(seq=7.0, oldest=0.0, samples=[[1.0], [2]]),
    _fields(x_battery={"percent": [80, {"deep": [[[1]]]}]}),
    _fields(leads=["own name", "unknown"]),
    _fields(leads=["II"], samples=[[None, 2**31 - 1, -(2**31) + 1]], uv_per_lsb=[1e-4]),
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("version", _fields(v=...)),
    ("version", _fields(v=2)),
    ("version", _fields(v=True)),
    ("version", _fields(v="1")),
    ("unknown_field", _fields(battery=80)),
    *(("missing_field", _fields(**{name: ...})) for name in payload._REQUIRED),
    ("identity", _fields(wearer="Anna")),
    ("identity", _fields(device=3)),
    ("leads", _fields(leads=[])),
    ("leads", _fields(leads=["I"] * 13, samples=[[1]] * 13, uv_per_lsb=1)),
    ("leads", _fields(leads="II")),
    ("leads", _fields(leads=["II", 2])),
    ("leads", _fields(leads=["II", ""])),
    ("leads", _fields(leads=["II", "V\n1"])),
    ("leads", _fields(leads=["II", "x" * 33])),
    ("rate", _fields(fs_hz=49.9)),
    ("rate", _fields(fs_hz=1e9)),
    ("rate", _fields(fs_hz="250")),
    ("rate", _fields(fs_hz=True)),
    ("sequence", _fields(boot=-1)),
    ("sequence", _fields(boot=2**63)),
    ("sequence", _fields(seq=7.5)),
    ("sequence", _fields(seq=None)),
    ("sequence", _fields(oldest="0")),
    ("stamp", _fields(device_time_ns=-1)),
    ("stamp", _fields(device_time_ns=2**62)),
    ("stamp", _fields(utc_ns="now")),
    ("stamp", _fields(utc_ns=1e30)),
    ("scale", _fields(uv_per_lsb=0)),
    ("scale", _fields(uv_per_lsb=[5, -5])),
    ("scale", _fields(uv_per_lsb="5")),
    ("scale", _fields(uv_per_lsb=[5, 1e5])),
    ("samples", _fields(samples=[])),
    ("samples", _fields(samples=[[], []])),
    ("samples", _fields(samples=[1, 2])),
    ("samples", _fields(samples=[[1], [1.5]])),
    ("samples", _fields(samples=[[1], [True]])),
    ("samples", _fields(samples=[[1], ["2"]])),
    ("samples", _fields(samples=[[1], [2**31]])),
    ("samples", _fields(samples=[[1], [-(2**31)]])),
    ("contact", _fields(contact=1)),
]
BEYOND_THE_SCHEMA: list[tuple[str, dict[str, Any]]] = [
    ("identity", _fields(wearer="bert")),
    ("sequence", _fields(oldest=8)),
    ("scale", _fields(uv_per_lsb=[5])),
    ("samples", _fields(samples=[[1], [2, 3]])),
    ("samples", _fields(samples=[[1]])),
    ("samples", _fields(samples=[[1] * 2501] * 2)),
]


@pytest.mark.parametrize("fields", ACCEPTED)
def test_schema_and_decoder_accept_the_same(fields: dict[str, Any]) -> None:
    VALIDATOR.validate(fields)
    assert decode(json.dumps(fields).encode(), "anna", "patch-1").device == "patch-1"


@pytest.mark.parametrize(("reason", "fields"), REFUSED)
def test_schema_and_decoder_refuse_the_same(reason: str, fields: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(fields)
    with pytest.raises(PayloadError) as caught:
        decode(json.dumps(fields).encode(), "anna", "patch-1")
    assert caught.value.reason == reason


@pytest.mark.parametrize(("reason", "fields"), BEYOND_THE_SCHEMA)
def test_what_the_schema_cannot_say_is_refused_too(reason: str, fields: dict[str, Any]) -> None:
    VALIDATOR.validate(fields)
    with pytest.raises(PayloadError) as caught:
        decode(json.dumps(fields).encode(), "anna", "patch-1")
    assert caught.value.reason == reason


def test_the_schema_states_the_limits_of_the_code() -> None:
    fields, shared = SCHEMA["properties"], SCHEMA["$defs"]
    assert set(fields) == {*payload._REQUIRED, *payload._OPTIONAL}
    assert set(SCHEMA["required"]) == {*payload._REQUIRED, "v"}
    assert (fields["fs_hz"]["minimum"], fields["fs_hz"]["maximum"]) == FS_RANGE_HZ
    assert fields["leads"]["maxItems"] == fields["samples"]["maxItems"] == MAX_LEADS
    assert fields["leads"]["items"]["pattern"] == f"^{payload.LEAD.pattern}$"
    assert shared["id"]["pattern"] == f"^{payload.ID.pattern}$"
    assert fields["samples"]["items"]["maxItems"] == payload.MAX_CHUNK_S * FS_RANGE_HZ[1]
    assert (shared["scale"]["minimum"], shared["scale"]["maximum"]) == UV_PER_LSB_RANGE
    assert (shared["count"]["maximum"], shared["stamp"]["maximum"]) == (payload.MAX_INT, payload.MAX_NS)
    assert str(payload.MAX_PAYLOAD_BYTES) in SCHEMA["description"]


def _cbor(samples: Any = ..., **changes: Any) -> bytes:
    fields = _fields(**changes)
    fields["samples"] = [cbor2.CBORTag(77, b"\x01\x00\xfe\xff")] * 2 if samples is ... else samples
    return cbor2.dumps(fields)


@pytest.mark.parametrize(
    ("tag", "data"),
    [
        (77, b"\x01\x00\xfe\xff\x00\x80"),
        (73, b"\x00\x01\xff\xfe\x80\x00"),
        (78, b"\x01\x00\x00\x00\xfe\xff\xff\xff\x00\x00\x00\x80"),
        (74, b"\x00\x00\x00\x01\xff\xff\xff\xfe\x80\x00\x00\x00"),
    ],
)
def test_typed_arrays_of_both_widths_and_byte_orders(tag: int, data: bytes) -> None:
    chunk = decode(_cbor([cbor2.CBORTag(tag, data)] * 2), "anna", "patch-1")
    assert chunk.samples.tolist() == [[1, -2, MISSING]] * 2


def test_other_spellings_of_cbor_are_read() -> None:
    assert decode(b"\xd9\xd9\xf7" + _cbor(), "anna", "patch-1").n == 2
    assert decode(cbor2.dumps(cbor2.loads(_cbor()), canonical=True), "anna", "patch-1").n == 2
    assert decode(cbor2.dumps({**cbor2.loads(_cbor()), "fs_hz": 128}), "anna", "patch-1").fs_hz == 128
    assert decode(b"\xbf" + _cbor()[1:] + b"\xff", "anna", "patch-1").n == 2  # indefinite length


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xf6",
        b"\xff",
        b"\x80",
        b"\xa1",
        b"\xbf",
        b"\xa1\x61v\xff",
        b"{" * 200_000,
        b'{"v":' + b"[" * 200_000,
        b'{"v":1,"v":1}',
        b'{"v":NaN}',
        b'{"v":' + b"9" * 100_000 + b"}",
        b'{"v":"\xff"}',
        b"\x81" * 200_000,
        b"\xa1\x61v\xc2\x5a\x7f\xff\xff\xff",  # a bignum of 2 GB
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",  # a map of 2^64 pairs
        b"\xa1\x61v\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\xa1\x61v\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\xa1\x61v\xd8\x23\x61(",  # a regular expression
        b"\xa2\x61v\x01\x61v\x01",
        _cbor() + b"\x00",
        _cbor()[:-1],
        _cbor([cbor2.CBORTag(77, b"\x01")] * 2),
        _cbor([cbor2.CBORTag(77, "text")] * 2),
        _cbor([cbor2.CBORTag(79, b"\x01\x01")] * 2),
    ],
)
def test_malformed_payloads_are_syntax_errors(data: bytes) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(data, "anna", "patch-1")
    assert caught.value.reason == "syntax"
    assert len(str(caught.value)) < 400


def test_oversize_is_refused_unread() -> None:
    with pytest.raises(PayloadError) as caught:
        decode(b" " * (payload.MAX_PAYLOAD_BYTES + 1), "anna", "patch-1")
    assert caught.value.reason == "too_large"
    big = replace(
        CHUNK, fs_hz=2000.0, leads=("I",) * 12, uv_per_lsb=(1.0,) * 12, samples=np.zeros((12, 20000), np.int32)
    )
    with pytest.raises(PayloadError) as caught:
        encode(big)
    assert caught.value.reason == "too_large"
    with pytest.raises(PayloadError):
        encode(replace(CHUNK, wearer="Anna"))


def test_acknowledgements() -> None:
    assert decode_ack(encode_ack(Ack(2**63 - 1, 5))) == Ack(2**63 - 1, 5)
    assert json.loads(encode_ack(Ack(1, 2))) == {"boot": 1, "seq": 2}
    for wrong in (b"", b"[1,2]", b'{"boot":1}', b'{"boot":1,"seq":"2"}', b"\xff"):
        with pytest.raises(PayloadError):
            decode_ack(wrong)


class _Fuzzer:
    """Seeded hostile payloads: noise, damaged chunks, and well-formed CBOR of the wrong shape."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.valid = [encode(CHUNK), encode(CHUNK, "json"), _cbor(), json.dumps(_fields(x_a=[1, {"b": None}])).encode()]
        self.atoms: list[Any] = [
            *(None, True, False, 0, 1, -1, 23, 24, 255, 2**31, 2**63 - 1, 2**64 - 1, -(2**64)),
            *(0.5, 1e308, float("nan"), float("inf"), "", "II", "x_", b"", b"\x00\x80", [], {}),
            *(cbor2.CBORTag(77, b"\x00\x80"), cbor2.CBORTag(78, b"\x00"), cbor2.CBORTag(2, b"\xff" * 9)),
        ]

    def noise(self) -> bytes:
        head = self.rng.choice([b"", b"{", b"\xa1", b"\xbf", b"\xd9\xd9\xf7", b'{"v":1,'])
        return head + self.rng.randbytes(self.rng.randint(0, 60))

    def damaged(self) -> bytes:
        data = bytearray(self.rng.choice(self.valid))
        for _ in range(self.rng.randint(1, 4)):
            at = self.rng.randrange(len(data) or 1)
            what = self.rng.randrange(5)
            if what == 0:
                data[at : at + 1] = self.rng.randbytes(1)
            elif what == 1:
                del data[at : at + self.rng.randint(1, 9)]
            elif what == 2:
                data[at:at] = self.rng.randbytes(self.rng.randint(1, 9))
            elif what == 3:
                other = self.rng.choice(self.valid)
                start = self.rng.randrange(len(other))
                data[at:at] = other[start : start + self.rng.randint(1, 30)]
            else:
                data = data[:at]
        return bytes(data)

    def misshapen(self) -> bytes:
        fields = cbor2.loads(self.valid[0])
        for _ in range(self.rng.randint(1, 3)):
            name = self.rng.choice([*fields, "wearer", "x_1", "other"])
            fields[name] = self.any(0)
            if self.rng.random() < 0.2:
                del fields[name]
        if self.rng.random() < 0.3:
            try:
                return json.dumps(fields).encode()
            except TypeError:
                pass
        return cbor2.dumps(fields)

    def any(self, depth: int) -> Any:
        if depth < 6 and self.rng.random() < 0.3:
            return [self.any(depth + 1) for _ in range(self.rng.randint(0, 4))]
        if depth < 6 and self.rng.random() < 0.1:
            return {str(i): self.any(depth + 1) for i in range(self.rng.randint(0, 3))}
        return self.rng.choice(self.atoms)

    def one(self) -> bytes:
        return self.rng.choice([self.noise, self.damaged, self.damaged, self.misshapen])()


@pytest.mark.parametrize("seed", [20250114])
def test_no_input_crashes_the_decoder_or_makes_it_grow(seed: int) -> None:
    fuzzer = _Fuzzer(seed)
    outcomes: dict[str, int] = {}

    def feed(count: int) -> None:
        for _ in range(count):
            data = fuzzer.one()
            try:
                decode(data, "anna", "patch-1")
                outcome = "accepted"
            except PayloadError as error:
                outcome = error.reason
            except Exception as error:
                raise AssertionError(f"seed {seed}: {data.hex()}") from error
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    process = psutil.Process()
    feed(20_000)
    gc.collect()
    before = process.memory_info().rss
    feed(80_000)
    gc.collect()
    assert process.memory_info().rss - before < 8 << 20
    tracemalloc.start()
    feed(2_000)
    traced = tracemalloc.get_traced_memory()[0]
    feed(4_000)
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] - traced < 64 << 10
    tracemalloc.stop()
    reachable = set(payload.REASONS) - {"too_large", "topic"}
    assert reachable | {"accepted"} == outcomes.keys(), outcomes
