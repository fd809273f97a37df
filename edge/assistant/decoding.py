"""Greedy decoding under a grammar that costs next to nothing where the model keeps to it.

llama.cpp tries a grammar on all 49,152 tokens of the vocabulary before each choice, which takes up to half as long as
the model. Here the best token is tried alone first, then a few, and all only if the grammar refuses those: the choice
is the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import AnyecgError

FEW = 64
"""Tokens tried before all."""


class Grammar:
    """A GBNF grammar at work on one text; free it with `close`."""

    def __init__(self, llama: Any, module: Any, text: str) -> None:
        """Raises `ValueError` for what is no grammar."""
        self._module = module
        vocabulary = module.llama_model_get_vocab(llama._model.model)
        self._sampler = module.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
        if not self._sampler:
            raise ValueError(f"not a grammar: {text[:80]!r}")
        self._rows = np.zeros(llama.n_vocab(), dtype=np.dtype(module.llama_token_data))

    def choose(self, logits: NDArray[np.float32]) -> int:
        """Return the best token that the grammar admits, and take it as written."""
        best = int(logits.argmax())
        if not self._admits(np.array([best]), logits):
            few = np.argpartition(logits, -FEW)[-FEW:]
            admitted = self._admits(few, logits) or self._admits(np.arange(logits.size), logits)
            best = max(admitted, key=lambda token: float(logits[token]))
        self._module.llama_sampler_accept(self._sampler, best)
        return best

    def _admits(self, tokens: NDArray[np.integer], logits: NDArray[np.float32]) -> list[int]:
        rows = self._rows[: tokens.size]
        rows["id"], rows["logit"] = tokens, logits[tokens]
        data = ctypes.cast(rows.ctypes.data, ctypes.POINTER(self._module.llama_token_data))
        array = self._module.llama_token_data_array(data=data, size=tokens.size, selected=-1, sorted=False)
        self._module.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return [int(token) for token in rows["id"][np.isfinite(rows["logit"])]]

    def close(self) -> None:
        """Free it."""
        if self._sampler:
            self._module.llama_sampler_free(self._sampler)
            self._sampler = None


def read(llama: Any, tokens: Sequence[int]) -> None:
    """Bring the context to exactly these tokens; what it holds of their beginning is kept.

    Raises:
        AnyecgError: they do not fit into the context.
    """
    if len(tokens) >= llama.n_ctx():
        raise AnyecgError(f"{len(tokens)} tokens do not fit into a context of {llama.n_ctx()}")
    known = llama.input_ids[: llama.n_tokens]
    size = min(len(known), len(tokens) - 1)  # the last one is read anew for its logits
    differ = np.flatnonzero(known[:size] != np.asarray(tokens[:size]))
    kept = int(differ[0]) if differ.size else size
    llama._ctx.kv_cache_seq_rm(-1, kept, -1)
    llama.n_tokens = kept
    llama.eval(list(tokens[kept:]))


def logits(llama: Any, module: Any) -> NDArray[np.float32]:
    """Return the logits after what the context holds, [vocabulary]; the next decoding writes over them."""
    return np.ctypeslib.as_array(module.llama_get_logits_ith(llama._ctx.ctx, -1), shape=(llama.n_vocab(),))


def write(llama: Any, module: Any, grammar: str | None, max_tokens: int) -> Generator[int]:
    """Yield tokens after what the context holds, greedily, up to the end of the text or `max_tokens`."""
    rules = None if grammar is None else Grammar(llama, module, grammar)
    vocabulary = module.llama_model_get_vocab(llama._model.model)
    try:
        for n in range(max_tokens):
            scores = logits(llama, module)
            token = int(scores.argmax()) if rules is None else rules.choose(scores)
            if module.llama_vocab_is_eog(vocabulary, token):
                return
            yield token
            if n + 1 < max_tokens:
                llama.eval([token])
    finally:
        if rules is not None:
            rules.close()
