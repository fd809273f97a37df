"""Who is told what: findings that changed, in; MQTT events, out. What was told is kept in the table `alert`.

| finding | event |
|---|---|
| of an imported recording | none |
| less severe than the wearer's `min_severity`, never told before | none (state shows it) |
| `new` | `new`, unless held |
| `update` | `update`, if `update_interval_s` has passed since the last word on it or its severity rose |
| `end` | `end` |
| `retracted` | `end` with `retracted: true` |
| a person said it is false | one `end` with `status: false`, then nothing |
| a person acknowledged it | one `update` with `status: acknowledged`, then only a rise in severity and its `end` |

Held back, never if critical: by a snooze; by quiet hours below their `min_severity`; by the cooldown of its rule,
unless it is more severe than what was told. What is still there when the reason ends is told then; what quiet hours
held and is over by then is told as `end`; the rest is dropped. A finding that is first told by anything but its opening
comes as `update` or `end`: a subscriber takes the highest revision of an id, whatever its type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert as upsert

from edge.alerts.quiet import quiet_until_ns
from edge.alerts.topics import SCHEMA, dump, events_topic, iso
from edge.alerts.words import sentence
from edge.config import Config
from edge.rhythm.events import SEVERITIES, SYSTEM_RULES, Severity
from edge.store import findings, marks, queries, tables
from edge.store.findings import Change
from edge.store.outbox import Message
from edge.store.strips import kept

MAX_EVIDENCE = 32
MAX_EVIDENCE_TEXT = 200
MAX_RELEASED = 500
"""Held findings looked at in one go; the rest follows."""
DAY_NS = 86_400 * 1_000_000_000

Hold = Literal["", "snoozed", "quiet", "cooldown"]
Status = Literal["open", "acknowledged", "ended", "retracted", "false"]


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
    """The last word on a finding, or that it is held."""

    at_ns: int
    severity: Severity
    state: Literal["told", "held", "dropped"] = "told"
    reason: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Mood:
    """What stands between a finding and its subscribers at this moment."""

    said: str | None = None
    """What a person said of it: "ack", "false" or None."""
    is_snoozed: bool = False
    quiet_below: Severity | None = None
    """Quiet hours are in force: less severe findings wait."""
    cooled_by: Severity | None = None
    """Another finding of its rule was told so shortly before; the most severe."""


CALM = Mood()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done about a change."""

    tell: bool
    hold: Hold = ""
    """Why it waits, if it does."""


NOTHING = Verdict(False)
TELL = Verdict(True)


def decide(
    change: Change, told: Told | None, mood: Mood, *, min_severity: Severity, update_interval_s: float, now_ns: int
) -> Verdict:
    """Return what is done about a change of a finding of a live recording.

    Args:
        change: the finding's row as it now stands, and what became of it.
        told: the last word on it, None if it was never worth one.
        mood: what stands in between.
        min_severity: least severity that is told.
        update_interval_s: least seconds between two updates.
        now_ns: wall time, UTC.
    """
    severity, is_over = change.row["severity"], change.type in ("end", "retracted")
    if told is None or told.state == "held":
        if is_over and told is not None and (change.type == "retracted" or told.reason != "quiet"):
            return NOTHING
        if mood.said is not None or _rank(severity) < _rank(min_severity):
            return NOTHING
        hold = _hold(severity, mood)
        return Verdict(False, hold) if hold else TELL
    if told.state == "dropped":
        return NOTHING
    if change.row["revision"] <= told.revision:
        return NOTHING
    if is_over or "said" in change.row:  # a person's word is news
        return TELL
    if change.type == "new":
        return TELL
    if _rank(severity) > _rank(told.severity):
        return NOTHING if severity != "critical" and _hold(severity, mood) in ("snoozed", "quiet") else TELL
    if mood.said == "ack" or mood.is_snoozed:
        return NOTHING
    since_s = (now_ns - told.at_ns) / 1e9
    return TELL if since_s < 0 or since_s >= update_interval_s else NOTHING


def _hold(severity: Severity, mood: Mood) -> Hold:
    if severity == "critical":
        return ""
    if mood.is_snoozed:
        return "snoozed"
    if mood.quiet_below is not None and _rank(severity) < _rank(mood.quiet_below):
        return "quiet"
    if mood.cooled_by is not None and _rank(severity) <= _rank(mood.cooled_by):
        return "cooldown"
    return ""


def event_document(
    change: Change,
    recording: Recorded,
    *,
    analysis: str,
    now_ns: int,
    config: Config,
    said: str | None = None,
    held: str = "",
    strip: str | None = None,
    test: bool = False,
) -> dict[str, Any]:
    """Return the event as `docs/schema/event.schema.json` describes it."""
    row = change.row
    retracted = change.type == "retracted"
    seen_after_start_s = (row["detected_sample"] - row["start_sample"]) / recording.fs_hz
    detected_ns = row.get("detected_ns", row["start_ns"] + round(seen_after_start_s * 1e9))  # silences bring their own
    news_ns = detected_ns if change.type == "new" else max(detected_ns, row["end_ns"])
    status: Status = "open"
    if said == "false":
        status = "false"
    elif retracted:
        status = "retracted"
    elif change.type == "end":
        status = "ended"
    elif said == "ack":
        status = "acknowledged"
    text = sentence(row["rule"], row["state"], row["start_ns"], row["end_ns"], row["evidence"], retracted=retracted)
    return {
        "schema": SCHEMA,
        "type": "end" if retracted or said == "false" else change.type,
        "status": status,
        "id": row["id"],
        "revision": row["revision"],
        "rule": row["rule"],
        "severity": row["severity"],
        "text": f"Test, nothing happened: {text}" if test else text,
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
        "held": held or None,
        "strip": strip,
        "test": test,
        "retracted": retracted,
        "superseded_by": row.get("superseded_by"),
        "evidence": _bounded(row["evidence"]),
        "analysis": analysis,
    }


def a_test_document(config: Config, wearer: str, now_ns: int) -> dict[str, Any]:
    """Return an event that is marked as a test; it is no finding and in no database."""
    change = Change(
        "new",
        {
            "id": f"{now_ns:016x}"[-16:],
            "revision": 1,
            "rule": "symptom",
            "severity": "info",
            "state": "open",
            "start_sample": 0,
            "detected_sample": 0,
            "start_ns": now_ns,
            "end_ns": now_ns,
            "evidence": {},
        },
    )
    return event_document(change, _Test(wearer), analysis="test", now_ns=now_ns, config=config, test=True)


@dataclass(frozen=True, slots=True)
class _Test:
    wearer: str
    key: str = ""
    device: str = "test"
    fs_hz: float = 1.0
    source: str = "live"


def event_message(document: dict[str, Any], config: Config, now_ns: int) -> Message:
    """Return the event as the outbox takes it, with its expiry."""
    return Message(
        topic=events_topic(config.gateway.id, document["wearer"]),
        payload=dump(document),
        retain=False,
        expires_ns=now_ns + config.alerts.expiry_s * 1_000_000_000,
        created_ns=now_ns,
    )


class Teller:
    """Decides and remembers, in the transaction that changes the findings."""

    def __init__(self, config: Config, analysis_name: Callable[[str], str]) -> None:
        """`analysis_name` says what reads the signal of a wearer."""
        self._config = config
        self._analysis_name = analysis_name

    def configure(self, config: Config) -> None:
        """Go by another configuration from now on."""
        self._config = config

    def messages(self, conn: Connection, recording: Recorded, changes: Sequence[Change], now_ns: int) -> list[Message]:
        """Return the events that changes are worth, in their order."""
        if recording.source == "import":
            return []
        return [m for change in changes if (m := self._message(conn, recording, change, now_ns)) is not None]

    def release(self, conn: Connection, now_ns: int) -> list[Message]:
        """Return the events of findings that nothing holds any longer, oldest first."""
        waiting = select(tables.alert).where(tables.alert.c.state == "held").order_by(tables.alert.c.start_ns)
        messages = []
        for alert in conn.execute(waiting.limit(MAX_RELEASED)).mappings().all():
            row = findings.current(conn, alert["finding_id"])
            if row is None or row["superseded_by"] is not None:
                self._forget(conn, alert["finding_id"])
                continue
            recording = queries.find_recording(conn, row["recording_id"], since_sample=queries.AFTER_ALL)
            change = Change("update" if row["state"] == "open" else "end", row)
            message = self._message(conn, recording, change, now_ns)
            if message is not None:
                messages.append(message)
        return messages

    def mood(self, conn: Connection, row: Mapping[str, Any], wearer: str, now_ns: int) -> Mood:
        """Return what stands between a finding and its subscribers."""
        rule = row["rule"]
        snoozed = any(
            one.value is not None and one.value["rule"] in (None, rule) for one in marks.snoozes(conn, wearer, now_ns)
        )
        return Mood(marks.said(conn, row["id"]), snoozed, self._quiet_below(conn, wearer, now_ns),
                    self._cooled_by(conn, row, wearer, now_ns))  # fmt: skip

    def _quiet_below(self, conn: Connection, wearer: str, now_ns: int) -> Severity | None:
        quiet = self._config.quiet(wearer)
        if quiet is None:
            return None
        timezone = queries.find_timezone(conn, wearer) or self._config.timezone(wearer)
        ends = quiet_until_ns(quiet, timezone, now_ns)
        return None if ends is None else quiet.min_severity

    def _cooled_by(self, conn: Connection, row: Mapping[str, Any], wearer: str, now_ns: int) -> Severity | None:
        cooldown_ns = round(self._config.alerts.cooldown_s * 1e9)
        if not cooldown_ns:
            return None
        alert = tables.alert.c
        by_clock = row["state"] == "open" and row["rule"] in SYSTEM_RULES  # nothing moves their end meanwhile
        reaches_ns = now_ns if by_clock else row["end_ns"]
        near = select(alert.severity).where(
            alert.wearer == wearer,
            alert.rule == row["rule"],
            alert.start_ns > reaches_ns - cooldown_ns,
            alert.start_ns <= row["start_ns"],
            alert.state == "told",
            alert.finding_id != row["id"],
        )
        return max(conn.execute(near).scalars(), key=_rank, default=None)

    def _message(self, conn: Connection, recording: Recorded, change: Change, now_ns: int) -> Message | None:
        row = change.row
        told = _told(conn, row["id"])
        least = self._config.min_severity(recording.wearer)
        if told is None and _rank(row["severity"]) < _rank(least):
            return None
        mood = self.mood(conn, row, recording.wearer, now_ns)
        limits = self._config.alerts
        verdict = decide(
            change,
            told,
            mood,
            min_severity=least,
            update_interval_s=limits.update_interval_s,
            now_ns=now_ns,
        )
        if verdict.hold:
            self._remember(conn, recording, row, Told(0, row["severity"], "held", verdict.hold))
            return None
        if not verdict.tell:
            if told is not None and told.state == "held" and (change.type in ("end", "retracted") or mood.said):
                self._remember(conn, recording, row, Told(0, row["severity"], "dropped", told.reason))
            return None
        held = told.reason if told is not None and told.state == "held" else ""
        self._remember(conn, recording, row, Told(now_ns, row["severity"], "told", held, row["revision"]))
        document = event_document(
            change,
            recording,
            analysis=self._analysis_name(recording.wearer),
            now_ns=now_ns,
            config=self._config,
            said=mood.said,
            held=held,
            strip=kept(_of_that_day(conn, recording.wearer, row)).get(row["id"]),
        )
        return event_message(document, self._config, now_ns)

    def _remember(self, conn: Connection, recording: Recorded, row: Mapping[str, Any], told: Told) -> None:
        values = {
            "finding_id": row["id"],
            "wearer": recording.wearer,
            "rule": row["rule"],
            "start_ns": row["start_ns"],
            "state": told.state,
            "reason": told.reason,
            "severity": told.severity,
            "revision": told.revision,
            "told_ns": told.at_ns,
        }
        conn.execute(
            upsert(tables.alert).values(values).on_conflict_do_update(index_elements=["finding_id"], set_=values)
        )

    def _forget(self, conn: Connection, finding_id: str) -> None:
        conn.execute(tables.alert.delete().where(tables.alert.c.finding_id == finding_id))


def held_count(conn: Connection) -> int:
    """Return how many findings wait for quiet hours, a snooze or a cooldown to end."""
    found = conn.execute(select(tables.alert.c.finding_id).where(tables.alert.c.state == "held").limit(MAX_RELEASED))
    return len(found.all())


def _told(conn: Connection, finding_id: str) -> Told | None:
    row = conn.execute(select(tables.alert).where(tables.alert.c.finding_id == finding_id)).first()
    return None if row is None else Told(row.told_ns, row.severity, row.state, row.reason, row.revision)


def _of_that_day(conn: Connection, wearer: str, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the wearer's findings of the rule that began on the UTC day of this one."""
    start_ns = row["start_ns"] // DAY_NS * DAY_NS
    found = queries.findings(conn, wearer=wearer, rules=[row["rule"]], start_ns=start_ns, end_ns=start_ns + DAY_NS)
    return [one for one in found if one["start_ns"] >= start_ns]


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
