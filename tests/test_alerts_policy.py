"""Who is told what, and that what is told conforms to the published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from alerts_kit import START_NS, Recording, change, settings

from edge.alerts.policy import MAX_EVIDENCE, Teller, Told, decide
from edge.alerts.topics import iso
from edge.alerts.words import NAMES, duration, sentence
from edge.config import Alerts, Config, Wearer
from edge.rhythm.events import RULES
from edge.store.findings import Change
from edge.store.outbox import Message

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).resolve().parents[1] / "docs/schema/event.schema.json").read_text())
)
SECOND = 1_000_000_000
DETECTED_NS = START_NS + 4 * SECOND
NOW_NS = DETECTED_NS + SECOND
CONFIG = settings("mqtt://127.0.0.1")


def configured(**values: Any) -> Config:
    return CONFIG.model_copy(update=values)


def message(what: Change, told: Told | None = None, now_ns: int = NOW_NS, config: Config = CONFIG) -> Message | None:
    return decide(what, Recording(), told, analysis="enc-1/rules-2", now_ns=now_ns, config=config)


def event(what: Change, told: Told | None = None, now_ns: int = NOW_NS, config: Config = CONFIG) -> dict[str, Any]:
    sent = message(what, told, now_ns, config)
    assert sent is not None
    document: dict[str, Any] = json.loads(sent.payload)
    SCHEMA.validate(document)
    return document


def test_a_new_finding_is_told_whole() -> None:
    sent = message(change())
    assert sent is not None
    assert (sent.topic, sent.retain) == ("anyecg/v1/cellar/anna/events", False)
    assert sent.expires_ns == NOW_NS + 86400 * SECOND
    document = event(change())
    assert document == {
        "schema": 1,
        "type": "new",
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
        "retracted": False,
        "superseded_by": None,
        "evidence": {"beats": 12, "hr_bpm": 161.4},
        "analysis": "enc-1/rules-2",
    }


@pytest.mark.parametrize(
    ("kind", "since_s", "late"),
    [("new", 299, False), ("new", 301, True), ("end", 301, False), ("end", 303, True), ("update", 310, True)],
)
def test_late_is_counted_from_the_samples_that_brought_the_news(kind: str, since_s: int, late: bool) -> None:
    assert event(change(kind), now_ns=DETECTED_NS + since_s * SECOND)["late"] is late


def test_an_end_and_a_retraction() -> None:
    assert event(change("end"))["type"] == "end"
    assert "over" in event(change("end"))["text"]
    gone = event(change("retracted", superseded_by="0123456789abcdef"))
    assert (gone["type"], gone["retracted"], gone["superseded_by"]) == ("end", True, "0123456789abcdef")
    assert "withdrawn" in gone["text"]


def test_an_import_tells_nobody() -> None:
    assert decide(change(), Recording(source="import"), None, analysis="", now_ns=NOW_NS, config=CONFIG) is None


@pytest.mark.parametrize("kind", ["new", "update", "end", "retracted"])
def test_severity_below_the_wearers_minimum_is_not_told(kind: str) -> None:
    assert message(change(kind, severity="info")) is None
    assert message(change(kind, severity="advisory")) is not None
    strict = configured(wearers={"anna": Wearer(min_severity="critical")})
    assert message(change(kind), config=strict) is None
    assert message(change(kind, severity="critical"), config=strict) is not None


def test_what_was_told_is_ended_even_if_it_became_mild() -> None:
    assert message(change("end", severity="info"), Told(NOW_NS - SECOND, "urgent")) is not None


@pytest.mark.parametrize(
    ("kind", "since_s", "told_severity", "is_told"),
    [
        ("update", 59, "urgent", False),
        ("update", 60, "urgent", True),
        ("update", 1, "advisory", True),
        ("update", -5, "urgent", True),
        ("end", 1, "urgent", True),
        ("new", 1, "urgent", True),
        ("retracted", 1, "urgent", True),
    ],
)
def test_updates_keep_their_interval(kind: str, since_s: int, told_severity: Any, is_told: bool) -> None:
    told = Told(NOW_NS - since_s * SECOND, told_severity)
    assert (message(change(kind), told) is not None) is is_told


def test_the_teller_remembers() -> None:
    teller = Teller(configured(alerts=Alerts(update_interval_s=30)), lambda wearer: "v")
    kinds = [
        (0, change(severity="info")),
        (10, change("update", revision=2)),
        (20, change("update", revision=3)),
        (30, change("update", revision=4, severity="critical")),
        (40, change("update", revision=5)),
        (50, change("end", revision=6)),
    ]
    told = [
        (json.loads(sent.payload)["type"], json.loads(sent.payload)["revision"])
        for at_s, what in kinds
        for sent in teller.messages(Recording(), [what], NOW_NS + at_s * SECOND)
    ]
    assert told == [("update", 2), ("update", 4), ("end", 6)]


def test_evidence_is_bounded_and_finite() -> None:
    evidence = {f"k{n}": "x" * 1000 for n in range(100)} | {"k0": float("nan")}
    document = event(change(evidence=evidence))
    assert len(document["evidence"]) < MAX_EVIDENCE
    assert "k0" not in document["evidence"]
    assert len(document["evidence"]["k1"]) == 200


def test_every_rule_has_words_and_a_place_in_the_schema() -> None:
    assert set(NAMES) == set(RULES) == set(SCHEMA.schema["properties"]["rule"]["enum"])


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
