"""amqtt in a thread of this process: the demo's broker where mosquitto is not installed (MQTT 3.1.1 only).

What it lacks beside mosquitto: message expiry, reason codes, sessions that outlive a disconnect of an
anonymous client, persistence. The guarantees are proven on mosquitto, not here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future

from broker.errors import BrokerError
from broker.mosquitto import START_TIMEOUT_S, STOP_TIMEOUT_S, free_port

CLOSE_TIMEOUT_S = 0.5


class EmbeddedBroker:
    """An amqtt broker on a loopback port, started and stopped like `Mosquitto`."""

    protocol = "3.1.1"
    kind = "amqtt"

    def __init__(self, *, port: int | None = None) -> None:
        self.port = port if port is not None else free_port()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return once it listens."""
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)  # it logs every disconnect as a warning
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="amqtt", daemon=True)
        self._thread.start()
        try:
            started.result(START_TIMEOUT_S)
        except Exception as error:
            raise BrokerError(f"amqtt did not start on port {self.port}: {error}") from error

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None:
            return
        if loop is not None and stop is not None and thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(STOP_TIMEOUT_S)
        self._thread = self._loop = self._stop = None

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(started))
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[None]) -> None:
        from amqtt.broker import Broker

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        serve = broker.stream_connected

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str) -> None:
            try:
                await serve(reader, writer, listener_name)
            finally:  # amqtt leaves connections that are open when it ends to the garbage collector
                writer.transport.abort()

        broker.stream_connected = connected
        await broker.start()
        started.set_result(None)
        await self._stop.wait()
        await broker.shutdown()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        if connections:  # a client that it does not understand is let go a moment later
            await asyncio.wait(connections, timeout=CLOSE_TIMEOUT_S)
