"""What waits between the radio and the disk, and the rule when that is too much.

Notifications never wait. One chunk is on its way to the disk at a time; what arrives meanwhile is joined into the next
one, so a slow disk makes chunks longer, and fewer, before it makes anything late. At most `limit_s` seconds of signal
wait; beyond that the oldest waiting piece is dropped and counted: a gap in the record, never a lag that grows.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.chunk import Delivery
from edge.sources.ble.anchor import Anchor
from edge.sources.ble.placer import Piece, joined

MAX_CHUNK_S = 30.0
"""Pieces are joined up to this much signal; intake takes twice as much."""
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
    """From arrival of the last notification in a chunk's first piece to its commit, by this process's clock."""
    lags: list[int] = field(default_factory=lambda: [0] * (len(LAG_BOUNDS_S) + 1))
    """How many chunks took how long, since the start."""
    lag_sum_s: float = 0.0
    _waiting: deque[tuple[Piece, float]] = field(default_factory=deque)
    _waiting_samples: int = 0
    _next: tuple[Delivery, int] | None = None
    """Made of what waited, and not taken yet; its place in the record is told, so it cannot be dropped any more."""
    _on_its_way: int = 0
    """Samples handed over and not committed."""
    _is_behind: bool = False

    @property
    def waiting_s(self) -> float:
        """Signal not yet committed."""
        made = 0 if self._next is None else self._next[1]
        return (self._waiting_samples + self._on_its_way + made) / self.anchor.stream.fs_hz

    @property
    def is_behind(self) -> bool:
        """Whether the store does not keep up: so much waits that the oldest will soon be dropped."""
        self._is_behind = self.waiting_s > self.limit_s * (CAUGHT_UP if self._is_behind else BEHIND)
        return self._is_behind

    @property
    def idle(self) -> bool:
        return not self._waiting and self._next is None and self._on_its_way == 0

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
        self._waiting_samples += piece.n
        self.pump()
        while len(self._waiting) > 1 and self._waiting_samples > self.limit_s * self.anchor.stream.fs_hz:
            oldest, _ = self._waiting.popleft()
            self._waiting_samples -= oldest.n
            self.counters["dropped"] += 1
            self.counters["dropped_samples"] += oldest.n

    def give_up(self) -> float:
        """Drop everything that waits, counted: the gateway stops. Return the seconds of signal."""
        n = self._waiting_samples + (0 if self._next is None else self._next[1])
        self.counters["dropped"] += len(self._waiting) + (self._next is not None)
        self.counters["dropped_samples"] += n
        self._waiting.clear()
        self._waiting_samples, self._next = 0, None
        return n / self.anchor.stream.fs_hz

    def pump(self) -> None:
        """Hand over the next chunk unless one is on its way or none is taken."""
        if self._on_its_way:
            return
        if self._next is None:
            if not self._waiting:
                return
            piece, arrived_s = self._take()
            delivery = Delivery(self.anchor.chunk(piece), piece.received_ns, self._on_commit(piece.n, arrived_s))
            self._next = (delivery, piece.n)
        delivery, self._on_its_way = self._next
        self._next = None  # `offer` may commit at once
        if self.offer(delivery):
            self.counters["chunks"] += 1
        else:
            self._next, self._on_its_way = (delivery, self._on_its_way), 0

    def _take(self) -> tuple[Piece, float]:
        """Return what waited longest, as one piece, and when the first of it had arrived."""
        first, arrived_s = self._waiting.popleft()
        pieces, n = [first], first.n
        while self._waiting and pieces[-1].goes_on_in(after := self._waiting[0][0]):
            if n + after.n > MAX_CHUNK_S * self.anchor.stream.fs_hz:
                break
            pieces.append(after)
            n += after.n
            self._waiting.popleft()
        self._waiting_samples -= n
        return joined(pieces), arrived_s

    def _on_commit(self, n: int, arrived_s: float) -> Callable[[], None]:
        def done() -> None:
            self._on_its_way -= n
            self.counters["committed"] += 1
            lag_s = time.perf_counter() - arrived_s
            self.latencies_s.append(lag_s)
            self.lags[bisect_left(LAG_BOUNDS_S, lag_s)] += 1
            self.lag_sum_s += lag_s
            self.pump()

        def committed() -> None:
            self.soon(done)

        return committed
