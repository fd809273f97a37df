"""24 hours of one lead through `anyecg analyze`, beside the packages a Python user could pick today, in one run.

    python -m bench.analyze [--hours 24] [--no-peers] [--json FILE]

Every tool is a process of its own, timed whole: interpreter start, imports, reading the file and writing results.
Peers live in their own environment in the user's cache; one that cannot be installed or fails is named and skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import wfdb
from rich.console import Console
from rich.table import Table

from edge.chunk import MISSING
from edge.sources.data_folder import data_folder
from edge.sources.record import read_record

DATA = data_folder()
PEERS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "anyecg/bench-peers"
PEER_PACKAGES = (
    "openvital[ml-tf,signal]==0.2.1",
    "neurokit2==0.2.13",
    "sleepecg==0.6.0",
    "openecg[report]==0.11.0",
    "wfdb>=4.2",
)
PEER_HOURS = {"openvital": 24.0, "neurokit2": 2.0, "sleepecg": 24.0}
"""NeuroKit2 takes about 1.4 GB per hour, so it gets fewer of the same hours."""
FS_HZ = 360
DS2 = (100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210, 212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234)
"""de Chazal's test records of mitdb: none was used in training."""


@dataclass(slots=True)
class Run:
    """One tool on the same hours."""

    tool: str
    hours: float
    wall_s: float
    cpu_s: float
    peak_mb: float
    beats: int
    gives: str
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def realtime(self) -> float:
        return 3600 * self.hours / self.wall_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("build/bench/analyze.json"))
    options = parser.parse_args()
    console = Console()
    if not (DATA / "mitdb/100.dat").exists():
        console.print(f"no recordings in {DATA}: python -m export.datasets fetch mitdb (or set ECG_DATA)")
        return 1
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="anyecg-bench-") as folder:
        # A process starts out with its parent's peak memory on its account: keep this one small.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            record = pool.submit(long_record, Path(folder), options.hours).result()
        runs = [ours(record, options.hours, precision) for precision in ("fp32", "int8")]
        if not options.no_peers:
            runs += peers(record, options.hours, notes)
    report(console, runs, notes)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "machine": machine(),
        "load_before": os.getloadavg()[2],
        "runs": [asdict(run) | {"realtime": run.realtime} for run in runs],
        "notes": notes,
    }
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def long_record(folder: Path, hours: float) -> Path:
    """Write MLII of the DS2 records, one after the other and again from the start, as a WFDB record."""
    n = int(hours * 3600 * FS_HZ)
    parts: list[np.ndarray] = []
    while sum(part.size for part in parts) < n:
        for number in DS2:
            record = read_record(DATA / f"mitdb/{number}", ["MLII"])
            parts.append(np.where(record.samples[0] == MISSING, 0, record.samples[0]))
            if sum(part.size for part in parts) >= n:
                break
    signal = np.concatenate(parts)[:n].reshape(-1, 1)
    wfdb.wrsamp(
        *("day", FS_HZ, ["mV"], ["MLII"]),
        d_signal=signal,
        fmt=["16"],
        adc_gain=[200.0],
        baseline=[0],
        write_dir=str(folder),
    )
    return folder / "day"


def ours(record: Path, hours: float, precision: str) -> Run:
    """Time `anyecg analyze`, files written."""
    out = record.parent / "out"
    files = ["--json", str(out), "--wfdb", str(out)]
    command = [sys.executable, "-m", "edge", "analyze", str(record), "--precision", precision, *files]
    wall_s, cpu_s, peak_mb, _ = timed(command)
    found = json.loads((out / "day.json").read_text(encoding="utf-8"))
    stages = {name: value for name, value in found["timing"].items() if name.endswith("_s")}
    stages["start_and_write_s"] = wall_s - stages["read_s"] - stages["analyze_s"]
    gives = "beats N S V F Q, rhythm, quality, events; annotation file and JSON"
    return Run(f"anyecg analyze, {precision}", hours, wall_s, cpu_s, peak_mb, len(found["beats"]), gives, stages)


def peers(record: Path, hours: float, notes: list[str]) -> list[Run]:
    """Time every peer that can be had."""
    python = peer_python(notes)
    if python is None:
        return []
    runs = []
    for tool, most in PEER_HOURS.items():
        given = min(most, hours)
        if given < hours:
            notes.append(
                f"{tool} got {given:g} of the {hours:g} hours: it would need more memory than most machines have"
            )
        command = [str(python), str(Path(__file__).with_name("peer.py")), tool, str(record), str(given)]
        try:
            wall_s, cpu_s, peak_mb, said = timed(command)
        except subprocess.CalledProcessError as error:
            notes.append(f"{tool} failed and is left out: {str(error.stderr).strip().splitlines()[-1][:200]}")
            continue
        told = json.loads(said.splitlines()[-1])
        runs.append(Run(tool, given, wall_s, cpu_s, peak_mb, told["beats"], told["gives"], told["stages"]))
    return runs


def peer_python(notes: list[str]) -> Path | None:
    """Return the interpreter of the peers' environment, made on the first call."""
    python = PEERS / "bin/python"
    ready = PEERS / "ready"
    wanted = "\n".join(PEER_PACKAGES)
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        pip = [str(python), "-m", "pip", "install", "-q"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
            if subprocess.run([*pip, *PEER_PACKAGES]).returncode:
                missing = [one for one in PEER_PACKAGES if subprocess.run([*pip, one]).returncode]
                notes.append(f"could not be installed and is left out: {', '.join(missing) or 'all of them together'}")
                return python
        except (OSError, subprocess.CalledProcessError):
            notes.append(f"the peers could not be installed into {PEERS}: no comparison")
            return None
        ready.write_text(wanted, encoding="utf-8")
    return python


def timed(command: list[str]) -> tuple[float, float, float, str]:
    """Run a command; return (wall s, CPU s, peak RSS in MB, its standard output)."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, out.read(), err.read() or "no message")
        return wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.read()


def machine() -> str:
    """Describe the machine in one line."""
    model = platform.processor() or "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory_gb:.0f} GB, Python {platform.python_version()}"


def report(console: Console, runs: list[Run], notes: list[str]) -> None:
    table = Table(title=f"One lead, {FS_HZ} Hz, whole process · {machine()}")
    for name in ("tool", "hours", "wall s", "CPU s", "× real time", "peak MB", "beats"):
        table.add_column(name, justify="left" if name == "tool" else "right")
    for run in runs:
        figures = (
            f"{run.hours:g}",
            f"{run.wall_s:.1f}",
            f"{run.cpu_s:.1f}",
            f"{run.realtime:.0f}",
            f"{run.peak_mb:.0f}",
        )
        table.add_row(run.tool, *figures, str(run.beats))
    console.print(table)
    for run in runs:
        console.print(f"{run.tool} gives {run.gives}")
    stages = ", ".join(f"{name.removesuffix('_s')} {value:.1f} s" for name, value in runs[0].stages.items())
    console.print(f"{runs[0].tool}: {stages} (rhythm runs within analyze, beside the encoder)")
    for note in notes:
        console.print(f"note: {note}", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
