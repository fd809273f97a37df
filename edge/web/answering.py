"""Questions from the page, to the assistant's process: the one that runs, or one that goes when nobody asks.

A crash or a long answer there costs the page one question and ingest nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from edge.assistant.client import AssistantGoneError, converse_async, serves, start
from edge.errors import AnyecgError

IDLE_S = 600.0
"""The model's memory is given back after so long without a question."""
ANSWER_S = 120.0
"""An answer that takes longer is given up."""
MAX_WAITING = 8


class Answerer:
    """Starts the assistant at the first question, if none runs."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._waiting = 0
        self.counters = {"questions": 0, "failed": 0, "timeouts": 0}

    async def ask(self, question: str, wearer: str | None, context: Any = None) -> AsyncIterator[dict[str, Any]]:
        """Yield what the assistant says; the last one has `done` or `error`.

        `context` is the plan of the answer before, for a follow-up.
        """
        if self._waiting >= MAX_WAITING:
            yield {"error": f"{MAX_WAITING} questions are waiting: ask again in a minute"}
            return
        self._waiting += 1
        self.counters["questions"] += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                asking = {"question": question, "wearer": wearer, "context": context, "caller": "web"}
                async for said in self._converse(asking):
                    yield said
        except TimeoutError:
            self.counters["timeouts"] += 1
            yield {"error": f"no answer within {ANSWER_S:g} s; it was given up"}
        except AnyecgError as error:
            self.counters["failed"] += 1
            yield {"error": str(error)}
        finally:
            self._waiting -= 1

    async def _converse(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for attempt in range(2):
            async with self._starting:
                if not serves(self._state):
                    yield {"stage": "loading the language model"}
                    self._process = await start(self._state, IDLE_S)
            heard = False
            try:
                async for said in converse_async(self._state, request):
                    heard = True
                    yield said
                return
            except AssistantGoneError:
                if heard or attempt:
                    raise
            if self._process is not None:  # it was about to end: the next one is asked when it has
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), 5)

    async def close(self) -> None:
        """End the assistant if the page started it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
