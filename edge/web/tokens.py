"""Who may open the page from elsewhere: tokens, hashed in a file of the state folder, and the sessions they start.

`web-tokens.json` (0600) holds for each token a name, a role, an expiry and scrypt of its secret (RFC 7914; N = 2^14,
r = 8, p = 1: 16 MiB and some 50 ms for each guess). The token itself, 192 random bits, is shown once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edge.errors import AnyecgError, BadInputError

Role = Literal["owner", "viewer"]
ROLES: tuple[Role, ...] = ("owner", "viewer")
"""An owner may change things (marks, corrections), a viewer may see them and ask."""
FILE_NAME = "web-tokens.json"
MAX_TOKENS = 100
MAX_SESSIONS = 1_000
MAX_FILE_BYTES = 100_000
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "maxmem": 2**26}


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token."""

    name: str
    role: Role
    salt: str
    hash: str
    created_s: float
    expires_s: float


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that signed in."""

    name: str
    role: Role
    hash: str
    """Of the token it signed in with: without that token it ends."""
    expires_s: float


class TokenFile:
    """The tokens of a state folder; a change of the file counts from the next question on."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE_NAME
        self._read_at: tuple[int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def all(self) -> tuple[Token, ...]:
        """Return every token, expired ones too. Raises `AnyecgError` for a damaged file or one others may read."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return ()
        if found.st_mode & 0o077:
            raise AnyecgError(f"{self._path} is readable by others: chmod 600 {self._path}")
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._read_at:
            if found.st_size > MAX_FILE_BYTES:
                raise AnyecgError(f"{self._path} is damaged: larger than {MAX_FILE_BYTES} bytes")
            try:
                self._tokens = tuple(Token(**row) for row in json.loads(self._path.read_text()))
            except (OSError, ValueError, TypeError) as error:
                raise AnyecgError(f"{self._path} is damaged ({error}): remove it and make new tokens") from None
            self._read_at = stamp
        return self._tokens

    def add(self, name: str, role: str, days: float) -> str:
        """Make a token and return it; it is kept nowhere. Raises `BadInputError` for a bad or taken name or role."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", name):
            raise BadInputError(f"{name!r} is no name: 1 to 32 letters, digits, - or _")
        if role not in ROLES:
            raise BadInputError(f"there is no role {role!r}; choose from {', '.join(ROLES)}")
        tokens = self.all()
        if any(token.name == name for token in tokens):
            raise BadInputError(f"there is a token {name!r} already: remove it first, or choose another name")
        if len(tokens) >= MAX_TOKENS:
            raise BadInputError(f"there are {MAX_TOKENS} tokens, which is the limit: remove some")
        secret, salt = secrets.token_urlsafe(24), secrets.token_bytes(16)
        now_s = time.time()
        token = Token(name, role, salt.hex(), _hash(secret, salt), now_s, now_s + days * 86_400)
        self._write((*tokens, token))
        return f"{name}.{secret}"

    def remove(self, name: str) -> None:
        """Forget a token and end its sessions. Raises `BadInputError` if there is none of that name."""
        tokens = self.all()
        if all(token.name != name for token in tokens):
            raise BadInputError(f"there is no token {name!r}; there are: {', '.join(t.name for t in tokens) or 'none'}")
        self._write(tuple(token for token in tokens if token.name != name))

    def verify(self, text: str) -> Token | None:
        """Return the token that `text` is, None if it is none or expired; takes the same time either way."""
        name, _, secret = text.strip()[:200].partition(".")
        known = {token.name: token for token in self.all()}
        token = known.get(name, _NOBODY)
        matches = hmac.compare_digest(_hash(secret, bytes.fromhex(token.salt)), token.hash)
        return token if matches and token is not _NOBODY and token.expires_s > time.time() else None

    def _write(self, tokens: tuple[Token, ...]) -> None:
        beside = self._path.with_suffix(f".{os.getpid()}")
        try:
            beside.unlink(missing_ok=True)
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump([asdict(token) for token in tokens], file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise AnyecgError(f"cannot write {self._path}: {error.strerror}") from None


class Sessions:
    """Who is signed in; kept in memory, so a restart of the page asks everybody again."""

    def __init__(self, tokens: TokenFile, hours: float) -> None:
        self._tokens = tokens
        self._hours = hours
        self._sessions: dict[str, Session] = {}

    def start(self, token: Token) -> str:
        """Return the secret of a new session; beyond `MAX_SESSIONS` the oldest one ends."""
        secret = secrets.token_urlsafe(32)
        expires_s = min(time.time() + self._hours * 3600, token.expires_s)
        if len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(secret)] = Session(token.name, token.role, token.hash, expires_s)
        return secret

    def find(self, secret: str) -> Session | None:
        """Return the session of a secret, None if it never was, has expired, or its token is gone."""
        key = _digest(secret)
        session = self._sessions.get(key)
        if session is None:
            return None
        if session.expires_s > time.time() and any(token.hash == session.hash for token in self._tokens.all()):
            return session
        del self._sessions[key]
        return None

    def end(self, secret: str) -> None:
        """Sign out."""
        self._sessions.pop(_digest(secret), None)


def _hash(secret: str, salt: bytes) -> str:
    return hashlib.scrypt(secret.encode(), salt=salt, **_SCRYPT).hex()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


_NOBODY = Token("", "viewer", "00" * 16, "", 0.0, 0.0)
