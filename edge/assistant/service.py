"""The assistant as a process of its own: holds the language model, answers over a socket in the state folder.

One JSON object per line. A caller writes `{"question", "wearer", "now", "since", "context", "caller"}` and reads
`{"stage": TEXT}`, `{"text": PIECE}` …, and as the last line `{"done": ANSWER}` or `{"error": TEXT, "bad_input": BOOL}`;
`{"status": true}` is answered with counters; `{"make_way": true}` ends one that the page has started. The socket (0600)
answers its own user and root.

Questions are answered one at a time, callers in turn, so that one who asks much keeps nobody else waiting. Who hangs up
is not answered any further; an answer that takes longer than `ANSWER_S` is given up between two words, and if the model
does not even come that far the process ends, for whoever supervises it to start it again. It runs at a lower
priority than the daemon: ingest and alerts go first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from edge import sdnotify
from edge.assistant.ask import Helpers, ask, whom
from edge.assistant.client import FILE_NAME, make_way, serves
from edge.assistant.localtime import parse_instant, zone
from edge.assistant.model import LanguageModel
from edge.assistant.plan import context_of
from edge.assistant.result import NO_EYES, Eyes
from edge.assistant.scan import READING_S
from edge.clock import SystemClock
from edge.config import load
from edge.errors import AnyecgError, BadInputError
from edge.local_socket import listen, refusal
from edge.process import peak_rss_mb
from edge.store.database import open_readonly

log = structlog.get_logger(__name__)

NICE = 10
"""Below whoever starts it."""
ANSWER_S = 60.0
"""An answer that takes longer is given up."""
GRACE_S = 20.0
"""The process ends when the model has not come to the next word this long after that."""
LEAST_READING_S = 10.0
WORD_S = 0.5
"""If the model takes longer to its first word, answers are given in the usual wording for `REST_S`."""
REST_S = 60.0
MAX_WAITING = 32
MAX_WAITING_EACH = 4
MAX_LINE_BYTES = 1 << 16
MAX_CONNECTIONS = 64
IDLE_LINE_S = 60.0

Said = dict[str, Any]


class _GivenUpError(AnyecgError):
    """Nobody waits for this answer any more, or it took too long."""


class Job:
    """One question and where its answer goes."""

    def __init__(self, request: Said, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.said: asyncio.Queue[Said] = asyncio.Queue()
        self.cancelled = False
        self.clips = 0
        """Clips that were read for it."""
        self.deadline_s = float("inf")
        self._loop = loop

    def say(self, document: Said) -> None:
        """Send a line; from any thread."""
        self._loop.call_soon_threadsafe(self.said.put_nowait, document)

    def check(self) -> None:
        """Raise if the answer is to be given up."""
        if self.cancelled:
            raise _GivenUpError("the caller has gone")
        if time.monotonic() > self.deadline_s:
            raise _GivenUpError(f"no answer within {ANSWER_S:g} s; it was given up")


class Turns:
    """Who is next: callers one after the other, each with its own line."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()
        self.waiting = 0

    def add(self, caller: str, job: Job) -> None:
        """Put a job at the end of its caller's line. Raises `AnyecgError` if that or all lines together are full."""
        line = self._lines.setdefault(caller, deque())
        if len(line) >= MAX_WAITING_EACH or self.waiting >= MAX_WAITING:
            raise AnyecgError(f"{self.waiting} questions are waiting, {len(line)} of them yours: ask again in a minute")
        line.append(job)
        self.waiting += 1

    def next(self) -> Job | None:
        """Take the first job of the caller who has waited longest for a turn."""
        while self._lines:
            caller, line = self._lines.popitem(last=False)
            if not line:
                continue
            job = line.popleft()
            self.waiting -= 1
            if line:
                self._lines[caller] = line
            return job
        return None


class Careful:
    """The language model, asked only as long as somebody waits, and not for its wording where that takes long."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.name = model.name
        self.job: Job | None = None
        self._slow_until_s = 0.0

    @property
    def is_slow(self) -> bool:
        """Whether a word took longer than `WORD_S` lately: others need the cores."""
        return time.monotonic() < self._slow_until_s

    def write(self, prompt: str, grammar: str, max_tokens: int) -> str:
        """Return what the model writes."""
        return "".join(self.stream(prompt, grammar, max_tokens))

    def stream(self, prompt: str, grammar: str, max_tokens: int) -> Iterator[str]:
        """Yield what the model writes."""
        began_s = time.monotonic()
        for n, piece in enumerate(self._model.stream(prompt, grammar, max_tokens)):
            if n == 0 and time.monotonic() - began_s > WORD_S:
                self._slow_until_s = time.monotonic() + REST_S
            if self.job is not None:
                self.job.check()
            yield piece

    def close(self) -> None:
        """Free the model."""
        self._model.close()


class CarefulEyes:
    """The model that looks, asked for the next clip only as long as somebody waits."""

    def __init__(self, eyes: Eyes, writer: Careful) -> None:
        self._eyes, self._writer = eyes, writer
        self.name = eyes.name

    def localize(
        self, signal_mv: NDArray[np.float32], fs_hz: float, leads: tuple[str, ...], label: str
    ) -> list[tuple[float, float]]:
        """Return the spans of a label in a clip."""
        self._check()
        return self._eyes.localize(signal_mv, fs_hz, leads, label)

    def describe(self, signal_mv: NDArray[np.float32], fs_hz: float, leads: tuple[str, ...]) -> str:
        """Return what is seen in a clip."""
        self._check()
        return self._eyes.describe(signal_mv, fs_hz, leads)

    def _check(self) -> None:
        job = self._writer.job
        if job is not None:
            job.check()
            job.clips += 1
            job.say({"stage": f"looking at the signal, clip {job.clips}"})


class Service:
    """Answers while `serve` runs."""

    def __init__(self, state: Path, make_helpers: Callable[[Path], Helpers], idle_s: float | None = None) -> None:
        """Answer over the databases in `state`; `make_helpers` loads the model, in the thread that uses it."""
        self._state = state
        self._make_helpers = make_helpers
        self._idle_s = idle_s
        self._turns = Turns()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "assistant")
        self._helpers = Helpers()
        self._engine: Engine | None = None
        self._last_s = time.monotonic()
        self._connections = 0
        self.counters = {"questions": 0, "failed": 0, "given_up": 0, "refused": 0}

    async def serve(self) -> None:
        """Load the model, listen, answer until cancelled or idle.

        Raises:
            AnyecgError: another assistant answers there, or the model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        listener = listen(self._state / FILE_NAME, "an assistant", MAX_CONNECTIONS)
        try:
            self._helpers = await loop.run_in_executor(self._thread, self._make_helpers, self._state)
            server = await asyncio.start_unix_server(self._converse, sock=listener, limit=MAX_LINE_BYTES)
            sdnotify.ready("answering questions")
            log.info("the assistant answers", model=getattr(self._helpers.writer, "name", None))
            async with server:
                await self._work(loop)
        finally:
            (self._state / FILE_NAME).unlink(missing_ok=True)
            sdnotify.stopping()
            self._thread.shutdown(wait=False, cancel_futures=True)
            if self._engine is not None:
                self._engine.dispose()

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            job = self._turns.next()
            if job is None:
                self._wake.clear()
                left_s = None if self._idle_s is None else self._idle_s - (time.monotonic() - self._last_s)
                if left_s is not None and left_s <= 0:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), left_s)
                continue
            if job.cancelled:
                continue
            job.deadline_s = time.monotonic() + ANSWER_S
            task = loop.run_in_executor(self._thread, self._answer, job)
            done, _ = await asyncio.wait([task], timeout=ANSWER_S + GRACE_S)
            if not done:
                log.error("the language model hangs, ending", question_s=ANSWER_S + GRACE_S)
                os._exit(70)
            self._last_s = time.monotonic()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            refused = refusal(writer)
            if self._connections > MAX_CONNECTIONS:
                refused = f"{MAX_CONNECTIONS} callers are being served: try again"
            while refused is None:
                async with asyncio.timeout(IDLE_LINE_S):
                    line = await reader.readline()
                if not line:
                    return
                await self._reply(line, reader, writer)
            writer.write(_line({"error": refused, "bad_input": False}))
            await writer.drain()
        except ValueError:
            writer.write(_line({"error": f"request is longer than {MAX_LINE_BYTES} bytes", "bad_input": True}))
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the caller has gone or is silent, or the service ends; Python 3.11 logs a cancelled handler
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _reply(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = _parsed(line)
        except BadInputError as error:
            self.counters["refused"] += 1
            writer.write(_line({"error": str(error), "bad_input": True}))
            await writer.drain()
            return
        if request.get("make_way"):
            if self._idle_s is None:
                writer.write(
                    _line({"error": f"an assistant already answers on {self._state / FILE_NAME}", "bad_input": False})
                )
            else:
                self._idle_s = 0.0
                self._wake.set()
                writer.write(_line({"done": {}}))
            await writer.drain()
            return
        if request.get("status"):
            status = {**self.counters, "waiting": self._turns.waiting, "rss_mb": round(peak_rss_mb(), 1)}
            writer.write(_line({"done": status | {"model": getattr(self._helpers.writer, "name", None)}}))
            await writer.drain()
            return
        job = Job(request, asyncio.get_running_loop())
        try:
            self._turns.add(str(request.get("caller") or "somebody")[:64], job)
        except AnyecgError as error:
            self.counters["refused"] += 1
            writer.write(_line({"error": str(error), "bad_input": False}))
            await writer.drain()
            return
        self._wake.set()
        gone = asyncio.create_task(reader.read(1))  # nothing is expected before the answer is complete
        try:
            while True:
                said = asyncio.create_task(job.said.get())
                await asyncio.wait([said, gone], return_when=asyncio.FIRST_COMPLETED)
                if gone.done() and not said.done():
                    said.cancel()
                    raise ConnectionResetError
                document = await said
                writer.write(_line(document))
                await writer.drain()
                if "done" in document or "error" in document:
                    return
        finally:
            job.cancelled = True
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await gone

    def _answer(self, job: Job) -> None:
        self.counters["questions"] += 1
        try:
            job.check()
            job.say({"stage": "looking it up"})
            writer = self._helpers.writer
            if isinstance(writer, Careful):
                writer.job = job
            job.say({"done": self._asked(job)})
        except _GivenUpError as error:
            self.counters["given_up"] += 1
            job.say({"error": str(error), "bad_input": False})
        except AnyecgError as error:
            self.counters["failed"] += 1
            job.say({"error": str(error), "bad_input": isinstance(error, BadInputError)})
        except Exception as error:
            self.counters["failed"] += 1
            log.exception("a question failed")
            job.say({"error": f"internal error ({type(error).__name__}), see the assistant's log", "bad_input": False})

    def _asked(self, job: Job) -> Said:
        if self._engine is None:
            self._engine = open_readonly(self._state)

        def say(piece: str) -> None:
            job.check()
            job.say({"text": piece})

        helpers, writer = replace(self._helpers, reading_s=reading_s(self._turns.waiting)), self._helpers.writer
        if isinstance(writer, Careful) and writer.is_slow:
            helpers = replace(helpers, words_answers=False)
        with self._engine.connect() as conn:
            return answer_request(conn, job.request, helpers, say)


def reading_s(waiting: int) -> float:
    """Return the time for looking at signal within an answer, shared with those who wait."""
    return max(READING_S / (1 + waiting), LEAST_READING_S)


def answer_request(conn: Connection, request: Said, helpers: Helpers, say: Callable[[str], None]) -> Said:
    """Return what `ask --json` prints for a request whose context is a plan.

    Raises:
        BadInputError: what `ask` raises, or a time nobody can read.
    """
    now_ns, since_ns, now = SystemClock().utc_ns(), None, request.get("now")
    if now is not None or request.get("since") is not None:
        tz = zone(whom(conn, request["question"], request.get("wearer"), request["context"]).timezone)
        if isinstance(now, int | float):
            now_ns = round(now * 1e9)
        elif now is not None:
            now_ns = parse_instant(now, now_ns, tz)
        since_ns = None if request.get("since") is None else parse_instant(request["since"], now_ns, tz)
    return ask(
        conn,
        request["question"],
        now_ns=now_ns,
        wearer=request.get("wearer"),
        since_ns=since_ns,
        context=request["context"],
        helpers=helpers,
        say=say,
    ).as_json()


def load_helpers(state: Path) -> Helpers:
    """Load the language model that the configuration names, and what lets it look at signal, if that is there."""
    from edge.assistant import look

    settings = load(state).assistant
    why = None
    try:
        path: Path | None = look.tuned_model(settings.model)
    except AnyecgError as error:
        path, why = settings.model, error
    model = LanguageModel(path, threads=settings.threads, n_ctx=settings.n_ctx, gpu_layers=settings.gpu_layers)
    writer = Careful(model)
    try:
        return Helpers(writer=writer, eyes=CarefulEyes(look.open_eyes(model), writer))
    except AnyecgError as error:
        why = why or error
    log.warning("the model cannot look at signal", error=str(why))
    return Helpers(writer=writer, blind=f"{NO_EYES}: {why}")


def _step_back() -> None:
    """Lower the priority of every thread: those of numpy are as old as its import and keep what they began with."""
    with contextlib.suppress(PermissionError):  # the unit sets it for all, and forbids to change it
        for thread in map(int, os.listdir("/proc/self/task")):
            nice = os.getpriority(os.PRIO_PROCESS, thread) + NICE
            os.setpriority(os.PRIO_PROCESS, thread, nice)


def serve(state: Path, idle_s: float | None = None, *, until_eof: bool = False) -> None:
    """Run the service until SIGTERM, until nobody has asked for `idle_s`, or until standard input is closed.

    Without `idle_s` it takes the place of one that the page has started.

    Raises:
        AnyecgError: another assistant answers there, or the model cannot be loaded.
    """
    _step_back()
    if idle_s is None and serves(state):
        make_way(state)

    async def run() -> None:
        import signal

        service = asyncio.ensure_future(Service(state, load_helpers, idle_s).serve())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.cancel)

        def heard() -> None:
            if not os.read(0, 1 << 12):
                loop.remove_reader(0)
                service.cancel()

        if until_eof:
            loop.add_reader(0, heard)
        with contextlib.suppress(asyncio.CancelledError):
            await service

    asyncio.run(run())


def _parsed(line: bytes) -> Said:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInputError("request is not a line of JSON") from None
    if not isinstance(request, dict):
        raise BadInputError("request is not a JSON object")
    for name in ("status", "make_way"):
        if request.get(name):
            return {name: True}
    if not isinstance(request.get("question"), str):
        raise BadInputError('request has no text "question"')
    if not isinstance(request.get("wearer"), str | None) or not isinstance(request.get("since"), str | None):
        raise BadInputError('"wearer" and "since" must be text')
    if isinstance(request.get("now"), bool | list | dict):
        raise BadInputError('"now" must be an ISO time or seconds since 1970')
    return request | {"context": context_of(request.get("context"))}


def _line(document: Said) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
