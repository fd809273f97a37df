"""A complete mosquitto of our own: what was decided (`setup.json`), and every file made from it.

    setup.json          names, listeners, users with their password hashes, revoked certificates (0600)
    mosquitto.conf      acl, passwords: made from it, mosquitto reads them
    tls/                ca.crt, ca.key (0600, never mosquitto's), server.crt, server.key, revoked.pem
    clients/<user>/     what to give to a user: ca.crt and password, or client.crt and client.key; delete it then
    data/               what mosquitto keeps

Users prove themselves by password (TLS port 8883, and 1883 on loopback) or by certificate (8884), never by either:
who has a certificate has no password.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import shutil
import signal
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker import access
from broker.access import Role
from broker.authority import CERTIFICATE_DAYS, Authority, Issued, expiry, now_utc
from broker.errors import BrokerError
from broker.files import Owner, locked, put
from broker.sizing import Save, choose_sizing
from edge.config import Identifier
from edge.errors import BadInputError
from edge.sources.payload import MAX_PAYLOAD_BYTES

FILE_NAME = "setup.json"
CONFIG = "mosquitto.conf"
PASSWORD_ITERATIONS = 10_000
"""PBKDF2-HMAC-SHA-512. Passwords are 192 random bits: the count matters little."""
MAX_USERS = 1_000
MAX_WEARERS = 1_000
_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class User(_Strict):
    """Who may connect."""

    name: str
    role: Role
    wearers: tuple[Identifier, ...] = ()
    hash: str | None = None
    """Of the password, as mosquitto_passwd writes it; none: by certificate."""
    serial: int | None = None
    expires: datetime | None = None
    """Of the certificate."""


class Revoked(_Strict):
    """A certificate that no longer counts."""

    name: str
    serial: int


class Bridge(_Strict):
    """A broker elsewhere that gets what this one tells, never the signal."""

    url: str
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None


class Setup(_Strict):
    """Everything that was decided about a broker."""

    gateway: Identifier
    names: tuple[str, ...]
    """What the server certificate says the broker is called."""
    listen: str | None = None
    """Address of the TLS listeners; none: loopback only."""
    port: int = 1883
    tls_port: int = 8883
    certificate_port: int = 8884
    wearers: Annotated[int, Field(ge=1, le=MAX_WEARERS)] = 1
    save: Save = "timed"
    owner: str
    bridge: Bridge | None = None
    users: tuple[User, ...] = ()
    revoked: tuple[Revoked, ...] = ()

    def user(self, name: str) -> User:
        """Find a user. Raises `BadInputError` naming those there are."""
        for user in self.users:
            if user.name == name:
                return user
        known = ", ".join(user.name for user in self.users) or "none"
        raise BadInputError(f"there is no user {name!r} at this broker; there are: {known}")


class BrokerFolder:
    """A broker's folder: reads what was decided, and writes it with all that follows from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def config(self) -> Path:
        return self.folder / CONFIG

    def client(self, name: str) -> Path:
        """Where the credentials of a user lie until they are handed over."""
        return self.folder / "clients" / name

    def load(self) -> Setup:
        """Read the setup. Raises `BrokerError` if there is none or it is damaged."""
        path = self.folder / FILE_NAME
        try:
            return Setup.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise BrokerError(f"no broker in {self.folder}: `anyecg broker init` makes one") from None
        except OSError as error:
            raise BrokerError(f"{path} cannot be read: {error.strerror}; run as the user who made it") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise BrokerError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def init(self, setup: Setup) -> Path:
        """Make a broker; return the folder with the gateway's credentials. Raises `BadInputError` if there is one."""
        check_names(setup.names)
        if setup.bridge is not None:
            check_bridge(setup.bridge)
        if (self.folder / FILE_NAME).exists():
            raise BadInputError(f"there is a broker in {self.folder} already: change it with `anyecg broker user …`")
        owner = Owner.named(setup.owner)
        try:
            for folder, mode in ((self.folder, 0o750), (self.folder / "tls", 0o750), (self.folder / "data", 0o700)):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(mode)
                owner.take(folder, group_only=folder.name != "data")
            (self.folder / "clients").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BrokerError(f"cannot make {self.folder}: {error.strerror}") from None
        with locked(self.folder):
            authority = Authority.create(setup.gateway, now_utc())
            put(self.folder / "tls/ca.key", authority.key_pem())
            put(self.folder / "tls/ca.crt", authority.pem(), mode=0o644)
            self._put_server(setup, authority)
            setup, credentials = self._enroll(setup, User(name="gateway", role="gateway"), by_certificate=False)
            self._write(setup, authority)
        return credentials

    def add(self, name: str, role: Role, wearers: Sequence[str], *, by_certificate: bool, days: float) -> Path:
        """Let a user in; return the folder with the credentials. Raises `BadInputError` for a bad or taken name."""
        if role == "gateway" or not access.is_name(name, role):
            wanted = "<wearer>/<device>" if role == "device" else "one name"
            raise BadInputError(f"{name!r} is no name for a {role}: {wanted}, of a-z, 0-9, - and _")
        if (role == "subscriber") != bool(wearers):
            raise BadInputError("name the wearers of a subscriber, and of nobody else, with --wearer")
        try:
            user = User(name=name, role=role, wearers=tuple(wearers))
        except ValidationError:
            raise BadInputError(f"a wearer's name is of a-z, 0-9, - and _: {', '.join(wearers)}") from None
        with locked(self.folder):
            setup = self.load()
            if any(known.name == name for known in setup.users):
                raise BadInputError(f"there is a user {name!r} already: rotate or remove it")
            if len(setup.users) >= MAX_USERS:
                raise BadInputError(f"there are {MAX_USERS} users, which is the limit")
            setup, credentials = self._enroll(setup, user, by_certificate=by_certificate, days=days)
            self._write(setup)
        return credentials

    def remove(self, name: str) -> None:
        """Let a user in no more: the password is forgotten, the certificate revoked."""
        with locked(self.folder):
            setup = self.load()
            user = setup.user(name)
            if user.role == "gateway":
                raise BadInputError("without its own user the gateway hears nothing: rotate it instead")
            rest = tuple(known for known in setup.users if known.name != name)
            self._write(_revoked(setup, user).model_copy(update={"users": rest}))
            shutil.rmtree(self.client(name), ignore_errors=True)

    def rotate(self, name: str, days: float = CERTIFICATE_DAYS) -> Path:
        """Replace a user's password or certificate; the old one counts no more."""
        with locked(self.folder):
            setup = self.load()
            user = setup.user(name)
            setup = _revoked(setup, user)
            setup, credentials = self._enroll(setup, user, by_certificate=user.serial is not None, days=days)
            self._write(setup)
        return credentials

    def renew(self) -> datetime:
        """Give the broker a new server certificate from the same authority; return when it ends."""
        with locked(self.folder):
            self._put_server(self.load(), self._authority())
        return expiry(self.folder / "tls/server.crt")

    def reload(self) -> bool:
        """Have the running mosquitto read its files again; False if none of this folder runs.

        Raises `BrokerError` if it belongs to somebody else.
        """
        try:
            pid = int((self.folder / "data/mosquitto.pid").read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return False
        if os.fsencode(self.config) not in arguments:
            return False  # its number went to another program
        try:
            os.kill(pid, signal.SIGHUP)
        except ProcessLookupError:
            return False
        except PermissionError:
            raise BrokerError(f"mosquitto (pid {pid}) is not yours: reload it as root") from None
        return True

    def _authority(self) -> Authority:
        return Authority.load(self.folder / "tls/ca.crt", self.folder / "tls/ca.key")

    def _put_server(self, setup: Setup, authority: Authority) -> None:
        owner = Owner.named(setup.owner)
        names = list(dict.fromkeys([*setup.names, "localhost", "127.0.0.1", "::1"]))
        issued = authority.issue_server(names, now_utc())
        put(self.folder / "tls/server.key", issued.key, owner)
        put(self.folder / "tls/server.crt", issued.certificate, mode=0o644)

    def _enroll(
        self, setup: Setup, user: User, *, by_certificate: bool, days: float = CERTIFICATE_DAYS
    ) -> tuple[Setup, Path]:
        """Give a user new credentials; return the setup with it."""
        folder = self.client(user.name)
        issued: Issued | None = None
        password = secrets.token_urlsafe(24)
        if by_certificate:
            issued = self._authority().issue_client(user.name, now_utc(), days)
        try:
            for part in (folder.parent, folder):
                part.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BrokerError(f"cannot make {folder}: {error.strerror}") from None
        put(folder / "ca.crt", (self.folder / "tls/ca.crt").read_bytes())
        if issued is not None:
            put(folder / "client.crt", issued.certificate)
            put(folder / "client.key", issued.key)
            proof: dict[str, object] = {"hash": None, "serial": issued.serial, "expires": issued.expires}
        else:
            put(folder / "password", f"{password}\n".encode())
            proof = {"hash": hash_password(password), "serial": None, "expires": None}
        enrolled = user.model_copy(update=proof)
        others = tuple(known for known in setup.users if known.name != user.name)
        return setup.model_copy(update={"users": (*others, enrolled)}), folder

    def _write(self, setup: Setup, authority: Authority | None = None) -> None:
        """Write the setup, then everything that follows from it."""
        owner = Owner.named(setup.owner)
        path = self.folder / "tls/revoked.pem"
        was = self.load().revoked if (self.folder / FILE_NAME).exists() else None
        if setup.revoked != was or not path.exists():
            authority = authority or self._authority()
            put(path, authority.revocation_list([one.serial for one in setup.revoked], now_utc()), owner)
        put(self.folder / FILE_NAME, setup.model_dump_json(indent=1).encode())
        names = {user.name for user in setup.users}
        rules = access.render(
            setup.gateway,
            [(user.name, user.role, user.wearers) for user in setup.users],
            {one.name for one in setup.revoked} - names,
        )
        hashes = [f"{user.name}:{user.hash}\n" for user in setup.users if user.hash is not None]
        put(self.folder / "passwords", "".join(hashes).encode(), owner)
        put(self.folder / "acl", rules.encode(), owner)
        put(self.config, render(setup, self.folder).encode(), owner)


def render(setup: Setup, folder: Path) -> str:
    """Return `mosquitto.conf`."""
    sizing = choose_sizing(setup.wearers, setup.save)
    address = setup.listen if setup.listen is not None else "127.0.0.1"
    # before the first `listener` this would open mosquitto's own on 1883, on every address
    limit = "max_connections 1000"
    tls = [
        limit,
        f"cafile {folder}/tls/ca.crt",
        f"certfile {folder}/tls/server.crt",
        f"keyfile {folder}/tls/server.key",
        "tls_version tlsv1.2",
    ]
    lines = [
        "# Written by `anyecg broker`; changes here are lost.",
        f"user {setup.owner}",
        f"pid_file {folder}/data/mosquitto.pid",
        "log_dest stderr",
        *(f"log_type {kind}" for kind in ("error", "warning", "notice", "information")),
        "",
        "# Who may connect, and what for.",
        "allow_anonymous false",
        f"password_file {folder}/passwords",
        f"acl_file {folder}/acl",
        "",
        "# What is kept for whom is away.",
        "persistence true",
        f"persistence_location {folder}/data/",
        f"# {sizing.queue_reason}",
        f"max_queued_messages {sizing.max_queued_messages}",
        f"max_queued_bytes {sizing.max_queued_bytes}",
        f"# {sizing.save_reason}",
        f"autosave_interval {sizing.autosave_interval}",
        f"autosave_on_changes {str(sizing.autosave_on_changes).lower()}",
        "# A session without its client ends after a week.",
        "persistent_client_expiration 7d",
        "",
        "# The largest chunk the gateway takes, with its topic.",
        f"max_packet_size {MAX_PAYLOAD_BYTES + 1024}",
        "set_tcp_nodelay true",
        "",
        "# This machine only: the gateway itself.",
        f"listener {setup.port} 127.0.0.1",
        limit,
        "",
        "# Users with a password." if setup.listen else "# Users with a password; --listen opens it to the network.",
        f"listener {setup.tls_port} {address}",
        *tls,
        "",
        "# Users with a certificate: its name is their name.",
        f"listener {setup.certificate_port} {address}",
        *tls,
        "require_certificate true",
        "use_identity_as_username true",
        f"crlfile {folder}/tls/revoked.pem",
        "",
        "# A broker elsewhere that gets the alerts and states, never the signal (`anyecg broker init --bridge`).",
    ]
    example = Bridge(url="mqtts://hub.lan", username="bridge", password="...")  # noqa: S106
    bridge = render_bridge(setup.bridge or example, setup.gateway)
    lines += bridge if setup.bridge is not None else [f"# {line}" for line in bridge]
    return "\n".join(lines) + "\n"


def render_bridge(bridge: Bridge, gateway: str) -> list[str]:
    """Return the lines of mosquitto.conf that connect it to a hub."""
    address = urlsplit(bridge.url)
    is_tls = address.scheme == "mqtts"
    lines = [
        f"connection anyecg-{gateway}",
        f"address {address.hostname}:{address.port or (8883 if is_tls else 1883)}",
        *(f"topic anyecg/v1/{gateway}/{what} out 1" for what in ("status", "+/state", "+/events", "+/reply/#")),
        "topic homeassistant/device/# out 1",
        f"topic anyecg/v1/{gateway}/+/cmd/# in 1",
        "topic homeassistant/status in 1",
        "bridge_protocol_version mqttv50",
        f"remote_clientid anyecg-{gateway}-bridge",
        "cleansession false",
        "notifications false",
        "restart_timeout 2 60",
    ]
    if bridge.username is not None:
        lines.append(f"remote_username {bridge.username}")
    if bridge.password is not None:
        lines.append(f"remote_password {bridge.password}")
    if is_tls:
        lines.append(f"bridge_cafile {bridge.ca_file}" if bridge.ca_file else "bridge_capath /etc/ssl/certs")
    return lines


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Return a line of mosquitto's password file (mosquitto_passwd(1)): `$7$iterations$salt$hash`, base64."""
    salt = secrets.token_bytes(12) if salt is None else salt
    made = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PASSWORD_ITERATIONS)
    return f"$7${PASSWORD_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}"


def check_names(names: Sequence[str]) -> None:
    """Raise `BadInputError` for what can be no host name or address."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadInputError(f"{name!r} is no host name or address the broker could be called by")


def check_bridge(bridge: Bridge) -> None:
    """Raise `BadInputError` for what would write other lines into mosquitto.conf than it should."""
    address = urlsplit(bridge.url)
    try:
        usable = address.scheme in ("mqtt", "mqtts") and address.hostname and address.port != 0 and not address.path
    except ValueError:
        usable = False
    if not usable or address.username is not None or not _NAME.fullmatch(address.hostname or ""):
        raise BadInputError(f"--bridge {bridge.url!r} is not mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    for what, text in (("user", bridge.username), ("password", bridge.password), ("file", bridge.ca_file)):
        if text is not None and not str(text).isprintable():
            raise BadInputError(f"the bridge's {what} holds characters that mosquitto.conf cannot")


def _revoked(setup: Setup, user: User) -> Setup:
    if user.serial is None:
        return setup
    return setup.model_copy(update={"revoked": (*setup.revoked, Revoked(name=user.name, serial=user.serial))})
