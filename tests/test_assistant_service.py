"""The assistant's process: one model for everybody, callers in turn, given up in time, started again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from store_kit import NOW_NS, NS, build

from edge.assistant import service as service_module
from edge.assistant.ask import Helpers
from edge.assistant.client import FILE_NAME, asked, converse, converse_async, serves, start
from edge.assistant.plan import context_of
from edge.assistant.service import MAX_WAITING_EACH, Job, Service, Turns
from edge.errors import AnyecgError, BadInputError
from edge.web.answering import Answerer

ASKED = {"question": "How many AF episodes last night?", "wearer": "ann", "now": NOW_NS / NS}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder whose assistant runs as a process, as installed."""
    state = build(tmp_path_factory.mktemp("served"))
    process = subprocess.Popen([sys.executable, "-m", "edge", "assistant", "--state", str(state)])
    try:
        while not serves(state):
            assert process.poll() is None
            select_wait()
        yield state
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 0
        assert not (state / FILE_NAME).exists()


def select_wait() -> None:
    """Give the other process the core until the next look."""
    os.sched_yield()
    signal.sigtimedwait([], 0.02)


def test_an_answer_comes_in_pieces_and_then_whole(served: Path) -> None:
    said = list(converse(served, ASKED))
    done = said[-1]["done"]
    assert said[0] == {"stage": "looking it up"}
    assert "".join(s["text"] for s in said if "text" in s) == done["answer"]
    assert done["results"][0]["facts"]["count"] == 2
    assert done["model"]


def test_a_follow_up_takes_the_plan_of_the_answer_before(served: Path) -> None:
    first = list(converse(served, ASKED))[-1]["done"]
    then = {"question": "and the longest?", "now": ASKED["now"], "context": first["plan"]}
    done = list(converse(served, then))[-1]["done"]
    assert done["plan"][0]["tool"] == "longest"
    assert done["results"][0]["facts"]["duration"] == 4500.0


def test_the_socket_is_for_its_owner_alone_and_says_how_it_goes(served: Path) -> None:
    assert stat.S_IMODE((served / FILE_NAME).stat().st_mode) == 0o600
    (status,) = converse(served, {"status": True})
    assert status["done"]["questions"] >= 0
    assert status["done"]["rss_mb"] < 600


@pytest.mark.parametrize(
    "request_",
    [
        {"question": 5},
        {},
        {"question": "x", "wearer": 5},
        {"question": "x", "now": []},
        {"question": "x", "context": "count"},
        {"question": "x", "context": [{"tool": "rm", "args": {}}]},
        {"question": "x", "context": [{"tool": "count", "args": {"label": "af", "period": "", "wearer": ["ann"]}}]},
        {"question": "any AF?", "wearer": "eve"},
        {"question": "any AF?", "wearer": "ann", "since": "someday"},
        {"question": "x" * 501, "wearer": "ann"},
    ],
)
def test_a_bad_request_is_told_what_is_wrong_with_it(served: Path, request_: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        list(converse(served, request_))


def test_what_is_no_request_costs_only_its_caller(served: Path) -> None:
    async def shout() -> list[bytes]:
        lines = []
        for text in (b"\x00\xff\n", b"[" * 5000 + b"\n", b"x" * 100_000 + b"\n", b'{"question": '):
            reader, writer = await asyncio.open_unix_connection(str(served / FILE_NAME))
            writer.write(text)
            writer.write_eof()
            lines.append(await reader.read())
            writer.close()
        return lines

    for line in asyncio.run(asyncio.wait_for(shout(), 60))[:3]:
        assert "error" in json.loads(line.splitlines()[0])
    assert list(converse(served, ASKED))[-1]["done"]["results"]


def test_a_second_assistant_is_refused(served: Path) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "edge", "assistant", "--state", str(served)], capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 1
    assert "already answers" in " ".join(again.stderr.split())
    assert serves(served)


def test_the_command_line_asks_the_process(served: Path) -> None:
    def anyecg(*args: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "edge", "ask", *args, "--state", str(served), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    first = anyecg("How many AF episodes on 28 March 2026?", "--wearer", "ann")
    assert "load" not in first["timing_ms"]
    then = anyecg("--follow", "and pauses?")
    assert then["plan"][0]["args"] == {"label": "pause", "period": "on 28 March 2026", "wearer": "ann"}
    assert stat.S_IMODE((served / "ask-context.json").stat().st_mode) == 0o600


def test_the_page_asks_the_process_and_goes_on_from_the_answer_before(served: Path) -> None:
    async def on_the_page() -> tuple[dict[str, Any], dict[str, Any], object]:
        page = Answerer(served)
        first = [said async for said in page.ask("AF episodes on 28 March 2026?", "ann")][-1]["done"]
        then = [said async for said in page.ask("and the longest?", "ann", first["plan"])][-1]["done"]
        return first, then, page._process

    first, then, started = asyncio.run(on_the_page())
    assert first["results"][0]["facts"]["count"] == 2
    assert then["plan"] == [{"tool": "longest", "args": {"label": "af", "period": "on 28 March 2026", "wearer": "ann"}}]
    assert started is None, "the one that runs was asked"


def test_an_assistant_that_crashed_is_replaced(tmp_path: Path) -> None:
    """The page starts another one; the command line answers by itself where it dies under the question."""
    state = build(tmp_path)

    async def on_the_page() -> list[str]:
        page = Answerer(state)
        answers = []
        for _ in range(2):
            said = [said async for said in page.ask("AF episodes on 28 March 2026?", "ann")][-1]
            answers.append(said["done"]["answer"])
            assert page._process is not None
            os.kill(page._process.pid, signal.SIGKILL)
            await page._process.wait()
        await page.close()
        return answers

    one, other = asyncio.run(asyncio.wait_for(on_the_page(), 300))
    assert one == other

    def die(listener: socket.socket) -> None:
        for _ in range(2):  # once to see whether anybody answers, once with the question
            listener.accept()[0].close()

    (state / FILE_NAME).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(state / FILE_NAME))
        (state / FILE_NAME).chmod(0o600)
        listener.listen()
        dying = threading.Thread(target=die, args=(listener,))
        dying.start()
        command = [sys.executable, "-m", "edge", "ask", "AF episodes on 28 March 2026?", "--wearer", "ann"]
        done = subprocess.run(
            [*command, "--state", str(state), "--json"], capture_output=True, text=True, timeout=300, check=False
        )
        dying.join()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["results"][0]["facts"]["count"] == 2
    assert "load" in found["timing_ms"], "answered by itself"


def test_callers_have_their_turn_and_each_its_limit() -> None:
    async def turns() -> list[str]:
        loop = asyncio.get_running_loop()
        line = Turns()
        jobs = {}
        for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
            jobs[name] = Job({"name": name}, loop)
            line.add(name[0], jobs[name])
        for _ in range(MAX_WAITING_EACH - 3):
            line.add("a", Job({"name": "a"}, loop))
        with pytest.raises(AnyecgError, match="are waiting"):
            line.add("a", Job({}, loop))
        order = []
        while (job := line.next()) is not None:
            order.append(job.request["name"])
        assert line.waiting == 0
        return order

    assert asyncio.run(turns())[:6] == ["a1", "b1", "c1", "a2", "b2", "a3"]


class Slow:
    """A writer that never comes to an end, until nobody waits any more."""

    name = "slow"

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def stream(self, prompt: str, grammar: str, max_tokens: int) -> Iterator[str]:
        self.loop.call_soon_threadsafe(self.started.set)
        while True:
            yield ""


async def _with_slow(state: Path, then: Any) -> Any:
    slow = Slow()
    careful = service_module.Careful(slow)  # type: ignore[arg-type]
    made = Service(state, lambda _: Helpers(writer=careful))
    task = asyncio.create_task(made.serve())
    while not serves(state):
        await asyncio.sleep(0)
    try:
        return await then(made, slow)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_who_hangs_up_is_not_answered_any_further(tmp_path: Path) -> None:
    state = build(tmp_path)

    async def hang_up(made: Service, slow: Slow) -> int:
        _, writer = await asyncio.open_unix_connection(str(state / FILE_NAME))
        writer.write(json.dumps(ASKED).encode() + b"\n")
        await slow.started.wait()
        writer.close()
        while not made.counters["given_up"]:
            await asyncio.sleep(0.01)
        return made.counters["given_up"]

    assert asyncio.run(asyncio.wait_for(_with_slow(state, hang_up), 60)) == 1


def test_who_hangs_up_has_no_further_clip_read(tmp_path: Path) -> None:
    state = build(tmp_path)

    class Reader:
        name = "reader"
        read = 0

        def localize(self, *_: object) -> list[tuple[float, float]]:
            self.read += 1
            while not writer.job.cancelled:  # type: ignore[union-attr]
                signal.sigtimedwait([], 0.01)
            return []

    writer = service_module.Careful(Silent())  # type: ignore[arg-type]

    async def hang_up() -> tuple[int, int]:
        reader = Reader()
        eyes = service_module.CarefulEyes(reader, writer)  # type: ignore[arg-type]
        made = Service(state, lambda _: Helpers(writer=writer, eyes=eyes))
        task = asyncio.create_task(made.serve())
        while not serves(state):
            await asyncio.sleep(0.01)
        hearing, sending = await asyncio.open_unix_connection(str(state / FILE_NAME))
        asking = ASKED | {"question": "Mark the VT from 6:09:30 to 6:12 this morning"}
        sending.write(json.dumps(asking).encode() + b"\n")
        assert json.loads(await hearing.readline()) == {"stage": "looking it up"}
        assert json.loads(await hearing.readline()) == {"stage": "looking at the signal, clip 1"}
        sending.close()
        while not made.counters["given_up"]:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return reader.read, made.counters["given_up"]

    assert asyncio.run(asyncio.wait_for(hang_up(), 60)) == (1, 1)


class Silent:
    """A writer that is not asked."""

    name = "silent"


def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = build(tmp_path)
    monkeypatch.setattr(service_module, "ANSWER_S", 0.5)

    async def wait(made: Service, slow: Slow) -> dict[str, Any]:
        return [said async for said in converse_async(state, ASKED)][-1]

    assert "given up" in asyncio.run(asyncio.wait_for(_with_slow(state, wait), 60))["error"]


def test_a_model_that_others_leave_no_time_is_not_asked_for_its_wording(tmp_path: Path) -> None:
    state = build(tmp_path)

    class Starved:
        name = "starved"
        asked = 0

        def stream(self, prompt: str, grammar: str, max_tokens: int) -> Iterator[str]:
            self.asked += 1
            signal.sigtimedwait([], service_module.WORD_S + 0.1)
            yield " {r1.count}"

    starved = Starved()

    async def ask_twice() -> list[str]:
        made = Service(state, lambda _: Helpers(writer=service_module.Careful(starved)))  # type: ignore[arg-type]
        task = asyncio.create_task(made.serve())
        while not serves(state):
            await asyncio.sleep(0.01)
        answers = [[said async for said in converse_async(state, ASKED)][-1]["done"] for _ in range(2)]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return [answer["answer"] for answer in answers]

    one, other = asyncio.run(asyncio.wait_for(ask_twice(), 60))
    assert one == other
    assert starved.asked == 1


def test_an_assistant_that_nobody_asks_ends(tmp_path: Path) -> None:
    state = build(tmp_path)

    async def idle() -> int:
        process = await start(state, 3.0)
        return await process.wait()

    assert asyncio.run(asyncio.wait_for(idle(), 300)) == 0
    assert not serves(state)


HANGING = """
import asyncio, sys, time
from pathlib import Path
from edge.assistant import service
from edge.assistant.ask import Helpers

class Hanging:
    name = "hanging"

    def stream(self, prompt, grammar, max_tokens):
        time.sleep(600)
        yield ""

service.ANSWER_S = service.GRACE_S = 0.5
make = lambda _: Helpers(writer=service.Careful(Hanging()))
asyncio.run(service.Service(Path(sys.argv[1]), make).serve())
"""


def test_a_model_that_hangs_ends_the_process_with_an_error(tmp_path: Path) -> None:
    """So that systemd, whose unit restarts it on failure, starts another one; the caller is told."""
    state = build(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HANGING, str(state)]) as process:
        while not serves(state):
            assert process.poll() is None
            select_wait()
        with pytest.raises(AnyecgError, match="ended unexpectedly"):
            list(converse(state, ASKED))
        assert process.wait(60) == 70
    unit = Path(__file__).parent.parent / "systemd/anyecg-assistant.service"
    assert "Restart=on-failure" in unit.read_text(encoding="utf-8")


PAGE = """
import asyncio, sys
from pathlib import Path
from edge.web.answering import Answerer

async def main() -> None:
    page = Answerer(Path(sys.argv[1]))
    async for said in page.ask("AF episodes on 28 March 2026?", "ann"):
        print(said, flush=True)
    print("asked", page._process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_the_pages_assistant_does_not_outlive_the_page(tmp_path: Path) -> None:
    state = build(tmp_path)
    with subprocess.Popen([sys.executable, "-c", PAGE, str(state)], stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        answered = next(line for line in page.stdout if line.startswith("asked"))
        helper = psutil.Process(int(answered.split()[1]))
        assert serves(state)
        page.kill()
    helper.wait(120)
    assert not serves(state)


def test_a_page_that_ends_while_the_model_loads_leaves_no_assistant(tmp_path: Path) -> None:
    state = build(tmp_path)

    async def leave() -> psutil.Process:
        starting = asyncio.create_task(start(state, 600.0))
        before = set(psutil.Process().children())
        while not (helpers := set(psutil.Process().children()) - before):
            await asyncio.sleep(0.01)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        (helper,) = helpers
        return helper

    asyncio.run(asyncio.wait_for(leave(), 60)).wait(60)
    assert not serves(state)


def test_one_that_the_page_started_makes_way_for_the_service(tmp_path: Path) -> None:
    state = build(tmp_path)

    async def both() -> tuple[int, bool]:
        pages = await start(state, 600.0)
        service = await asyncio.create_subprocess_exec(sys.executable, "-m", "edge", "assistant", "--state", str(state))
        code = await pages.wait()
        assert pages.stdin is not None
        pages.stdin.close()
        while not serves(state):
            assert service.returncode is None
            await asyncio.sleep(0.05)
        said = [said async for said in converse_async(state, ASKED)][-1]
        service.terminate()
        await service.wait()
        return code, "done" in said

    assert asyncio.run(asyncio.wait_for(both(), 300)) == (0, True)


def test_over_mqtt_one_asks_about_the_wearer_of_the_topic_alone(served: Path, tmp_path: Path) -> None:
    request = {"question": ASKED["question"], "now": ASKED["now"]}
    answer = asyncio.run(asked(served, "ann", request))
    assert answer["wearer"] == "ann"
    assert answer["answer"].startswith(("2 episodes", "I found 2", "The recording shows 2"))
    other = [{"tool": "count", "args": {"label": "af", "period": "last night", "wearer": "bob"}}]
    then = asyncio.run(asked(served, "ann", {"question": "and pauses?", "now": ASKED["now"], "context": other}))
    assert then["plan"][0]["args"]["wearer"] == "ann"
    with pytest.raises(BadInputError, match="names bob"):
        asyncio.run(asked(served, "ann", {"question": "Did bob have AF?"}))
    with pytest.raises(BadInputError, match="takes no wearer"):
        asyncio.run(asked(served, "ann", {"question": "AF?", "wearer": "bob"}))
    with pytest.raises(AnyecgError, match="no assistant runs"):
        asyncio.run(asked(tmp_path, "ann", request))


def test_a_context_survives_json() -> None:
    plan = [{"tool": "compare", "args": {"of": "af", "period": "today", "versus": "yesterday", "wearer": "ann"}}]
    assert [step.as_json() for step in context_of(plan)] == plan
    assert context_of(None) == ()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (make system)")
def test_it_answers_under_the_system_calls_its_unit_allows(tmp_path: Path) -> None:
    """The unit forbids to change priorities, which it sets itself."""
    state = build(tmp_path)
    tests = Path(__file__).parent
    unit = tests.parent / "systemd/anyecg-assistant.service"
    command = [sys.executable, str(tests / "confined.py"), str(unit)]
    process = subprocess.Popen([*command, sys.executable, "-m", "edge", "assistant", "--state", str(state)])
    try:
        while not serves(state):
            assert process.poll() is None
            select_wait()
        assert list(converse(state, ASKED))[-1]["done"]["results"]
    finally:
        process.terminate()
        assert process.wait(180) == 0


def test_every_thread_of_it_runs_below_who_started_it(served: Path) -> None:
    """A library that made its threads before the priority was lowered would compete with the daemon."""
    list(converse(served, {**ASKED, "question": "what was the QTc last night, and the HRV?"}))
    (owner,) = [p for p in psutil.process_iter(["cmdline"]) if str(served) in (p.info["cmdline"] or [])]
    nice = {
        int(stat.read_text().rsplit(")", 1)[1].split()[16]) for stat in Path(f"/proc/{owner.pid}/task").glob("*/stat")
    }
    assert min(nice) >= min(os.nice(0) + service_module.NICE, 19)
