"""Wearers live: mosquitto, the daemon as a process, simulated wearables in real time, a subscriber.

    python -m bench live [--wearers 50 ...] [--minutes 2] [--json FILE]

Measured: CPU, memory and queues of the daemon; from the moment the last sample that a detection needs was published
to the moment its event reached a subscriber; and from the onset of a rhythm in the simulator's truth to its event.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bench.disk import DiskProbe
from bench.figures import Figures, write_json
from bench.latency import TRUTH, WANTED_WITHIN_10_S, Alerts, Spread, judge
from bench.machine import Machine, this_machine
from bench.wearers import FS_HZ
from broker.local import local_broker
from edge.control import request
from edge.demo import daemon, settle
from edge.errors import AnyecgError

WARM_UP_S = 15.0
"""CPU and queues count from here on: the encoder has run, the first windows are full."""
SAMPLE_S = 1.0


@dataclass(slots=True)
class Run:
    """One number of wearers."""

    wearers: int
    seconds: float
    load_before: float
    cpu_percent: dict[str, float] = field(default_factory=dict)
    """Of one core: daemon, mosquitto, senders."""
    rss_mb: dict[str, float] = field(default_factory=dict)
    """Of the daemon: start, first (mean of the first third), last (of the last third), max."""
    fsync: Spread | None = None
    """Synchronising 4 kB to the same disk, beside the daemon."""
    commits_per_s: float = 0.0
    hops_per_s: float = 0.0
    queues: dict[str, dict[str, float]] = field(default_factory=dict)
    """Queue → mean over the first and the last third, max."""
    alerts: Alerts = field(default_factory=Alerts)
    samples: list[dict[str, float]] = field(default_factory=list)
    """Queues and memory, once a second."""
    status: dict[str, Any] = field(default_factory=dict)


class Subscriber:
    """Notes when each event message came."""

    def __init__(self, url: str) -> None:
        self.came: list[tuple[float, dict[str, Any]]] = []
        address = urlsplit(url)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-subscriber", protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("anyecg/v1/+/+/events", qos=1)
        self._client.on_message = lambda _c, _d, message: self.came.append((time.time(), json.loads(message.payload)))
        self._client.connect(address.hostname or "127.0.0.1", address.port or 1883)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@dataclass(slots=True)
class Watch:
    """What a process of ours took, from `begin` on."""

    process: psutil.Process
    began_s: float = 0.0
    cpu_s: float = 0.0

    def begin(self) -> None:
        self.began_s, self.cpu_s = time.monotonic(), self._used_s()

    def percent(self) -> float:
        return 100 * (self._used_s() - self.cpu_s) / (time.monotonic() - self.began_s)

    def _used_s(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def measure(wearers: int, seconds: float, progress: Callable[[float, str], None]) -> Run:
    """Run `wearers` for `seconds` in a folder of its own."""
    run = Run(wearers, seconds, this_machine().load[0])
    with TemporaryDirectory(prefix="anyecg-bench-") as folder, local_broker(wanted="mosquitto") as broker:
        state, out = Path(folder) / "state", Path(folder) / "wearers.json"
        with daemon(state, broker) as process:
            subscriber = Subscriber(broker.url)
            run.rss_mb["start"] = psutil.Process(process.pid).memory_info().rss / 2**20
            command = [sys.executable, "-m", "bench.wearers", "--url", broker.url, "--out", str(out)]
            command += ["--wearers", str(wearers), "--seconds", str(seconds)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as senders:
                try:
                    with DiskProbe(Path(folder)) as probe:
                        _observe(run, state, process.pid, _mosquitto(), senders, seconds, progress)
                    run.fsync = Spread.of(probe.took_s)
                    if senders.wait(60):
                        raise AnyecgError(f"the wearables ended with code {senders.returncode}")
                finally:
                    senders.kill()
            progress(seconds, "settling")
            run.status = settle(state, process)
            time.sleep(2)
            subscriber.close()
        run.alerts = judge(json.loads(out.read_text())["wearables"], subscriber.came, state)
    return run


def _mosquitto() -> psutil.Process | None:
    children = psutil.Process().children(recursive=True)
    return next((child for child in children if child.name() == "mosquitto"), None)


def _observe(
    run: Run,
    state: Path,
    pid: int,
    broker: psutil.Process | None,
    senders: subprocess.Popen[str],
    seconds: float,
    progress: Callable[[float, str], None],
) -> None:
    """Sample daemon and broker while the wearables play."""
    assert senders.stdout is not None
    line = senders.stdout.readline()
    if not line:
        raise AnyecgError("the wearables did not start")
    first_s = json.loads(line)["first_s"]
    watches = {"daemon": Watch(psutil.Process(pid)), "senders": Watch(psutil.Process(senders.pid))}
    if broker is not None:
        watches["mosquitto"] = Watch(broker)
    counters: list[tuple[float, int, int]] = []
    warm = False
    while (at_s := time.time() - first_s) < seconds:
        if not warm and at_s >= min(WARM_UP_S, seconds / 3):
            warm = True
            for watch in watches.values():
                watch.begin()
        if warm:
            status = request(state, "status")
            rss_mb = watches["daemon"].process.memory_info().rss / 2**20
            run.samples.append({"at_s": at_s, **_queues(status), "rss_mb": rss_mb})
            counters.append((time.monotonic(), status["writer"]["commits"], status["analysis"]["hops"]))
        progress(max(0.0, at_s), "live")
        time.sleep(SAMPLE_S)
    run.cpu_percent = {name: round(watch.percent(), 1) for name, watch in watches.items()}
    span_s = counters[-1][0] - counters[0][0]
    run.commits_per_s = (counters[-1][1] - counters[0][1]) / span_s
    run.hops_per_s = (counters[-1][2] - counters[0][2]) / span_s
    third = max(1, len(run.samples) // 3)
    for name in [name for name in run.samples[0] if name != "at_s"]:
        values = [sample[name] for sample in run.samples]
        figures = {
            "first": float(np.mean(values[:third])),
            "last": float(np.mean(values[-third:])),
            "max": float(max(values)),
        }
        if name == "rss_mb":
            run.rss_mb |= figures
        else:
            run.queues[name] = figures


def _queues(status: dict[str, Any]) -> dict[str, float]:
    return {
        "chunks to commit": status["queues"]["chunks"],
        "chunks held back": status["broker"]["source"]["waiting"],
        "writes": status["writer"]["depth"],
        "analysis, s behind": status["analysis"]["lag_s"],
        "outbox": status["queues"]["outbox"],
    }


def table_of(runs: list[Run], machine: Machine) -> Figures:
    """Everything measured, a column per run."""
    rows: list[tuple[str, str, Callable[[Run], str]]] = [
        ("load average before", "", lambda run: f"{run.load_before:.1f}"),
        ("daemon CPU, % of a core", "", lambda run: f"{run.cpu_percent['daemon']:.0f}"),
        ("mosquitto CPU, %", "", lambda run: f"{run.cpu_percent['mosquitto']:.1f}"),
        ("senders CPU, %", "", lambda run: f"{run.cpu_percent['senders']:.1f}"),
        ("senders late at most, s", "", lambda run: f"{run.alerts.senders_late_s:.2f}"),
        ("daemon RSS at start, MB", "", lambda run: f"{run.rss_mb['start']:.0f}"),
        ("daemon RSS first → last third, MB", "", lambda run: f"{run.rss_mb['first']:.0f} → {run.rss_mb['last']:.0f}"),
        ("daemon RSS max, MB", "≤ 400 with 10", lambda run: f"{run.rss_mb['max']:.0f}"),
        ("commits/s", "", lambda run: f"{run.commits_per_s:.1f}"),
        ("disk alone: 4 kB synchronised, ms p50 / p99 / max", "", _disk),
        ("hops analysed/s", "wearers / 2", lambda run: f"{run.hops_per_s:.1f}"),
        ("chunks sent, not acknowledged", "all, 0", lambda run: f"{run.alerts.chunks}, {run.alerts.unacknowledged}"),
        ("chunk → end-to-end ack, s p50 / p99", "", lambda run: _pair(run.alerts.ack)),
    ]
    rows += [(f"{name}: first → last third, max", "not growing", partial(_depth, name=name)) for name in runs[0].queues]
    rows += [
        (
            "detections told as `new`",
            "",
            lambda run: str(run.alerts.needed_to_event.n if run.alerts.needed_to_event else 0),
        ),
        (
            "last needed sample → `new` received, s p50 / p99",
            "p99 ≤ 0.5",
            lambda run: _pair(run.alerts.needed_to_event),
        ),
        ("the part until it is committed, s p50 / p99", "", lambda run: _pair(run.alerts.needed_to_told)),
        ("the same for every message, s p50 / p99", "", lambda run: _pair(run.alerts.needed_to_any)),
    ]
    rows += [
        (
            f"onset → {name}, s p50 / p95 / max (signal alone)",
            "≤ 10" if name in WANTED_WITHIN_10_S else "",
            partial(_onset, name=name),
        )
        for name in TRUTH
    ]
    rows.append(("findings that were not told", "0", lambda run: str(run.alerts.untold)))
    return Figures(
        f"Live: {FS_HZ:g} Hz, 1 lead, a chunk a second each, mosquitto, real time · {machine.line}",
        ["", "wanted", *[f"{run.wearers} wearers, {run.seconds:g} s" for run in runs]],
        [[name, wanted, *[of(run) for run in runs]] for name, wanted, of in rows],
    )


def _needed(run: Run) -> str:
    return _pair(run.alerts.needed_to_event)


def _disk(run: Run) -> str:
    took = run.fsync
    return "-" if took is None else f"{1e3 * took.p50:.1f} / {1e3 * took.p99:.0f} / {1e3 * took.max:.0f}"


def _count(spread: Spread | None) -> str:
    return "0" if spread is None else str(spread.n)


def _pair(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.p50:.2f} / {spread.p99:.2f}"


def _depth(run: Run, name: str) -> str:
    figures = run.queues[name]
    return f"{figures['first']:.1f} → {figures['last']:.1f}, {figures['max']:.0f}"


def _onset(run: Run, name: str) -> str:
    spread, signal = run.alerts.onset[name], run.alerts.onset_signal[name]
    missed = f"missed {run.alerts.missed[name]}"
    if spread is None or signal is None:
        return missed
    return f"{spread.p50:.1f} / {spread.p95:.1f} / {spread.max:.1f} ({signal.max:.1f}), {missed}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wearers", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--json", type=Path, default=Path("build/bench/live.json"))
    options = parser.parse_args(arguments)
    console = Console()
    machine = this_machine()
    runs = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        for wearers in options.wearers:
            title = f"{wearers} wearers"
            task = bar.add_task(f"{title}: starting", total=60 * options.minutes)

            runs.append(measure(wearers, 60 * options.minutes, partial(_tell, bar, task, title)))
    figures = table_of(runs, machine)
    console.print(figures.as_rich())
    write_json(options.json, figures, machine, runs=[asdict(run) for run in runs])
    return 0


def _tell(bar: Progress, task: TaskID, title: str, at_s: float, what: str) -> None:
    bar.update(task, completed=at_s, description=f"{title}: {what}")


if __name__ == "__main__":
    sys.exit(main())
