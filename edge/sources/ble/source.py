"""All bound devices of the gateway; runs on the daemon's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from edge.chunk import Delivery
from edge.clock import Clock
from edge.config import Ble
from edge.errors import BadInputError
from edge.intervals import Intervals
from edge.sources.ble.bindings import Binding, read_bindings, read_profiles
from edge.sources.ble.generic import Profile
from edge.sources.ble.interval_track import IntervalTrack
from edge.sources.ble.keeper import Keeper
from edge.sources.ble.kinds import KINDS, driver_of
from edge.sources.ble.radio import Radio
from edge.sources.ble.session import Session
from edge.sources.stream import Stream

DRAIN_S = 5.0

log = structlog.get_logger(__name__)


class BleSource:
    """Keeps every device of `devices.toml` and hands its chunks to `offer`; without one, BlueZ is left alone."""

    def __init__(
        self,
        state: Path,
        settings: Ble,
        *,
        offer: Callable[[Delivery], bool],
        offer_intervals: Callable[[Intervals], bool],
        clock: Clock,
    ) -> None:
        """`offer` and `offer_intervals` take something or return False if they cannot now; on the event loop."""
        self._state = state
        self._settings = settings
        self._offer = offer
        self._offer_intervals = offer_intervals
        self._clock = clock
        self._radio = Radio(settings.adapter)
        self._keepers: dict[str, tuple[Keeper, asyncio.Task[None]]] = {}
        self._scanner: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the bindings and begin; returns at once. Raises `BadInputError` for a file that makes no sense."""
        self.keep(read_bindings(self._state), read_profiles(self._state))

    async def reload(self) -> dict[str, Any]:
        """Read the bindings again: new devices are taken up, removed or changed ones are stopped first."""
        bindings, profiles = read_bindings(self._state), read_profiles(self._state)
        _check_kinds(bindings, profiles)
        gone = [device for device, (keeper, _) in self._keepers.items() if bindings.get(device) != keeper.binding]
        await self._end(gone)
        self.keep(bindings, profiles)
        return {"devices": sorted(self._keepers)}

    async def stop(self) -> None:
        """Stop every stream, let every device go, and wait a little for what is on its way to the disk."""
        sessions = [keeper.session for keeper, _ in self._keepers.values()]
        await self._end(list(self._keepers))
        if self._scanner is not None:
            self._scanner.cancel()
            await asyncio.gather(self._scanner, return_exceptions=True)
            self._scanner = None
        deadline_s = self._loop_s() + DRAIN_S
        while not all(session.outlet.idle for session in sessions) and self._loop_s() < deadline_s:
            for session in sessions:
                session.outlet.pump()
            await asyncio.sleep(0.02)
        for session in sessions:
            lost_s = session.outlet.give_up()
            if lost_s:
                log.warning("not kept before the end", device=session.stream.device, signal_s=round(lost_s, 1))

    def owns(self, wearer: str, device: str) -> bool:
        """Return whether a device is bound here."""
        found = self._keepers.get(device)
        return found is not None and found[0].binding.wearer == wearer

    def snapshot(self) -> dict[str, Any]:
        """State and counters for `status`."""
        return {
            "problem": self._radio.problem,
            "devices": {device: keeper.snapshot() for device, (keeper, _) in self._keepers.items()},
        }

    def why_away(self, wearer: str, device: str) -> dict[str, str]:
        """Return what is known of why no data came from a device the last time; nothing for one not bound here."""
        if not self.owns(wearer, device):
            return {}
        away = self._keepers[device][0].link.away
        return {} if away is None else {"link": away[0], "link_reason": away[1]}

    def batteries(self) -> list[tuple[str, str, int]]:
        """Return (wearer, device, percent) of every device that has said it."""
        found = [(keeper, keeper.session.battery) for keeper, _ in self._keepers.values()]
        return [(keeper.binding.wearer, keeper.device, level) for keeper, level in found if level is not None]

    def keep(self, bindings: dict[str, Binding], profiles: dict[str, Profile]) -> None:
        """Take up these devices, too. Raises `BadInputError` for a kind that neither is built in nor has a profile."""
        _check_kinds(bindings, profiles)
        for device, binding in bindings.items():
            if device not in self._keepers:
                keeper = self._keeper(device, binding, profiles)
                task = asyncio.get_running_loop().create_task(keeper.run(), name=f"ble-{device}")
                task.add_done_callback(_complain)
                self._keepers[device] = (keeper, task)
        if self._keepers and self._scanner is None:
            self._scanner = asyncio.get_running_loop().create_task(self._radio.run(), name="ble-radio")
            self._scanner.add_done_callback(_complain)

    def _keeper(self, device: str, binding: Binding, profiles: dict[str, Profile]) -> Keeper:
        driver = driver_of(binding, profiles)
        session = Session(
            Stream(binding.wearer, device, driver.leads, driver.fs_hz, driver.uv_per_lsb),
            self._clock,
            stamped=driver.stamped,
            offer=self._offer,
            offer_intervals=self._offer_intervals,
            soon=asyncio.get_running_loop().call_soon,
            queue_s=self._settings.queue_s,
            track=None if driver.has_ecg else IntervalTrack(binding.wearer, device, self._clock),
        )
        acquire = self._settings.acquire_notify
        return Keeper(device, binding, driver, session, self._radio, acquire=acquire, utc_ns=self._clock.utc_ns)

    async def _end(self, devices: list[str]) -> None:
        tasks = []
        for device in devices:
            _, task = self._keepers.pop(device)
            task.cancel()
            tasks.append(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _loop_s(self) -> float:
        return asyncio.get_running_loop().time()


def _check_kinds(bindings: dict[str, Binding], profiles: dict[str, Profile]) -> None:
    for device, binding in bindings.items():
        if binding.kind not in KINDS and binding.kind not in profiles:
            known = ", ".join([*KINDS, *profiles])
            raise BadInputError(f"devices.toml: {device}: there is no kind {binding.kind!r}; known: {known}")


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("bluetooth task failed", task=task.get_name(), error=repr(error))
