"""The disk under the database: what is there, what goes by policy, and what happens when it is full.

| state | when | what happens |
|---|---|---|
| ok | room enough | what is past its age goes, in slices between which chunks are committed |
| degraded | less than `min_free_mb` free, or the database above `max_mb` | the oldest signal, then embeddings, go; \
what the database has to spare is given back |
| failing | the disk is full, or read-only | the reserve file is given up, and room made with it; what is not kept is \
not acknowledged: broker and wearable keep it |

Where the oldest signal may not go (`keep_hours`, not analysed yet) the state says so and names what to do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog
from sqlalchemy import Connection

from edge.clock import Clock
from edge.config import Retention
from edge.errors import AnyecgError
from edge.store import retention
from edge.store.rescue import mark_damaged
from edge.store.writer import Writer

log = structlog.get_logger(__name__)

RESERVE = "reserve"
LOOK_S = 5.0
"""How often the disk is looked at."""
SWEEP_S = 600.0
"""How often what is past its age goes."""
PAUSE_S = 0.05
"""Between two slices: chunks go first."""
SLICES_AT_ONCE = 200
"""Slices between two looks at the disk."""
MB = 2**20
DAY_NS = 86_400 * 10**9
CLOCK_STEP_S = 600.0
HOLD_S = 86_400.0
"""After the wall clock moved by more than `CLOCK_STEP_S` nothing goes by age for so long: it may be wrong."""

START_MB = 8
"""Opening the database takes so much at most: the index of its log, and what is written first."""

State = Literal["ok", "degraded", "failing"]
T = TypeVar("T")


class DamagedError(AnyecgError):
    """The database is damaged; only a new start can do something about it."""


@dataclass(frozen=True, slots=True)
class Disk:
    """One look."""

    free: int
    """Bytes free on the disk for this user."""
    used: int
    """Bytes of the database with something in them."""
    spare: int
    """Bytes of the database to be used again."""


def make_way(state: Path) -> None:
    """Give up the reserve if the disk has no room left to open the database."""
    path = state / RESERVE
    if path.exists() and _free_bytes(state) < START_MB * MB:
        path.unlink()
        log.warning("the disk is full: the reserve is given up so that the gateway can start")


class Storage:
    """Watches the disk and makes room; `run` never ends."""

    def __init__(self, state: Path, limits: Retention, writer: Writer, clock: Clock) -> None:
        self.limits = limits
        self._state = state
        self._writer = writer
        self._clock = clock
        self._disk = Disk(0, 0, 0)
        self._verdict: tuple[State, str] = ("ok", "")
        self._gone = {"raw_blocks": 0, "embeddings": 0, "trends": 0, "findings": 0}
        self._swept_s: float | None = None
        self._hold_until_s = 0.0
        self._offset_s = clock.utc_ns() / 1e9 - clock.monotonic_s()

    def configure(self, limits: Retention) -> None:
        """Go by other limits from the next look on."""
        self.limits = limits
        self._swept_s = None

    def snapshot(self) -> dict[str, Any]:
        """Return state, reason and figures for `status`."""
        state, reason = self._verdict
        if self._writer.trouble and state != "failing":  # newer than the last look
            state, reason = "failing", self._writer.trouble
        return {
            "state": state,
            "reason": reason,
            "disk_free_mb": round(self._disk.free / MB, 1),
            "database_mb": round(self._disk.used / MB, 1),
            "spare_mb": round(self._disk.spare / MB, 1),
            "reserve_mb": round(self._reserve_bytes() / MB, 1),
            "expired": dict(self._gone),
        }

    async def run(self) -> None:
        """Look, make room, let what is past its age go; for ever."""
        while True:
            try:
                await self.look()
            except DamagedError:
                raise
            except (AnyecgError, OSError) as error:
                self._say("failing", f"the disk under {self._state} does not take anything: {error}")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Do once what `run` does: one look, and what it asks for."""
        if self._writer.damage:
            mark_damaged(self._state, self._writer.damage)
            raise DamagedError(f"{self._writer.damage}: the next start moves it aside and restores it")
        now_s = self._clock.monotonic_s()
        self._note_clock(now_s)
        is_full = "full" in self._writer.trouble
        if is_full:
            self._give_up_reserve()
        elif (
            self._is_sweep_due(now_s) and await self._sweep()
        ):  # a short disk is no reason to keep what is past its age
            self._swept_s = now_s
        self._disk = await self._measure()
        missing = self._missing(self._disk)
        if missing > 0 or is_full:
            await self._make_room(missing, is_full)
            return
        if self._is_short:
            self._say("degraded", f"{self._shortage()}: what the database has to spare is given back")
            await self._do(retention.vacuum)
            return
        self._take_reserve()
        if self._writer.trouble:
            self._say("failing", self._writer.trouble)
        else:
            self._say("ok", "")

    async def _measure(self) -> Disk:
        free = _free_bytes(self._state)
        used = await self._do(retention.usage)
        return Disk(free, used.used, used.free)

    def _missing(self, disk: Disk) -> int:
        """Return how many bytes of signal are to go."""
        wanted = self.limits.min_free_mb * MB - disk.free - disk.spare
        if self.limits.max_mb is not None:
            wanted = max(wanted, disk.used - self.limits.max_mb * MB)
        return wanted

    async def _make_room(self, missing: int, is_full: bool) -> None:
        """Let the oldest go until `missing` bytes are spare, or nothing more may go."""
        before_ns = self._clock.utc_ns() - round(self.limits.keep_hours * 3600e9)
        why = "the disk is full" if is_full else self._shortage()
        if self.limits.max_mb is not None and self._disk.used > self.limits.max_mb * MB:
            why = f"the database has {self._disk.used // MB} MB of {self.limits.max_mb} allowed"
        wanted = self._disk.spare + max(missing, 4 * MB if is_full else 0)
        for _ in range(SLICES_AT_ONCE):
            if (await self._do(retention.usage)).free >= wanted:
                break
            gone = await self._expire("raw_blocks", retention.expire_raw, before_ns)
            if not gone and not await self._expire("embeddings", retention.expire_embeddings, before_ns):
                self._say(
                    "failing",
                    f"{why}, and nothing more may go (retention.keep_hours = {self.limits.keep_hours:g}): free the "
                    "disk, or lower keep_hours or min_free_mb",
                )
                return
            self._say("failing" if is_full else "degraded", f"{why}: the oldest signal goes")
        if self._is_short:  # others need the room, too
            await self._do(retention.vacuum)

    @property
    def _is_short(self) -> bool:
        return self._disk.free < self.limits.min_free_mb * MB

    def _shortage(self) -> str:
        return f"{self._disk.free // MB} MB free of {self.limits.min_free_mb} wanted"

    def _is_sweep_due(self, now_s: float) -> bool:
        return now_s >= self._hold_until_s and (self._swept_s is None or now_s - self._swept_s >= SWEEP_S)

    async def _sweep(self) -> bool:
        """Let go what is past its age; False when there is more than fits between two looks."""
        now_ns = self._clock.utc_ns()
        tiers: list[tuple[str, float | None, Callable[[Connection, int], int]]] = [
            ("raw_blocks", self.limits.raw_days, retention.expire_raw),
            ("embeddings", self.limits.embeddings_days, retention.expire_embeddings),
            ("trends", self.limits.trends_days, retention.expire_trends),
            ("findings", self.limits.findings_days, retention.expire_findings),
        ]
        slices = 0
        for name, days, expire in tiers:
            while days is not None and await self._expire(name, expire, now_ns - round(days * DAY_NS)):
                slices += 1
                if slices >= SLICES_AT_ONCE:
                    return False
        return True

    async def _expire(self, name: str, expire: Callable[[Connection, int], int], before_ns: int) -> int:
        gone = await self._do(lambda conn: expire(conn, before_ns))
        self._gone[name] += gone
        await asyncio.sleep(PAUSE_S)
        return gone

    async def _do(self, job: Callable[[Connection], T]) -> T:
        future: Future[T] = self._writer.submit(job)
        return await asyncio.wrap_future(future)

    def _note_clock(self, now_s: float) -> None:
        offset_s = self._clock.utc_ns() / 1e9 - now_s
        if abs(offset_s - self._offset_s) > CLOCK_STEP_S:
            self._hold_until_s = now_s + HOLD_S
            log.warning("the clock was set: nothing expires by age for a day", by_s=round(offset_s - self._offset_s))
        self._offset_s = offset_s

    def _say(self, state: State, reason: str) -> None:
        if self._verdict[0] != state:
            (log.info if state == "ok" else log.warning)("disk", state=state, reason=reason)
        self._verdict = (state, reason)

    def _reserve_bytes(self) -> int:
        try:
            return (self._state / RESERVE).stat().st_size
        except OSError:
            return 0

    def _give_up_reserve(self) -> None:
        if self._reserve_bytes():
            (self._state / RESERVE).unlink(missing_ok=True)
            log.warning("the disk is full: the reserve is given up", mb=self.limits.reserve_mb)

    def _take_reserve(self) -> None:
        """Set room aside while there is plenty."""
        wanted = self.limits.reserve_mb * MB
        if self._reserve_bytes() == wanted or self._disk.free < self.limits.min_free_mb * MB + 2 * wanted:
            return
        path = self._state / RESERVE
        path.unlink(missing_ok=True)
        if wanted:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, wanted)


def _free_bytes(state: Path) -> int:
    found = os.statvfs(state)
    return found.f_bavail * found.f_frsize
