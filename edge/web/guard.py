"""What stands before every request: its host, who asks, how often, how much, and the headers of every answer.

| refused | status | why |
|---|---|---|
| a `Host` that is not this page's | 421 | DNS rebinding: another site's name that points here |
| a change without JSON, from another origin, or without the session's cookie | 403 | cross-site requests |
| no valid session where one is needed | 401 | |
| a viewer who wants to change something | 403 | |
| too many requests, sign-ins or questions from one address | 429 | |
| a body longer than `MAX_BODY` | 413 | |
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.web.tokens import Role, Sessions

COOKIE = "anyecg_session"
MAX_BODY = 16_384
PUBLIC = ("/", "/api/login", "/api/me", "/favicon.ico")
CHANGES = ("/api/mark",)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: `burst` at once, `per_s` in the long run."""

    burst: float
    per_s: float


LIMITS = {
    "/api/login": Limit(5, 5 / 60),
    "/api/ask": Limit(6, 12 / 60),
    "": Limit(300, 60),
}
"""For each client address; the empty name is everything else."""
MAX_CLIENTS = 4_096


class Buckets:
    """How much each client may still ask."""

    def __init__(self) -> None:
        self._left: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, client: str, name: str, limit: Limit) -> bool:
        """Take one; False if nothing is left."""
        now_s = time.monotonic()
        left, at_s = self._left.pop((client, name), (limit.burst, now_s))
        left = min(limit.burst, left + (now_s - at_s) * limit.per_s)
        self._left[client, name] = (left - 1 if left >= 1 else left, now_s)
        if len(self._left) > MAX_CLIENTS:
            self._left.popitem(last=False)
        return left >= 1


@dataclass(frozen=True, slots=True)
class Door:
    """How the page may be reached."""

    is_loopback: bool
    needs_token: bool
    is_tls: bool
    hosts: tuple[str, ...] = ()

    def admits_host(self, header: str) -> bool:
        """Whether the page is called by one of its own names."""
        name = _host_name(header)
        if name is None:
            return False
        if self.is_loopback:
            return name in LOOPBACK_NAMES or name in self.hosts
        return _is_address(name) or name in LOOPBACK_NAMES or name in self.hosts


class Guard:
    """ASGI middleware; puts `who` (name) and `role` into `scope["state"]`."""

    def __init__(self, app: ASGIApp, door: Door, sessions: Sessions) -> None:
        self._app = app
        self._door = door
        self._sessions = sessions
        self._buckets = Buckets()
        self.refused: dict[int, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            self.refused[refusal.status_code] = self.refused.get(refusal.status_code, 0) + 1
            await refusal(scope, receive, self._sender(scope, send))
            return
        await self._app(scope, _bounded(receive), self._sender(scope, send))

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        path, method = scope["path"], scope["method"]
        if not self._door.admits_host(headers.get("host", "")):
            return _no(421, "this page is not called so; web.allowed_hosts in config.toml lists its names")
        if method not in ("GET", "HEAD", "POST"):
            return _no(405, f"no {method} here")
        client = (scope.get("client") or ("?", 0))[0]
        name = path if path in LIMITS else ""
        if not path.startswith("/static/") and not self._buckets.take(client, name, LIMITS[name]):
            return _no(429, "too many requests from this address: wait a minute")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return _no(413, f"a request has at most {MAX_BODY} bytes")
        if method == "POST" and not self._is_same_origin(headers):
            return _no(403, "changes come from this page itself, as JSON")
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        who, role = self._who(headers)
        state["who"], state["role"], state["session"] = who, role, _cookie(headers)
        if role is None and path not in PUBLIC and not path.startswith("/static/"):
            return _no(401, "sign in with a token: `anyecg web-token add` makes one")
        if path in CHANGES and role != "owner":
            return _no(403, "your token may see, not change; an owner's may")
        return None

    def _who(self, headers: Headers) -> tuple[str, Role | None]:
        secret = _cookie(headers)
        session = self._sessions.find(secret) if secret else None
        if session is not None:
            return session.name, session.role
        return ("page", "owner") if not self._door.needs_token else ("", None)

    def _is_same_origin(self, headers: Headers) -> bool:
        if headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return False
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        own = f"{'https' if self._door.is_tls else 'http'}://{headers.get('host', '')}"
        return headers.get("origin", own) == own

    def _sender(self, scope: Scope, send: Send) -> Send:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = message.setdefault("headers", [])
                names = {name for name, _ in answer}
                caching = "no-cache" if scope["path"] == "/" or scope["path"].startswith("/static/") else "no-store"
                for name, value in {**HEADERS, "cache-control": caching}.items():
                    if name.encode() not in names:
                        answer.append((name.encode(), value.encode()))
            await send(message)

        return with_headers


def _bounded(receive: Receive) -> Receive:
    """Return `receive` that ends a body at `MAX_BODY`, whatever its length was said to be."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY:
            return {"type": "http.disconnect"}
        return message

    return bounded


def _no(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status)


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")[:4096]).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _host_name(header: str) -> str | None:
    """Return the lower-case name of a Host header without its port, None if it is none."""
    if header.startswith("["):
        name, bracket, rest = header[1:].partition("]")
        return name.lower() if bracket and (not rest or rest.startswith(":")) else None
    name, _, port = header.partition(":")
    return name.lower().rstrip(".") or None if not port or port.isdigit() else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
