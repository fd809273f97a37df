"""`python -m edge.web.answer_worker STATE`: holds the language model for the page, in a process of its own.

One JSON object per line: `{"question", "wearer"}` in; out `{"stage": TEXT}`, `{"text": PIECE}` …, and as the last
line of each question `{"done": ANSWER}` or `{"error": TEXT}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.assistant.ask import Helpers, ask
from edge.assistant.guard import fixed_answer
from edge.assistant.model import LanguageModel
from edge.clock import SystemClock
from edge.config import load
from edge.errors import AnyecgError
from edge.store.database import open_readonly


class TellingModel:
    """The model, loaded at the first question, saying what it does."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._model: LanguageModel | None = None
        self.name = "language model"

    def write(self, prompt: str, grammar: str, max_tokens: int) -> str:
        """Return what the model writes."""
        return "".join(self.stream(prompt, grammar, max_tokens))

    def stream(self, prompt: str, grammar: str, max_tokens: int) -> Iterator[str]:
        """Yield what the model writes."""
        if self._model is None:
            _say({"stage": "loading the language model"})
            settings = load(self._state).assistant
            self._model = LanguageModel(
                settings.model, threads=settings.threads, n_ctx=settings.n_ctx, gpu_layers=settings.gpu_layers
            )
            self.name = self._model.name
        _say({"stage": "writing the answer"})
        yield from self._model.stream(prompt, grammar, max_tokens)


def main() -> None:
    """Answer until the input ends."""
    state = Path(sys.argv[1])
    model = TellingModel(state)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _say({"stage": "reading the question"})
            answer = _answer(state, model, request)
        except AnyecgError as error:
            _say({"error": str(error)})
            continue
        _say({"done": answer})


def _answer(state: Path, model: TellingModel, request: dict[str, Any]) -> dict[str, Any]:
    question = str(request["question"])
    if fixed_answer(question) is None:
        _say({"stage": "understanding the question"})
    engine = open_readonly(state)
    try:
        with engine.connect() as conn:
            return ask(
                conn,
                question,
                now_ns=SystemClock().utc_ns(),
                wearer=request["wearer"],
                helpers=Helpers(writer=model),
                say=lambda piece: _say({"text": piece}),
            ).as_json()
    finally:
        engine.dispose()


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
