"""`anyecg broker`: set up, run and check an MQTT broker for the gateway."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, errors, print_json
from edge.cli.send import CaOption, CertOption, KeyOption, PasswordOption, UserOption
from edge.errors import AnyecgError, BadInputError

if TYPE_CHECKING:
    from broker.setup import BrokerFolder, Setup

group = typer.Typer(no_args_is_help=True, help="Set up, run and check a mosquitto of your own (docs/broker.md).")
users = typer.Typer(no_args_is_help=True, help="Who may connect to the broker.")
app.add_typer(group, name="broker")
group.add_typer(users, name="user")

FolderOption = Annotated[Path, typer.Option("--folder", envvar="ANYECG_BROKER", help="Where the broker's files lie.")]
DaysOption = Annotated[float, typer.Option("--days", min=0.01, max=825, help="How long a certificate is valid.")]
FOLDER = Path("/var/lib/anyecg-broker")


@group.command()
def init(
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Host name or address wearables call it by (repeatable); else loopback names."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="Address the TLS ports listen on, 0.0.0.0 for all; else loopback.")
    ] = None,
    gateway: Annotated[
        str, typer.Option("--gateway", help="The gateway's id (gateway.id in its config.toml).")
    ] = "home",
    wearers: Annotated[
        int, typer.Option("--wearers", min=1, max=1000, help="How many wearables send at once; sizes the queues.")
    ] = 1,
    save: Annotated[
        str, typer.Option("--save", help="timed, or every-message for senders that forget after PUBACK.")
    ] = "timed",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Loopback, without TLS.")] = 1883,
    tls_port: Annotated[int, typer.Option("--tls-port", min=1, max=65535, help="TLS with passwords.")] = 8883,
    certificate_port: Annotated[
        int, typer.Option("--certificate-port", min=1, max=65535, help="TLS with client certificates.")
    ] = 8884,
    bridge: Annotated[
        str | None, typer.Option("--bridge", help="Broker that is to get the alerts: mqtts://HOST. Off by default.")
    ] = None,
    bridge_username: Annotated[str | None, typer.Option("--bridge-username", help="User there.")] = None,
    bridge_password_file: Annotated[
        Path | None, typer.Option("--bridge-password-file", help="File whose first line is the password there.")
    ] = None,
    bridge_ca_file: Annotated[
        Path | None, typer.Option("--bridge-ca-file", help="PEM file of that broker's authority; else the system's.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="User mosquitto runs as; else mosquitto for root, else you.")
    ] = None,
    folder: FolderOption = FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Write a complete mosquitto setup: authority, certificates, passwords, access list, queues for a day's outage."""
    from broker.files import Owner
    from broker.setup import Bridge, BrokerFolder
    from broker.sizing import choose_sizing
    from edge.config import read_secret

    if save not in ("timed", "every-message"):
        raise BadInputError(f"--save {save!r}: choose timed or every-message")
    if len({port, tls_port, certificate_port}) < 3:
        raise BadInputError("--port, --tls-port and --certificate-port must differ")
    password = read_secret(bridge_password_file) if bridge_password_file else None
    setup = _setup(
        gateway=gateway,
        names=tuple(name or ("localhost",)),
        listen=_address(listen),
        port=port,
        tls_port=tls_port,
        certificate_port=certificate_port,
        wearers=wearers,
        save=save,
        owner=owner or Owner.usual().name,
        bridge=None
        if bridge is None
        else Bridge(
            url=bridge,
            username=bridge_username,
            password=password,
            ca_file=bridge_ca_file.absolute() if bridge_ca_file else None,
        ),
    )
    home = BrokerFolder(folder)
    credentials = home.init(setup)
    sizing = choose_sizing(setup.wearers, setup.save)
    document = {
        "folder": str(home.folder),
        "config": str(home.config),
        "gateway_credentials": str(credentials),
        "queue": {"max_queued_messages": sizing.max_queued_messages, "reason": sizing.queue_reason},
        "save": {
            "autosave_interval": sizing.autosave_interval,
            "autosave_on_changes": sizing.autosave_on_changes,
            "reason": sizing.save_reason,
        },
    }
    if as_json:
        print_json(document)
        return
    reach = f"{listen}, ports {tls_port} and {certificate_port} (TLS)" if listen else "this machine only (no --listen)"
    _say(
        f"broker in {home.folder}, reachable from {reach}",
        f"  queue  {sizing.max_queued_messages:,} messages: {sizing.queue_reason}",
        f"  saved  {sizing.save_reason}",
        f"start it:    anyecg broker run --folder {home.folder}",
        "the gateway: move the password to its state folder and write into config.toml",
        f'             [mqtt]  url = "mqtt://127.0.0.1:{port}"  username = "gateway"  password_file = "mqtt-password"',
        f"             its password is in {credentials}/password",
        f"a wearable:  anyecg broker user add anna/patch --role device --folder {home.folder}",
    )


@users.command()
def add(
    name: Annotated[str, typer.Argument(help="<wearer>/<device> for a device, else one word.")],
    role: Annotated[
        str,
        typer.Option("--role", help="device; subscriber (named wearers); hub (everybody's alerts, Home Assistant)."),
    ],
    wearer: Annotated[
        list[str] | None, typer.Option("--wearer", help="Whom a subscriber hears about (repeatable).")
    ] = None,
    certificate: Annotated[
        bool, typer.Option("--certificate", help="A client certificate instead of a password.")
    ] = False,
    days: DaysOption = 825.0,
    folder: FolderOption = FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Let a user in and write his credentials to a folder; hand them over and delete them there."""
    from broker.access import ROLES
    from broker.setup import BrokerFolder

    if role not in ROLES[1:]:
        raise BadInputError(f"there is no role {role!r}; choose from {', '.join(ROLES[1:])}")
    home = BrokerFolder(folder)
    credentials = home.add(name, role, wearer or [], by_certificate=certificate, days=days)
    _done(home, name, credentials, as_json)


@users.command()
def rotate(
    name: Annotated[str, typer.Argument(help="Whose.")],
    days: DaysOption = 825.0,
    folder: FolderOption = FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Replace a password or certificate; the old one counts no more."""
    from broker.setup import BrokerFolder

    home = BrokerFolder(folder)
    _done(home, name, home.rotate(name, days), as_json)


@users.command()
def remove(
    name: Annotated[str, typer.Argument(help="Whose.")], folder: FolderOption = FOLDER, as_json: JsonOption = False
) -> None:
    """Let a user in no more: the password is forgotten, the certificate revoked."""
    from broker.setup import BrokerFolder

    home = BrokerFolder(folder)
    home.remove(name)
    _done(home, name, None, as_json)


@users.command("list")
def list_(folder: FolderOption = FOLDER, as_json: JsonOption = False) -> None:
    """Show who may connect, how, and until when."""
    from broker.authority import RENEW_DAYS, now_utc
    from broker.setup import BrokerFolder

    setup = BrokerFolder(folder).load()
    rows = [
        {
            "name": user.name,
            "role": user.role,
            "wearers": list(user.wearers),
            "by": "certificate" if user.serial is not None else "password",
            "expires": user.expires.isoformat() if user.expires is not None else None,
        }
        for user in setup.users
    ]
    if as_json:
        print_json(rows)
        return
    for user in setup.users:
        by = "password" if user.expires is None else f"certificate until {user.expires:%Y-%m-%d}"
        late = user.expires is not None and (user.expires - now_utc()).total_seconds() < RENEW_DAYS * 86_400
        _say(f"{user.name:<24} {user.role:<11} {by}{'  rotate it' if late else ''}  {' '.join(user.wearers)}")


@group.command()
def renew(folder: FolderOption = FOLDER) -> None:
    """Give the broker a new server certificate; clients trust its authority and notice nothing."""
    from broker.setup import BrokerFolder

    home = BrokerFolder(folder)
    until: datetime = home.renew()
    _say(f"server certificate until {until:%Y-%m-%d}; {_reload(home)}")


@group.command()
def run(folder: FolderOption = FOLDER) -> None:
    """Become mosquitto with this setup, until SIGTERM."""
    from broker.mosquitto import find_mosquitto
    from broker.setup import BrokerFolder

    home = BrokerFolder(folder)
    program = find_mosquitto()
    if program is None:
        raise AnyecgError("mosquitto is not installed (Debian: apt install mosquitto)")
    if not home.config.exists():
        raise AnyecgError(f"no broker in {home.folder}: `anyecg broker init` makes one")
    os.execv(program, [program, "-c", str(home.config)])  # noqa: S606


@group.command()
def check(
    mqtt: Annotated[
        str | None, typer.Option("--mqtt", help="Broker: mqtt(s)://HOST[:PORT]; else as config.toml says.")
    ] = None,
    username: UserOption = None,
    password_file: PasswordOption = None,
    ca_file: CaOption = None,
    cert_file: CertOption = None,
    key_file: KeyOption = None,
    wearer: Annotated[
        list[str] | None, typer.Option("--wearer", help="Whom this user is meant to hear about (repeatable).")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Try a broker step by step: name, TCP, TLS, credentials, publish and receive, and that it denies the rest."""
    from broker.access import may_read
    from broker.check import check as try_broker
    from edge.cli.send import broker_settings
    from edge.config import load

    config = load(state)
    settings = config.mqtt
    if mqtt is not None:
        settings = broker_settings(mqtt, username, password_file, ca_file, cert_file, key_file)
    filters = None
    if wearer:
        filters = may_read("+", "subscriber", "+", wearer)
    elif settings.username is not None and "/" in settings.username:
        filters = may_read(settings.username, "device", config.gateway.id)
    elif mqtt is None or settings.username == "gateway":
        filters = may_read("gateway", "gateway", "+" if mqtt else config.gateway.id)
    stages = try_broker(settings, may_read=filters)
    failed = [stage for stage in stages if stage.state == "failed"]
    if as_json:
        document = [{"stage": s.name, "state": s.state, "said": s.said, "fix": s.fix} for s in stages]
        print_json({"broker": settings.url, "ok": not failed, "stages": document})
    else:
        for stage in stages:
            _say(f"{stage.name:<12} {stage.state:<8} {stage.said}")
            if stage.fix:
                _say(f"{'':<21} -> {stage.fix}")
    if failed:
        raise AnyecgError(f"the broker {settings.url} fails at {failed[0].name}: {failed[0].said}")


def _address(text: str | None) -> str | None:
    import ipaddress

    try:
        return None if text is None else str(ipaddress.ip_address(text))
    except ValueError:
        raise BadInputError(f"--listen {text!r} is no IP address of this machine; 0.0.0.0 means all") from None


def _setup(**values: Any) -> Setup:
    from pydantic import ValidationError

    from broker.setup import Setup

    try:
        return Setup(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadInputError(f"--{first['loc'][0]}: {first['msg']}") from None


def _done(home: BrokerFolder, name: str, credentials: Path | None, as_json: bool) -> None:
    said = _reload(home)
    if as_json:
        print_json({"name": name, "credentials": None if credentials is None else str(credentials), "broker": said})
    elif credentials is None:
        _say(f"{name} is let in no more; {said}")
    else:
        _say(f"credentials of {name} are in {credentials}: hand them over, then delete them there", said)


def _reload(home: BrokerFolder) -> str:
    try:
        return "the running broker knows" if home.reload() else "no broker of this folder runs now"
    except AnyecgError as error:
        errors.print(f"note: {error}", highlight=False, markup=False)
        return "the running broker does not know yet"


def _say(*lines: str) -> None:
    console.print(*lines, sep="\n", highlight=False, markup=False, soft_wrap=True)
