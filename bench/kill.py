"""The daemon killed with SIGKILL, again and again, while a wearable sends: the test of the guarantees, longer.

    python -m bench kill [--kills 200] [--json FILE]

It runs tests/test_kill.py, which fails if a sample the wearable was told is committed is missing, if a finding
differs from an undisturbed reading, or if an alert is lost or says two things; then it counts what was at stake.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from sqlalchemy import func, select

from bench.figures import Figures, write_json
from bench.machine import Machine, this_machine
from edge.store import queries, tables
from edge.store.database import open_readonly

TEST = "tests/test_kill.py::test_sigkill_at_random_instants"


@dataclass(slots=True)
class Run:
    """One run of the test, and what its database holds at the end."""

    kills: int
    passed: bool
    wall_s: float
    seed: str
    starts: int = 0
    """Times the daemon got as far as listening; the other kills hit it while it started."""
    samples: int = 0
    beats: int = 0
    findings: int = 0
    revisions: int = 0


def measure(kills: int, console: Console) -> Run:
    """Run the test with `kills` kills and read the state it leaves."""
    root = Path(__file__).resolve().parent.parent
    with TemporaryDirectory(prefix="anyecg-bench-") as folder:
        command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "--basetemp", f"{folder}/t", TEST]
        began_s = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=root,
            env={**os.environ, "ANYECG_KILLS": str(kills), "ANYECG_NO_SKIP": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        with console.status(f"killing the daemon {kills} times, about {kills * 4 // 60 + 1} minutes ..."):
            lines = process.stdout.read().splitlines()
            process.wait()
        run = Run(kills, process.returncode == 0, time.monotonic() - began_s, _seed(lines))
        if not run.passed:
            console.print("\n".join(lines), markup=False)
            return run
        state = next(path for path in Path(folder, "t").glob("*/state") if not path.parent.is_symlink())
        _count(run, state)
    return run


def _seed(lines: list[str]) -> str:
    return next((line.split()[-1] for line in lines if line.startswith("seed ")), "unknown")


def _count(run: Run, state: Path) -> None:
    run.starts = (state / "daemon.log").read_text(errors="replace").count("broker=mqtt")
    reader = open_readonly(state)
    try:
        with reader.connect() as conn:
            (recording,) = queries.recordings(conn)
            run.samples = recording.end_sample
            run.beats = len(queries.beats(conn, recording, 0, recording.end_sample))
            run.findings = conn.execute(select(func.count()).select_from(tables.finding)).scalar_one()
            earlier = conn.execute(select(func.count()).select_from(tables.finding_revision)).scalar_one()
            run.revisions = run.findings + earlier
    finally:
        reader.dispose()


def table_of(run: Run, machine: Machine) -> Figures:
    rows = [
        ["kills", str(run.kills)],
        ["daemons that had come up when they were killed", str(max(0, run.starts - 1))],
        ["samples lost, findings wrong, alerts lost or contradictory", "0" if run.passed else "FAILED"],
        ["samples per lead kept", f"{run.samples:,}"],
        ["beats", f"{run.beats:,}"],
        ["findings, revisions", f"{run.findings}, {run.revisions}"],
        ["minutes", f"{run.wall_s / 60:.1f}"],
        ["seed", run.seed],
    ]
    return Figures(f"SIGKILL at random instants, mitdb/200 through mosquitto · {machine.line}", ["", ""], rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path("build/bench/kill.json"))
    options = parser.parse_args(arguments)
    console = Console()
    machine = this_machine()
    run = measure(options.kills, console)
    figures = table_of(run, machine)
    console.print(figures.as_rich())
    write_json(options.json, figures, machine, run=asdict(run))
    return 0 if run.passed else 1


if __name__ == "__main__":
    sys.exit(main())
