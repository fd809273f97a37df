"""`anyecg ask`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, errors, print_json
from edge.cli.read import reading
from edge.errors import AnyecgError, BadInputError

if TYPE_CHECKING:
    from edge.assistant.ask import Answer
    from edge.assistant.model import LanguageModel

MAX_QUESTIONS = 1_000
MAX_FILE_BYTES = 2**20


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
    questions: Annotated[
        Path | None, typer.Option("--questions", help='JSON list of {"question", "wearer", "now"} to answer in one go.')
    ] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Answer a question about the recordings, with citations.

    Every figure, time and name is computed from the database. The words of the question say what to look up; where
    they leave it open the language model proposes, and code checks that. It also chooses the wording.
    """
    from edge.assistant.ask import whom
    from edge.assistant.guard import fixed_answer

    started = time.perf_counter()
    text = " ".join(question or [])
    if questions is None and not text.strip():
        raise BadInputError('no question: anyecg ask "How many PVCs last night?"')
    items = _read_questions(questions) if questions is not None else [{"question": text, "wearer": wearer}]
    with reading(state) as conn:  # what cannot be asked is told before the model is loaded
        if questions is None and fixed_answer(text) is None:
            whom(conn, text, wearer)
    with _load(state) as model:
        load_ms = round((time.perf_counter() - started) * 1e3, 1)
        if questions is not None:
            _write([_ask_json(state, item, since, model) for item in items], question)
            return
        answer = _ask(state, items[0], since, model)
    answer.timing_ms["load"] = load_ms
    if as_json:
        print_json(answer.as_json())
    else:
        _print(answer)


def _load(state: Path) -> LanguageModel:
    from edge import config
    from edge.assistant.model import LanguageModel

    settings = config.load(state).assistant
    return LanguageModel(settings.model, threads=settings.threads, n_ctx=settings.n_ctx, gpu_layers=settings.gpu_layers)


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


def _ask(state: Path, item: dict[str, Any], since: str | None, model: LanguageModel) -> Answer:
    from edge.assistant.ask import Helpers, whom
    from edge.assistant.ask import ask as answer_question
    from edge.assistant.localtime import parse_instant, zone
    from edge.clock import SystemClock

    now_ns = SystemClock().utc_ns()
    with reading(state) as conn:
        now, since_ns = item.get("now"), None
        if now is not None or since is not None:
            tz = zone(whom(conn, item["question"], item.get("wearer")).timezone)
            if isinstance(now, int | float):
                now_ns = round(now * 1e9)
            elif now is not None:
                now_ns = parse_instant(now, now_ns, tz)
            since_ns = None if since is None else parse_instant(since, now_ns, tz)
        return answer_question(
            conn,
            item["question"],
            now_ns=now_ns,
            wearer=item.get("wearer"),
            since_ns=since_ns,
            helpers=Helpers(writer=model),
        )


def _ask_json(state: Path, item: dict[str, Any], since: str | None, model: LanguageModel) -> dict[str, Any]:
    try:
        return _ask(state, item, since, model).as_json()
    except BadInputError as error:
        return {"question": item["question"], "answer": None, "error": str(error), "citations": []}


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


def _print(answer: Answer) -> None:
    console.print(answer.answer, highlight=False, markup=False)
    cited = [c["event"] if "event" in c else " to ".join(c["span"]) for c in answer.citations()]
    if cited:
        more = f" and {len(cited) - 5} more" if len(cited) > 5 else ""
        console.print(f"cites {', '.join(cited[:5])}{more}", style="dim", highlight=False, markup=False)
    if answer.fallback:
        note = "without the language model: what it wrote did not fit the question"
        console.print(note, style="dim", highlight=False, markup=False)
