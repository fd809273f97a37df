"""One device for ever: found, connected, started, watched, and connected again. `link.py` lists the states."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
from bleak import BleakClient
from bleak.backends.device import BLEDevice

from edge.alerts.backoff import Backoff
from edge.sources.ble import heart_rate
from edge.sources.ble.bindings import Binding
from edge.sources.ble.drivers.driver import Driver, StartRefusedError, notify
from edge.sources.ble.frame import FrameError
from edge.sources.ble.link import BUSY_AFTER, Link, LinkEvent, State, while_streaming, why_away, why_unreachable
from edge.sources.ble.radio import RADIO_ERRORS, Radio, reason_of
from edge.sources.ble.session import Session

CONNECT_TIMEOUT_S = 15.0
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 8.0
SILENT_S = 10.0
"""A started stream without a frame for this long is taken down and started again."""
LOOK_S = 0.25
HEARD_S = 15.0
"""A device that was heard more recently than this is near."""
BATTERY_S = 600.0
RETRY = Backoff(first_s=0.25, longest_s=4.0)
"""Short: a strap that is back shall deliver within 5 s."""
REFUSED_RETRY = Backoff(first_s=2.0, longest_s=30.0)

log = structlog.get_logger(__name__)


class SilentError(Exception):
    """The device is connected and started, and sends nothing."""


class LostError(Exception):
    """The connection has gone."""


LINK_ERRORS: tuple[type[BaseException], ...] = (SilentError, LostError, FrameError, *RADIO_ERRORS)


class Keeper:
    """Keeps one device connected and its stream running; `run` never returns."""

    def __init__(
        self,
        device: str,
        binding: Binding,
        driver: Driver,
        session: Session,
        radio: Radio,
        *,
        acquire: bool,
        utc_ns: Callable[[], int],
    ) -> None:
        self.device = device
        self.binding = binding
        self.session = session
        self.link = Link(utc_ns, self._log)
        self.counters: Counter[str] = Counter(connections=0, failures=0, refusals=0, silences=0, losses=0)
        self.first_samples_s: float | None = None
        """From hearing the device to its first samples, the last time."""
        self._driver = driver
        self._radio = radio
        self._acquire = acquire
        self._away = why_away(contact=None, battery=None)
        self._unreached = 0
        """Connections in a row that failed to a device that was heard."""

    async def run(self) -> None:
        """Keep the device until cancelled; the stream is stopped and the device let go then."""
        attempt = refusals = 0
        try:
            while True:
                device = await self._find(connected=attempt % 2 == 0)
                data = self.session.data
                wait_s = 0.0
                try:
                    await self._serve(device)
                except StartRefusedError as error:
                    self.counters["refusals"] += 1
                    wait_s = REFUSED_RETRY.wait_s(refusals)
                    refusals += 1
                    self.link.enter("refused", str(error))
                except LINK_ERRORS as error:
                    self.counters["failures"] += 1
                    attempt = 0 if self.session.data > data else attempt
                    wait_s = RETRY.wait_s(attempt)
                    attempt += 1
                    self.link.enter(*self._why_failed(error))
                if self.session.data > data:
                    refusals = 0
                await asyncio.sleep(wait_s)
        finally:
            self.link.enter("stopped", "")

    def snapshot(self) -> dict[str, Any]:
        """State and counters for `status`."""
        heard = self._radio.seen.get(self.binding.address)
        return {
            "wearer": self.binding.wearer,
            "address": self.binding.address,
            "kind": self.binding.kind,
            "name": self.binding.name,
            **self.link.snapshot(),
            "rssi": None if heard is None else heard.rssi,
            "first_samples_s": None if self.first_samples_s is None else round(self.first_samples_s, 2),
            **self.counters,
            **self.session.snapshot(),
        }

    async def _find(self, *, connected: bool) -> BLEDevice:
        services = frozenset((self._driver.service, heart_rate.SERVICE))
        search = asyncio.ensure_future(self._radio.find(self.binding.address, services, connected=connected))
        try:
            while True:
                if self._radio.problem is not None:
                    self.link.enter("no_bluetooth", self._radio.problem)
                elif not self._is_within_reach():
                    self.link.enter(*self._away)
                done, _ = await asyncio.wait({search}, timeout=1.0)
                if done:
                    return search.result()
        finally:
            search.cancel()

    async def _serve(self, device: BLEDevice) -> None:
        heard_s = time.monotonic()
        gone = asyncio.Event()
        client = BleakClient(device, lambda _: gone.set(), timeout=CONNECT_TIMEOUT_S, bluez=self._radio.client_args)
        try:
            async with self._radio.lock:
                self._unreached += 1
                if self._unreached <= BUSY_AFTER:
                    self.link.enter("connecting", "")
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await client.connect()
            self.counters["connections"] += 1
            self._unreached = 0
            self.link.enter("starting", "")
            self.session.connected()
            data = self.session.data
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._subscribe_standard(client)
                await self._driver.start(client, self.session, acquire=self._acquire)
            await self._watch(client, gone, heard_s, data)
        finally:
            if self.session.data or self.session.heart is not None:
                self._away = why_away(contact=self.session.contact, battery=self.session.battery)
            await self._let_go(client)
            self.session.disconnected()

    async def _watch(self, client: BleakClient, gone: asyncio.Event, heard_s: float, data: int) -> None:
        """Return never: raises LostError or SilentError."""
        spoke_s = battery_s = time.monotonic()
        first = True
        while True:
            if gone.is_set():
                self.counters["losses"] += 1
                raise LostError("connection lost")
            now_s = time.monotonic()
            session = self.session
            if session.data > data:
                data, spoke_s = session.data, now_s
                if first:
                    first, self.first_samples_s = False, now_s - heard_s
            if session.contact is False or not first:
                self.link.enter(
                    *while_streaming(contact=session.contact, battery=session.battery, behind=session.behind)
                )
            if now_s - spoke_s > SILENT_S and session.contact is not False:
                self.counters["silences"] += 1
                raise SilentError(f"connected, but nothing came for {SILENT_S:g} s")
            if now_s - battery_s > BATTERY_S:
                battery_s = now_s
                await self._read_battery(client)
            try:
                async with asyncio.timeout(LOOK_S):
                    await gone.wait()
            except TimeoutError:
                continue

    async def _subscribe_standard(self, client: BleakClient) -> None:
        """Heart rate brings contact and RR; the battery brings its level."""
        if client.services.get_characteristic(heart_rate.MEASUREMENT) is not None:
            await notify(client, heart_rate.MEASUREMENT, self._on_heart, self.session)
        await self._read_battery(client)

    async def _read_battery(self, client: BleakClient) -> None:
        if client.services.get_characteristic(heart_rate.BATTERY_LEVEL) is None:
            return
        try:
            data = bytes(await client.read_gatt_char(heart_rate.BATTERY_LEVEL))
            self.session.on_battery(heart_rate.decode_battery(data))
        except FrameError as error:
            self.session.on_bad(error)

    def _on_heart(self, data: bytes) -> None:
        self.session.on_heart(heart_rate.decode_measurement(data))

    async def _let_go(self, client: BleakClient) -> None:
        """Stop the stream before the connection goes: a strap left streaming drains its battery."""
        for step in (self._stop_stream(client), client.disconnect()):
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await step
            except RADIO_ERRORS as error:
                log.info("not stopped cleanly", device=self.device, reason=reason_of(error))

    async def _stop_stream(self, client: BleakClient) -> None:
        if client.is_connected:
            await self._driver.stop(client)

    def _is_within_reach(self) -> bool:
        """Whether it was heard a moment ago, and yet several connections failed."""
        heard = self._radio.seen.get(self.binding.address)
        return self._unreached >= BUSY_AFTER and heard is not None and time.monotonic() - heard.heard_s < HEARD_S

    def _why_failed(self, error: BaseException) -> tuple[State, str]:
        if isinstance(error, SilentError | LostError):
            return "failed", str(error)
        if not self._unreached:
            return "failed", reason_of(error)
        heard = self._radio.seen.get(self.binding.address)
        return why_unreachable(self._unreached, None if heard is None else heard.rssi, reason_of(error))

    def _log(self, event: LinkEvent) -> None:
        log.info("device", device=self.device, wearer=self.binding.wearer, state=event.state, reason=event.reason)
