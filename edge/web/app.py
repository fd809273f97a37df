"""The routes of the page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge import __version__, control, sdnotify
from edge.assistant.plan import context_of
from edge.clock import SystemClock
from edge.config import Config
from edge.errors import AnyecgError, BadInputError
from edge.store import marks, questions
from edge.store.database import StoreError
from edge.web import review, similar, wire
from edge.web.answering import Answerer
from edge.web.guard import COOKIE, Door, Guard
from edge.web.health import read_health
from edge.web.live import MAX_STREAMS, Hub, Stream, read_people
from edge.web.reader import Reader
from edge.web.tokens import Sessions, TokenFile

log = structlog.get_logger(__name__)

STATIC = Path(__file__).parent / "static"
MAX_QUESTION = 500
QUESTIONS_SHOWN = 30


class Page:
    """Everything the routes share."""

    def __init__(self, state: Path, config: Config, door: Door) -> None:
        self.state = state
        self.config = config
        self.door = door
        self.clock = SystemClock()
        self.reader = Reader(state)
        self.tokens = TokenFile(state)
        self.sessions = Sessions(self.tokens, config.web.session_hours)
        self.hub = Hub(state, self.reader)
        self.answerer = Answerer(state)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(self.hub.run())
        sdnotify.ready("serving the page")
        try:
            yield
        finally:
            sdnotify.stopping()
            watching.cancel()
            await self.answerer.close()
            self.reader.close()

    async def index(self, _request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def icon(self, _request: Request) -> Response:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    async def me(self, request: Request) -> Response:
        return _json(
            {
                "who": request.state.who,
                "role": request.state.role,
                "needs_token": self.door.needs_token,
                "version": __version__,
                "gateway": self.config.gateway.id if request.state.role else None,
                "rules": review.names() if request.state.role else None,
                "min_severity": self.config.alerts.min_severity,
            }
        )

    async def login(self, request: Request) -> Response:
        document = await _document(request)
        token = await asyncio.to_thread(self.tokens.verify, str(document.get("token", "")))
        if token is None:
            return JSONResponse({"error": "this is no valid token"}, 401)
        answer = _json({"who": token.name, "role": token.role})
        answer.set_cookie(
            COOKIE, self.sessions.start(token), httponly=True, samesite="strict", secure=self.door.is_tls, path="/"
        )  # fmt: skip
        return answer

    async def logout(self, request: Request) -> Response:
        self.sessions.end(request.state.session)
        answer = _json({})
        answer.delete_cookie(COOKIE, path="/")
        return answer

    async def people(self, _request: Request) -> Response:
        return _json(await self.reader.read(read_people))

    async def stream(self, request: Request) -> Response:
        if self.hub.streams >= MAX_STREAMS:
            return JSONResponse({"error": f"{MAX_STREAMS} pages are open already"}, 503)
        recording = _number(request, "recording", None)
        leads = [int(row) for row in request.query_params.get("leads", "0").split(",") if row.isdigit()]
        stream = Stream(self.hub, self.reader, None if recording is None else int(recording), leads)
        return _events(stream.messages())

    async def overview(self, request: Request) -> Response:
        wearer, start_ns, end_ns = _period(request)
        return _json(await self.reader.read(lambda conn: review.overview(conn, wearer, start_ns, end_ns)))

    async def beats(self, request: Request) -> Response:
        wearer, start_ns, end_ns = _period(request)
        return _json(await self.reader.read(lambda conn: review.beats(conn, wearer, start_ns, end_ns)))

    async def wave(self, request: Request) -> Response:
        wearer, start_ns, end_ns = _period(request)
        return _json(await self.reader.read(lambda conn: review.wave(conn, wearer, start_ns, end_ns)))

    async def event(self, request: Request) -> Response:
        event_id = request.path_params["id"]
        return _json(await self.reader.read(lambda conn: review.event(conn, event_id, self.config)))

    async def similar(self, request: Request) -> Response:
        event_id = request.path_params["id"]
        return _json(await self.reader.read(lambda conn: similar.similar(conn, event_id)))

    async def health(self, _request: Request) -> Response:
        now_ns = self.clock.utc_ns()
        found = await self.reader.read(lambda conn: read_health(conn, self.state, now_ns))
        return _json(found | {"page": {"streams": self.hub.streams, **self.answerer.counters}, "now_ms": now_ns / 1e6})

    async def mark(self, request: Request) -> Response:
        wanted = await _document(request)
        if "at_ms" in wanted:
            wanted["at_ns"] = _ns("at_ms", wanted.pop("at_ms"))
        if "start_ms" in wanted:
            wearer = str(wanted.pop("wearer", ""))
            start_ns, end_ns = (_ns(name, wanted.pop(name, None)) for name in ("start_ms", "end_ms"))
            wanted |= await self.reader.read(lambda conn: marks.place_span(conn, wearer, start_ns, end_ns))
        wanted["author"] = request.state.who
        done = await asyncio.to_thread(lambda: control.request(self.state, "mark", timeout_s=10.0, **wanted))
        return _json({key: done[key] for key in ("id", "kind", "finding_id", "undone_ns")})

    def _remember(self, question: str, wearer: str | None, answer: dict[str, Any]) -> None:
        shown = {name: answer.get(name) for name in ("answer", "citations", "coverage", "fallback", "timing_ms")}
        try:
            control.request(self.state, "question", timeout_s=10.0, question=question, wearer=wearer, answer=shown)
        except AnyecgError as error:  # an answer is worth having even where nobody keeps it
            log.warning("question not kept", error=str(error))

    async def questions(self, _request: Request) -> Response:
        rows = await self.reader.read(lambda conn: questions.recent(conn, QUESTIONS_SHOWN))
        kept = ("question", "wearer", "answer")
        return _json([{name: row[name] for name in kept} | {"asked_ms": wire.ms(row["asked_ns"])} for row in rows])

    async def ask(self, request: Request) -> Response:
        document = await _document(request)
        question, wearer = document.get("question"), document.get("wearer")
        if not isinstance(question, str) or not question.strip() or len(question) > MAX_QUESTION:
            raise BadInputError(f"a question has 1 to {MAX_QUESTION} characters")
        if not isinstance(wearer, str | None):
            raise BadInputError("wearer must be text")
        context = document.get("context")
        context_of(context)

        async def told() -> AsyncIterator[bytes]:
            async for said in self.answerer.ask(question, wearer, context):
                if "done" in said:
                    await asyncio.to_thread(self._remember, question, wearer, said["done"])
                yield wire.event(next(iter(said)), said)

        return _events(told())


def make_app(state: Path, config: Config, door: Door) -> Starlette:
    """Return the page of a state folder, to be reached through `door`."""
    page = Page(state, config, door)
    routes = [
        Route("/", page.index),
        Route("/favicon.ico", page.icon),
        Route("/api/me", page.me),
        Route("/api/login", page.login, methods=["POST"]),
        Route("/api/logout", page.logout, methods=["POST"]),
        Route("/api/people", page.people),
        Route("/api/stream", page.stream),
        Route("/api/overview", page.overview),
        Route("/api/beats", page.beats),
        Route("/api/wave", page.wave),
        Route("/api/event/{id}", page.event),
        Route("/api/event/{id}/similar", page.similar),
        Route("/api/health", page.health),
        Route("/api/mark", page.mark, methods=["POST"]),
        Route("/api/ask", page.ask, methods=["POST"]),
        Route("/api/questions", page.questions),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(
        routes=routes,
        lifespan=page.lifespan,
        middleware=[Middleware(Guard, door=door, sessions=page.sessions)],
        exception_handlers={AnyecgError: _failed, ClientDisconnect: _too_long},
    )


async def _failed(_request: Request, error: Exception) -> Response:
    status = 503 if isinstance(error, StoreError | control.NotRunningError) else 500
    return JSONResponse({"error": str(error)}, 400 if isinstance(error, BadInputError) else status)


async def _too_long(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": "the request is too long or was broken off"}, 413)


def _json(document: Any) -> Response:
    return Response(wire.dump(document), media_type="application/json")


def _events(messages: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(messages, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _document(request: Request) -> dict[str, Any]:
    try:
        document = await request.json()
    except (ValueError, RecursionError):
        raise BadInputError("the request is not JSON") from None
    if not isinstance(document, dict):
        raise BadInputError("the request is not a JSON object")
    return document


def _number(request: Request, name: str, default: float | None) -> float | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 2**53:
        raise BadInputError(f"{name} must be a number, not {text[:40]!r}")
    return value


def _ns(name: str, value: Any) -> int:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise BadInputError(f"{name} must be milliseconds since 1970")
    return round(value * 1e6)


def _period(request: Request) -> tuple[str, int, int]:
    wearer, start, end = (
        request.query_params.get("wearer"),
        _number(request, "start", None),
        _number(request, "end", None),
    )
    if not wearer or start is None or end is None:
        raise BadInputError("a period needs wearer, start and end (milliseconds since 1970)")
    return wearer, round(start * 1e6), round(end * 1e6)
