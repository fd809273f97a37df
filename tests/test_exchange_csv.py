"""CSV in and out, and Kardia files in."""

from __future__ import annotations

import csv
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from exchange_kit import FS_HZ, PERIOD, START, new_state, read_so_far, run, short_record, stored, value

from edge.chunk import MISSING
from edge.errors import BadInputError
from edge.exchange.csv_files import _cell
from edge.sources.record import read_record
from edge.store import queries
from edge.store.database import open_readonly

APPLE = (
    "Name,Ann Example\nDate of Birth,1 Jan 1980\nRecorded Date,2023-05-06 08:06:05 -0700\nClassification,Sinus Rhythm\n"
    'Symptoms,\nSoftware Version,1.90\nDevice,"Watch6,2"\nSample Rate,511.899 hertz\n\nLead,Lead I\nUnit,µV\n\n'
)


def test_an_apple_watch_file_says_everything_itself(tmp_path: Path) -> None:
    path = tmp_path / "ecg_2023-05-06.csv"
    path.write_text(APPLE + "\n-87.123\n12.5\n1000\n")
    record = read_record(path)
    assert (record.leads, record.fs_hz, record.uv_per_lsb) == (("I",), 511.899, (0.1,))
    assert record.samples.tolist() == [[-871, 125, 10000]]
    assert record.start_utc_ns == 1_683_385_565_000_000_000
    path.write_text(
        'Name,X\nDatum,2023-05-06 08:06:05 +0200\nAbtastrate,"512,5 Hertz"\nAbleitung,Ableitung I\n'
        'Einheit,µV\n\n"-8,25"\n3\n'
    )
    german = read_record(path)
    assert (german.fs_hz, german.samples.tolist()) == (512.5, [[-82, 30]])


def layout(path: Path, **more: str) -> Path:
    lines = {"fs_hz": "100", **{k: v for k, v in more.items() if k != "tail"}}
    text = "\n".join(f"{k} = {v}" for k, v in lines.items())
    path.with_suffix(".toml").write_text(
        text + more.get("tail", '\n[[leads]]\ncolumn = "ecg"\nname = "I"\nunit = "mV"\n')
    )
    return path


def test_a_described_file_has_its_rows_where_their_times_say(tmp_path: Path) -> None:
    path = layout(tmp_path / "a.csv", delimiter='";"', decimal='","', start='"2026-01-01T00:00:00Z"',
                  time='{column = "t", unit = "ms"}')  # fmt: skip
    path.write_text("t;other;ecg\n1000;x;0,5\n1010;x;\n1020;x;-1,25\n1050;x;nan\n1060;x;2\n")
    record = read_record(path)
    assert record.samples.tolist() == [[5000, MISSING, -12500, MISSING, MISSING, MISSING, 20000]]
    assert record.start_utc_ns == 1_767_225_600_000_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fs_hz": "-250"}, "sampling rate"),
        ({"fs_hz": "nan"}, "fs_hz.*finite"),
        ({"fs_hz": '"250"'}, "fs_hz"),
        ({"colour": "1"}, "colour"),
        ({"start": '"yesterday"'}, "no ISO 8601 time"),
        ({"start": '"2026-01-01T00:00:00"'}, "lacks its offset"),
        ({"tail": '\n[[leads]]\ncolumn = "nope"\nname = "I"\nunit = "mV"\n'}, "columns: t, ecg"),
        ({"tail": '\n[[leads]]\ncolumn = "ecg"\nname = "I"\nunit = "mmHg"\n'}, "leads.0.unit"),
        ({"tail": '\n[[leads]]\ncolumn = "ecg"\nname = "I"\nunit = "mV"\nuv_per_lsb = 0.0\n'}, "impossible"),
        ({"tail": "\nleads = []\n"}, "leads"),
        ({"tail": "\n[[leads]\n"}, "not TOML"),
    ],
)
def test_a_wrong_layout_says_which_key(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = layout(tmp_path / "a.csv", **change)
    path.write_text("t,ecg\n0,1\n10,2\n")
    with pytest.raises(BadInputError, match=message):
        read_record(path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("t,ecg\n0,one\n", "'one' is no number"),
        ("t,ecg\n0,1\n0\n", "has 1 columns"),
        ("t,ecg\n0,inf\n", "infinite"),
        ("t,ecg\n0,1e30\n", "too large"),
        ("t,ecg\n", "no samples"),
        ("t,ecg\n0,\n0,nan\n", "every cell is empty"),
        ("t,ecg\n" + "1" * 100_000, "a line of more than"),
        ("t,ecg\n0,1\n\udcff", "UTF-8"),
        ("PK\x03\x04rest", "unpack it first"),
        ("", "columns: none"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, body: str, message: str) -> None:
    path = layout(tmp_path / "a.csv")
    path.write_bytes(body.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInputError, match=message):
        read_record(path)


def test_times_that_go_back_or_far_away_are_refused_before_allocation(tmp_path: Path) -> None:
    path = layout(tmp_path / "a.csv", time='{column = "t"}')
    for times, message in (((1.0, 0.5), "go back"), ((0.0, 0.001), "faster than"), ((0.0, 1e9), "too long")):
        path.write_text("t,ecg\n" + "".join(f"{t},1\n" for t in times))
        with pytest.raises(BadInputError, match=message):
            read_record(path)
    (tmp_path / "b.csv").write_text("1\n2\n")
    with pytest.raises(BadInputError, match=r"no layout b\.toml"):
        read_record(tmp_path / "b.csv")


def test_an_imported_csv_is_analysed_like_the_same_samples_from_wfdb(ecg_data: Path, tmp_path: Path) -> None:
    path, samples = short_record(ecg_data, tmp_path)
    body = tmp_path / "same.csv"
    layout(body, fs_hz=str(FS_HZ), tail="".join(
        f'\n[[leads]]\ncolumn = "{n}"\nname = "{n}"\nunit = "uV"\nuv_per_lsb = 5.0\n' for n in ("MLII", "V1")
    ))  # fmt: skip
    with body.open("w") as file:
        file.write("MLII,V1\n")
        file.writelines(",".join("" if v == -32768 else str(5 * int(v)) for v in row) + "\n" for row in samples)
    readings = []
    for name, source in (("a", path), ("b", body)):
        state = new_state(tmp_path / name)
        value(state, "import", source, "--wearer", "anna", "--device", "patch", "--start", START)
        engine = open_readonly(state)
        with engine.connect() as conn:
            recording, kept = stored(conn, "anna")
            readings.append((kept.tolist(), *read_so_far(conn, recording)))
        engine.dispose()
    assert readings[0] == readings[1]
    assert len(readings[0][1]) > 300


def atc(*, fs_hz: int = 300, resolution: int = 500, crc: bool = True, leads: int = 2) -> bytes:
    def block(name: bytes, data: bytes) -> bytes:
        body = name + struct.pack("<I", len(data)) + data
        return body + struct.pack("<I", zlib.crc32(body) if crc else sum(body) & 0xFFFFFFFF)

    info = b"2024-12-08T15:54:23.245+10:00".ljust(264, b"\0")
    form = struct.pack("<BHHBH", 1, fs_hz, resolution, 14, 0)
    data = [struct.pack("<600h", *range(k, 600 + k)) for k in range(leads)]
    blocks = [block(b"info", info), block(b"fmt ", form), block(b"ecg ", data[0])]
    return b"ALIVE\0\0\0" + struct.pack("<I", 3) + b"".join([*blocks, *(block(b"ecg2", d) for d in data[1:])])


@pytest.mark.parametrize("crc", [True, False])
def test_a_kardia_file_is_read_with_either_checksum(tmp_path: Path, crc: bool) -> None:
    path = tmp_path / "k.atc"
    path.write_bytes(atc(crc=crc))
    record = read_record(path)
    assert (record.leads, record.fs_hz, record.uv_per_lsb) == (("I", "II"), 300.0, (0.5, 0.5))
    assert record.samples[1, :3].tolist() == [1, 2, 3]
    assert record.start_utc_ns == 1_733_637_263_245_000_000


def test_broken_kardia_files_are_refused(tmp_path: Path) -> None:
    path, good = tmp_path / "k.atc", atc()
    flipped = bytearray(good)
    flipped[400] ^= 1
    declared = bytearray(good)
    declared[16:20] = struct.pack("<I", 2**31)
    cases = [
        (good[:-1], "truncated"),
        (bytes(flipped), "checksum"),
        (bytes(declared), "truncated"),
        (b"ALIVE", "ALIVE"),
    ]
    cases += [(atc(fs_hz=0), "sampling rate"), (atc(resolution=0), "unknown"), (good[:12], "format block")]
    for body, message in cases:
        path.write_bytes(body)
        with pytest.raises(BadInputError, match=message):
            read_record(path)
    rng = np.random.default_rng(5)
    for _ in range(300):  # mutated: read or refused, never a crash
        spoilt = bytearray(good[: int(rng.integers(1, len(good) + 1))])
        for at in rng.integers(0, len(spoilt), 4):
            spoilt[at] = int(rng.integers(256))
        path.write_bytes(bytes(spoilt))
        try:
            read_record(path)
        except BadInputError:
            continue


def test_exported_tables_are_the_store_and_no_formulas(tmp_path: Path) -> None:
    from store_kit import build

    state = build(tmp_path / "state")
    period = ("--since", "2026-03-28", "--until", "2026-03-29")
    run(state, "mark", "--wearer", "ann", "--at", "2026-03-28T12:00", "=HYPERLINK(1)")
    event = value(state, "export", "--wearer", "ann", "--csv", tmp_path / "csv", *period)
    tables = {Path(f).stem: list(csv.DictReader(Path(f).read_text().splitlines())) for f in event["files"]}
    engine = open_readonly(state)
    with engine.connect() as conn:
        found = queries.findings(conn, wearer="ann", start_ns=1774652400 * 10**9, end_ns=1774821600 * 10**9)
    engine.dispose()
    assert [row["event"] for row in tables["events"]] == [row["id"] for row in found]
    assert sum(int(row["V"]) for row in tables["trends"]) == sum(row["type"] == "V" for row in tables["beats"]) == 240
    assert tables["marks"][0]["note"] == "'=HYPERLINK(1)"
    assert [_cell(v) for v in ("@x", "-1", "a", -1, "")] == ["'@x", "'-1", "a", -1, ""]
    assert len(PERIOD) == 4
