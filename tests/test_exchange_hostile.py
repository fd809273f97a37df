"""Files that lie: a clear error, bounded memory, nothing stored by halves."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from exchange_kit import new_state, run
from sqlalchemy import func, select

from edge.errors import BadInputError
from edge.store import tables
from edge.store.database import open_readonly, open_writable


def edf_header(records: int, per_record: int, duration: str = "1", physical: str = "1000", unit: str = "uV") -> bytes:
    fields = ["0", "X X X X", "Startdate X X X X", "01.01.26", "00.00.00", "512", "", str(records), duration, "1"]
    widths = [8, 80, 80, 8, 8, 8, 44, 8, 8, 4]
    signal = ["ECG I", "", unit, f"-{physical}", physical, "-32768", "32767", "", str(per_record), ""]
    sizes = [16, 80, 8, 8, 8, 8, 8, 80, 8, 32]
    text = "".join(v[:w].ljust(w) for v, w in zip(fields, widths, strict=True))
    return (text + "".join(v[:w].ljust(w) for v, w in zip(signal, sizes, strict=True))).encode()


def wfdb_header(folder: Path, line: str, signal: str, data: bytes = b"\0" * 64) -> Path:
    (folder / "x.hea").write_text(f"{line}\n{signal}\n")
    (folder / "x.dat").write_bytes(data)
    return folder / "x"


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ecg.csv", b"0\n" * 5_000_000)
    return buffer.getvalue()


def atc_bomb() -> bytes:
    block = b"fmt " + struct.pack("<I", 2**32 - 16) + b"\x01\x2c\x01\xf4\x01"
    return b"ALIVE\0\0\0" + struct.pack("<I", 3) + block + struct.pack("<I", zlib.crc32(block))


def hostile(folder: Path, kind: str) -> Path:
    if kind.startswith("edf"):
        bodies = {
            "edf_billion": edf_header(10_000_000, 1000) + b"\0" * 2000,
            "edf_truncated": edf_header(10, 250) + b"\0" * 3000,
            "edf_rate": edf_header(2, 250, duration="-1") + b"\0" * 1000,
            "edf_nan": edf_header(2, 250, physical="nan") + b"\0" * 1000,
            "edf_unit": edf_header(2, 250, unit="mmHg") + b"\0" * 1000,
            "edf_is_zip": zip_bomb(),
            "edf_is_text": b"hello",
        }
        (folder / "x.edf").write_bytes(bodies[kind])
        return folder / "x.edf"
    if kind.startswith("csv"):
        bodies = {"csv_zip": zip_bomb(), "csv_gzip": b"\x1f\x8b" + b"\0" * 100, "csv_line": b"1" * 10_000_000}
        (folder / "x.csv").write_bytes(bodies[kind])
        return folder / "x.csv"
    if kind == "atc_bomb":
        (folder / "x.atc").write_bytes(atc_bomb())
        return folder / "x.atc"
    lines = {
        "wfdb_billion": ("x 1 250 1000000000", "x.dat 16 200/mV 16 0 0 0 0 I"),
        "wfdb_rate": ("x 1 -250 32", "x.dat 16 200/mV 16 0 0 0 0 I"),
        "wfdb_unit": ("x 1 250 32", "x.dat 16 200/mmHg 16 0 0 0 0 I"),
        "wfdb_gain": ("x 1 250 32", "x.dat 16 1e30/mV 16 0 0 0 0 I"),
        "wfdb_escape": ("x 1 250 32", "../x.dat 16 200/mV 16 0 0 0 0 I"),
        "wfdb_flac": ("x 1 250 200000000", "x.dat 516 200/mV 16 0 0 0 0 I"),
    }
    return wfdb_header(folder, *lines[kind])


KINDS = (
    *("edf_billion", "edf_truncated", "edf_rate", "edf_nan", "edf_unit", "edf_is_zip", "edf_is_text"),
    *("csv_zip", "csv_gzip", "csv_line", "atc_bomb"),
    *("wfdb_billion", "wfdb_rate", "wfdb_unit", "wfdb_gain", "wfdb_escape", "wfdb_flac"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_hostile_file_is_stored(tmp_path: Path, kind: str) -> None:
    path = hostile(tmp_path, kind)
    state = new_state(tmp_path / "state")
    open_writable(state).dispose()
    with pytest.raises(BadInputError) as told:
        run(state, "import", path, "--wearer", "anna")
    assert "x" in str(told.value)
    assert len(str(told.value)) < 500
    engine = open_readonly(state)
    with engine.connect() as conn:
        own = [t for t in tables.metadata.sorted_tables if t.name != "analysis"]  # which weights are at work
        kept = [conn.execute(select(func.count()).select_from(table)).scalar_one() for table in own]
    engine.dispose()
    assert sum(kept) == 0


@pytest.mark.parametrize("kind", ["edf_billion", "wfdb_billion", "wfdb_flac", "csv_line", "atc_bomb", "csv_zip"])
def test_memory_stays_bounded(tmp_path: Path, kind: str) -> None:
    """Read in a process that may take 600 MB more than Python and its libraries do."""
    path = hostile(tmp_path, kind)
    code = (
        "import resource, sys\n"
        "import wfdb, edfio, numpy\n"
        "from edge.sources.record import read_record\n"
        "from edge.errors import BadInputError\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + (600 << 20),) * 2)\n"
        "try:\n    read_record(sys.argv[1])\n"
        "except BadInputError as error:\n    print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stdout


def test_mutated_exports_are_read_or_refused_never_a_crash(ecg_data: Path, tmp_path: Path) -> None:
    from exchange_kit import PERIOD, START, short_record, value

    from edge.sources.record import read_record

    path, _ = short_record(ecg_data, tmp_path)
    state = new_state(tmp_path / "state")
    value(state, "import", path, "--wearer", "anna", "--device", "patch", "--start", START)
    (name,) = value(state, "export", "--wearer", "anna", "--edf", tmp_path / "out", *PERIOD)["files"]
    good = Path(name).read_bytes()[:200_000]
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(60):
        spoilt = bytearray(good)
        for at in rng.integers(0, 1024, 3):
            spoilt[at] = int(rng.integers(32, 127))
        (tmp_path / "m.edf").write_bytes(bytes(spoilt))
        try:
            read_record(tmp_path / "m.edf")
        except BadInputError:
            refused += 1
    assert refused > 0
