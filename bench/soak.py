"""Days of several wearers, faster than time, through mosquitto, with a fault every minute or so.

    python -m bench soak [--hours 24 --speed 60 --wearers 5]      24 minutes as it stands
    python -m bench soak --hours 1                                a minute, to try it

The wearables (`bench/soak_wearers.py`) lose, repeat, shuffle and give up chunks and restart; the gateway is killed, its
broker goes away, its database is locked, its disk filled, its clock set (`bench/soak_faults.py`; filling the disk takes
root and a loop device). At the end everything is compared with what was sent and with an undisturbed reading
(`bench/soak_check.py`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faults_kit import SmallDisk
from gateway_kit import SEVERE, Listener
from rich.console import Console

from bench.figures import FOLDER, Figures, write_json
from bench.machine import Machine, this_machine
from bench.soak_check import Kept, Told, forecast_bytes, kept, told
from bench.soak_faults import Fault, Faults, Gateway
from bench.soak_wearers import Wearable
from broker.mosquitto import Mosquitto
from edge.errors import AnyecgError
from edge.store.database import FILE_NAME, open_readonly
from edge.store.retention import usage

EVERY_S = 75.0
HOLD_S = 12.0
"""Real seconds from one fault to the next, and how long a fault lasts that has no length of its own."""
MAX_GROWTH = 0.05
MAX_SIZE_OFF = 0.15
DISK_MB = 640
LOOK_S = 2.0
SETTLE_S = 600.0
CONFIG = """[gateway]
id = "soak"
[mqtt]
url = "{url}"
[alerts]
cooldown_s = 0
[retention]
min_free_mb = 64
keep_hours = 48
"""


class Subscriber(Listener):
    """A subscriber whose session outlives its connection."""

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(broker, session_s=86_400)
        self._broker = broker

    def leave(self) -> None:
        self.close()

    def come_back(self) -> None:
        self.reconnect(self._broker)


@dataclass
class Result:
    """What was measured."""

    hours: float
    speed: float
    wall_s: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    told: Told | None = None
    lives: list[list[tuple[float, float]]] = field(default_factory=list)
    """Of each process of the daemon: (simulated hours, RSS in MB)."""
    size_bytes: dict[str, float] = field(default_factory=dict)
    """Pages in use and what the formula says."""
    exit_code: int = -1

    @property
    def growth(self) -> tuple[float, float, float, float]:
        """Return (hours looked at, MB at their beginning, at their end, growth) in the longest life after its first
        hour (or tenth, of a short run)."""
        life = max(self.lives, key=lambda life: life[-1][0] - life[0][0])
        first_h = life[0][0] + min(1.0, (life[-1][0] - life[0][0]) / 4)
        later = [rss for at_h, rss in life if at_h >= first_h]
        tenth = max(len(later) // 10, 1)
        first, last = sum(later[:tenth]) / tenth, sum(later[-tenth:]) / tenth
        return life[-1][0] - first_h, first, last, last / first - 1

    def promises(self) -> dict[str, bool]:
        sizes = self.size_bytes
        return {
            "nothing_lost": not any(one.lost or one.changed for one in self.kept),
            "nothing_twice": not any(one.twice for one in self.kept) and self.told is not None
            and not self.told.contradictory,
            "as_undisturbed": all(one.as_undisturbed is not False for one in self.kept),
            "everything_told": self.told is not None and not self.told.missing,
            "always_back": all(fault.back_s is not None for fault in self.faults),
            "no_leak": self.growth[3] < MAX_GROWTH,
            "size": abs(sizes["used"] / sizes["forecast"] - 1) < MAX_SIZE_OFF,
            "stopped": self.exit_code == 0,
        }  # fmt: skip


def soak(folder: Path, wearers: int, hours: float, speed: float, every_s: float, say: Callable[[str], None]) -> Result:
    """Run everything in `folder` and return what was measured."""
    result = Result(hours, speed)
    with ExitStack() as stack:
        disk = _disk(folder, say)
        if disk is not None:
            stack.callback(disk.close)
        state = (disk.path if disk is not None else folder) / "state"
        state.mkdir(mode=0o700)
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        (state / "config.toml").write_text(CONFIG.format(url=broker.url))
        gateway = Gateway(state, broker)
        gateway.start()
        stack.callback(lambda: gateway.process.poll() is None and gateway.kill())
        subscriber = Subscriber(broker)
        stack.callback(subscriber.close)
        start_ns = time.time_ns() + round((hours / speed - hours) * 3600e9)
        wearables = [Wearable(i, broker.url, hours, speed, start_ns) for i in range(wearers)]
        _play(result, gateway, wearables, Faults(gateway, wearables, subscriber, disk, seed=1), every_s, say)
        say("settling")
        _settle(gateway)
        time.sleep(2)
        result.exit_code = _stop(gateway)
        say("comparing")
        _judge(result, state, wearables, subscriber)
    return result


def _disk(folder: Path, say: Callable[[str], None]) -> SmallDisk | None:
    if os.geteuid() == 0:
        return SmallDisk(DISK_MB, folder)
    say("not root: no disk is filled")
    return None


def _play(
    result: Result,
    gateway: Gateway,
    wearables: list[Wearable],
    faults: Faults,
    every_s: float,
    say: Callable[[str], None],
) -> None:
    """Let the wearables send, look at memory, and inject faults until all is sent."""
    began_s = time.monotonic()
    for wearable in wearables:
        wearable.begin(began_s)
    end_s = began_s + result.hours * 3600 / result.speed
    next_fault_s, next_look_s, pid = began_s + every_s / 2, began_s, -1

    def at_h() -> float:
        return (time.monotonic() - began_s) * result.speed / 3600

    while any(wearable.is_alive() for wearable in wearables):
        gateway.ensure()
        now_s = time.monotonic()
        if now_s >= next_look_s:
            next_look_s = now_s + LOOK_S
            if gateway.process.pid != pid:
                pid = gateway.process.pid
                result.lives.append([])
            result.lives[-1].append((at_h(), gateway.rss_mb()))
            say(f"{at_h():.1f} h, {result.lives[-1][-1][1]:.0f} MB, {len(faults.done)} faults")
        if next_fault_s <= now_s < end_s - every_s / 2:
            next_fault_s = now_s + every_s
            faults.inject(at_h(), min(HOLD_S, every_s / 6), may_kill=now_s < (began_s + end_s) / 2)
        time.sleep(0.1)
    result.wall_s = time.monotonic() - began_s
    result.faults = faults.done
    for wearable in wearables:
        if wearable.error is not None:
            raise AnyecgError(f"{wearable.wearer} could not send: {wearable.error}")


def _settle(gateway: Gateway) -> None:
    deadline_s = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline_s:
        status = gateway.status()
        if status is not None and status["analysis"]["is_idle"] and status["queues"]["outbox"] == 0:
            return
        time.sleep(0.5)
    raise AnyecgError("analysis did not catch up")


def _stop(gateway: Gateway) -> int:
    gateway.process.terminate()
    return gateway.process.wait(60)


def _judge(result: Result, state: Path, wearables: list[Wearable], subscriber: Subscriber) -> None:
    reader = open_readonly(state)
    with reader.connect() as conn:
        result.kept = [kept(conn, wearable, compare=True) for wearable in wearables]
        result.told = told(conn, subscriber.messages, SEVERE)
        result.size_bytes = {
            "file": float((state / FILE_NAME).stat().st_size),
            "used": float(usage(conn).used),
            "forecast": forecast_bytes(wearables),
        }
    reader.dispose()


def table_of(result: Result, machine: Machine) -> Figures:
    """What was measured beside what is promised."""
    kept_promises = result.promises()
    told_, sizes = result.told, result.size_bytes
    assert told_ is not None
    span_h, first, last, growth = result.growth
    backs = [fault.back_s for fault in result.faults if fault.back_s is not None]
    samples = sum(one.sent for one in result.kept)
    compared = sum(one.as_undisturbed is not None for one in result.kept)
    rows = [
        ["samples sent", f"{samples:,}", ""],
        ["of them lost / changed", f"{sum(k.lost for k in result.kept):,} / {sum(k.changed for k in result.kept):,}",
         _word(kept_promises["nothing_lost"], "0 / 0")],
        ["given up by the wearable, kept as gaps", f"{sum(k.gaps for k in result.kept):,}", ""],
        ["faults", f"{len(result.faults)} of {len({f.name for f in result.faults})} kinds", ""],
        ["caught up after a fault, worst, real s", f"{max(backs, default=0):.0f}",
         _word(kept_promises["always_back"], "always")],
        ["findings", f"{sum(k.findings for k in result.kept):,}", ""],
        ["findings twice", f"{sum(k.twice for k in result.kept)}", _word(kept_promises["nothing_twice"], "0")],
        [f"findings as an undisturbed reading has them, {compared} wearers",
         "yes" if kept_promises["as_undisturbed"] else "no", _word(kept_promises["as_undisturbed"], "yes")],
        ["messages at the subscriber, repeated, contradictory, missing",
         f"{told_.messages}, {told_.repeated}, {told_.contradictory}, {told_.missing}",
         _word(kept_promises["everything_told"], "-, -, 0, 0")],
        [f"memory in the longest life after its first hour ({span_h:.1f} h), MB",
         f"{first:.0f} → {last:.0f} ({growth:+.1%})", _word(kept_promises["no_leak"], f"< {MAX_GROWTH:+.0%}")],
        ["database, MB in use / by the formula", f"{sizes['used'] / 1e6:.1f} / {sizes['forecast'] / 1e6:.1f}",
         _word(kept_promises["size"], f"± {MAX_SIZE_OFF:.0%}")],
        ["minutes", f"{result.wall_s / 60:.1f}", ""],
    ]  # fmt: skip
    title = f"{len(result.kept)} wearers × {result.hours:g} h at {result.speed:g}× · {machine.line}"
    return Figures(title, ["", "measured", "promised"], rows)


def _word(is_kept: bool, promise: str) -> str:
    return promise if is_kept else f"{promise}: BROKEN"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wearers", type=int, default=5)
    parser.add_argument("--hours", type=float, default=24.0, help="simulated")
    parser.add_argument("--speed", type=float, default=60.0)
    parser.add_argument("--json", type=Path, default=FOLDER / "soak.json")
    options = parser.parse_args(arguments)
    console = Console()
    machine = this_machine()
    every_s = min(EVERY_S, options.hours * 3600 / options.speed / 8)
    with TemporaryDirectory(prefix="anyecg-soak-") as folder, console.status("starting") as status:
        result = soak(Path(folder), options.wearers, options.hours, options.speed, every_s, status.update)
    figures = table_of(result, machine)
    console.print(figures.as_rich())
    document: dict[str, Any] = asdict(result)
    document["lives"] = [life[:: max(len(life) // 20, 1)] for life in result.lives]
    write_json(options.json, figures, machine, **document, kept_promises=result.promises())
    return 0 if all(result.promises().values()) else 1


if __name__ == "__main__":
    sys.exit(main())
