"""Checks of the gateway: configuration, daemon, broker, model, provider, database, backups, last data per device."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from edge.config import Config, load
from edge.doctor.check import Check
from edge.errors import AnyecgError, BadInputError
from edge.report.status import Status
from edge.store import backup
from edge.store.database import FILE_NAME, SCHEMA
from edge.store.rescue import is_damage, past_rescues

DAY_S = 86_400
OLD_BACKUP_S = 2 * DAY_S
DEEP_MB = 512
"""A larger database is only checked whole with `--deep`."""
BROKER_TIMEOUT_S = 5.0


def configuration(state: Path) -> tuple[Check, Config]:
    """The file can be read, and so can the secrets it names; the defaults stand in for a file that cannot."""
    try:
        config = load(state)
    except BadInputError as error:
        return Check("config.invalid", str(error)), Config()
    try:
        config.mqtt.password()
    except BadInputError as error:
        return Check("config.secret_readable" if "chmod" in str(error) else "config.invalid", str(error)), config
    return Check("config.ok", "read"), config


def daemon(status: Status | None) -> Check:
    """The daemon runs and is content."""
    if status is None:
        return Check("daemon.unknown", "there is no database it could have reported to")
    return Check(f"daemon.{status.state}", status.reason)


def broker(config: Config) -> Check:
    """The broker takes a connection with our credentials."""
    import ssl

    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.reasoncodes import ReasonCode

    answered = threading.Event()
    said: list[str] = []
    version = MQTTProtocolVersion.MQTTv311 if config.mqtt.protocol == "3.1.1" else MQTTProtocolVersion.MQTTv5
    client = mqtt.Client(CallbackAPIVersion.VERSION2, f"anyecg-doctor-{os.getpid()}", protocol=version)
    client.connect_timeout = BROKER_TIMEOUT_S

    def connected(_c: object, _d: object, _f: object, code: ReasonCode, _p: object) -> None:
        said.append(code.getName() if code.is_failure else "")
        answered.set()

    client.on_connect = connected
    try:
        client.username_pw_set(config.mqtt.username, config.mqtt.password())
        if config.mqtt.tls:
            client.tls_set_context(ssl.create_default_context(cafile=config.mqtt.ca_file))
        client.connect(config.mqtt.host, config.mqtt.port, keepalive=config.mqtt.keepalive_s)
    except (BadInputError, ssl.SSLError) as error:
        return Check("broker.refused", f"{config.mqtt.url}: {error}")
    except OSError as error:
        return Check("broker.unreachable", f"{config.mqtt.url}: {error}")
    client.loop_start()
    try:
        if not answered.wait(BROKER_TIMEOUT_S):
            return Check("broker.unreachable", f"{config.mqtt.url} took the connection and said nothing")
    finally:
        client.disconnect()
        client.loop_stop()
    if said[0]:
        return Check("broker.refused", f"{config.mqtt.url}: {said[0]}")
    return Check("broker.ok", f"{config.mqtt.url} lets the gateway in")


def model(config: Config) -> Check:
    """The weights that would be loaded are those of their card."""
    from edge.encoder.library import choose_card

    try:
        card, precision = choose_card(config.encoder.model, config.encoder.precision, config.encoder.provider)
        card.verified_weights()
    except AnyecgError as error:
        return Check("model.wrong", str(error))
    return Check("model.ok", f"{card.checkpoint} ({precision.reason}), sha256 verified")


def provider(config: Config) -> Check:
    """ONNX Runtime is there, and runs where it was asked to."""
    from edge.encoder.provider import choose_provider, gpu_is_there
    from edge.encoder.session import available_providers

    try:
        choice = choose_provider(config.encoder.provider, available_providers(), has_gpu=gpu_is_there())
    except (AnyecgError, ImportError) as error:
        return Check("provider.none", str(error))
    asked = config.encoder.provider
    fell_back = choice.name == "cpu" and (asked in ("cuda", "tensorrt") or (asked == "auto" and gpu_is_there()))
    return Check("provider.fallback" if fell_back else "provider.ok", choice.reason)


def database(state: Path, *, deep: bool) -> Check:
    """The file is sound and of this version's schema; whole up to `DEEP_MB`, or if `deep`, else its head."""
    path = state / FILE_NAME
    if not path.exists():
        return Check("database.none", f"no {FILE_NAME} in {state}")
    size_mb = path.stat().st_size / 2**20
    whole = deep or size_mb <= DEEP_MB
    try:
        with closing(sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=ro", uri=True, timeout=5)) as conn:
            version = conn.execute("SELECT version_num FROM alembic_version").fetchone()
            said = str(conn.execute("PRAGMA integrity_check(1)").fetchone()[0]) if whole else "ok"
            if said == "ok" and deep:
                bad = sum(not backup.is_sound(data) for (data,) in conn.execute("SELECT data FROM block"))
                said = f"{bad} blocks of signal do not match their checksum" if bad else "ok"
    except sqlite3.DatabaseError as error:
        return Check("database.damaged" if is_damage(str(error)) else "database.busy", f"{path}: {error}")
    if said != "ok":
        return Check("database.damaged", f"{path}: {said}")
    if version is None or version[0] != SCHEMA:
        return Check("database.schema", f"{path} has schema {version and version[0]}, this version wants {SCHEMA}")
    rescues = past_rescues(state)
    if rescues:
        return Check("database.restored", f"{rescues[0].aside}: {rescues[0].reason}; {rescues[0].lost_s:g} s lost")
    return Check("database.ok", f"{size_mb:.0f} MB, {'checked whole' if whole else 'not checked whole (--deep does)'}")


def backups(state: Path, config: Config, now_ns: int) -> Check:
    """There is a backup of the last days, on another disk."""
    found = backup.backups(config.backup.folder)
    if not found:
        return Check("backup.none", f"no backup in {config.backup.folder}")
    age_s = (now_ns - found[0].created_ns) / 1e9
    seen = f"the newest of {len(found)} in {config.backup.folder} is {age_s / 3600:.1f} h old"
    if age_s > OLD_BACKUP_S:
        return Check("backup.old", seen)
    if config.backup.folder.stat().st_dev == state.stat().st_dev:
        return Check("backup.same_disk", f"{seen}, on the disk of the state folder")
    return Check("backup.ok", seen)


def devices(status: Status | None) -> list[Check]:
    """When each device last sent data; files that were imported are no devices."""
    checks = []
    for wearer in [] if status is None else status.wearers:
        for device in wearer.devices:
            if device["link"] == "import":
                continue
            code = {"online": "device.ok", "stale": "device.late"}.get(device["link"], "device.silent")
            checks.append(Check(code, f"{wearer.wearer}/{device['device']}: last data {_ago(device['freshness_s'])}"))
    return checks or [Check("device.none", "no device has ever sent data")]


def _ago(seconds: float) -> str:
    if seconds < 0:
        return "in the future"
    for unit, length in (("d", DAY_S), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
