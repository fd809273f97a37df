"""Many Bluetooth straps on the emulated BlueZ into the real daemon, faster than time: leaks, lag, loss.

    python -m bench ble [--straps 16 --hours 8 --speed 20]      24 minutes as it stands

The daemon runs in a process of its own on a clock `speed` times as fast; this process is bus, BlueZ and straps. The
straps play simulated ECG, lose frames and links at random. Lag is from the last notification in a chunk to its commit,
in real milliseconds, over all chunks after the first tenth of the time; memory is compared from there to the end. The
database must hold every sample that was sent and nothing else. Beside it runs what the disk alone takes.
"""

# ruff: noqa: E402 (the emulation lies with the tests)
from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import numpy as np
import psutil
from ble_kit import FastClock, bluetooth, h10_binding
from bluez.bus import PrivateBus
from bluez.straps import H10
from rich.console import Console
from sqlalchemy import func, select

from bench.disk import DiskProbe
from bench.figures import FOLDER, Figures, write_json
from bench.latency import Spread
from bench.machine import this_machine
from edge.control import request
from edge.errors import AnyecgError
from edge.sources.ble.bindings import change_bindings
from edge.sources.ble.outlet import LAG_BOUNDS_S
from edge.sources.script import load_script
from edge.sources.simulator import simulate
from edge.store import tables
from edge.store.database import open_readonly

LOSS = 0.002
"""Share of frames that the radio loses."""
LINK_S = (600.0, 2400.0)
AWAY_S = (10.0, 90.0)
"""Simulated seconds between two losses of the link, and until the strap is back."""
QUEUE_S = 30.0
"""Real seconds of signal that may wait, as shipped."""
MAX_GROWTH = 0.05
MAX_P99_MS = 500.0


def main() -> None:
    """Run and print one JSON document; exit code 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--straps", type=int, default=16)
    parser.add_argument("--hours", type=float, default=8.0, help="simulated")
    parser.add_argument("--speed", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, PrivateBus(Path(folder)) as bus:
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
        machine = this_machine()
        result = {"machine": machine.line}
        with DiskProbe(Path(folder)) as probe:
            result |= asyncio.run(bench(Path(folder) / "state", bus, options.straps, options.hours, options.speed))
        disk = Spread.of(probe.took_s)
        assert disk is not None
        result["disk_ms"] = {"p50": 1e3 * disk.p50, "p99": 1e3 * disk.p99, "max": 1e3 * disk.max}
    figures = table(result)
    Console().print(figures.as_rich())
    del result["machine"]
    write_json(FOLDER / "ble.json", figures, machine, **result)
    raise SystemExit(0 if all(result["kept_promises"].values()) else 1)


def table(result: dict[str, Any]) -> Figures:
    """Return what was measured beside what was promised."""
    kept, rss, lag, disk = result["kept_promises"], result["rss_mb"], result["commit_ms"], result["disk_ms"]
    lags = f"{lag['p50']:.0f} / {lag['p99']:.0f} / {lag['max']:.0f}"
    memory = f"{rss['first']:.0f} / {rss['last']:.0f} ({rss['growth']:+.1%})"
    load, back = result["load"], "-"
    if result["back_s"] is not None:
        back = "{p50:.1f} / {max:.1f}".format(**result["back_s"])
    rows = [
        ["samples sent", f"{result['samples_sent']:,}", ""],
        ["samples stored", f"{result['samples_stored']:,}", _word(kept["nothing_lost"], "every one")],
        ["dropped at the queue, counted", f"{result['dropped_samples']:,.0f}", ""],
        ["links lost on purpose", str(result["links_lost"]), ""],
        ["strap back in range to its first samples, p50 / max s", back, "5"],
        ["notification to commit, p50 / p99 / max ms", lags, _word(kept["no_lag"], f"p99 < {MAX_P99_MS:.0f}")],
        ["chunks that took longer than 500 ms", f"{lag['late_share']:.2%}", ""],
        ["worst p99 of a strap's last 1,024 chunks, ms", f"{lag['worst_window_p99']:.0f}", ""],
        ["disk alone: 4 kB synchronised, p50 / p99 / max ms", "{p50:.1f} / {p99:.0f} / {max:.0f}".format(**disk), ""],
        ["memory after a tenth / at the end, MB", memory, _word(kept["no_leak"], f"< {MAX_GROWTH:+.0%}")],
        [
            "CPU of the daemon / of bus and straps, % of a core",
            "{daemon:.0f} / {straps:.0f}".format(**result["cpu"]),
            "",
        ],
        ["load of the machine, mean / max", f"{load['mean']:.1f} / {load['max']:.1f}", ""],
        ["streams stopped at SIGTERM", "all" if kept["stopped"] else "not all", _word(kept["stopped"], "all")],
    ]
    title = f"{result['straps']} straps × {result['simulated_hours']:g} h at {result['speed']:g}× · {result['machine']}"
    return Figures(title, ["", "measured", "promised"], rows)


def _word(is_kept: bool, promise: str) -> str:
    return promise if is_kept else f"{promise}: BROKEN"


async def bench(state: Path, bus: PrivateBus, straps: int, hours: float, speed: float) -> dict[str, Any]:
    """Play everything and return the figures."""
    record = simulate(load_script("tour"), seed=1, fs_hz=130.0, duration_s=1800.0).record
    samples = np.rint(record.samples[0] * record.uv_per_lsb[0]).astype(np.int32)
    h10s = [strap(n, samples, speed) for n in range(straps)]
    bindings = {f"strap{n}": h10_binding(h10.address, f"wearer{n}") for n, h10 in enumerate(h10s)}
    change_bindings(state, lambda bound: bound.update(bindings))
    (state / "config.toml").write_text(f'[mqtt]\nurl = "mqtt://127.0.0.1:9"\n[ble]\nqueue_s = {QUEUE_S * speed}\n')
    daemon = start_daemon(state, FastClock(speed))
    cpu = psutil.Process(daemon.pid)
    trail: list[dict[str, Any]] = []
    async with bluetooth(bus, *h10s):
        back_s: list[float] = []
        accidents = [asyncio.create_task(lose_links(h10, n, speed, back_s)) for n, h10 in enumerate(h10s)]
        began_s = time.monotonic()
        end_s = began_s + hours * 3600 / speed
        while time.monotonic() < end_s:
            await asyncio.sleep(5)
            status = await ask(state, daemon)
            if status is not None:
                trail.append(figures(status, time.monotonic() - began_s))
        elapsed_s, spent_s, ours_s = time.monotonic() - began_s, sum(cpu.cpu_times()[:2]), sum(os.times()[:2])
        for task in accidents:
            task.cancel()
        await bring_back(h10s)
        daemon.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(daemon.wait, 120)
        still_streaming = sum(h10.streaming for h10 in h10s)
    sent = sum(n for h10 in h10s for _, n in h10.sent)
    settled = [row for row in trail if row["at_s"] >= 0.1 * (end_s - began_s)] or trail[-1:]
    growth = settled[-1]["rss_mb"] / settled[0]["rss_mb"] - 1
    lags = [b - a for a, b in zip(settled[0]["lags"], settled[-1]["lags"], strict=True)]
    p99_ms = quantile_ms(lags, 0.99)
    stored = stored_samples(state)
    return {
        "straps": straps,
        "simulated_hours": hours,
        "speed": speed,
        "samples_sent": sent,
        "samples_stored": stored,
        "links_lost": sum(h10.connections - 1 for h10 in h10s),
        "back_s": {"p50": float(np.median(back_s)), "max": max(back_s)} if back_s else None,
        "rss_mb": {"first": settled[0]["rss_mb"], "last": settled[-1]["rss_mb"], "growth": round(growth, 4)},
        "rss_trail_mb": [row["rss_mb"] for row in settled[:: max(len(settled) // 10, 1)]],
        "commit_ms": {
            "p50": quantile_ms(lags, 0.5),
            "p99": p99_ms,
            "max": max(row["max_ms"] for row in settled),
            "late_share": sum(lags[LAG_BOUNDS_S.index(MAX_P99_MS / 1e3) + 1 :]) / sum(lags),
            "worst_window_p99": max(row["p99_ms"] for row in settled),
            "counts": dict(zip([f"<= {bound:g} s" for bound in LAG_BOUNDS_S] + ["more"], lags, strict=True)),
        },
        "cpu": {"daemon": 100 * spent_s / elapsed_s, "straps": 100 * ours_s / elapsed_s},
        "load": {"mean": float(np.mean([row["load"] for row in trail])), "max": max(row["load"] for row in trail)},
        "dropped": settled[-1]["dropped"],
        "dropped_samples": settled[-1]["dropped_samples"],
        "analysis_lag_s": settled[-1]["analysis_lag_s"],
        "kept_promises": {
            "no_leak": growth < MAX_GROWTH,
            "no_lag": p99_ms < MAX_P99_MS,
            "nothing_lost": stored == sent,
            "stopped": code == 0 and still_streaming == 0,
        },
    }


def strap(number: int, samples: Any, speed: float) -> H10:
    """Return a strap with faults of its own."""
    chance = random.Random(number)
    turned = np.roll(samples, -number * 5000)
    return H10(
        f"A0:9E:1A:00:01:{number:02X}",
        turned,
        speed=speed,
        repeats=True,
        drift_ppm=chance.uniform(-100, 100),
        jitter_s=0.05 / speed,
        loses=lambda frame: chance.random() < LOSS,
        seed=number,
    )


async def lose_links(h10: H10, seed: int, speed: float, back_s: list[float]) -> None:
    """Take a strap out of range now and then; note how long it takes from its return to its first samples."""
    chance = random.Random(1000 + seed)
    while True:
        await asyncio.sleep(chance.uniform(*LINK_S) / speed)
        h10.visible = False
        h10.drop()
        await asyncio.sleep(chance.uniform(*AWAY_S) / speed)
        sent, returned_s = len(h10.sent), time.monotonic()
        h10.visible = True
        while len(h10.sent) == sent:
            await asyncio.sleep(0.01)
        back_s.append(time.monotonic() - returned_s)


async def bring_back(h10s: list[H10]) -> None:
    """Let every strap be in range and kept when the end comes: only then can its stream be stopped."""
    for h10 in h10s:
        h10.visible = True
    deadline_s = time.monotonic() + 30
    while not all(h10.streaming and h10.connected_by for h10 in h10s) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)


def start_daemon(state: Path, clock: FastClock) -> subprocess.Popen[bytes]:
    arguments = [str(state), str(clock.speed), repr(clock._origin_s), str(clock._utc0_ns)]
    with (state / "daemon.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(TESTS / "bluez/fast_daemon.py"), *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        )


async def ask(state: Path, daemon: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    if daemon.poll() is not None:
        raise SystemExit((state / "daemon.log").read_text()[-3000:])
    try:
        return dict(await asyncio.to_thread(request, state, "status"))
    except AnyecgError:
        return None


def figures(status: dict[str, Any], at_s: float) -> dict[str, Any]:
    devices = status["ble"]["devices"].values()
    recent = [device["commit_ms"] for device in devices if device["commit_ms"] is not None]
    return {
        "at_s": at_s,
        "load": os.getloadavg()[0],
        "rss_mb": status["daemon"]["rss_mb"],
        "dropped": sum(device["dropped"] for device in devices),
        "dropped_samples": sum(device["dropped_samples"] for device in devices),
        "analysis_lag_s": status["analysis"]["lag_s"],
        "lags": [sum(counts) for counts in zip(*(device["commit_lags"]["counts"] for device in devices), strict=True)],
        **{f"{name}_ms": max((lag[name] for lag in recent), default=0.0) for name in ("p99", "max")},
    }


def quantile_ms(counts: list[int], share: float) -> float:
    """Return a quantile from counts per bound of `LAG_BOUNDS_S`, linear within a bound; beyond the last: the last."""
    reached = list(accumulate(counts))
    wanted = share * reached[-1]
    at = bisect_right(reached, wanted)
    if at >= len(LAG_BOUNDS_S):
        return 1e3 * LAG_BOUNDS_S[-1]
    low, below = (LAG_BOUNDS_S[at - 1], reached[at - 1]) if at else (0.0, 0)
    return 1e3 * (low + (LAG_BOUNDS_S[at] - low) * (wanted - below) / counts[at])


def stored_samples(state: Path) -> int:
    """Count what the database says was recorded."""
    recording, gap = tables.recording.c, tables.gap.c
    engine = open_readonly(state)
    with engine.connect() as conn:
        ends = conn.execute(select(func.sum(recording.end_sample))).scalar_one()
        gaps = conn.execute(select(func.coalesce(func.sum(gap.end_sample - gap.start_sample), 0))).scalar_one()
    engine.dispose()
    return int(ends) - int(gaps)


if __name__ == "__main__":
    main()
