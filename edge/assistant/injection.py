"""Soft tokens into llama.cpp: a prefix of text and embedding rows, kept, and questions after it.

llama.cpp takes either token ids or embedding rows in one call, so both go in turn. The rows' places in the history
hold ids made from the rows themselves: another ECG is another history, and what was computed for one is never used
for another.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.assistant import decoding
from edge.errors import AnyecgError, BadInputError

Part = str | NDArray[np.float32]
"""Text, or embedding rows [n, width]."""


class Injection:
    """A llama.cpp model that has read a prefix; not for several threads at once."""

    def __init__(self, llama: Any, module: Any) -> None:
        """`llama` is a `llama_cpp.Llama`, `module` is `llama_cpp`."""
        self._llama, self._module = llama, module
        self.width = int(llama.n_embd())
        self._prefix: list[int] = []

    def read(self, parts: Sequence[Part], room: int = 0) -> None:
        """Read text and rows from the beginning; what stood there before is forgotten, except the same prefix.

        Args:
            parts: in order.
            room: tokens that must still fit behind.

        Raises:
            BadInputError: longer than the context.
        """
        ids: list[int] = []
        for part in parts:
            ids += self.tokens(part) if isinstance(part, str) else self._placeholders(part)
        if len(ids) + room > self._llama.n_ctx():
            raise BadInputError(
                f"{len(ids) + room} tokens do not fit into the model's context of {self._llama.n_ctx()}: ask about "
                "fewer or shorter ECGs"
            )
        if self._prefix == ids and self._at_prefix():
            self._cut(len(ids))
            return
        self._prefix = []
        self._cut(0)
        for part in parts:
            if isinstance(part, str):
                self._llama.eval(self.tokens(part))
            else:
                self._inject(part)
        self._prefix = ids

    def answer(self, text: str, grammar: str | None = None, max_tokens: int = 400) -> str:
        """Return what the model writes after the prefix and `text`, greedily, up to the end of the line."""
        self.again()
        self.say(self.tokens(text))
        written: list[int] = []
        with contextlib.closing(decoding.write(self._llama, self._module, grammar, max_tokens)) as tokens:
            for token in tokens:
                written.append(token)
                if self._text([token]).endswith("\n"):
                    break
        return self._text(written)

    def again(self) -> None:
        """Forget everything but the prefix."""
        self._cut(len(self._prefix))

    def say(self, tokens: Sequence[int]) -> None:
        """Read tokens after what stands there."""
        if tokens:
            self._llama.eval(list(tokens))

    def likeliest(self, among: Sequence[int]) -> int:
        """Return which of some tokens the model would write next."""
        return among[int(decoding.logits(self._llama, self._module)[list(among)].argmax())]

    def logits(self, text: str) -> NDArray[np.float32]:
        """Return the logits after the prefix and `text`."""
        self.again()
        self.say(self.tokens(text) if text else [])
        return decoding.logits(self._llama, self._module).copy()

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text; what looks like a control token stays text."""
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=False))

    def _text(self, tokens: list[int]) -> str:
        return bytes(self._llama.detokenize(tokens)).decode(errors="replace")

    def _placeholders(self, rows: NDArray[np.float32]) -> list[int]:
        seed = hashlib.sha256(np.ascontiguousarray(rows, dtype=np.float32).tobytes()).digest()
        rng = np.random.default_rng(np.frombuffer(seed, dtype=np.uint32))
        return [int(n) for n in rng.integers(0, self._llama.n_vocab(), rows.shape[0])]

    def _at_prefix(self) -> bool:
        size = len(self._prefix)
        return bool(self._llama.n_tokens >= size and self._llama.input_ids[:size].tolist() == self._prefix)

    def _cut(self, size: int) -> None:
        """Forget everything from position `size` on."""
        self._llama._ctx.kv_cache_seq_rm(-1, size, -1)
        self._llama.n_tokens = size

    def _inject(self, rows: NDArray[np.float32]) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(f"embedding rows must be [n, {self.width}], got {rows.shape}")
        placeholders = self._placeholders(rows)
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        for first in range(0, rows.shape[0], self._llama.n_batch):
            piece = rows[first : first + self._llama.n_batch]
            size, past = piece.shape[0], self._llama.n_tokens
            batch = self._module.llama_batch_init(size, self.width, 1)
            try:
                batch.n_tokens = size
                ctypes.memmove(batch.embd, piece.ctypes.data, piece.nbytes)
                for i in range(size):
                    batch.pos[i] = past + i
                    batch.n_seq_id[i] = 1
                    batch.seq_id[i][0] = 0
                    batch.logits[i] = i == size - 1
                code = self._module.llama_decode(self._llama.ctx, batch)
            finally:
                self._module.llama_batch_free(batch)
            if code:
                raise AnyecgError(f"llama.cpp could not read {size} soft tokens (code {code})")
            self._llama.input_ids[past : past + size] = placeholders[first : first + size]
            self._llama.n_tokens = past + size
