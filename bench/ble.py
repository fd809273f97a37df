"""Many Bluetooth straps on the emulated BlueZ into the real daemon, faster than time: leaks, lag, loss.

    python -m bench ble [--straps 16 --hours 8 --speed 20]      24 minutes as it stands

The daemon runs in a process of its own on a clock `speed` times as fast; this process is bus, BlueZ and straps. The
straps play simulated ECG, lose frames and links at random. Lag is from the last notification in a chunk to its commit,
in real milliseconds. Memory is compared after a tenth of the time and at the end. The database must hold every sample
that was sent and nothing else.
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
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import numpy as np
from ble_kit import FastClock, bluetooth, h10_binding
from bluez.bus import PrivateBus
from bluez.straps import H10
from rich.console import Console
from sqlalchemy import func, select

from bench.figures import FOLDER, Figures, write_json
from bench.machine import this_machine
from edge.control import request
from edge.errors import AnyecgError
from edge.sources.ble.bindings import change_bindings
from edge.sources.script import load_script
from edge.sources.simulator import simulate
from edge.store import tables
from edge.store.database import open_readonly

LOSS = 0.002
"""Share of frames that the radio loses."""
LINK_S = (600.0, 2400.0)
AWAY_S = (10.0, 90.0)
"""Simulated seconds between two losses of the link, and until the strap is back."""
QUEUE_S = 600.0
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
        result |= asyncio.run(bench(Path(folder) / "state", bus, options.straps, options.hours, options.speed))
    figures = table(result)
    Console().print(figures.as_rich())
    del result["machine"]
    write_json(FOLDER / "ble.json", figures, machine, **result)
    raise SystemExit(0 if all(result["kept_promises"].values()) else 1)


def table(result: dict[str, Any]) -> Figures:
    """Return what was measured beside what was promised."""
    kept, rss, lag = result["kept_promises"], result["rss_mb"], result["commit_ms"]
    lags = f"{lag['p50']:.0f} / {lag['p99']:.0f} / {lag['max']:.0f}"
    memory = f"{rss['first']:.0f} / {rss['last']:.0f} ({rss['growth']:+.1%})"
    rows = [
        ["samples sent", f"{result['samples_sent']:,}", ""],
        ["samples stored", f"{result['samples_stored']:,}", _word(kept["nothing_lost"], "every one")],
        ["links lost on purpose", str(result["links_lost"]), ""],
        ["chunks dropped at the queue", f"{result['dropped']:.0f}", ""],
        ["notification to commit, p50 / p99 / max ms", lags, _word(kept["no_lag"], f"p99 < {MAX_P99_MS:.0f}")],
        ["memory after a tenth / at the end, MB", memory, _word(kept["no_leak"], f"< {MAX_GROWTH:+.0%}")],
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
    (state / "config.toml").write_text(f'[mqtt]\nurl = "mqtt://127.0.0.1:9"\n[ble]\nqueue_s = {QUEUE_S}\n')
    daemon = start_daemon(state, FastClock(speed))
    trail: list[dict[str, float]] = []
    async with bluetooth(bus, *h10s):
        accidents = [asyncio.create_task(lose_links(h10, n, speed)) for n, h10 in enumerate(h10s)]
        began_s = time.monotonic()
        end_s = began_s + hours * 3600 / speed
        while time.monotonic() < end_s:
            await asyncio.sleep(5)
            status = await ask(state, daemon)
            if status is not None:
                trail.append(figures(status, time.monotonic() - began_s))
        for task in accidents:
            task.cancel()
        await bring_back(h10s)
        daemon.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(daemon.wait, 120)
        still_streaming = sum(h10.streaming for h10 in h10s)
    sent = sum(n for h10 in h10s for _, n in h10.sent)
    settled = [row for row in trail if row["at_s"] >= 0.1 * (end_s - began_s)] or trail[-1:]
    growth = settled[-1]["rss_mb"] / settled[0]["rss_mb"] - 1
    p99_ms = max(row["p99_ms"] for row in settled)
    stored = stored_samples(state)
    return {
        "straps": straps,
        "simulated_hours": hours,
        "speed": speed,
        "samples_sent": sent,
        "samples_stored": stored,
        "links_lost": sum(h10.connections - 1 for h10 in h10s),
        "rss_mb": {"first": settled[0]["rss_mb"], "last": settled[-1]["rss_mb"], "growth": round(growth, 4)},
        "rss_trail_mb": [row["rss_mb"] for row in settled[:: max(len(settled) // 10, 1)]],
        "commit_ms": {
            "p99": p99_ms,
            "p50": float(np.median([row["p50_ms"] for row in settled])),
            "max": max(row["max_ms"] for row in settled),
        },
        "dropped": settled[-1]["dropped"],
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


async def lose_links(h10: H10, seed: int, speed: float) -> None:
    """Take a strap out of range now and then."""
    chance = random.Random(1000 + seed)
    while True:
        await asyncio.sleep(chance.uniform(*LINK_S) / speed)
        h10.visible = False
        h10.drop()
        await asyncio.sleep(chance.uniform(*AWAY_S) / speed)
        h10.visible = True


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


def figures(status: dict[str, Any], at_s: float) -> dict[str, float]:
    devices = status["ble"]["devices"].values()
    lags = [device["commit_ms"] for device in devices if device["commit_ms"] is not None]
    return {
        "at_s": at_s,
        "rss_mb": status["daemon"]["rss_mb"],
        "dropped": sum(device["dropped"] for device in devices),
        "analysis_lag_s": status["analysis"]["lag_s"],
        **{f"{name}_ms": max((lag[name] for lag in lags), default=0.0) for name in ("p50", "p99", "max")},
    }


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
