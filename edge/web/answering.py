"""Questions from the page: one at a time, to a process that holds the model and goes when nobody asks.

A crash or a long answer there costs the page one question and ingest nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

IDLE_S = 600.0
"""The model's memory is given back after so long without a question."""
ANSWER_S = 120.0
"""An answer that takes longer is given up and its process ended."""
MAX_WAITING = 4
MAX_LINE = 2**20


class Answerer:
    """Starts the process at the first question."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._idle: asyncio.TimerHandle | None = None
        self.counters = {"questions": 0, "failed": 0, "timeouts": 0}

    async def ask(self, question: str, wearer: str | None) -> AsyncIterator[dict[str, Any]]:
        """Yield what the process says; the last one has `done` or `error`."""
        if self._waiting >= MAX_WAITING:
            yield {"error": f"{MAX_WAITING} questions are waiting: ask again in a minute"}
            return
        self._waiting += 1
        try:
            if self._turn.locked():
                yield {"stage": "waiting for another question"}
            async with self._turn:
                self.counters["questions"] += 1
                finished = False
                try:
                    async with asyncio.timeout(ANSWER_S):
                        async for said in self._converse({"question": question, "wearer": wearer}):
                            finished = "done" in said or "error" in said
                            yield said
                except TimeoutError:
                    self.counters["timeouts"] += 1
                    yield {"error": f"no answer within {ANSWER_S:g} s; it was given up"}
                finally:
                    if not finished:  # half an answer is still on its way: the next question must not get it
                        self._end()
                    self._rest()
        finally:
            self._waiting -= 1

    async def _converse(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        with contextlib.suppress(OSError):
            await process.stdin.drain()
        while line := await process.stdout.readline():
            said = json.loads(line)
            yield said
            if "done" in said or "error" in said:
                return
        self.counters["failed"] += 1
        yield {
            "error": f"the assistant ended unexpectedly (code {await process.wait()}): ask again, see the page's log"
        }

    async def _started(self) -> asyncio.subprocess.Process:
        if self._idle is not None:
            self._idle.cancel()
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edge.web.answer_worker", str(self._state)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                limit=MAX_LINE,
            )
        return self._process

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._end)

    def _end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._process = None

    async def close(self) -> None:
        """End the process and wait for its end."""
        if self._idle is not None:
            self._idle.cancel()
        process = self._process
        self._end()
        if process is not None:
            await process.wait()
