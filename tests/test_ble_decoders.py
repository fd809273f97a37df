"""Bytes to samples, protocol by protocol: exact on what the documents say, and nothing but FrameError on the rest."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.chunk import MISSING
from edge.errors import BadInputError
from edge.sources.ble import generic, heart_rate, movesense, polar, viatom
from edge.sources.ble.frame import Frame, FrameError, Motion

FUZZ = 100_000
PROFILE = """
name = "acme"
service = "12345678-1234-1234-1234-1234567890ab"
notify = "12345678-1234-1234-1234-1234567890AC"
fs_hz = 250
uv_per_lsb = 2.5
leads = ["I", "II"]
sample = "uint16be"
zero = 2048
missing = 65535
header_bytes = 6
trailer_bytes = 1
stamp = {offset = 0, type = "uint32le", unit_ns = 1000000, of = "first"}
counter = {offset = 4, type = "uint8"}
contact = {offset = 5, bit = 2, off_when = 1}
commands = {characteristic = "12345678-1234-1234-1234-1234567890ad", start = "01 02", stop = "00"}
"""


def profile(text: str = PROFILE) -> generic.Profile:
    import tomllib

    return generic.Profile.model_validate(tomllib.loads(text))


def polar_frame(values: list[int], stamp: int = 599_616_000_561_538_461, kind: int = 0, frame_type: int = 0) -> bytes:
    body = b"".join(v.to_bytes(3, "little", signed=True) for v in values)
    return bytes((kind,)) + struct.pack("<Q", stamp) + bytes((frame_type,)) + body


def test_polar_ecg() -> None:
    values = [0, 1, -1, 8_388_607, -8_388_608, 1234]
    frame = polar.decode_data(polar_frame(values))
    assert isinstance(frame, Frame)
    assert frame.samples.tolist() == [values]
    assert frame.last_ns == 599_616_000_561_538_461


def test_polar_motion_and_settings() -> None:
    data = bytes((2,)) + struct.pack("<Q", 5) + b"\1" + struct.pack("<6h", 1, -2, 1000, 3, 4, -1000)
    motion = polar.decode_data(data)
    assert isinstance(motion, Motion)
    assert motion.mg.tolist() == [[1, -2, 1000], [3, 4, -1000]]
    reply = polar.decode_reply(bytes.fromhex("f00100000000018200 01010e00".replace(" ", "")))
    assert reply.settings == {polar.RATE: (130,), polar.RESOLUTION: (14,)}
    assert polar.command(polar.START, polar.ECG, {0: 130, 1: 14}) == bytes.fromhex("02000001820001010e00")
    assert polar.decode_features(b"\x0f\x05\x00") == {polar.ECG, polar.ACC}
    assert polar.decode_reply(bytes.fromhex("f002000d00")).error_text == "device in charger"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0" * 9, "short"),
        (polar_frame([]), "length"),
        (polar_frame([1]) + b"\0", "length"),
        (polar_frame([1], frame_type=0x80), "frame_type"),
        (polar_frame([1], stamp=2**63), "stamp"),
    ],
)
def test_polar_refuses(data: bytes, reason: str) -> None:
    with pytest.raises(FrameError) as error:
        polar.decode_data(data)
    assert error.value.reason == reason


def test_heart_rate_flags() -> None:
    heart = heart_rate.decode_measurement(bytes((0b11111, 0x2C, 0x01, 10, 0)) + struct.pack("<HH", 1024, 512))
    assert (heart.hr_bpm, heart.contact, heart.energy_kj, heart.rr_s) == (300, True, 10, (1.0, 0.5))
    heart = heart_rate.decode_measurement(bytes((0, 61)))
    assert (heart.hr_bpm, heart.contact, heart.rr_s) == (61, None, ())
    assert heart_rate.decode_measurement(bytes((0b100, 61))).contact is False
    assert heart_rate.decode_battery(b"\x50") == 80
    for bad in (b"", b"\x65", b"\1\2"):
        with pytest.raises(FrameError):
            heart_rate.decode_battery(bad)


def movesense_parts(stamp_ms: int, values: list[int]) -> list[bytes]:
    body = struct.pack("<I16i", stamp_ms, *values)
    return [b"\x02\x45" + body[:30], b"\x03\x45" + body[30:]]


def test_movesense_parts_and_wrap() -> None:
    reader = movesense.Reader()
    values = list(range(-8, 8))
    first, second = movesense_parts(2**32 - 100, values)
    assert reader.read(first) is None
    frame = reader.read(second)
    assert isinstance(frame, Frame)
    assert frame.samples.tolist() == [values]
    assert frame.first_ns == (2**32 - 100) * 1_000_000
    wrapped = [reader.read(part) for part in movesense_parts(25, values)][1]
    assert isinstance(wrapped, Frame)
    assert wrapped.first_ns == (2**32 + 25) * 1_000_000
    with pytest.raises(FrameError):
        reader.read(second)
    assert reader.read(b"\x01\x45\xc8\x00") == movesense.Response(0x45, 200)


def viatom_answer(values: list[int], battery: int = 77, code: int = viatom.REALTIME) -> bytes:
    state = struct.pack("<HBB", 62, 0, battery) + bytes(16)
    payload = state + struct.pack("<H", len(values)) + struct.pack(f"<{len(values)}h", *values)
    return viatom.command(code, 1, payload)


def test_viatom_reassembles_and_resynchronises() -> None:
    reader = viatom.Reader()
    data = b"\xa5\x00junk" + viatom_answer([1, -2, 0x7FFF]) + viatom_answer([5])
    polls = [poll for at in range(0, len(data), 20) for poll in reader.read(data[at : at + 20])]
    assert [None if p.frame is None else p.frame.samples.tolist() for p in polls] == [[[1, -2, MISSING]], [[5]]]
    assert (polls[0].hr_bpm, polls[0].battery_percent) == (62, 77)
    broken = bytearray(viatom_answer([1]))
    broken[-1] ^= 1
    with pytest.raises(FrameError):
        viatom.Reader().read(bytes(broken))


def test_generic_profile() -> None:
    reader = generic.Reader(profile())

    def data(stamp: int, count: int, flags: int, *values: int) -> bytes:
        return struct.pack("<IBB", stamp, count, flags) + struct.pack(f">{len(values)}H", *values) + b"\xee"

    frame = reader.read(data(1000, 255, 0, 2048, 2049, 65535, 0))
    assert frame.samples.tolist() == [[0, MISSING], [1, -2048]]
    assert (frame.first_ns, frame.last_ns, frame.lost, frame.contact) == (1_000_000_000, None, 0, True)
    frame = reader.read(data(1008, 2, 4, 2048, 2048))
    assert (frame.lost, frame.contact) == (2, False)
    with pytest.raises(FrameError):
        reader.read(data(1, 2, 3, 4))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("header_bytes = 6", "header_bytes = 5"),
        ("uint16be", "float16"),
        ("fs_hz = 250", "fs_hz = 5"),
        ("1234567890ab", "nonsense"),
        ("zero = 2048", "zeros = 2048"),
        ('start = "01 02"', 'start = "xyz"'),
    ],
)
def test_bad_profile_is_named(tmp_path: Path, change: str, what: str) -> None:
    path = tmp_path / "acme.toml"
    path.write_text(PROFILE.replace(change, what, 1))
    with pytest.raises(BadInputError, match=r"acme\.toml"):
        generic.read_profile(path)


def mutated(rng: random.Random, sound: Callable[[], bytes]) -> bytes:
    """Noise, or something sound with bytes flipped, cut off or added."""
    if rng.random() < 0.3:
        return rng.randbytes(rng.randrange(0, 244))
    data = bytearray(sound())
    for _ in range(rng.randrange(3)):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    cut = rng.random()
    if cut < 0.2:
        del data[rng.randrange(len(data) + 1) :]
    elif cut < 0.3:
        data += rng.randbytes(rng.randrange(5))
    return bytes(data)


def protocols(rng: random.Random) -> dict[str, tuple[Callable[[bytes], object], Callable[[], bytes]]]:
    noise = [rng.randrange(-(2**20), 2**20) for _ in range(73)]
    gsp, wellue, acme = movesense.Reader(), viatom.Reader(), generic.Reader(profile())
    return {
        "polar": (polar.decode_data, lambda: polar_frame(noise[: rng.randrange(74)], rng.getrandbits(64))),
        "polar_control": (polar.decode_reply, lambda: bytes.fromhex("f0010000000001820001010e00")),
        "heart_rate": (heart_rate.decode_measurement, lambda: bytes((rng.randrange(32), 60, 0)) + rng.randbytes(4)),
        "battery": (heart_rate.decode_battery, lambda: rng.randbytes(1)),
        "movesense": (gsp.read, lambda: rng.choice(movesense_parts(rng.getrandbits(32), noise[:16]))),
        "viatom": (wellue.read, lambda: viatom_answer([n % 1000 for n in noise[: rng.randrange(20)]])),
        "generic": (acme.read, lambda: rng.randbytes(6 + 4 * rng.randrange(30) + 1)),
    }


@pytest.mark.parametrize("name", list(protocols(random.Random(0))))
def test_fuzz(name: str) -> None:
    """100,000 frames: a frame, nothing, or FrameError; values within int32, stamps within 62 bits, memory bounded."""
    rng = random.Random(f"{name} 1")
    decode, sound = protocols(rng)[name]
    outcomes = {"good": 0, "bad": 0}
    for _ in range(FUZZ):
        data = mutated(rng, sound)
        try:
            what = decode(data)
        except FrameError:
            outcomes["bad"] += 1
            continue
        outcomes["good"] += 1
        for part in what if isinstance(what, list) else [what]:
            frame = part.frame if isinstance(part, viatom.Poll) else part
            if isinstance(frame, Frame):
                assert frame.samples.dtype == np.int32
                assert frame.samples.ndim == 2
                assert frame.samples.size > 0
                assert abs(frame.last_ns or frame.first_ns or 0) < 2**62
    assert min(outcomes.values()) > FUZZ / 100, outcomes
