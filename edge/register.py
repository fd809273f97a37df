"""Who wears what: asked for each chunk, and changed (`anyecg wearers`) while everything runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection

from edge import wearers
from edge.alerts.state import Board
from edge.desk import Desk
from edge.errors import BadInputError
from edge.gateway import Gateway
from edge.store import queries
from edge.store.wearers import Routes


class Register:
    """Changes wearers in the database and has every room look at it again. Lives on the daemon's event loop."""

    def __init__(self, gateway: Gateway, board: Board, desk: Desk, show_all: Callable[[], None]) -> None:
        """`show_all` puts every wearer of the database on the board."""
        self._gateway, self._board, self._desk, self._show_all = gateway, board, desk, show_all
        self._assigned: dict[tuple[str, str], float] = {}
        self._routes = self._load()

    def wearer(self, wearer: str, device: str, at_ns: int) -> str:
        """Return who wore a device that sends as `wearer`, at a UTC."""
        return self._routes.wearer(wearer, device, at_ns)

    async def change(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what `anyecg wearers` asks; `BadInputError` for what cannot be done."""
        action, wearer, gateway = wearers.check(request), request["wearer"], self._gateway
        now_ns = gateway.clock.utc_ns()
        with gateway.reader.connect() as conn:
            mine = [recording.id for recording in queries.recordings(conn, wearer)]
        if action == "forget":
            self._refuse_while_sending(wearer)
            await asyncio.to_thread(gateway.analyst.forget, mine)  # a batch half-way would write what is being erased
            folder = gateway.config.backup.folder
            erase = partial(wearers.forget, gateway.writer, gateway.state, folder, wearer=wearer, now_ns=now_ns)
            done = await asyncio.to_thread(erase)
        else:

            def change(conn: Connection) -> dict[str, Any]:
                gateway.writer.invalidate()
                return wearers.change(conn, gateway.state, request, now_ns)

            done = await asyncio.wrap_future(gateway.writer.submit(change))
        await self._look_again(action, request, mine)
        return done

    async def _look_again(self, action: str, request: dict[str, Any], recordings: list[int]) -> None:
        """Have every room forget what it remembers of a wearer who is another one now, or nobody."""
        wearer, gateway = request["wearer"], self._gateway
        if action in ("rename", "forget"):
            await asyncio.to_thread(gateway.analyst.forget, recordings)
            self._desk.forget(wearer)
            self._board.forget(wearer)
        if action == "rename":
            self._show_all()
            gateway.analyst.resume()
        elif action == "assign":
            self._board.forget(wearer, request["device"])
            self._assigned[wearer, request["device"]] = gateway.clock.monotonic_s()
        gateway.writer.submit(lambda conn: gateway.writer.invalidate())
        gateway.intake.forget()
        self._routes = await asyncio.to_thread(self._load)

    def _refuse_while_sending(self, wearer: str) -> None:
        links = self._board.links().get(wearer, {})
        sending = {device for device, link in links.items() if link != "offline"} | self._just_assigned(wearer)
        if sending:
            raise BadInputError(
                f"{', '.join(sorted(sending))} of {wearer} still sends: take it off, or assign it first"
            )

    def _just_assigned(self, wearer: str) -> set[str]:
        """Return the devices taken from a wearer so lately that chunks of theirs may still be on the way."""
        since_s = self._gateway.clock.monotonic_s() - self._gateway.config.alerts.stale_s
        self._assigned = {pair: at_s for pair, at_s in self._assigned.items() if at_s > since_s}
        return {device for name, device in self._assigned if name == wearer}

    def _load(self) -> Routes:
        with self._gateway.reader.connect() as conn:
            return Routes.load(conn)
