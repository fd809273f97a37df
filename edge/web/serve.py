"""Opening the page: on loopback for whoever uses this machine, elsewhere only with TLS and tokens."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
from pathlib import Path
from urllib.parse import quote

import structlog
import uvicorn

from edge.config import Config
from edge.errors import AnyecgError, BadInputError
from edge.web.app import make_app
from edge.web.guard import Door
from edge.web.tokens import TokenFile

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 200


def open_door(state: Path, config: Config, host: str) -> Door:
    """Return how the page is to be reached.

    Raises:
        BadInputError: beyond loopback without TLS or without a token that is still valid.
    """
    web = config.web
    is_loopback = _is_loopback(host)
    is_tls = web.cert_file is not None
    needs_token = web.require_token or not is_loopback
    if not is_loopback and not is_tls:
        raise BadInputError(
            f"{host} can be reached from elsewhere: set web.cert_file and web.key_file (TLS), or listen on 127.0.0.1"
        )
    if needs_token and not TokenFile(state).all():
        raise BadInputError("nobody could sign in: make a token with `anyecg web-token add NAME --role owner`")
    return Door(is_loopback, needs_token, is_tls, tuple(name.lower() for name in web.allowed_hosts))


def serve(state: Path, config: Config, host: str, port: int) -> None:
    """Serve the page until SIGTERM or SIGINT. Raises `AnyecgError` if the address is taken."""
    door = open_door(state, config, host)
    tls = _check_tls(config)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    port = listener.getsockname()[1]
    log.info(
        "page",
        url=f"{'https' if door.is_tls else 'http'}://{quote(shown, safe='[]:.')}:{port}/",
        token=door.needs_token,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(state, config, door),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
            ssl_certfile=tls[0] if tls else None,
            ssl_keyfile=tls[1] if tls else None,
        )
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server.run(sockets=[listener])


def _check_tls(config: Config) -> tuple[str, str] | None:
    cert, key = config.web.cert_file, config.web.key_file
    if cert is None or key is None:
        return None
    try:
        if key.stat().st_mode & 0o007:
            raise BadInputError(f"{key} is readable by everyone: chmod 600 {key}")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise BadInputError(f"web.cert_file {cert} and web.key_file {key} cannot be used: {error}") from None
    return str(cert), str(key)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise AnyecgError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
