"""A short real recording with a hole, in a store, and what tests of exports need around it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray
from sqlalchemy import Connection
from typer.testing import CliRunner, Result

from edge.cli.app import app
from edge.errors import AnyecgError
from edge.store import queries, waveform

for group in ("export", "importing", "report", "review", "strip"):
    importlib.import_module(f"edge.cli.{group}")

MINUTES = 6
FS_HZ = 360
HOLE = (200 * FS_HZ + 77, 230 * FS_HZ + 13)
"""Samples that were not recorded, at no second's border."""
ONE_LEAD = (100 * FS_HZ, 104 * FS_HZ + 5)
"""Samples that only the first lead has."""
START = "2026-03-29T00:58:30.250+00:00"
"""Two minutes before the clocks change in Berlin."""
PERIOD = ("--since", "2026-03-29T00:00:00+00:00", "--until", "2026-03-29T12:00:00+00:00")


def short_record(data: Path, folder: Path, name: str = "200") -> tuple[Path, NDArray[np.int16]]:
    """Write the first minutes of a mitdb record with the hole; return its path and int16 [n, leads]."""
    whole = wfdb.rdrecord(str(data / "mitdb" / name), sampto=MINUTES * 60 * FS_HZ, physical=False, return_res=32)
    samples = (whole.d_signal - 1024).astype(np.int16)
    samples[HOLE[0] : HOLE[1]] = -32768
    samples[ONE_LEAD[0] : ONE_LEAD[1], 1] = -32768
    wfdb.wrsamp(
        "short",
        fs=FS_HZ,
        units=["mV", "mV"],
        sig_name=["MLII", "V1"],
        d_signal=samples,
        fmt=["16", "16"],
        adc_gain=[200.0, 200.0],
        baseline=[0, 0],
        write_dir=str(folder),
    )
    return folder / "short", samples


def new_state(folder: Path) -> Path:
    """Make a state folder whose wearers live in Berlin."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text('[gateway]\ntimezone = "Europe/Berlin"\n')
    return folder


def run(state: Path, *args: object) -> Result:
    """Run a command; errors meant for people are raised."""
    result = CliRunner().invoke(app, [*map(str, args), "--state", str(state)], env={"COLUMNS": "200"})
    if isinstance(result.exception, AnyecgError):
        raise result.exception
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def value(state: Path, *args: object) -> Any:
    result = run(state, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def stored(conn: Connection, wearer: str) -> tuple[queries.Recording, NDArray[np.int32]]:
    """Return the wearer's only recording and all its samples."""
    (recording,) = queries.recordings(conn, wearer)
    return recording, waveform.read(conn, recording.id, 0, recording.end_sample).samples


def read_so_far(conn: Connection, recording: queries.Recording) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return beats and findings without ids."""
    beats = queries.beats(conn, recording, 0, recording.end_sample)
    rows = queries.findings(conn, wearer=recording.wearer)
    names = ("rule", "severity", "state", "start_sample", "end_sample", "start_ns", "end_ns")
    return [tuple(b) for b in beats.tolist()], [
        tuple(row[name] for name in names) for row in rows if row["rule"] != "symptom"
    ]
