"""Deliveries on their way to the disk: bounded, and each chunk once, however often it is delivered meanwhile.

A broker that was away sends everything unacknowledged again, on every new connection, and so does a wearable. Were each
repetition to wait for a commit of its own, the queue would hold what came over connections that are gone, and nothing
would be acknowledged on the one that lives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial

from edge.chunk import Chunk, Delivery


class Admission:
    """Takes deliveries from any thread and passes each chunk on once."""

    def __init__(self, limit: int) -> None:
        """At most `limit` chunks are on their way."""
        self.limit = limit
        self.repeated = 0
        """Deliveries of a chunk that was on its way already."""
        self._lock = threading.Lock()
        self._entries: dict[Hashable, list[Callable[[], None]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, delivery: Delivery, accept: Callable[[Delivery], None]) -> bool:
        """Pass a delivery on to `accept`, unless its chunk was passed on already; False if too many chunks wait.

        What was passed on stays counted until its `committed` is called, or `end`.
        """
        key = _identity(delivery.chunk)
        with self._lock:
            known = self._entries.get(key)
            if known is not None:
                known.append(delivery.committed)
                self.repeated += 1
                return True
            if len(self._entries) >= self.limit:
                return False
            self._entries[key] = [delivery.committed]
        accept(replace(delivery, committed=partial(self._committed, key)))
        return True

    def end(self, delivery: Delivery) -> None:
        """Forget a chunk that was passed on, whatever became of it; who delivered it is told nothing more."""
        with self._lock:
            self._entries.pop(_identity(delivery.chunk), None)

    def _committed(self, key: Hashable) -> None:
        with self._lock:
            callbacks = self._entries.pop(key, [])
        for callback in callbacks:
            callback()


def _identity(chunk: Chunk) -> Hashable:
    """Return what tells a chunk from every other, its content included."""
    where = (chunk.wearer, chunk.device, chunk.boot, chunk.seq, chunk.oldest)
    when = (chunk.device_time_ns, chunk.utc_ns, chunk.contact)
    return (*where, *when, chunk.leads, chunk.fs_hz, chunk.uv_per_lsb, chunk.n, hash(chunk.samples.tobytes()))
