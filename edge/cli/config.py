"""`anyecg config check|show|schema`."""

from __future__ import annotations

import json
from typing import Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json

group = typer.Typer(no_args_is_help=True, help="Check and show the configuration (config.toml in the state folder).")
app.add_typer(group, name="config")


@group.command()
def check(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Read the configuration and the files it names; exit code 2 says file, line and key of a mistake."""
    from edge import config
    from edge.errors import BadInputError

    settings = config.load(state)
    settings.mqtt.password()
    named = {
        "mqtt.ca_file": settings.mqtt.ca_file,
        "encoder.model": settings.encoder.model,
        "assistant.model": settings.assistant.model,
    }
    for key, path in named.items():
        if path is not None and not path.is_file():
            raise BadInputError(f"{state / config.FILE_NAME}: {key}: {path} is not a file")
    path = state / config.FILE_NAME
    if as_json:
        print_json({"ok": True, "path": str(path), "exists": path.exists()})
    else:
        console.print(f"{path}: ok" if path.exists() else f"{path} does not exist: every setting has its default")


@group.command()
def show(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Print every setting in force, defaults included."""
    from edge import config

    settings = config.load(state)
    values: dict[str, Any] = settings.model_dump(mode="json")
    if as_json:
        print_json(values)
        return
    for variable in config.environment():
        console.print(f"# set by the environment: {variable}", highlight=False, markup=False)
    for table, content in values.items():
        nested = {key: value for key, value in content.items() if isinstance(value, dict)}
        if plain := {key: value for key, value in content.items() if key not in nested}:
            _print_table(table, plain)
        for name, inner in nested.items():
            _print_table(f"{table}.{name}", inner)


@group.command()
def reload(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Have the running gateway read config.toml again (as SIGHUP does), and see what waits for a restart."""
    from edge import control
    from edge.reload import ELSEWHERE

    done = control.request(state, "reload")
    if as_json:
        print_json(done)
        return
    lines = [f"in force now: {key}" for key in done["applied"]]
    lines += [f"waits for a restart of the gateway: {key}" for key in done["restart"]]
    lines += [f"waits for a restart of {ELSEWHERE[key.split('.')[0]]}: {key}" for key in done["elsewhere"]]
    for line in lines or ["nothing has changed"]:
        console.print(line, highlight=False, markup=False)


@group.command()
def schema() -> None:
    """Print the JSON schema of config.toml."""
    from edge.config_docs import schema_text

    typer.echo(schema_text(), nl=False)


def _print_table(name: str, values: dict[str, Any]) -> None:
    console.print(f"[{name}]", markup=False, highlight=False)
    for key, value in values.items():
        line = f"# {key} is not set" if value is None else f"{key} = {json.dumps(value, ensure_ascii=False)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print()
