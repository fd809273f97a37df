"""The daemon's control socket: what other processes want done or know, as one JSON object per line.

Request `{"command": NAME, "params": {…}}`, answer `{"ok": true, "result": …}` or
`{"ok": false, "error": TEXT, "bad_input": BOOL}`. The socket lies in the state folder (0600) and answers only the
daemon's own user and root. A line is at most `MAX_LINE_BYTES`, at most `MAX_CONNECTIONS` are served at once, and who
is silent for `IDLE_S` between requests is hung up on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from edge.errors import AnyecgError, BadInputError
from edge.local_socket import address, listen, refusal
from edge.local_socket import is_served as answers

log = structlog.get_logger(__name__)

FILE_NAME = "control.sock"
MAX_LINE_BYTES = 1 << 20
MAX_CONNECTIONS = 32
IDLE_S = 60.0

Params = dict[str, Any]
Handler = Callable[[Params], Awaitable[Any]]
"""Takes the parameters, returns what JSON can say; `AnyecgError` becomes an error answer."""


class NotRunningError(AnyecgError):
    """No daemon answers on the state folder."""


class ControlServer:
    """Answers commands while it is entered (`async with`)."""

    def __init__(self, state: Path, handlers: Mapping[str, Handler]) -> None:
        """Answer the commands that `handlers` names."""
        self._path = state / FILE_NAME
        self._handlers = dict(handlers)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters = {"requests": 0, "errors": 0, "refused": 0}

    async def __aenter__(self) -> ControlServer:
        """Listen. Raises `AnyecgError` if a daemon already answers there or the socket cannot be made."""
        listener = listen(self._path, "a gateway", MAX_CONNECTIONS)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError):  # on a disk that is read-only it stays; the next start takes its place
            self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer), name="control")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refused = self._refusal(writer)
        try:
            while True:
                try:
                    async with asyncio.timeout(IDLE_S if refused is None else 1.0):
                        line = await reader.readline()
                except ValueError:
                    refused = f"request is longer than {MAX_LINE_BYTES} bytes"
                    line = b"\n"
                if not line:
                    return
                if refused is not None:
                    self.counters["refused"] += 1
                    writer.write(_line({"ok": False, "error": refused, "bad_input": False}))
                    await writer.drain()
                    return
                writer.write(_line(await self._answer(line)))
                await writer.drain()
        except (OSError, TimeoutError):
            pass  # the caller has gone, or is silent
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _refusal(self, writer: asyncio.StreamWriter) -> str | None:
        if len(self._tasks) > MAX_CONNECTIONS:
            return f"{MAX_CONNECTIONS} callers are being served: try again"
        return refusal(writer)

    async def _answer(self, line: bytes) -> Params:
        self.counters["requests"] += 1
        command = ""
        try:
            command, params = _parse(line)
            handler = self._handlers.get(command)
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                raise BadInputError(f"the gateway knows no command {command!r}; it knows: {known}")
            answer = {"ok": True, "result": await handler(params)}
            if len(_line(answer)) > MAX_LINE_BYTES:
                raise AnyecgError(f"the answer to {command!r} is larger than {MAX_LINE_BYTES} bytes: ask for less")
        except AnyecgError as error:
            self.counters["errors"] += 1
            return {"ok": False, "error": str(error), "bad_input": isinstance(error, BadInputError)}
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the gateway stops
            self.counters["errors"] += 1
            return {"ok": False, "error": f"{command!r} was given up by the gateway: try again", "bad_input": False}
        except Exception as error:
            self.counters["errors"] += 1
            log.exception("control command failed")
            return {"ok": False, "error": f"internal error ({type(error).__name__}), see its log", "bad_input": False}
        return answer


def request(state: Path, command: str, /, *, timeout_s: float = 30.0, **params: Any) -> Any:
    """Ask the daemon of a state folder and return its result.

    Raises `NotRunningError` if none runs, `BadInputError` if it finds fault with the request, `AnyecgError` if it
    fails or does not answer within `timeout_s`.
    """
    path = state / FILE_NAME
    line = _line({"command": command, "params": params})
    if len(line) > MAX_LINE_BYTES:
        raise BadInputError(f"request is longer than {MAX_LINE_BYTES} bytes")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            with address(path) as name:
                sock.connect(name)
            sock.sendall(line)
            with sock.makefile("rb") as stream:
                line = stream.readline(MAX_LINE_BYTES + 1)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunningError(f"no gateway runs on {state}: start it with `anyecg run --state {state}`") from None
    except PermissionError:
        raise AnyecgError(f"{path} belongs to another user: run the command as the gateway's user or as root") from None
    except TimeoutError:
        raise AnyecgError(f"the gateway did not answer {command!r} within {timeout_s:g} s") from None
    except OSError as error:
        raise AnyecgError(f"{path}: {error}") from None
    if not line.endswith(b"\n"):
        raise AnyecgError(f"the gateway hung up during {command!r}: see its log")
    answer = json.loads(line)
    if not answer["ok"]:
        raise (BadInputError if answer["bad_input"] else AnyecgError)(answer["error"])
    return answer["result"]


def is_served(state: Path) -> bool:
    """Return whether a daemon listens on a state folder."""
    return answers(state / FILE_NAME)


def _parse(line: bytes) -> tuple[str, Params]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInputError("request is not a line of JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise BadInputError('request is not {"command": NAME, "params": {…}}')
    params = request.get("params", {})
    if not isinstance(params, dict) or request.keys() > {"command", "params"}:
        raise BadInputError('request is not {"command": NAME, "params": {…}}')
    return request["command"], params


def _line(document: Params) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
