"""The reference page and the JSON schema of the configuration, made from `edge.config`."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edge.config import Config, Quiet, Wearer

INTRO = """# Configuration

Generated from `edge/config.py` by `make docs`.

`config.toml` lies in the state folder (`--state DIR` or `ANYECG_STATE`). It may be missing: every setting has a
default. An unknown key, a wrong type or a value out of range stops the gateway with the file, the line and the key;
`anyecg config check` tells without starting anything, `anyecg config show` prints what is in force.

An environment variable wins over the file: `ANYECG_MQTT__URL=mqtt://broker:1883` is `url` of `[mqtt]`. Relative
paths start at the folder of `config.toml`. Passwords are never settings: `password_file` names the file that holds
one. The schema for editors is [config.schema.json](schema/config.schema.json).

```toml
[gateway]
id = "home"
timezone = "Europe/Berlin"

[mqtt]
url = "mqtts://broker.lan"
username = "gateway"
password_file = "mqtt-password"

[rules.pause]
min_s = 2.5

[wearers.anna]
min_severity = "urgent"
```
"""


def reference() -> str:
    """Return docs/config.md."""
    parts = [INTRO]
    tables = {name: field.annotation for name, field in Config.model_fields.items()} | {
        "wearers": Wearer,
        "alerts.quiet": Quiet,
    }
    for name, table in tables.items():
        title = {"wearers": "wearers.ID", "rules": "rules.NAME"}.get(name, name)
        if not (isinstance(table, type) and issubclass(table, BaseModel)):
            parts.append(f"## [{title}]\n\n{Config.model_fields[name].description}\n")
            continue
        parts.append(f"## [{title}]\n\n{table.__doc__}\n")
        parts.append("| setting | type | default | meaning |\n|---|---|---|---|")
        properties = table.model_json_schema()["properties"]
        parts += [_row(key, field, properties[key]) for key, field in table.model_fields.items()]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def schema_text() -> str:
    """Return docs/schema/config.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _row(key: str, field: FieldInfo, property_: dict[str, Any]) -> str:
    default = "none" if field.default is None else f"`{json.dumps(field.default, default=str)}`"
    text = (field.description or "").replace("\n", " ").replace("|", "\\|")
    return f"| `{key}` | {_type(property_)} | {default} | {text} |"


def _type(property_: dict[str, Any]) -> str:
    if "anyOf" in property_:
        return _type(next(kind for kind in property_["anyOf"] if kind.get("type") != "null"))
    if "$ref" in property_:
        return "table"
    if "enum" in property_:
        return ", ".join(property_["enum"])
    if property_.get("format") == "path":
        return "path"
    low = property_.get("minimum", property_.get("exclusiveMinimum"))
    high = property_.get("maximum")
    limits = "" if low is None else f" {low} to {high}"
    return f"{property_['type']}{limits}"
