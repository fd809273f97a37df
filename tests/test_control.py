"""The control socket: answers, errors, limits, who may ask."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge import control
from edge.control import ControlServer, NotRunningError, request
from edge.errors import AnyecgError, BadInputError


async def echo(params: dict[str, Any]) -> Any:
    return params


async def refuse(params: dict[str, Any]) -> Any:
    raise BadInputError("wearer 'x' is unknown")


async def fail(params: dict[str, Any]) -> Any:
    raise AnyecgError("disk full")


async def crash(params: dict[str, Any]) -> Any:
    raise ZeroDivisionError("secret detail")


async def hang(params: dict[str, Any]) -> Any:
    await asyncio.sleep(60)


async def give_up(params: dict[str, Any]) -> Any:
    work: Future[None] = Future()
    work.cancel()
    await asyncio.wrap_future(work)


async def flood(params: dict[str, Any]) -> Any:
    return "x" * control.MAX_LINE_BYTES


@asynccontextmanager
async def serving(state: Path) -> AsyncIterator[ControlServer]:
    handlers = {handler.__name__: handler for handler in (echo, refuse, fail, crash, hang, give_up, flood)}
    async with ControlServer(state, handlers) as server:
        yield server


def served(state: Path, work: Callable[[ControlServer], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serving(state) as server:
            await work(server)

    asyncio.run(run())


async def ask(state: Path, command: str, params: dict[str, Any] | None = None, timeout_s: float = 60.0) -> Any:
    return await asyncio.to_thread(request, state, command, timeout_s=timeout_s, **(params or {}))


async def raw(state: Path, *lines: bytes) -> list[Any]:
    reader, writer = await asyncio.open_unix_connection(
        str(state / control.FILE_NAME), limit=2 * control.MAX_LINE_BYTES
    )
    writer.write(b"".join(lines))
    answers = [json.loads(await reader.readline()) for _ in lines]
    writer.close()
    await writer.wait_closed()
    return answers


def test_answers(tmp_path: Path) -> None:
    async def work(server: ControlServer) -> None:
        assert await ask(tmp_path, "echo", {"wearer": "änna", "n": [1, None]}) == {"wearer": "änna", "n": [1, None]}
        answers = await raw(tmp_path, b'{"command":"echo"}\n', b'{"command":"echo","params":{"a":1}}\n')
        assert [answer["result"] for answer in answers] == [{}, {"a": 1}]
        assert server.counters == {"requests": 3, "errors": 0, "refused": 0}

    served(tmp_path, work)


def test_errors_come_back_as_what_they_are(tmp_path: Path) -> None:
    async def work(server: ControlServer) -> None:
        with pytest.raises(BadInputError, match="wearer 'x'"):
            await ask(tmp_path, "refuse")
        with pytest.raises(AnyecgError, match="disk full") as failed:
            await ask(tmp_path, "fail")
        assert not isinstance(failed.value, BadInputError)
        with pytest.raises(AnyecgError, match="internal error") as crashed:
            await ask(tmp_path, "crash")
        assert "secret" not in str(crashed.value)
        with pytest.raises(AnyecgError, match="'give_up' was given up"):
            await ask(tmp_path, "give_up")
        with pytest.raises(BadInputError, match="echo, fail"):
            await ask(tmp_path, "nonsense")
        with pytest.raises(AnyecgError, match=r"within 0\.1 s"):
            await ask(tmp_path, "hang", timeout_s=0.1)
        with pytest.raises(AnyecgError, match="larger than"):
            await ask(tmp_path, "flood")
        assert await ask(tmp_path, "echo", {"still": "there"}) == {"still": "there"}

    served(tmp_path, work)


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"not json\n", b"[]\n", b'{"command":1}\n', b'{"params":{}}\n', b'{"command":"echo","params":[]}\n',
        b'{"command":"echo","params":{},"more":1}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n",
    ],
)  # fmt: skip
def test_a_malformed_request_is_answered_and_harms_nobody(tmp_path: Path, line: bytes) -> None:
    async def work(server: ControlServer) -> None:
        bad, good = await raw(tmp_path, line, b'{"command":"echo"}\n')
        assert (bad["ok"], bad["bad_input"]) == (False, True)
        assert good["ok"]

    served(tmp_path, work)


def test_a_request_without_end_is_cut_off(tmp_path: Path) -> None:
    async def work(server: ControlServer) -> None:
        (answer,) = await raw(tmp_path, b"x" * (control.MAX_LINE_BYTES + 100_000))
        assert (answer["ok"], "longer than" in answer["error"]) == (False, True)
        with pytest.raises(BadInputError, match="longer than"):
            await ask(tmp_path, "echo", {"x": "x" * control.MAX_LINE_BYTES})

    served(tmp_path, work)


def test_callers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 2)

    async def work(server: ControlServer) -> None:
        idle = [await asyncio.open_unix_connection(str(tmp_path / control.FILE_NAME)) for _ in range(2)]
        with pytest.raises(AnyecgError, match="try again"):
            await ask(tmp_path, "echo")
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        while server._tasks:
            await asyncio.sleep(0.01)
        assert await ask(tmp_path, "echo") == {}

    served(tmp_path, work)


def test_who_is_silent_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.05)

    async def work(server: ControlServer) -> None:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / control.FILE_NAME))
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        await writer.wait_closed()

    served(tmp_path, work)


def test_nobody_else_may_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(server: ControlServer) -> None:
        assert stat.S_IMODE((tmp_path / control.FILE_NAME).stat().st_mode) == 0o600
        real = os.geteuid()
        monkeypatch.setattr("edge.local_socket.struct.unpack", lambda *_: (1, real + 1, 1))
        with pytest.raises(AnyecgError, match=f"not user {real + 1}"):
            await ask(tmp_path, "echo")
        assert server.counters["refused"] == 1

    served(tmp_path, work)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_real_other_user_is_refused() -> None:
    script = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        's.sendall(b\'{"command":"echo"}\\n\')\n'
        "print(s.makefile().readline())\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)

        async def work(server: ControlServer) -> None:
            path = state / control.FILE_NAME
            state.chmod(0o755)
            path.chmod(0o666)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, str(path), stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert b"not user 65534" in output

        served(state, work)


def test_no_daemon_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="anyecg run"):
        request(tmp_path, "status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / control.FILE_NAME))
    with pytest.raises(NotRunningError, match="anyecg run"):
        request(tmp_path, "status")
    served(tmp_path, lambda server: ask(tmp_path, "echo"))
    assert not (tmp_path / control.FILE_NAME).exists()


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    async def work(server: ControlServer) -> None:
        with pytest.raises(AnyecgError, match="already answers"):
            async with ControlServer(tmp_path, {}):
                pass
        assert await ask(tmp_path, "echo") == {}
        assert control.is_served(tmp_path)

    served(tmp_path, work)
    assert not control.is_served(tmp_path)


def test_a_deep_state_folder_works(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)

    async def work(server: ControlServer) -> None:
        assert await ask(deep, "echo") == {}

    served(deep, work)
