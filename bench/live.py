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
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
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
from sqlalchemy import select

from bench.figures import Figures, write_json
from bench.machine import Machine, this_machine
from bench.wearers import FS_HZ
from broker.local import local_broker
from edge.control import request
from edge.demo import daemon, settle
from edge.encoder.windows import samples_needed
from edge.errors import AnyecgError
from edge.store import tables
from edge.store.database import open_readonly

WARM_UP_S = 15.0
"""CPU and queues count from here on: the encoder has run, the first windows are full."""
SAMPLE_S = 1.0
LATE_FOR_S = 5.0
"""A finding may begin this much before or after the truth and still be about it."""
WHOLE_S = 8.0
"""Shortest stretch of a rhythm that must be told."""
TRUTH = {
    "vt": ("vt", ("vt",)),
    "vf": ("vf", ("vf",)),
    "vf, told as vf or vt": ("vf", ("vf", "vt")),
    "asystole": ("asystole", ("asystole",)),
    "pause": ("pause", ("pause",)),
    "lead_off": ("lead_off", ("lead_off",)),
}
"""Row → kind of stretch in the truth, rules whose events tell it."""
WANTED_WITHIN_10_S = ("vt", "vf", "vf, told as vf or vt", "asystole")


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in a few figures, seconds."""

    n: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        if not values:
            return None
        p50, p95, p99 = np.percentile(values, [50, 95, 99])
        return cls(len(values), float(p50), float(p95), float(p99), max(values))


@dataclass(slots=True)
class Run:
    """One number of wearers."""

    wearers: int
    seconds: float
    load_before: float
    chunks: int = 0
    unacknowledged: int = 0
    senders_late_s: float = 0.0
    cpu_percent: dict[str, float] = field(default_factory=dict)
    """Of one core: daemon, mosquitto, senders."""
    rss_mb: dict[str, float] = field(default_factory=dict)
    """Of the daemon: start, first (mean of the first third), last (of the last third), max."""
    commits_per_s: float = 0.0
    hops_per_s: float = 0.0
    queues: dict[str, dict[str, float]] = field(default_factory=dict)
    """Queue → mean over the first and the last third, max."""
    ack: Spread | None = None
    """Chunk published → end-to-end acknowledgement received."""
    needed_to_event: Spread | None = None
    """Published the last needed sample → `new` received."""
    needed_to_told: Spread | None = None
    """The part of it until the gateway wrote the message."""
    needed_to_any: Spread | None = None
    """The same for every event message: new, update, end."""
    onset: dict[str, Spread | None] = field(default_factory=dict)
    """Rhythm → true onset to its event, windows and look-ahead included."""
    onset_signal: dict[str, Spread | None] = field(default_factory=dict)
    """The part of it until the last needed sample existed: what no machine can make faster."""
    missed: dict[str, str] = field(default_factory=dict)
    """Rhythm → "missed/all" among stretches that should have been told."""
    untold: int = 0
    """Findings in the store that are worth an event and reached no subscriber."""
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
                    _observe(run, state, process.pid, _mosquitto(), senders, seconds, progress)
                    if senders.wait(60):
                        raise AnyecgError(f"the wearables ended with code {senders.returncode}")
                finally:
                    senders.kill()
            progress(seconds, "settling")
            run.status = settle(state, process)
            time.sleep(2)
            subscriber.close()
        _judge(run, json.loads(out.read_text()), subscriber.came, state)
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
    rows: list[tuple[float, dict[str, float]]] = []
    counters: list[tuple[float, int, int]] = []
    warm = False
    while (at_s := time.time() - first_s) < seconds:
        if not warm and at_s >= min(WARM_UP_S, seconds / 3):
            warm = True
            for watch in watches.values():
                watch.begin()
        if warm:
            status = request(state, "status")
            rows.append((at_s, _queues(status) | {"rss_mb": watches["daemon"].process.memory_info().rss / 2**20}))
            counters.append((time.monotonic(), status["writer"]["commits"], status["analysis"]["hops"]))
        progress(max(0.0, at_s), "live")
        time.sleep(SAMPLE_S)
    run.cpu_percent = {name: round(watch.percent(), 1) for name, watch in watches.items()}
    span_s = counters[-1][0] - counters[0][0]
    run.commits_per_s = (counters[-1][1] - counters[0][1]) / span_s
    run.hops_per_s = (counters[-1][2] - counters[0][2]) / span_s
    third = max(1, len(rows) // 3)
    for name in rows[0][1]:
        values = [row[name] for _, row in rows]
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


def _judge(run: Run, log: dict[str, Any], came: list[tuple[float, dict[str, Any]]], state: Path) -> None:
    """Compare what the subscriber got with what was sent and with the truth."""
    wearables = {one["wearer"]: one for one in log["wearables"]}
    run.chunks = sum(len(one["ends"]) for one in wearables.values())
    run.unacknowledged = run.chunks - sum(len(one["acked_s"]) for one in wearables.values())
    run.senders_late_s = max(one["late_s"] for one in wearables.values())
    run.ack = Spread.of(
        [
            acked - sent
            for one in wearables.values()
            for sent, acked in zip(one["published_s"], one["acked_s"], strict=False)
        ]
    )
    rows, revisions = _stored(state)
    told = {row["id"] for row in rows.values() if row["severity"] != "info" and row["state"] != "retracted"}
    run.untold = len(told - {message["id"] for _, message in came})
    latencies = defaultdict(list)
    first_told: dict[str, float] = {}
    for at_s, message in came:
        row = rows.get(message["id"])
        if row is None or message["wearer"] not in wearables:
            continue  # a silence: not a finding of the analysis
        first_told[row["id"]] = min(at_s, first_told.get(row["id"], at_s))
        k = row["opened_k"] if message["type"] == "new" else revisions.get((row["id"], message["revision"]))
        if k is None:
            continue
        one = wearables[message["wearer"]]
        chunk = int(np.searchsorted(one["ends"], samples_needed(FS_HZ, k, k + 1)[1]))
        published_s = one["published_s"][chunk]
        latencies["any"].append(at_s - published_s)
        if message["type"] == "new":
            latencies["new"].append(at_s - published_s)
            latencies["told"].append(_epoch_s(message["told"]) - published_s)
    run.needed_to_any = Spread.of(latencies["any"])
    run.needed_to_event = Spread.of(latencies["new"])
    run.needed_to_told = Spread.of(latencies["told"])
    _onsets(run, wearables, list(rows.values()), first_told)


def _onsets(run: Run, wearables: dict[str, Any], rows: list[dict[str, Any]], first_told: dict[str, float]) -> None:
    """Pair every stretch of the truth with the first event of its rule that touches it."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["wearer"]].append(row)
    onsets: dict[str, list[float]] = {name: [] for name in TRUTH}
    signal: dict[str, list[float]] = {name: [] for name in TRUTH}
    missed: dict[str, list[bool]] = {name: [] for name in TRUTH}
    slack = LATE_FOR_S * FS_HZ
    for one in wearables.values():
        for name, start, end, rules in _stretches(one):
            about = [
                row
                for row in found[one["wearer"]]
                if row["rule"] in rules
                and row["id"] in first_told
                and row["start_sample"] < end + slack
                and row["end_sample"] > start - slack
            ]
            missed[name].append(not about)
            if about:
                first = min(about, key=lambda row: first_told[row["id"]])
                onsets[name].append(first_told[first["id"]] - (one["first_s"] + start / FS_HZ))
                needed = samples_needed(FS_HZ, first["opened_k"], first["opened_k"] + 1)[1]
                signal[name].append((needed - start) / FS_HZ)
    run.onset = {name: Spread.of(values) for name, values in onsets.items()}
    run.onset_signal = {name: Spread.of(values) for name, values in signal.items()}
    run.missed = {name: f"{sum(values)}/{len(values)}" for name, values in missed.items()}


def _stretches(one: dict[str, Any]) -> Iterator[tuple[str, int, int, tuple[str, ...]]]:
    """Return (row, start, end, rules) of what is to be told about a wearable, without what the end of the run cut."""
    for kind, start, end in one["spans"]:
        if end - start < WHOLE_S * FS_HZ or end > one["ends"][-1] - 10 * FS_HZ:
            continue
        for name, (of, rules) in TRUTH.items():
            if of == kind:
                yield name, *_true_stretch(kind, start, end, one["beats"]), rules


def _true_stretch(kind: str, start: int, end: int, beats: list[int]) -> tuple[int, int]:
    """Return [start, end) of what is to be told: of a pause, the longest interval without a beat."""
    if kind != "pause":
        return start, end
    inside = [beat for beat in beats if start <= beat < end]
    return max(pairwise(inside), key=lambda pair: pair[1] - pair[0])


def _stored(state: Path) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, int], int]]:
    """Return the findings by id, and the hop of each revision."""
    reader = open_readonly(state)
    revision, finding = tables.finding_revision.c, tables.finding
    try:
        with reader.connect() as conn:
            query = select(finding, tables.recording.c.wearer).join_from(finding, tables.recording)
            rows = {row["id"]: dict(row) for row in conn.execute(query).mappings()}
            earlier = conn.execute(select(revision.finding_id, revision.revision, revision.row)).all()
    finally:
        reader.dispose()
    hops = {(row["id"], row["revision"]): row["told_k"] for row in rows.values()}
    hops |= {(key, number): row["told_k"] for key, number, row in earlier}
    return rows, hops


def _epoch_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def table_of(runs: list[Run], machine: Machine) -> Figures:
    """Everything measured, a column per run."""
    rows: list[tuple[str, str, Callable[[Run], str]]] = [
        ("load average before", "", lambda run: f"{run.load_before:.1f}"),
        ("daemon CPU, % of a core", "", lambda run: f"{run.cpu_percent['daemon']:.0f}"),
        ("mosquitto CPU, %", "", lambda run: f"{run.cpu_percent['mosquitto']:.1f}"),
        ("senders CPU, %", "", lambda run: f"{run.cpu_percent['senders']:.1f}"),
        ("senders late at most, s", "", lambda run: f"{run.senders_late_s:.2f}"),
        ("daemon RSS at start, MB", "", lambda run: f"{run.rss_mb['start']:.0f}"),
        ("daemon RSS first → last third, MB", "", lambda run: f"{run.rss_mb['first']:.0f} → {run.rss_mb['last']:.0f}"),
        ("daemon RSS max, MB", "≤ 400 with 10", lambda run: f"{run.rss_mb['max']:.0f}"),
        ("commits/s", "", lambda run: f"{run.commits_per_s:.1f}"),
        ("hops analysed/s", "wearers / 2", lambda run: f"{run.hops_per_s:.1f}"),
        ("chunks sent, not acknowledged", "all, 0", lambda run: f"{run.chunks}, {run.unacknowledged}"),
        ("chunk → end-to-end ack, s p50 / p99", "", lambda run: _pair(run.ack)),
    ]
    rows += [(f"{name}: first → last third, max", "not growing", partial(_depth, name=name)) for name in runs[0].queues]
    rows += [
        ("detections told as `new`", "", lambda run: str(run.needed_to_event.n if run.needed_to_event else 0)),
        ("last needed sample → `new` received, s p50 / p99", "p99 ≤ 0.5", lambda run: _pair(run.needed_to_event)),
        ("the part until it is committed, s p50 / p99", "", lambda run: _pair(run.needed_to_told)),
        ("the same for every message, s p50 / p99", "", lambda run: _pair(run.needed_to_any)),
    ]
    rows += [
        (
            f"onset → {name}, s p50 / p95 / max (signal alone)",
            "≤ 10" if name in WANTED_WITHIN_10_S else "",
            partial(_onset, name=name),
        )
        for name in TRUTH
    ]
    rows.append(("findings that were not told", "0", lambda run: str(run.untold)))
    return Figures(
        f"Live: {FS_HZ:g} Hz, 1 lead, a chunk a second each, mosquitto, real time · {machine.line}",
        ["", "wanted", *[f"{run.wearers} wearers, {run.seconds:g} s" for run in runs]],
        [[name, wanted, *[of(run) for run in runs]] for name, wanted, of in rows],
    )


def _pair(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.p50:.2f} / {spread.p99:.2f}"


def _depth(run: Run, name: str) -> str:
    figures = run.queues[name]
    return f"{figures['first']:.1f} → {figures['last']:.1f}, {figures['max']:.0f}"


def _onset(run: Run, name: str) -> str:
    spread, signal = run.onset[name], run.onset_signal[name]
    missed = f"missed {run.missed[name]}"
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
