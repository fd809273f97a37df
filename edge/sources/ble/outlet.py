"""What waits between the radio and the disk, and the rule when that is too much.

Notifications never wait. At most half of `limit_s` seconds of signal are handed over and not yet committed; at most
the other half waits behind them. Beyond that the oldest waiting piece is dropped and counted: a gap in the record,
never a lag that grows.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.chunk import Delivery
from edge.sources.ble.anchor import Anchor
from edge.sources.ble.placer import Piece

KEPT_LATENCIES = 1024
LAG_BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds of the counts in `lags`, as a Prometheus histogram has them; beyond the last there is one more."""
BEHIND, CAUGHT_UP = 1 / 4, 1 / 8
"""Shares of `limit_s` that wait when a device is called behind, and no longer."""


@dataclass(slots=True, eq=False)
class Outlet:
    """The queue of one device; belongs to the event loop's thread."""

    anchor: Anchor
    offer: Callable[[Delivery], bool]
    """Takes a delivery or returns False if it cannot now; must not block."""
    soon: Callable[[Callable[[], None]], object]
    """Runs something on the event loop, a little later."""
    limit_s: float = 30.0
    counters: Counter[str] = field(default_factory=lambda: Counter(chunks=0, committed=0, dropped=0, dropped_samples=0))
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))
    """From arrival of the last notification in a chunk to its commit, by this process's clock."""
    lags: list[int] = field(default_factory=lambda: [0] * (len(LAG_BOUNDS_S) + 1))
    """How many chunks took how long, since the start."""
    lag_sum_s: float = 0.0
    _is_behind: bool = False
    _waiting: deque[tuple[Piece, float]] = field(default_factory=deque)
    _waiting_samples: int = 0
    _head: tuple[Delivery, int] | None = None
    _in_flight: int = 0

    @property
    def waiting_s(self) -> float:
        """Signal not yet committed."""
        head = 0 if self._head is None else self._head[1]
        return (self._waiting_samples + self._in_flight + head) / self.anchor.stream.fs_hz

    @property
    def is_behind(self) -> bool:
        """Whether the store does not keep up: so much waits that the oldest will soon be dropped."""
        self._is_behind = self.waiting_s > self.limit_s * (CAUGHT_UP if self._is_behind else BEHIND)
        return self._is_behind

    @property
    def idle(self) -> bool:
        return not self._waiting and self._head is None and self._in_flight == 0

    def commit_ms(self) -> dict[str, float] | None:
        """Return how long chunks took from their last notification to their commit: p50, p99, max of the last ones."""
        if not self.latencies_s:
            return None
        found = sorted(self.latencies_s)
        shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return {name: round(1e3 * found[min(int(q * len(found)), len(found) - 1)], 1) for name, q in shares.items()}

    def put(self, piece: Piece) -> None:
        """Queue a piece and hand over what can be."""
        self._waiting.append((piece, time.perf_counter()))
        self._waiting_samples += piece.samples.shape[1]
        self.pump()
        while len(self._waiting) > 1 and self._waiting_samples > self._half:
            oldest, _ = self._waiting.popleft()
            self._waiting_samples -= oldest.samples.shape[1]
            self.counters["dropped"] += 1
            self.counters["dropped_samples"] += oldest.samples.shape[1]

    def pump(self) -> None:
        """Hand over until there is nothing, or nothing more is taken."""
        while self._in_flight <= self._half:
            if self._head is None:
                if not self._waiting:
                    return
                piece, arrived_s = self._waiting.popleft()
                n = piece.samples.shape[1]
                self._waiting_samples -= n
                delivery = Delivery(self.anchor.chunk(piece), piece.received_ns, self._on_commit(n, arrived_s))
                self._head = (delivery, n)
            delivery, n = self._head
            self._in_flight += n  # `offer` may commit at once
            if not self.offer(delivery):
                self._in_flight -= n
                return
            self._head = None
            self.counters["chunks"] += 1

    @property
    def _half(self) -> float:
        return self.limit_s / 2 * self.anchor.stream.fs_hz

    def _on_commit(self, n: int, arrived_s: float) -> Callable[[], None]:
        def done() -> None:
            self._in_flight -= n
            self.counters["committed"] += 1
            lag_s = time.perf_counter() - arrived_s
            self.latencies_s.append(lag_s)
            self.lags[bisect_left(LAG_BOUNDS_S, lag_s)] += 1
            self.lag_sum_s += lag_s
            self.pump()

        return lambda: void(self.soon(done))


def void(_: object) -> None:
    """Drop a value."""
