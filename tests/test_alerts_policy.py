"""Who is told what, what is held back and for how long, and that what is told conforms to the published schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from alerts_kit import START_NS, Recording, add_recording, change, findings_store, settings, tell
from sqlalchemy import Connection, select

from edge.alerts import people
from edge.alerts.policy import CALM, MAX_EVIDENCE, Mood, Teller, Told, a_test_document, decide, held_count
from edge.alerts.quiet import quiet_until_ns
from edge.alerts.topics import iso
from edge.alerts.words import NAMES, duration, sentence
from edge.config import Alerts, Config, Quiet, Wearer
from edge.report.strip import of_event
from edge.rhythm.events import RULES, finding_id
from edge.store import tables
from edge.store.findings import Change

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/event.schema.json").read_text()))
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 3600 * SECOND
DETECTED_NS = START_NS + 4 * SECOND
NOW_NS = DETECTED_NS + SECOND
CONFIG = settings("mqtt://127.0.0.1")


def configured(**values: Any) -> Config:
    return CONFIG.model_copy(update=values)


class Case:
    """A database, a teller, and what subscribers got."""

    def __init__(self, conn: Connection, config: Config = CONFIG) -> None:
        self.conn = conn
        self.configure(config)
        self.events: list[dict[str, Any]] = []

    def configure(self, config: Config) -> None:
        """Start a new gateway with this configuration on the same database."""
        self.teller = Teller(config, lambda wearer: "enc-1/rules-2")

    def say(self, what: Change, now_ns: int = NOW_NS, recording: Recording | None = None) -> list[dict[str, Any]]:
        return self._took(tell(self.conn, self.teller, what, now_ns, recording))

    def release(self, now_ns: int) -> list[dict[str, Any]]:
        return self._took([json.loads(m.payload) for m in self.teller.release(self.conn, now_ns)])

    def person(self, now_ns: int, **request: Any) -> list[dict[str, Any]]:
        word = people.perform(self.conn, {"author": "eve", **request}, now_ns)
        return [
            event
            for recording, what in word.changes
            for event in self._took(
                [json.loads(m.payload) for m in self.teller.messages(self.conn, recording, [what], now_ns)]
            )
        ]

    def _took(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for event in events:
            SCHEMA.validate(event)
        self.events += events
        return events


@pytest.fixture
def case() -> Iterator[Case]:
    with findings_store() as conn:
        yield Case(conn)


def run(number: int, start_s: float = 0, kind: str = "new", **values: Any) -> Change:
    """One of several findings of one rule, `start_s` after `START_NS`."""
    key = finding_id(Recording().key, str(values.get("rule", "vt")), 1000 + number)
    start = START_NS + round(start_s * SECOND)
    return change(kind, **{"id": key, "start_ns": start, "end_ns": start + 6 * SECOND, **values})


def test_a_new_finding_is_told_whole(case: Case) -> None:
    (document,) = case.say(change())
    assert document == {
        "schema": 1,
        "type": "new",
        "status": "open",
        "id": change().row["id"],
        "revision": 1,
        "rule": "vt",
        "severity": "urgent",
        "text": "Ventricular tachycardia for 6.0 s so far, at 161 beats per minute.",
        "gateway": "cellar",
        "wearer": "anna",
        "device": "strap",
        "start": "2023-11-14T22:13:20.000Z",
        "start_ns": START_NS,
        "end": "2023-11-14T22:13:26.000Z",
        "end_ns": START_NS + 6 * SECOND,
        "detected": "2023-11-14T22:13:24.000Z",
        "detected_ns": DETECTED_NS,
        "told": iso(NOW_NS),
        "late": False,
        "held": None,
        "strip": "fastest",
        "test": False,
        "retracted": False,
        "superseded_by": None,
        "evidence": {"beats": 12, "hr_bpm": 161.4},
        "analysis": "enc-1/rules-2",
    }


def test_topic_and_expiry(case: Case) -> None:
    tell(case.conn, case.teller, change(severity="info"), NOW_NS)
    (sent,) = case.teller.messages(case.conn, Recording(), [change("update")], NOW_NS)
    assert (sent.topic, sent.retain) == ("anyecg/v1/cellar/anna/events", False)
    assert sent.expires_ns == NOW_NS + 86400 * SECOND


@pytest.mark.parametrize(
    ("kind", "since_s", "late"),
    [("new", 299, False), ("new", 301, True), ("end", 301, False), ("end", 303, True), ("update", 310, True)],
)
def test_late_is_counted_from_the_samples_that_brought_the_news(
    case: Case, kind: str, since_s: int, late: bool
) -> None:
    assert case.say(change(kind), now_ns=DETECTED_NS + since_s * SECOND)[0]["late"] is late


def test_an_end_and_a_retraction(case: Case) -> None:
    case.say(change())
    (over,) = case.say(change("end", revision=2))
    assert (over["type"], over["status"]) == ("end", "ended")
    assert "over" in over["text"]
    (gone,) = case.say(change("retracted", revision=3, superseded_by="0123456789abcdef"))
    assert (gone["type"], gone["status"], gone["retracted"]) == ("end", "retracted", True)
    assert gone["superseded_by"] == "0123456789abcdef"
    assert "withdrawn" in gone["text"]


def test_an_import_tells_nobody(case: Case) -> None:
    imported = Recording(key="f" * 16, source="import")
    add_recording(case.conn, imported)
    assert case.say(change(), recording=imported) == []


@pytest.mark.parametrize("kind", ["new", "update", "end"])
@pytest.mark.parametrize(
    ("severity", "least", "is_told"),
    [("info", "advisory", False), ("advisory", "advisory", True), ("urgent", "critical", False),
     ("critical", "critical", True)],
)  # fmt: skip
def test_severity_below_the_wearers_minimum_is_not_told(
    case: Case, kind: str, severity: str, least: Any, is_told: bool
) -> None:
    case.configure(configured(wearers={"anna": Wearer(min_severity=least)}))
    assert bool(case.say(change(kind, severity=severity))) is is_told


@pytest.mark.parametrize(
    ("kind", "severity", "told_severity", "since_s", "is_told"),
    [
        ("update", "urgent", "urgent", 59, False),
        ("update", "urgent", "urgent", 60, True),
        ("update", "urgent", "advisory", 1, True),
        ("update", "urgent", "urgent", -5, True),
        ("end", "urgent", "urgent", 1, True),
        ("end", "info", "urgent", 1, True),
        ("new", "urgent", "urgent", 1, True),
        ("retracted", "urgent", "urgent", 1, True),
    ],
)
def test_updates_keep_their_interval_and_ends_are_always_told(
    kind: str, severity: Any, told_severity: Any, since_s: int, is_told: bool
) -> None:
    told = Told(NOW_NS - since_s * SECOND, told_severity, revision=1)
    verdict = decide(
        change(kind, severity=severity, revision=2),
        told,
        CALM,
        min_severity="advisory",
        update_interval_s=60,
        now_ns=NOW_NS,
    )
    assert verdict.tell is is_told


def test_what_was_told_is_known_after_a_restart(case: Case) -> None:
    case.configure(configured(alerts=Alerts(update_interval_s=30)))
    for at_s, what in [
        (0, change(severity="info")),
        (10, change("update", revision=2)),
        (20, change("update", revision=3)),
        (30, change("update", revision=4, severity="critical")),
        (40, change("update", revision=5, severity="critical")),
        (50, change("end", revision=6, severity="critical")),
        (55, change("end", revision=6, severity="critical")),
    ]:
        case.configure(configured(alerts=Alerts(update_interval_s=30)))  # a new gateway before each
        case.say(what, NOW_NS + at_s * SECOND)
    assert [(e["type"], e["revision"]) for e in case.events] == [("update", 2), ("update", 4), ("end", 6)]


# --- cooldown -----------------------------------------------------------------------------------------------------


def test_cooldown_holds_the_next_event_of_the_rule(case: Case) -> None:
    for number, start_s in enumerate((0, 100, 250, 301)):
        case.say(run(number, start_s))
        case.say(run(number, start_s, "end", revision=2))
        case.release(NOW_NS)
    assert [(e["type"], (e["start_ns"] - START_NS) // SECOND) for e in case.events] == [
        ("new", 0), ("end", 0), ("new", 301), ("end", 301)
    ]  # fmt: skip
    assert held_count(case.conn) == 0


def test_cooldown_is_of_one_rule_and_one_wearer(case: Case) -> None:
    ben = Recording(key="b" * 16, wearer="ben")
    add_recording(case.conn, ben)
    case.say(run(0))
    assert case.say(run(1, 10, rule="af"))
    assert case.say(run(2, 10), recording=ben)
    assert not case.say(run(3, 10))


def test_escalation_bypasses_the_cooldown(case: Case) -> None:
    case.say(run(0, severity="advisory"))
    assert not case.say(run(1, 20, severity="advisory"))
    (event,) = case.say(run(1, 20, "update", severity="urgent", revision=2))
    assert (event["type"], event["held"]) == ("update", "cooldown")
    assert not case.say(run(2, 40, severity="urgent"))
    assert case.say(run(3, 50, severity="critical"))
    assert case.say(run(4, 60, severity="critical")), "critical is never held"


def test_what_outlasts_the_cooldown_is_told(case: Case) -> None:
    case.say(run(0))
    assert not case.say(run(1, 100))
    assert not case.say(run(1, 100, "update", revision=2, end_ns=START_NS + 250 * SECOND))
    (event,) = case.say(run(1, 100, "update", revision=3, end_ns=START_NS + 310 * SECOND))
    assert (event["start_ns"], event["held"]) == (START_NS + 100 * SECOND, "cooldown")


def test_a_silent_link_outlasts_it_by_the_clock(case: Case) -> None:
    case.say(run(0, rule="link_lost", severity="advisory"))
    case.say(run(0, 0, "end", rule="link_lost", revision=2, severity="advisory"))
    assert not case.say(run(1, 100, rule="link_lost", severity="advisory"))
    assert not case.release(START_NS + 290 * SECOND)
    assert len(case.release(START_NS + 301 * SECOND)) == 1


# --- quiet hours --------------------------------------------------------------------------------------------------


def test_quiet_hours_hold_all_but_the_severe_until_they_end(case: Case) -> None:
    quiet = configured(wearers={"anna": Wearer(quiet=Quiet(start="22:00", end="07:00"))}, alerts=Alerts(cooldown_s=0))
    case.configure(quiet)  # it is 22:13 UTC
    assert not case.say(run(0))
    case.say(run(0, 0, "end", revision=2))
    assert not case.say(run(1, 60, rule="af"))
    (critical,) = case.say(run(2, 70, rule="asystole", severity="critical"))
    assert critical["type"] == "new"
    assert not case.release(START_NS + HOUR)
    assert held_count(case.conn) == 2
    case.configure(quiet)  # a restart in the night
    over, lasting = case.release(START_NS + 9 * HOUR)
    assert [(e["type"], e["rule"], e["held"], e["late"]) for e in (over, lasting)] == [
        ("end", "vt", "quiet", True), ("update", "af", "quiet", True)
    ]  # fmt: skip
    assert over["start_ns"] == START_NS
    assert case.release(START_NS + 9 * HOUR) == [], "nothing twice"


def test_what_rises_to_critical_in_quiet_hours_is_told(case: Case) -> None:
    case.configure(configured(alerts=Alerts(quiet=Quiet())))
    assert not case.say(run(0))
    assert case.say(run(0, 0, "update", revision=2, severity="critical"))[0]["held"] == "quiet"


def test_quiet_hours_may_let_more_through(case: Case) -> None:
    case.configure(configured(alerts=Alerts(quiet=Quiet(min_severity="urgent"))))
    assert case.say(run(0))
    assert not case.say(run(1, rule="af", severity="advisory"))


@pytest.mark.parametrize(
    ("zone", "local", "start", "end", "until"),
    [
        ("Europe/Berlin", "2026-03-28T22:30:00+01:00", "22:00", "07:00", "2026-03-29T07:00:00+02:00"),
        ("Europe/Berlin", "2026-03-29T06:59:59+02:00", "22:00", "07:00", "2026-03-29T07:00:00+02:00"),
        ("Europe/Berlin", "2026-03-29T07:00:00+02:00", "22:00", "07:00", None),
        ("Europe/Berlin", "2026-10-25T02:30:00+01:00", "22:00", "07:00", "2026-10-25T07:00:00+01:00"),
        ("America/New_York", "2026-06-01T13:00:00-04:00", "12:00", "14:00", "2026-06-01T14:00:00-04:00"),
        ("America/New_York", "2026-06-01T11:59:59-04:00", "12:00", "14:00", None),
        ("UTC", "2026-06-01T11:59:59+00:00", "12:00", "12:00", None),
    ],
)
def test_quiet_hours_are_the_wearers(zone: str, local: str, start: str, end: str, until: str | None) -> None:
    def ns(text: str) -> int:
        from datetime import datetime

        return round(datetime.fromisoformat(text).timestamp()) * SECOND

    found = quiet_until_ns(Quiet(start=start, end=end), zone, ns(local))
    assert found == (None if until is None else ns(until))


# --- what people say ----------------------------------------------------------------------------------------------


def test_a_snooze_silences_all_but_the_critical(case: Case) -> None:
    case.person(NOW_NS, kind="snooze", wearer="anna", seconds=1800)
    assert not case.say(run(0))
    assert not case.say(run(1, rule="af"))
    assert case.say(run(2, rule="asystole", severity="critical"))
    case.say(run(1, 0, "end", rule="af", revision=2))
    assert not case.release(NOW_NS + 29 * MINUTE)
    (event,) = case.release(NOW_NS + 31 * MINUTE)
    assert (event["rule"], event["held"], event["type"]) == ("vt", "snoozed", "update")
    assert not case.say(run(1, 0, "end", rule="af", revision=3)), "what ended while snoozed is not told afterwards"


def test_a_snooze_of_one_rule_and_its_undoing(case: Case) -> None:
    case.person(NOW_NS, kind="snooze", wearer="anna", seconds=1800, rule="vt")
    assert case.say(run(0, rule="af"))
    assert not case.say(run(1))
    (mark,) = case.conn.execute(select(tables.mark.c.id)).scalars()
    case.person(NOW_NS + MINUTE, undo=mark)
    assert case.release(NOW_NS + MINUTE)[0]["rule"] == "vt"


def test_a_snooze_does_not_hide_the_end_of_what_was_told(case: Case) -> None:
    case.say(run(0))
    case.person(NOW_NS, kind="snooze", wearer="anna", seconds=1800)
    assert not case.say(run(0, 0, "update", revision=2), NOW_NS + 10 * MINUTE)
    assert case.say(run(0, 0, "end", revision=3), NOW_NS + 11 * MINUTE)[0]["type"] == "end"


def test_acknowledged(case: Case) -> None:
    case.say(run(0))
    (event,) = case.person(NOW_NS + SECOND, kind="ack", event=run(0).row["id"])
    assert (event["type"], event["status"], event["revision"]) == ("update", "acknowledged", 2)
    assert not case.say(run(0, 0, "update", revision=3), NOW_NS + HOUR)
    (risen,) = case.say(run(0, 0, "update", revision=4, severity="critical"), NOW_NS + HOUR)
    assert (risen["severity"], risen["status"]) == ("critical", "acknowledged")
    assert case.say(run(0, 0, "end", revision=5, severity="critical"), NOW_NS + HOUR)[0]["status"] == "ended"


def test_marked_false(case: Case) -> None:
    case.say(run(0))
    (event,) = case.person(NOW_NS + SECOND, kind="false", event=run(0).row["id"])
    assert (event["type"], event["status"], event["revision"]) == ("end", "false", 2)
    assert not case.say(run(1, 10)), "still in its cooldown"
    (mark,) = case.conn.execute(select(tables.mark.c.id)).scalars()
    (event,) = case.person(NOW_NS + 100 * SECOND, undo=mark)
    assert (event["type"], event["status"], event["revision"]) == ("update", "open", 3)


def test_what_a_person_called_false_before_it_was_told_is_never_told(case: Case) -> None:
    case.configure(configured(alerts=Alerts(quiet=Quiet())))
    case.say(run(0))
    assert not case.person(NOW_NS + SECOND, kind="false", event=run(0).row["id"])
    assert not case.release(NOW_NS + 12 * HOUR)
    assert held_count(case.conn) == 0


def test_a_symptom_is_an_event_with_a_strip_of_90_s(case: Case) -> None:
    at_ns = START_NS + 100 * SECOND
    (event,) = case.person(NOW_NS + 200 * SECOND, kind="symptom", wearer="anna", at_ns=at_ns, note="dizzy")
    assert (event["rule"], event["type"], event["severity"], event["strip"]) == (
        "symptom", "end", "advisory", "symptom"
    )  # fmt: skip
    assert (event["start_ns"], event["end_ns"]) == (at_ns - 45 * SECOND, at_ns + 45 * SECOND)
    assert "dizzy" not in json.dumps(event), "what a person wrote stays in the house"
    row = case.conn.execute(select(tables.finding).where(tables.finding.c.rule == "symptom")).mappings().one()
    assert (row["start_sample"], row["end_sample"]) == ((104 - 45) * 250, (104 + 45) * 250)
    whole, middle = (of_event(case.conn, event["id"], seconds) for seconds in (90.0, 10.0))
    assert [(mark.label, mark.start_s, mark.end_s) for mark in whole.marks] == [("symptom", 0.0, 90.0)]
    assert [(mark.label, mark.start_s, mark.end_s) for mark in middle.marks] == [("symptom", -40.0, 50.0)]
    (gone,) = case.person(NOW_NS + 300 * SECOND, undo=row["evidence"]["mark"])
    assert (gone["id"], gone["status"]) == (event["id"], "retracted")


def test_a_symptom_without_a_recording_is_a_mark_only(case: Case) -> None:
    assert case.person(START_NS, kind="symptom", wearer="anna", at_ns=START_NS - 10 * HOUR) == []
    assert case.conn.execute(select(tables.mark.c.kind)).scalars().all() == ["symptom"]


# --- the document -------------------------------------------------------------------------------------------------


def test_evidence_is_bounded_and_finite(case: Case) -> None:
    evidence = {f"k{n}": "x" * 1000 for n in range(100)} | {"k0": float("nan")}
    (document,) = case.say(change(evidence={k: v for k, v in evidence.items() if v == v}))
    assert len(document["evidence"]) == MAX_EVIDENCE
    assert len(document["evidence"]["k1"]) == 200


def test_the_strip_of_a_day_follows_the_holter_rule(case: Case) -> None:
    case.configure(configured(alerts=Alerts(cooldown_s=0)))
    lengths_s, rates = [6, 30, 20, 10], [150, 140, 160, 190]
    told = [
        case.say(
            run(n, 400 * n, end_ns=START_NS + (400 * n + length) * SECOND, evidence={"max_bpm": bpm})
        )[0]["strip"]
        for n, (length, bpm) in enumerate(zip(lengths_s, rates, strict=True))
    ]  # fmt: skip
    assert told == ["fastest", "longest", "fastest", "fastest"]
    assert case.say(run(4, 2000, evidence={"max_bpm": 100}))[0]["strip"] is None


def test_every_rule_has_words_and_a_place_in_the_schema() -> None:
    assert set(NAMES) == set(RULES) == set(SCHEMA.schema["properties"]["rule"]["enum"])


def test_a_test_event_says_so() -> None:
    document = a_test_document(CONFIG, "anna", NOW_NS)
    SCHEMA.validate(document)
    assert document["test"] is True
    assert document["text"].startswith("Test, nothing happened")


def test_nothing_calms_a_critical_event() -> None:
    moods = [Mood(is_snoozed=True), Mood(quiet_below="critical"), Mood(cooled_by="critical")]
    for mood in moods:
        verdict = decide(
            change(severity="critical"), None, mood, min_severity="critical", update_interval_s=60, now_ns=NOW_NS
        )
        assert verdict.tell
        assert not verdict.hold


def test_words_make_no_claims() -> None:
    texts = [sentence(rule, "open", 0, SECOND, {}, retracted=False) for rule in RULES]
    for word in ("alarm", "diagnos", "emergency", "danger", "call "):
        assert not any(word in text.lower() for text in texts)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (4.25, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (-3, "0.0 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(round(seconds * SECOND)) == text


def test_iso() -> None:
    assert iso(START_NS + 999_999_999) == "2023-11-14T22:13:20.999Z"
