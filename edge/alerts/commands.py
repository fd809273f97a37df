"""Commands over MQTT: `anyecg/v1/<gateway>/<wearer>/cmd/<name>`, a JSON object each, answered on a response topic.

| name | payload |
|---|---|
| `ack` | `{"event": ID}` |
| `snooze` | `{"minutes": N, "rule": NAME}`; without `rule` every rule |
| `mark` | `{"kind": "symptom"}`; `{"kind": "false", "event": ID}`, also `confirm`, and `note` with `note` |
| `ask` | `{"question": TEXT}`, and `now`, `context` (the `plan` of the answer before); about the topic's wearer alone |

The others may carry `author` and `note`. Who may command is the broker's business (access rules per wearer); a
command only reaches the wearer in its topic. The answer, `{"ok": true, "result": …}` or `{"ok": false, "error": TEXT}`,
goes with the command's correlation data to its response topic, which must lie below
`anyecg/v1/<gateway>/<wearer>/reply/`: the gateway lends nobody its right to publish. Retained commands are ignored, or
they would be done again at every start.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from edge.alerts.topics import command_of, dump, reply_prefix
from edge.errors import AnyecgError, BadInputError

log = structlog.get_logger(__name__)

MAX_BYTES = 4096
MAX_WAITING = 100

Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""Takes the wearer and the payload, returns what JSON can say; `AnyecgError` becomes an error answer."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message for the gateway."""

    topic: str
    payload: bytes
    retain: bool
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way."""

    topic: str
    payload: str
    correlation: bytes | None


class Commands:
    """Does what is asked, one after the other, at most `MAX_WAITING` waiting."""

    def __init__(self, gateway: str, handlers: Mapping[str, Handler], answer: Callable[[Reply], None]) -> None:
        """Answer the commands that `handlers` names; `answer` sends a reply."""
        self._gateway = gateway
        self._handlers = dict(handlers)
        self._answer = answer
        self._waiting = 0
        self.counters = {"commands": 0, "refused": 0}

    async def take(self, message: Received) -> None:
        """Do a command and answer it; nothing is raised."""
        found = command_of(self._gateway, message.topic)
        if found is None or message.retain:
            self.counters["refused"] += 1
            return
        wearer, name = found
        self._waiting += 1
        try:
            if self._waiting > MAX_WAITING:
                raise AnyecgError(f"{MAX_WAITING} commands are waiting: try again")
            result = await self._do(wearer, name, message.payload)
            self.counters["commands"] += 1
            document = {"ok": True, "result": result}
        except AnyecgError as error:
            self.counters["refused"] += 1
            document = {"ok": False, "error": str(error)[:500]}
        except Exception as error:
            log.exception("command failed")
            document = {"ok": False, "error": f"internal error ({type(error).__name__}), see the gateway's log"}
        finally:
            self._waiting -= 1
        self._reply(wearer, message, document)

    async def _do(self, wearer: str, name: str, payload: bytes) -> Any:
        handler = self._handlers.get(name)
        if handler is None:
            raise BadInputError(f"there is no command {name!r}; known: {', '.join(sorted(self._handlers))}")
        if len(payload) > MAX_BYTES:
            raise BadInputError(f"a command is at most {MAX_BYTES} bytes")
        try:
            request = json.loads(payload or b"{}")
        except (ValueError, RecursionError):
            raise BadInputError("the payload is not JSON") from None
        if not isinstance(request, dict):
            raise BadInputError("the payload is not a JSON object")
        return await handler(wearer, request)

    def _reply(self, wearer: str, message: Received, document: dict[str, Any]) -> None:
        topic = message.response_topic
        if topic is None:
            return
        allowed = reply_prefix(self._gateway, wearer)
        if not topic.startswith(allowed) or len(topic) > 256 or any(c in topic for c in "+#\0"):
            log.warning("a command asked for an answer where none may go", allowed=allowed)
            return
        self._answer(Reply(topic, dump(document), message.correlation))


def as_mark(name: str, wearer: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return a command as the request that `edge.alerts.people.perform` takes.

    Raises `BadInputError` for a field that the command does not have; the values are checked there.
    """
    fields = {
        "ack": {"event", "note", "author"},
        "snooze": {"minutes", "rule", "note", "author"},
        "mark": {"kind", "event", "at_ns", "note", "author"},
    }[name]
    unknown = request.keys() - fields
    if unknown:
        raise BadInputError(f"{name} takes no {', '.join(sorted(unknown))}; it takes {', '.join(sorted(fields))}")
    author = request.get("author") or "mqtt"
    common = {"author": author, "note": request.get("note", "")}
    if name == "ack":
        return {"kind": "ack", "event": request.get("event"), **common}
    if name == "snooze":
        minutes = request.get("minutes")
        if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes <= 10_080:
            raise BadInputError(f"minutes must be a number above 0 and at most 10080 (7 days), not {minutes!r}")
        return {
            "kind": "snooze",
            "wearer": wearer,
            "seconds": max(1, round(60 * minutes)),
            "rule": request.get("rule"),
            **common,
        }
    kind = request.get("kind", "symptom")
    if kind in ("false", "confirm"):
        return {"kind": kind, "event": request.get("event"), **common}
    if kind == "note":
        return {"kind": kind, **{k: request[k] for k in ("event", "at_ns") if k in request}, "wearer": wearer, **common}
    if kind == "symptom":
        return {"kind": kind, "wearer": wearer, "at_ns": request.get("at_ns"), **common}
    raise BadInputError(f"there is no mark {kind!r} over MQTT; choose from symptom, false, confirm, note")
