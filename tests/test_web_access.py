"""Who may open the page, from where, how often: every refusal of `edge.web.guard`, the tokens, the door."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from store_kit import AF_IDS, build
from typer.testing import CliRunner

from edge.cli import web as web_cli
from edge.cli.app import app as cli
from edge.config import Config, Web
from edge.errors import AnyecgError, BadInputError
from edge.web import tokens
from edge.web.app import make_app
from edge.web.guard import HEADERS, LIMITS, Door
from edge.web.serve import open_door
from edge.web.tokens import Sessions, TokenFile

LOOPBACK = Door(is_loopback=True, needs_token=False, is_tls=False)
OUTSIDE = Door(is_loopback=False, needs_token=True, is_tls=True, hosts=("ecg.lan",))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("web"))


class Client:
    """Speaks ASGI to the page, without a network."""

    def __init__(self, state: Path, door: Door, config: Config | None = None) -> None:
        self._app = make_app(state, config or Config(), door)
        self.headers = {"host": "ecg.lan" if not door.is_loopback else "localhost:8377"}
        self.address = "192.0.2.7"

    def __call__(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
        if body is not None:
            sent = {"content-type": "application/json", "content-length": str(len(raw)), **sent}
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "method": "GET" if body is None else "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "client": (self.address, 1),
            "server": ("localhost", 8377),
            "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
        }
        messages: list[Any] = []
        pending = [{"type": "http.request", "body": raw, "more_body": False}]

        async def receive() -> Any:
            return pending.pop() if pending else await asyncio.Future()

        async def send(message: Any) -> None:
            messages.append(message)

        async def talk() -> None:
            await asyncio.wait_for(self._app(scope, receive, send), 120)

        asyncio.run(talk())
        answer = b"".join(m.get("body", b"") for m in messages[1:])
        got = {k.decode(): v.decode() for k, v in messages[0]["headers"]}
        is_json = got.get("content-type") == "application/json"
        return messages[0]["status"], json.loads(answer) if is_json else answer, got


def test_every_answer_forbids_what_the_page_does_not_need(state: Path) -> None:
    ask = Client(state, LOOPBACK)
    for path, status in (("/", 200), ("/static/app.js", 200), ("/api/people", 200), ("/nowhere", 404)):
        found, _, headers = ask(path)
        assert found == status
        assert HEADERS.items() <= headers.items()
    assert "unsafe" not in HEADERS["content-security-policy"]
    assert "http" not in HEADERS["content-security-policy"], "no request leaves this host"
    assert ask("/api/people")[2]["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("door", "host", "status"),
    [
        *((LOOPBACK, host, 200) for host in ("localhost", "127.0.0.1:8377", "[::1]:8377", "LOCALHOST.")),
        *((LOOPBACK, host, 421) for host in ("evil.example", "127.0.0.1.evil.example", "192.168.1.4", "", "a:b:c")),
        *((OUTSIDE, host, 200) for host in ("ecg.lan", "192.168.1.4:8377", "[2001:db8::1]")),
        *((OUTSIDE, host, 421) for host in ("evil.example", "[evil]", "ecg.lan.evil.example")),
    ],
)
def test_another_name_for_this_address_is_refused(state: Path, door: Door, host: str, status: int) -> None:
    assert Client(state, door)("/api/me", host=host)[0] == status


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
    ],
)
def test_other_sites_cannot_change_anything(state: Path, headers: dict[str, str]) -> None:
    for path in ("/api/mark", "/api/ask", "/api/login"):
        assert Client(state, LOOPBACK)(path, {}, **headers)[0] == 403


def test_long_and_broken_requests_are_refused(state: Path) -> None:
    ask = Client(state, LOOPBACK)
    assert ask("/api/mark", b" " * 20_000)[0] == 413
    assert ask("/api/mark", b" " * 20_000, content_length="5")[0] == 413
    assert ask("/api/mark", b"{}", content_length="-1")[0] == 413
    for body in (b"", b"[1]", b"{", b"[" * 10_000, b"\xff"):
        assert ask("/api/mark", body)[0] == 400
    for question in ("", 7, "x" * 501, None):
        assert ask("/api/ask", {"question": question})[0] == 400
    for path in (
        "overview",
        "overview?wearer=ann",
        "overview?wearer=ann&start=x&end=1",
        "overview?wearer=ann&start=2&end=1",
    ):
        assert ask(f"/api/{path}")[0] == 400
    week = 8 * 86_400_000
    assert ask(f"/api/overview?wearer=ann&start=0&end={week + 1}")[0] == 400
    assert ask("/api/wave?wearer=ann&start=0&end=60001")[0] == 400
    assert ask("/api/beats?wearer=ann&start=0&end=3600001")[0] == 400
    assert ask("/api/event/zzzz")[0] == 400
    assert ask("/static/../app.py")[0] == 404


def test_a_mark_without_a_daemon_is_a_clear_answer(state: Path) -> None:
    status, answer, _ = Client(state, LOOPBACK)("/api/mark", {"kind": "confirm", "event": AF_IDS[0]})
    assert (status, answer["error"][:18]) == (503, "no gateway runs on")


def test_no_database_yet_is_a_clear_answer(tmp_path: Path) -> None:
    status, answer, _ = Client(tmp_path, LOOPBACK)("/api/people")
    assert status == 503
    assert "start the gateway" in answer["error"]


def test_without_a_token_nothing_is_seen(state: Path) -> None:
    ask = Client(state, OUTSIDE)
    for path in ("/api/people", "/api/health", f"/api/event/{AF_IDS[0]}", "/api/stream", "/nowhere"):
        assert ask(path)[0] == 401
    assert ask("/api/mark", {})[0] == 401
    assert ask("/")[0] == 200, "the page itself holds no data: it shows where to sign in"
    status, me, _ = ask("/api/me")
    assert (status, me["role"], me["gateway"]) == (200, None, None)


def signed_in(client: Client, token: str) -> tuple[int, str, str]:
    status, _, headers = client("/api/login", {"token": token}, origin="https://ecg.lan")
    cookie = headers.get("set-cookie", "")
    return status, cookie.split(";")[0], cookie


def test_owners_change_viewers_see_and_a_removed_token_ends_its_sessions(tmp_path: Path) -> None:
    state = build(tmp_path)
    file = TokenFile(state)
    owner, viewer = file.add("ann", "owner", 1), file.add("carer", "viewer", 1)
    assert (state / tokens.FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert owner.split(".")[1] not in (state / tokens.FILE_NAME).read_text(), "only a hash is kept"
    ask = Client(state, OUTSIDE)
    assert signed_in(ask, "ann.wrong")[0] == 401
    assert signed_in(ask, viewer.replace("carer", "ann"))[0] == 401
    status, cookie, whole = signed_in(ask, viewer)
    assert status == 200
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= {part.strip() for part in whole.split(";")}
    assert ask("/api/people", cookie=cookie)[0] == 200
    assert ask("/api/mark", {"kind": "confirm"}, cookie=cookie)[0] == 403
    _, owners, _ = signed_in(ask, owner)
    assert ask("/api/mark", {"kind": "confirm", "event": AF_IDS[0]}, cookie=owners)[0] == 503, "let through"
    assert ask("/api/logout", {}, cookie=owners)[0] == 200
    assert ask("/api/people", cookie=owners)[0] == 401
    file.remove("carer")
    assert ask("/api/people", cookie=cookie)[0] == 401


def test_tokens_and_sessions_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TokenFile(tmp_path)
    token = file.add("ann", "owner", days=1)
    sessions = Sessions(file, hours=12)
    held = file.verify(token)
    assert held is not None
    secret = sessions.start(held)
    assert sessions.find(secret) is not None
    assert sessions.find(secret + "x") is None
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 12.1 * 3600)
    assert sessions.find(secret) is None
    assert file.verify(token) is not None
    monkeypatch.setattr(time, "time", lambda: now_s + 24.1 * 3600)
    assert file.verify(token) is None


def test_guessing_is_slow_and_limited(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    burst = int(LIMITS["/api/login"].burst)
    monkeypatch.setitem(LIMITS, "/api/login", type(LIMITS[""])(burst, 0.001))  # no new budget on a slow machine
    ask = Client(state, OUTSIDE)
    started_s = time.monotonic()
    assert [signed_in(ask, "ann.guess")[0] for _ in range(burst + 2)] == [401] * burst + [429] * 2
    assert (time.monotonic() - started_s) / burst > 0.01, "each guess costs one scrypt"
    ask.address = "192.0.2.8"
    assert signed_in(ask, "ann.guess")[0] == 401, "another address has its own budget"


def test_too_many_requests_are_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "", type(LIMITS[""])(3, 0.001))
    ask = Client(state, LOOPBACK)
    assert [ask("/api/me")[0] for _ in range(5)] == [200, 200, 200, 429, 429]


def test_bad_tokens_are_clear_errors(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    with pytest.raises(BadInputError, match="no role 'king'"):
        file.add("ann", "king", 1)
    with pytest.raises(BadInputError, match="is no name"):
        file.add("a.b", "owner", 1)
    file.add("ann", "owner", 1)
    with pytest.raises(BadInputError, match="a token 'ann' already"):
        file.add("ann", "owner", 1)
    with pytest.raises(BadInputError, match="no token 'bob'; there are: ann"):
        file.remove("bob")
    path = tmp_path / tokens.FILE_NAME
    path.chmod(0o644)
    with pytest.raises(AnyecgError, match="readable by others"):
        file.all()
    path.chmod(0o600)
    path.write_text("[{}]")
    os.utime(path, (1, 1))
    with pytest.raises(AnyecgError, match="damaged"):
        file.all()


def test_beyond_loopback_needs_tls_and_a_token(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cert_file"):
        open_door(tmp_path, Config(), "0.0.0.0")
    tls = Config(web=Web(cert_file=tmp_path / "c.pem", key_file=tmp_path / "k.pem"))
    with pytest.raises(BadInputError, match="web-token add"):
        open_door(tmp_path, tls, "192.168.1.4")
    TokenFile(tmp_path).add("ann", "owner", 1)
    assert open_door(tmp_path, tls, "::") == Door(False, True, True)
    assert open_door(tmp_path, Config(), "127.0.0.1") == LOOPBACK
    assert open_door(tmp_path, Config(), "localhost") == LOOPBACK
    assert open_door(tmp_path, Config(web=Web(require_token=True)), "::1").needs_token
    with pytest.raises(ValueError, match="belong together"):
        Web(cert_file=tmp_path / "c.pem")


def test_token_commands(tmp_path: Path) -> None:
    def run(*args: str) -> Any:
        result = CliRunner().invoke(cli, ["web-token", *args, "--state", str(tmp_path)], env={"COLUMNS": "200"})
        if isinstance(result.exception, AnyecgError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    assert web_cli.tokens is not None
    token = run("add", "ann", "--role", "owner", "--days", "2").strip()
    held = TokenFile(tmp_path).verify(token)
    assert held is not None
    assert held.role == "owner"
    assert "ann" in run("list")
    assert json.loads(run("list", "--json"))[0]["role"] == "owner"
    run("remove", "ann")
    assert "no tokens" in run("list")
