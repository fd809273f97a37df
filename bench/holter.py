"""A 24-hour Holter report, timed whole: interpreter start, figures, strips, pages.

    python -m bench.holter [--hours 24] [--json FILE]

The hours are mitdb records one after the other, imported once into a temporary state folder (not timed). Each file is
a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import wfdb
from rich.console import Console

from bench.figures import FOLDER, Figures, write_json
from bench.machine import this_machine
from edge.sources.data_folder import data_folder

DATA = data_folder()
FS_HZ = 360
PERIOD = ("--since", "2026-03-28T00:00:00Z", "--until", "2026-03-31T00:00:00Z")
RUNS = (
    ("PDF", ("report", "--pdf", "day.pdf")),
    ("HTML", ("report", "--html", "day.html")),
    ("figures only", ("report", "--json")),
    ("PDF, full disclosure", ("report", "--full-disclosure", "--pdf", "all.pdf")),
    ("EDF+", ("export", "--edf", "edf")),
    ("WFDB", ("export", "--wfdb", "wfdb")),
    ("FHIR", ("export", "--fhir", "fhir.json")),
    ("CSV", ("export", "--csv", "csv")),
)
PROGRAM = """
import sys
from edge.cli.app import main
from edge.process import peak_rss_mb
sys.argv[0] = "anyecg"
try:
    main()
finally:
    print(peak_rss_mb(), file=sys.stderr)
"""
"""The command line, and on the way out what it took."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--json", type=Path, default=FOLDER / "holter.json")
    arguments = parser.parse_args()
    machine = this_machine()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        anyecg("import", day(Path(folder), arguments.hours), "--wearer", "anna", "--start", "2026-03-28T11:00:00Z",
               "--state", str(state), folder=folder)  # fmt: skip
        rows, found = [], {}
        for name, (command, *options) in RUNS:
            seconds, peak_mb = anyecg(
                command, "--wearer", "anna", *PERIOD, *options, "--state", str(state), folder=folder
            )
            found[name] = seconds
            target = Path(folder) / options[-1]
            rows.append([name, f"{seconds:.1f}", f"{peak_mb:.0f}", f"{size_mb(target):.1f}"])
    figures = Figures(
        f"{arguments.hours:g} h of one lead at {FS_HZ} Hz, whole process · {machine.line}",
        ["written", "wall s", "peak MB", "file MB"],
        rows,
    )
    Console().print(figures.as_rich())
    write_json(arguments.json, figures, machine, seconds=found)
    return 0


def day(folder: Path, hours: float) -> str:
    """Write mitdb records one after the other until they fill `hours`; return the record's path."""
    parts: list[np.ndarray] = []
    wanted = round(hours * 3600 * FS_HZ)
    names = sorted(p.stem for p in (DATA / "mitdb").glob("*.hea"))
    while sum(map(len, parts)) < wanted:
        record = wfdb.rdrecord(str(DATA / "mitdb" / names[len(parts) % len(names)]), channels=[0], physical=False)
        parts.append((record.d_signal - 1024).astype(np.int16))
    samples = np.concatenate(parts)[:wanted]
    settings = {"fs": FS_HZ, "units": ["mV"], "sig_name": ["MLII"], "fmt": ["16"], "adc_gain": [200.0], "baseline": [0]}
    wfdb.wrsamp("day", d_signal=samples, write_dir=str(folder), **settings)
    return str(folder / "day")


def anyecg(*arguments: str, folder: str) -> tuple[float, float]:
    """Run a command; return its wall time and its peak memory in MB."""
    began_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    wall_s = time.perf_counter() - began_s
    if done.returncode:
        raise SystemExit(f"anyecg {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return wall_s, float(done.stderr.split()[-1])


def size_mb(target: Path) -> float:
    if target.is_dir():
        return sum(path.stat().st_size for path in target.iterdir()) / 1e6
    return target.stat().st_size / 1e6 if target.exists() else 0.0


if __name__ == "__main__":
    sys.exit(main())
