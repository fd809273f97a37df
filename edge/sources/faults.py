"""What can go wrong between a wearable and the gateway, on purpose and repeatably (tests, demonstrations)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from edge.errors import BadInputError


@dataclass(slots=True)
class Faults:
    """Decides, chunk by chunk, what the network does to its first transmission. Same seed, same faults."""

    seed: int = 0
    lose: float = 0.0
    """Probability that the first transmission is lost; the sender's repetition arrives late."""
    give_up: float = 0.0
    """Probability that the sender itself drops the chunk: a gap."""
    duplicate: float = 0.0
    """Probability that it arrives twice."""
    shuffle: int = 0
    """Chunks are sent in random order within groups of this many; 0 or 1: in order."""
    _random: random.Random = field(init=False, repr=False)
    _group: list[int] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311
        if not all(0 <= p <= 1 for p in (self.lose, self.give_up, self.duplicate)) or not 0 <= self.shuffle <= 100:
            raise BadInputError("fault probabilities must be 0 to 1, shuffle 0 to 100")

    def gives_up(self) -> bool:
        """Whether the sender drops the next chunk unsent."""
        return self._random.random() < self.give_up

    def transmissions(self, seq: int) -> list[int]:
        """Return the sequence numbers to transmit now that `seq` has its turn."""
        if self._random.random() >= self.lose:
            self._group.append(seq)
            if self._random.random() < self.duplicate:
                self._group.append(seq)
        return self.flush() if len(self._group) >= self.shuffle else []

    def flush(self) -> list[int]:
        """Return what a shuffle still holds back."""
        group, self._group = self._group, []
        if self.shuffle > 1:
            self._random.shuffle(group)
        return group
