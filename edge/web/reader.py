"""Reading the database from the page's event loop: one short snapshot per question, in a few threads."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError

from edge.store.database import FILE_NAME, StoreError, open_readonly

T = TypeVar("T")
THREADS = 4


class Reader:
    """Opens the database when it is there; before the daemon's first start there is none."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._engine: Engine | None = None
        self._threads = ThreadPoolExecutor(THREADS, "page-reader")
        self._watch: sqlite3.Connection | None = None

    async def read(self, question: Callable[[Connection], T]) -> T:
        """Return what `question` finds, in one snapshot. Raises `StoreError` while there is no usable database."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, question)

    def _read(self, question: Callable[[Connection], T]) -> T:
        if self._engine is None:
            self._engine = open_readonly(self._state)
        try:
            with self._engine.connect() as conn:
                return question(conn)
        except DatabaseError as error:
            raise StoreError(f"cannot read the database in {self._state}: {error.orig}") from None

    def version(self) -> int:
        """Return a number that differs after every commit of the daemon; it costs microseconds. -1: no database."""
        try:
            if self._watch is None:
                path = (self._state / FILE_NAME).absolute().as_posix()
                self._watch = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            self._watch = None
            return -1

    def close(self) -> None:
        """Let go of the database."""
        self._threads.shutdown(cancel_futures=True)
        if self._engine is not None:
            self._engine.dispose()
        if self._watch is not None:
            self._watch.close()
