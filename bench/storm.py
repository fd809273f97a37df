"""Alerts while the assistant is stormed with questions, beside alerts without: minutes of both in turn, in one run.

    python -m bench storm [--wearers 50] [--minutes 1] [--rounds 2] [--hours 24] [--json FILE]

mosquitto, daemon and assistant as processes, simulated wearables in real time, a subscriber, and in every other phase
callers on the assistant's socket, over MQTT and on the command line (`bench.asking`). One wearer has hours of mitdb in
the store, which most questions are about.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from rich.console import Console

from bench.asking import DAY, MQTT_ASKERS, SOCKET_CALLERS
from bench.disk import DiskProbe
from bench.figures import FOLDER, Figures, write_json
from bench.holter import anyecg, day
from bench.latency import Alerts, Spread, judge
from bench.live import Subscriber, Watch
from bench.machine import Machine, this_machine
from broker.local import local_broker
from edge.assistant.client import converse, serves
from edge.assistant.localtime import iso_utc
from edge.demo import daemon, settle
from edge.errors import AnyecgError

WARM_UP_S = 20.0
CALM_S = 5.0
"""Between two phases: what a storm left behind is counted to neither."""
START_S = 60.0


@dataclass(slots=True)
class Phase:
    """All minutes of one kind."""

    name: str
    during: list[tuple[float, float]] = field(default_factory=list)
    cpu_percent: dict[str, list[float]] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)
    fsync_s: list[float] = field(default_factory=list)
    alerts: Alerts = field(default_factory=Alerts)


@contextmanager
def assistant(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `anyecg assistant` until the end of the context."""
    with (state / "assistant.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "assistant", "--state", str(state)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        until_s = time.monotonic() + START_S
        while not serves(state):
            if process.poll() is not None or time.monotonic() > until_s:
                raise AnyecgError(f"the assistant did not start; see {state}/assistant.log")
            time.sleep(0.1)
        list(converse(state, {"status": True}))  # answered once the model is loaded
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(wearers: int, phase_s: float, rounds: int, hours: float, say: Console) -> tuple[list[Phase], Any, Any]:
    """Return the phases, what became of the questions, and what the assistant says of itself."""
    quiet, storm = Phase("without"), Phase("in the storm")
    total_s = WARM_UP_S + 2 * rounds * (phase_s + CALM_S)
    with TemporaryDirectory(prefix="anyecg-bench-") as name, local_broker(wanted="mosquitto") as broker:
        folder = Path(name)
        state, out, asked = folder / "state", folder / "wearers.json", folder / "asked.json"
        say.print(f"{hours:g} h of mitdb for {DAY} ...")
        began = iso_utc(round((time.time() - hours * 3600 - 60) * 1e9))
        anyecg("import", day(folder, hours), "--wearer", DAY, "--start", began, "--state", str(state), folder=name)
        with daemon(state, broker) as gateway, assistant(state) as helper:
            settle(state, gateway)
            subscriber = Subscriber(broker.url)
            command = [sys.executable, "-m", "bench.wearers", "--url", broker.url, "--out", str(out)]
            command += ["--wearers", str(wearers), "--seconds", str(total_s + 15)]
            tallies: list[dict[str, Any]] = []
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as senders:
                try:
                    assert senders.stdout is not None
                    line = senders.stdout.readline()
                    if not line:
                        raise AnyecgError("the wearables did not start")
                    _until(json.loads(line)["first_s"] + WARM_UP_S)
                    for n in range(2 * rounds):
                        phase = (quiet, storm)[n % 2]
                        say.print(f"{phase_s:g} s {phase.name}")
                        processes = {"daemon": gateway.pid, "assistant": helper.pid}
                        _watch(phase, folder, processes, phase_s, state, broker.url, wearers, asked)
                        if phase is storm:
                            tallies.append(json.loads(asked.read_text()))
                        time.sleep(CALM_S)
                    if senders.wait(120):
                        raise AnyecgError(f"the wearables ended with code {senders.returncode}")
                finally:
                    senders.kill()
            settle(state, gateway)
            time.sleep(2)
            subscriber.close()
            (status,) = converse(state, {"status": True})
        logs = json.loads(out.read_text())["wearables"]
        for phase in (quiet, storm):
            phase.alerts = judge(logs, subscriber.came, state, phase.during)
    return [quiet, storm], tallies, status["done"]


def _watch(
    phase: Phase,
    folder: Path,
    processes: dict[str, int],
    seconds: float,
    state: Path,
    url: str,
    wearers: int,
    asked: Path,
) -> None:
    """Let one phase pass, with questions if it is a storm, and note what it took."""
    watches = {name: Watch(psutil.Process(pid)) for name, pid in processes.items()}
    start_s = time.time()
    command = [sys.executable, "-m", "bench.asking", "--state", str(state), "--url", url, "--wearers", str(wearers)]
    command += ["--seconds", str(seconds), "--out", str(asked)]
    asking = subprocess.Popen(command) if phase.name != "without" else None
    try:
        with DiskProbe(folder) as probe:
            for watch in watches.values():
                watch.begin()
            _until(start_s + seconds)
            for name, watch in watches.items():
                phase.cpu_percent.setdefault(name, []).append(round(watch.percent(), 1))
        phase.load.append(round(this_machine().load[0], 1))
        phase.fsync_s += probe.took_s
        phase.during.append((start_s, start_s + seconds))
        if asking is not None and asking.wait(180):
            raise AnyecgError(f"the askers ended with code {asking.returncode}")
    finally:
        if asking is not None:
            asking.kill()
            asking.wait()


def _until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.time()))


def table_of(phases: list[Phase], tallies: list[dict[str, Any]], status: dict[str, Any], machine: Machine) -> Figures:
    """Alerts of both kinds of minutes, and what became of the questions."""

    def pair(spread: Spread | None) -> str:
        return "-" if spread is None else f"{spread.p50:.2f} / {spread.p99:.2f} / {spread.max:.2f}"

    def told(phase: Phase) -> str:
        return str(0 if phase.alerts.needed_to_event is None else phase.alerts.needed_to_event.n)

    def percent(phase: Phase, name: str) -> str:
        return ", ".join(f"{value:.0f}" for value in phase.cpu_percent[name])

    rows = [
        ["seconds", "", *[", ".join(f"{b - a:.0f}" for a, b in p.during) for p in phases]],
        ["load average", "", *[", ".join(map(str, p.load)) for p in phases]],
        ["daemon CPU, % of a core", "", *[percent(p, "daemon") for p in phases]],
        ["assistant CPU, %", "", *[percent(p, "assistant") for p in phases]],
        ["disk alone: 4 kB synchronised, s p50 / p99 / max", "", *[pair(Spread.of(p.fsync_s)) for p in phases]],
        ["detections told as `new`", "", *[told(p) for p in phases]],
        [
            "last needed sample → `new` received, s p50 / p99 / max",
            "p99 ≤ 0.5",
            *[pair(p.alerts.needed_to_event) for p in phases],
        ],
        ["the same for every message, s", "", *[pair(p.alerts.needed_to_any) for p in phases]],
        ["chunk → end-to-end ack, s", "", *[pair(p.alerts.ack) for p in phases]],
        ["chunks not acknowledged (whole run)", "0", "", str(phases[1].alerts.unacknowledged)],
    ]
    for way in ("socket", "mqtt", "command line"):
        answered = [s for tally in tallies for s in tally[way]["answered_s"]]
        refused = sum(tally[way]["refused"] for tally in tallies)
        failed = sum(len(tally[way]["failed"]) for tally in tallies)
        rows.append(
            [f"questions, {way}: answered, refused, failed", "failed 0", "", f"{len(answered)}, {refused}, {failed}"]
        )
        rows.append([f"question → answer, {way}, s p50 / p99 / max", "", "", pair(Spread.of(answered))])
    rows.append(["assistant, peak MB", "≤ 500", "", f"{status['rss_mb']:.0f}"])
    title = (
        f"{SOCKET_CALLERS} callers on the socket, {MQTT_ASKERS} over MQTT, one command line after the other; "
        f"250 Hz, a chunk a second each, mosquitto, real time · {machine.line}"
    )
    return Figures(title, ["", "wanted", *[phase.name for phase in phases]], rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wearers", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=1.0, help="of one phase")
    parser.add_argument("--rounds", type=int, default=2, help="how often both phases come")
    parser.add_argument("--hours", type=float, default=24.0, help="in the store beforehand")
    parser.add_argument("--json", type=Path, default=FOLDER / "storm.json")
    options = parser.parse_args(arguments)
    console = Console()
    machine = this_machine()
    phases, tallies, status = measure(options.wearers, 60 * options.minutes, options.rounds, options.hours, console)
    figures = table_of(phases, tallies, status, machine)
    console.print(figures.as_rich())
    for tally in tallies:
        for way, found in tally.items():
            for text in sorted(set(found["failed"])):
                console.print(f"{way}: {text}", markup=False, highlight=False)
    found = [{**asdict(phase), "fsync_s": None} for phase in phases]
    write_json(options.json, figures, machine, runs=found, assistant=status)
    return 0


if __name__ == "__main__":
    sys.exit(main())
