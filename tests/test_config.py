"""The configuration: defaults, mistakes named with file, line and key, secrets, generated pages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from edge import config
from edge.cli.app import app
from edge.config_docs import schema
from edge.config_errors import line_of
from edge.errors import BadInputError

ROOT = Path(__file__).resolve().parents[1]

FULL = """\
[gateway]
id = "cellar"
timezone = "Europe/Berlin"

[mqtt]
url = "mqtts://broker.lan"
username = "gateway"
password_file = "secret"

[rules.pause]
min_s = 2.5

[wearers.anna]
min_severity = "urgent"
timezone = "Asia/Kolkata"
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.environment():
        monkeypatch.delenv(name)


def mistake(text: str, path: Path = Path("config.toml")) -> str:
    with pytest.raises(BadInputError) as caught:
        config.parse(text, path)
    return str(caught.value)


def test_no_file_gives_defaults(tmp_path: Path) -> None:
    settings = config.load(tmp_path)
    anchored = config.Backup(folder=tmp_path / "backups")
    assert settings == config.Config().model_copy(update={"backup": anchored})
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.tls) == ("127.0.0.1", 1883, False)
    assert settings.min_severity("anna") == "advisory"


def test_a_full_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(FULL)
    settings = config.load(tmp_path)
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.tls) == ("broker.lan", 8883, True)
    assert settings.mqtt.password_file == tmp_path / "secret"
    assert settings.rules == {"pause": {"min_s": 2.5}}
    assert (settings.min_severity("anna"), settings.min_severity("bert")) == ("urgent", "advisory")
    assert (settings.timezone("anna"), settings.timezone("bert")) == ("Asia/Kolkata", "Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[mqtt]\nurl = 'mqtt://a'\nrecieve_maximum = 5\n", ["line 3", "mqtt.recieve_maximum", "'receive_maximum'"]),
        ("\n[mqqt]\nurl = 'mqtt://a'\n", ["line 2", "'mqqt'", "'mqtt'"]),
        ("mqtt.prot = '5'\n", ["line 1", "mqtt.prot", "'protocol'"]),
        ("[wearers.anna]\nmin_severty = 'info'\n", ["line 2", "wearers.anna.min_severty", "'min_severity'"]),
        ("[gateway]\nxyzzy = 1\n", ["line 2", "known here are: id, timezone"]),
        ("[gateway]\nid = 'a'\n\n[alerts]\nexpiry_s = -4\n", ["line 5", "alerts.expiry_s", "60", "-4"]),
        ("[mqtt]\nprotocol = '4'\n", ["line 2", "mqtt.protocol", "3.1.1"]),
        ("[mqtt]\nurl = 'broker.lan'\n", ["line 2", "mqtt.url", "mqtt://HOST"]),
        ("[gateway]\ntimezone = 'Berlin'\n", ["line 2", "gateway.timezone", "Europe/Berlin"]),
        ("[wearers.'Anna B']\n", ["line 1", "wearers.Anna B"]),
        ("[alerts]\nstale_s = 100\n", ["line 1", "link_lost_s"]),
        ("[rules.pausse]\nmin_s = 2\n", ["pausse", "pause"]),
        ("[rules.pause]\nmin_s = 1000\n", ["rules.pause.min_s", "1000"]),
        ("[gateway\n", ["not TOML", "line 1"]),
    ],
)
def test_a_mistake_is_named(text: str, expected: list[str]) -> None:
    message = mistake(text)
    assert message.startswith("config.toml")
    for part in expected:
        assert part in message


def test_every_mistake_is_named_at_once() -> None:
    message = mistake("[mqtt]\nurll = 1\n[gateway]\nidd = 2\n")
    assert "line 2" in message
    assert "line 4" in message


def test_secrets_are_never_shown() -> None:
    assert "hunter2" not in mistake("[mqtt]\npassword = 'hunter2'\n")
    assert "password_file" in mistake("[mqtt]\npassword = 'hunter2'\n")
    assert "hunter2" not in mistake("[mqtt]\nurl = 'mqtt://me:hunter2@host'\n")


def test_environment_wins_and_is_named_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYECG_MQTT__URL", "mqtt://other:1999")
    monkeypatch.setenv("ANYECG_STATE", "somewhere")
    settings = config.parse("[mqtt]\nurl = 'mqtt://host'\nusername = 'me'\n", Path("config.toml"))
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.username) == ("other", 1999, "me")
    monkeypatch.setenv("ANYECG_MQTT__URL", "nonsense")
    assert "ANYECG_MQTT__URL" in mistake("")


def test_password_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    mqtt = config.Mqtt(password_file=secret)
    with pytest.raises(BadInputError, match="secret"):
        mqtt.password()
    secret.write_text("open sesame\n")
    secret.chmod(0o644)
    with pytest.raises(BadInputError, match="chmod 600"):
        mqtt.password()
    secret.chmod(0o600)
    assert mqtt.password() == "open sesame"
    secret.write_text("")
    assert mqtt.password() is None
    secret.write_bytes(b"x" * 5000)
    with pytest.raises(BadInputError, match="4096"):
        mqtt.password()


def test_password_as_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert config.Mqtt().password() is None
    (tmp_path / "mqtt-password").write_text("\n")
    (tmp_path / "mqtt-password").chmod(0o400)
    assert config.Mqtt().password() is None
    (tmp_path / "mqtt-password").chmod(0o600)
    (tmp_path / "mqtt-password").write_text("open sesame\n")
    assert config.Mqtt().password() == "open sesame"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("gateway", "id"), 2),
        (("mqtt",), 5),
        (("mqtt", "password_file"), 8),
        (("mqtt", "absent"), 5),
        (("rules", "pause", "min_s"), 11),
        (("absent",), None),
    ],
)
def test_line_of(keys: tuple[str, ...], line: int | None) -> None:
    assert line_of(FULL, keys) == line


def test_generated_pages_are_current() -> None:
    for path, make in config.pages().items():
        assert (ROOT / path).read_text() == make(), f"{path} is stale: make docs"


def test_every_setting_is_documented() -> None:
    tables = schema()["$defs"].values()
    missing = [key for table in tables for key, value in table["properties"].items() if not value.get("description")]
    assert missing == []


def test_schema_agrees_with_the_reader() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    import tomllib

    assert validator.is_valid(tomllib.loads(FULL))
    assert not validator.is_valid({"mqtt": {"receive_maximum": 0}})
    assert not validator.is_valid({"mqtt": {"urll": "x"}})


def test_commands(tmp_path: Path) -> None:
    import edge.cli.config  # noqa: F401

    path = tmp_path / "config.toml"
    run = CliRunner().invoke
    options = ["--state", str(tmp_path)]
    checked = run(app, ["config", "check", "--json", *options])
    assert json.loads(checked.stdout) == {"ok": True, "path": str(path), "exists": False}
    path.write_text("[mqtt]\nca_file = 'absent.pem'\n")
    assert "absent.pem" in str(run(app, ["config", "check", *options]).exception)
    path.write_text(FULL)
    (tmp_path / "secret").write_text("open sesame\n")
    os.chmod(tmp_path / "secret", 0o600)
    assert run(app, ["config", "check", *options]).exit_code == 0
    shown = run(app, ["config", "show", *options]).stdout
    assert 'id = "cellar"' in shown
    assert "open sesame" not in shown
    as_json = json.loads(run(app, ["config", "show", "--json", *options]).stdout)
    assert as_json["rules"] == {"pause": {"min_s": 2.5}}
    assert as_json["mqtt"]["password_file"] == str(tmp_path / "secret")
    assert json.loads(run(app, ["config", "schema"]).stdout) == schema()


def test_rules_of_one_wearer(tmp_path: Path) -> None:
    text = "[rules.pause]\nmin_s = 2.5\n[wearers.anna.rules.pause]\nurgent_s = 4\n[wearers.ben]\n"
    settings = config.parse(text, tmp_path / "config.toml")
    anna, ben = settings.rules_of("anna").pause, settings.rules_of("ben").pause
    assert (anna.min_s, anna.urgent_s) == (2.5, 4)
    assert (ben.min_s, ben.urgent_s) == (2.5, 3)
    assert settings.rules_of("nobody") == settings.rules_of("ben")
    with pytest.raises(BadInputError, match=r"config.toml: wearers.anna.rules.pause.min_s: 20 is outside 1 to 10"):
        config.parse("[wearers.anna.rules.pause]\nmin_s = 20\n", tmp_path / "config.toml")
