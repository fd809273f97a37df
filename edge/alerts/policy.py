"""Who is told what: findings that changed, in; MQTT events, out. Pure, but for the `Teller`'s memory of what it told.

| finding | event |
|---|---|
| of an imported recording | none |
| less severe than the wearer's `min_severity`, never told before | none (state shows it) |
| `new` | `new` |
| `update` | `update`, if `update_interval_s` has passed since the last word on it or its severity rose |
| `end` | `end` |
| `retracted` | `end` with `retracted: true` |

A finding that reaches `min_severity` only later is first told as `update`: a subscriber takes the highest revision
of an id, whatever its type. After a restart nothing is known of what was told; the severity alone decides then.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge.alerts.topics import SCHEMA, dump, events_topic, iso
from edge.alerts.words import sentence
from edge.config import Config
from edge.rhythm.events import SEVERITIES, Severity
from edge.store.findings import Change
from edge.store.outbox import Message

MAX_EVIDENCE = 32
MAX_EVIDENCE_TEXT = 200
MAX_REMEMBERED = 10_000
"""Findings whose last telling is remembered; the longest untouched is forgotten first."""


class Recorded(Protocol):
    """What policy needs to know of a recording (`edge.store.recordings.Recording` and rows of its table have it)."""

    @property
    def key(self) -> str: ...
    @property
    def wearer(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def fs_hz(self) -> float: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Told:
    """The last word on a finding."""

    at_ns: int
    severity: Severity


def decide(
    change: Change, recording: Recorded, told: Told | None, *, analysis: str, now_ns: int, config: Config
) -> Message | None:
    """Return the event a change is worth, None if nobody is to be told.

    Args:
        change: the finding's row as it now stands, and what became of it.
        recording: where it lies.
        told: the last word on it, None if there was none or it is not known.
        analysis: version of what read the signal.
        now_ns: wall time, UTC.
        config: whole configuration.
    """
    if recording.source == "import" or not _is_worth_telling(change, recording.wearer, told, now_ns, config):
        return None
    event = event_document(change, recording, analysis=analysis, now_ns=now_ns, config=config)
    return Message(
        topic=events_topic(config.gateway.id, recording.wearer),
        payload=dump(event),
        retain=False,
        expires_ns=now_ns + config.alerts.expiry_s * 1_000_000_000,
        created_ns=now_ns,
    )


def event_document(
    change: Change, recording: Recorded, *, analysis: str, now_ns: int, config: Config
) -> dict[str, Any]:
    """Return the event as `docs/schema/event.schema.json` describes it."""
    row = change.row
    retracted = change.type == "retracted"
    seen_after_start_s = (row["detected_sample"] - row["start_sample"]) / recording.fs_hz
    detected_ns = row.get("detected_ns", row["start_ns"] + round(seen_after_start_s * 1e9))  # silences bring their own
    news_ns = detected_ns if change.type == "new" else max(detected_ns, row["end_ns"])
    return {
        "schema": SCHEMA,
        "type": "end" if retracted else change.type,
        "id": row["id"],
        "revision": row["revision"],
        "rule": row["rule"],
        "severity": row["severity"],
        "text": sentence(
            row["rule"], row["state"], row["start_ns"], row["end_ns"], row["evidence"], retracted=retracted
        ),
        "gateway": config.gateway.id,
        "wearer": recording.wearer,
        "device": recording.device,
        "start": iso(row["start_ns"]),
        "start_ns": row["start_ns"],
        "end": iso(row["end_ns"]),
        "end_ns": row["end_ns"],
        "detected": iso(detected_ns),
        "detected_ns": detected_ns,
        "told": iso(now_ns),
        "late": now_ns - news_ns > config.alerts.late_after_s * 1e9,
        "retracted": retracted,
        "superseded_by": row.get("superseded_by"),
        "evidence": _bounded(row["evidence"]),
        "analysis": analysis,
    }


class Teller:
    """`decide` with a memory: what was last told of each finding, so that updates keep their interval."""

    def __init__(self, config: Config, analysis_name: Callable[[str], str]) -> None:
        """`analysis_name` says what reads the signal of a wearer."""
        self._config = config
        self._analysis_name = analysis_name
        self._told: OrderedDict[str, Told] = OrderedDict()

    def messages(self, recording: Recorded, changes: Sequence[Change], now_ns: int) -> list[Message]:
        """Return the events of one passage, in its order.

        Called inside the transaction that changes the findings: if that is rolled back and runs again, an `update`
        may be held back for one interval; `new` and `end` never are.
        """
        messages = []
        analysis = self._analysis_name(recording.wearer)
        for change in changes:
            key = change.row["id"]
            told = self._told.get(key)
            message = decide(change, recording, told, analysis=analysis, now_ns=now_ns, config=self._config)
            if message is None:
                continue
            messages.append(message)
            self._told[key] = Told(now_ns, change.row["severity"])
            self._told.move_to_end(key)
            if len(self._told) > MAX_REMEMBERED:
                self._told.popitem(last=False)
        return messages


def _is_worth_telling(change: Change, wearer: str, told: Told | None, now_ns: int, config: Config) -> bool:
    severity = _rank(change.row["severity"])
    if told is None:
        return severity >= _rank(config.min_severity(wearer))
    if change.type != "update" or severity > _rank(told.severity):
        return True
    since_s = (now_ns - told.at_ns) / 1e9
    return since_s < 0 or since_s >= config.alerts.update_interval_s


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity)


def _bounded(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return at most `MAX_EVIDENCE` figures and short texts, without NaN."""
    kept: dict[str, Any] = {}
    for name, value in list(evidence.items())[:MAX_EVIDENCE]:
        if isinstance(value, float) and not math.isfinite(value):
            continue
        kept[str(name)[:MAX_EVIDENCE_TEXT]] = (
            value if isinstance(value, int | float) else str(value)[:MAX_EVIDENCE_TEXT]
        )
    return kept
