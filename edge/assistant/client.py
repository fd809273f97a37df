"""Asking the assistant's process, from another one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from edge.errors import AnyecgError, BadInputError
from edge.local_socket import address, is_served

FILE_NAME = "assistant.sock"
MAX_ANSWER_BYTES = 1 << 22
ANSWER_S = 120.0
"""The service gives up earlier; this is for one that hangs."""
START_S = 60.0


class AssistantGoneError(AnyecgError):
    """No assistant answers, or it ended in the middle: somebody else may be asked."""


def serves(state: Path) -> bool:
    """Return whether an assistant answers on a state folder."""
    return is_served(state / FILE_NAME)


def converse(state: Path, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the assistant says to a request; the last one has `done`.

    Raises:
        BadInputError: it finds fault with the request.
        AnyecgError: it cannot be reached, fails, or hangs.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(ANSWER_S)
            with address(state / FILE_NAME) as path:
                sock.connect(path)
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as stream:
                while line := stream.readline(MAX_ANSWER_BYTES):
                    said = json.loads(line)
                    if "error" in said:
                        raise (BadInputError if said.get("bad_input") else AnyecgError)(said["error"])
                    yield said
                    if "done" in said:
                        return
    except TimeoutError:
        raise AnyecgError(f"the assistant did not answer within {ANSWER_S:g} s") from None
    except OSError as error:
        raise AssistantGoneError(f"cannot reach the assistant: {error}") from None
    raise AssistantGoneError("the assistant ended unexpectedly: ask again, see its log")


async def converse_async(state: Path, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Yield what the assistant says to a request; the last one has `done` or `error`.

    Raises:
        AnyecgError: it cannot be reached, or ended in the middle.
    """
    try:
        with address(state / FILE_NAME) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_ANSWER_BYTES)
    except OSError as error:
        raise AssistantGoneError(f"cannot reach the assistant: {error}") from None
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        while line := await reader.readline():
            said = json.loads(line)
            yield said
            if "done" in said or "error" in said:
                return
    except OSError as error:
        raise AssistantGoneError(f"the assistant hung up: {error}") from None
    finally:
        writer.close()
    raise AssistantGoneError("the assistant ended unexpectedly: ask again, see its log")


async def asked(state: Path, wearer: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to what somebody asks about one wearer over MQTT: `{"question", "now", "context"}`.

    Raises:
        BadInputError: a field that is not known, or the assistant finds fault with the question.
        AnyecgError: no assistant runs, it fails, or does not answer within `ANSWER_S`.
    """
    unknown = request.keys() - {"question", "now", "context"}
    if unknown:
        raise BadInputError(f"ask takes no {', '.join(sorted(unknown))}; it takes question, now, context")
    if not serves(state):
        raise AnyecgError("no assistant runs on the gateway: start `anyecg assistant`")
    said: dict[str, Any] = {}
    try:
        async with asyncio.timeout(ANSWER_S):
            asking = {**request, "wearer": wearer, "caller": f"mqtt {wearer}"}
            said = [line async for line in converse_async(state, asking)][-1]
    except TimeoutError:
        raise AnyecgError(f"the assistant did not answer within {ANSWER_S:g} s") from None
    if "done" not in said:
        raise (BadInputError if said.get("bad_input") else AnyecgError)(str(said.get("error")))
    answer: dict[str, Any] = said["done"]
    return {
        name: answer[name] for name in ("question", "answer", "plan", "citations", "coverage", "fallback", "wearer")
    }


def make_way(state: Path) -> None:
    """Ask an assistant that the page has started to end after the questions it has; wait until it has.

    Raises:
        AnyecgError: the one that answers was not started by the page, or does not end within `ANSWER_S`.
    """
    with contextlib.suppress(AssistantGoneError):
        list(converse(state, {"make_way": True}))
    until_s = time.monotonic() + ANSWER_S
    while serves(state):
        if time.monotonic() > until_s:
            raise AnyecgError(f"the assistant that the page has started did not end within {ANSWER_S:g} s")
        time.sleep(0.05)


async def start(state: Path, idle_s: float) -> asyncio.subprocess.Process:
    """Start an assistant that ends with this process, or when nobody has asked for `idle_s`; return once it answers.

    Raises:
        AnyecgError: it ended at once, or does not answer within `START_S`.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge", "assistant", "--state", str(state), "--idle", f"{idle_s:g}", "--until-eof"),
        stdin=asyncio.subprocess.PIPE,  # closed by the kernel if this process dies
        stdout=asyncio.subprocess.DEVNULL,
        env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
    )
    try:
        async with asyncio.timeout(START_S):
            while not serves(state):
                if process.returncode is not None and not serves(state):
                    raise AnyecgError(f"the assistant ended at once (code {process.returncode}): see the log")
                await asyncio.sleep(0.05)
    except BaseException as error:  # also who asked may be gone before it answers
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise AnyecgError(f"the assistant did not start within {START_S:g} s") from None
        raise
    return process
