"""`anyecg ask`."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, errors, print_json, waiting
from edge.cli.read import reading
from edge.errors import AnyecgError, BadInputError

MAX_QUESTIONS = 1_000
MAX_FILE_BYTES = 2**20
CONTEXT_FILE = "ask-context.json"
CONTEXT_S = 3600.0
"""A follow-up comes within an hour."""


@app.command()
def ask(
    question: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUESTION", help="The question; with --questions the file for the answers."),
    ] = None,
    wearer: Annotated[str | None, typer.Option("--wearer", help="Whom the question is about.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Look at nothing before: ISO time, date, 24h, yesterday, …")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="A follow-up of the question asked before.")] = False,
    questions: Annotated[
        Path | None, typer.Option("--questions", help='JSON list of {"question", "wearer", "now"} to answer in one go.')
    ] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Answer a question about the recordings, with citations.

    Every figure, time and name is computed from the database. The words of the question say what to look up; where
    they leave it open the language model proposes, and code checks that. It also chooses the wording. Where `anyecg
    assistant` runs, it answers; otherwise the model is loaded for this once.
    """
    from edge.assistant.ask import whom
    from edge.assistant.client import serves
    from edge.assistant.guard import fixed_answer
    from edge.assistant.plan import context_of

    text = " ".join(question or [])
    if questions is None and not text.strip():
        raise BadInputError('no question: anyecg ask "How many PVCs last night?"')
    items = _read_questions(questions) if questions is not None else [{"question": text, "wearer": wearer}]
    context = _remembered(state) if follow else []
    with reading(state) as conn:  # what cannot be asked is told before the model is loaded
        if questions is None and fixed_answer(text) is None:
            whom(conn, text, wearer, context_of(context))
    shown = _Shown(quiet=as_json)
    with shown, _Served(state) if serves(state) else _Own(state) as asker:
        if questions is not None:
            _write(_answers(asker, items, since), question)
            return
        answer = asker.ask({**items[0], "since": since, "context": context, "caller": _caller()}, shown.say)
    _remember(state, answer)
    if as_json:
        print_json(answer)
    else:
        shown.finish(answer, state)


class Asker(Protocol):
    """Who answers: the assistant's process, or this one."""

    def ask(self, request: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
        """Return what `ask --json` prints; `say` gets the pieces of the answer."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _Served:
    """The assistant's process; this one where that ends before it has said anything."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._own: _Own | None = None

    def ask(self, request: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
        from edge.assistant.client import AssistantGoneError, converse

        if self._own is not None:
            return self._own.ask(request, say)
        answer: dict[str, Any] = {}
        heard = False
        try:
            for said in converse(self._state, request):
                if "text" in said:
                    heard = True
                    say(said["text"])
                answer = said.get("done", answer)
        except AssistantGoneError:
            if heard:
                raise
            self._own = _Own(self._state)
            return self._own.ask(request, say)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.__exit__()


class _Own:
    """This process, with the model loaded for it."""

    def __init__(self, state: Path) -> None:
        from edge.assistant.service import load_helpers

        started = time.perf_counter()
        self._state = state
        self._helpers = load_helpers(state)
        self._load_ms = round((time.perf_counter() - started) * 1e3, 1)

    def ask(self, request: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
        from edge.assistant.plan import context_of
        from edge.assistant.service import answer_request

        with reading(self._state) as conn:
            request = request | {"context": context_of(request.get("context"))}
            answer = answer_request(conn, request, self._helpers, say)
        answer["timing_ms"]["load"] = self._load_ms
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close = getattr(self._helpers.writer, "close", None)
        if close is not None:
            close()


class _Shown:
    """The answer on the terminal, as it comes; until then that it is being looked for."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._waiting = waiting()

    def __enter__(self) -> Self:
        self._waiting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.stop()

    def say(self, piece: str) -> None:
        self._waiting.stop()
        if not self._quiet:
            console.print(piece, end="", highlight=False, markup=False, soft_wrap=True)

    def finish(self, answer: dict[str, Any], state: Path) -> None:
        console.print()
        cited = [c["event"] if "event" in c else " to ".join(c["span"]) for c in answer["citations"]]
        if cited:
            more = f" and {len(cited) - 5} more" if len(cited) > 5 else ""
            cites = f"cites {', '.join(cited[:5])}{more}"
            console.print(cites, style="dim", highlight=False, markup=False, soft_wrap=True)
        if answer["fallback"] and answer["results"]:
            note = "without the language model: what it wrote did not fit the question"
            console.print(note, style="dim", highlight=False, markup=False)
        for result in answer["results"]:
            if result["tool"] == "strip" and "start" in result["facts"]:
                _draw(state, result)


def _draw(state: Path, result: dict[str, Any]) -> None:
    from edge.assistant.localtime import parse_instant, zone
    from edge.report.strip import of_wearer
    from edge.report.terminal import draw

    with reading(state) as conn:
        at_ns = parse_instant(result["facts"]["start"], 0, zone("UTC"))
        try:
            drawn = of_wearer(conn, result["args"]["wearer"], at_ns, result["facts"]["seconds"], None)
        except BadInputError as error:
            errors.print(str(error), highlight=False, markup=False)
            return
    for line in draw(drawn, console.width, ascii_only=not (console.encoding or "").lower().startswith("utf")):
        console.print(line, highlight=False, markup=False, no_wrap=True, crop=True)


def _remembered(state: Path) -> list[dict[str, Any]]:
    """Return the plan of the question asked before, empty if that is unknown or too long ago."""
    path = state / CONTEXT_FILE
    try:
        if time.time() - path.stat().st_mtime > CONTEXT_S:
            return []
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def _remember(state: Path, answer: dict[str, Any]) -> None:
    if not answer["plan"]:
        return
    with contextlib.suppress(OSError):  # a folder of another user: there are no follow-ups then
        descriptor = os.open(state / CONTEXT_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(answer["plan"], file)


def _caller() -> str:
    """Every command has its own place in the line."""
    return f"cli {os.getpid()}"


def _answers(asker: Asker, items: list[dict[str, Any]], since: str | None) -> list[dict[str, Any]]:
    from edge.assistant.ask import Answer

    found: list[dict[str, Any]] = []
    for item in items:
        context = found[-1].get("plan") if item.get("follow") and found else None
        request = {name: item.get(name) for name in ("question", "wearer", "now")}
        try:
            asked = {**request, "since": since, "context": context, "caller": _caller()}
            found.append(asker.ask(asked, lambda _: None))
        except BadInputError as error:
            found.append({**Answer(item["question"], "").as_json(), "answer": None, "error": str(error)})
    return found


def _read_questions(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInputError(f"{path} is larger than {MAX_FILE_BYTES} bytes: split it")
        items = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise BadInputError(f"{path} is not JSON: {error}") from None
    if not isinstance(items, list) or len(items) > MAX_QUESTIONS:
        raise BadInputError(f"{path} must hold a list of at most {MAX_QUESTIONS} questions")
    for n, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("question"), str):
            raise BadInputError(f'{path}: item {n} must be an object with a text "question"')
        if not isinstance(item.get("wearer"), str | None) or isinstance(item.get("now"), bool | list | dict):
            raise BadInputError(f'{path}: item {n}: "wearer" must be text and "now" an ISO time or seconds since 1970')
    return items


def _write(answers: list[dict[str, Any]], words: list[str] | None) -> None:
    if not words:
        print_json(answers)
        return
    path = Path(" ".join(words))
    try:
        path.write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise AnyecgError(f"cannot write {path}: {error.strerror}") from None
    errors.print(f"{len(answers)} answers in {path}", highlight=False, markup=False)
