"""What Home Assistant is told, held against its published rules, and rendered as it renders it.

Rules: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload and the pages of the MQTT sensor,
binary_sensor and event platforms (options, and which of them are required).
"""

from __future__ import annotations

import json
import re
from typing import Any

import jinja2
import pytest
from alerts_kit import START_NS, Recording, change, settings

from edge.alerts.commands import Received
from edge.alerts.documents import State
from edge.alerts.home_assistant import Announcer
from edge.alerts.policy import a_test_document, event_document
from edge.alerts.state import Board
from edge.clock import ManualClock
from edge.config import Config, HomeAssistant
from edge.rhythm.events import Current

CONFIG = settings("mqtt://127.0.0.1").model_copy(update={"home_assistant": HomeAssistant(enabled=True)})

SHARED = {"dev", "o", "cmps", "availability", "state_topic", "command_topic", "qos", "encoding"}
"""Options of the root of a device discovery payload."""
ENTITY = {"p", "unique_id", "name", "state_topic", "value_template", "json_attributes_topic", "entity_category"}
PLATFORMS = {
    "sensor": ENTITY | {"device_class", "state_class", "unit_of_measurement", "options", "expire_after"},
    "binary_sensor": ENTITY | {"device_class", "expire_after"},
    "event": ENTITY | {"event_types", "device_class"},
}
CLASSES = {"sensor": {"enum", "battery"}, "binary_sensor": {"problem", "connectivity"}, "event": set()}


def payloads(config: Config = CONFIG) -> dict[str, dict[str, Any]]:
    announcer = Announcer(config)
    return {topic: json.loads(text) for who in (None, "anna") for topic, text in announcer.messages(who)}


def render(template: str, value: dict[str, Any]) -> str:
    environment = jinja2.Environment(autoescape=False)
    environment.filters["tojson"] = json.dumps
    return environment.from_string(template).render(value_json=value).strip()


def state(current: Current | None = None, **values: Any) -> dict[str, Any]:
    clock = ManualClock(START_NS)
    board = Board(CONFIG, clock)
    board.heard(Recording(), next_sample=250, last_sample_ns=START_NS, contact=values.pop("contact", True))
    if current is not None:
        board.read(Recording(), current)
    for what in values.pop("changes", []):
        board.changed(Recording(), [what])
    clock.advance(values.pop("silent_s", 0))
    document: dict[str, Any] = json.loads(board.tick().states[0][1])
    State.model_validate(document)
    return document


def shown(document: dict[str, Any]) -> dict[str, str]:
    """What the entities show that live on the wearer's state."""
    wearer = payloads()["homeassistant/device/anyecg_cellar_anna/config"]
    return {
        key: render(component["value_template"], document)
        for key, component in wearer["cmps"].items()
        if "state_topic" not in component
    }


def test_nothing_is_announced_unless_asked_for() -> None:
    announcer = Announcer(settings("mqtt://127.0.0.1"))
    assert announcer.messages("anna") == announcer.messages(None) == announcer.birth_topics == []


def test_topics_and_shared_options() -> None:
    found = payloads()
    assert set(found) == {
        "homeassistant/device/anyecg_cellar/config",
        "homeassistant/device/anyecg_cellar_anna/config",
    }
    for topic, payload in found.items():
        object_id = topic.split("/")[2]
        assert re.fullmatch(r"[A-Za-z0-9_-]+", object_id)
        assert payload.keys() <= SHARED
        assert payload["dev"]["ids"], "a device needs identifiers or connections"
        assert payload["o"]["name"], "origin is mandatory and has a name"
        assert len(json.dumps(payload)) < 10_000


def test_every_component_follows_the_rules_of_its_platform() -> None:
    ids = []
    for payload in payloads().values():
        for component in payload["cmps"].values():
            platform = component["p"]
            assert component.keys() <= PLATFORMS[platform]
            assert len(component) > 1
            ids.append(component["unique_id"])
            assert component.get("state_topic", payload["state_topic"]).startswith("anyecg/v1/cellar/")
            if "device_class" in component:
                assert component["device_class"] in CLASSES[platform]
            if component.get("device_class") == "enum":
                assert component["options"]
                assert not component.keys() & {"state_class", "unit_of_measurement"}
            if platform == "event":
                assert component["event_types"]
            jinja2.Environment(autoescape=False).parse(component["value_template"])
    assert len(ids) == len(set(ids))


def test_what_the_entities_show() -> None:
    known = shown(state(Current(hr_bpm=61.26, rhythm="N", signal="readable", quality=0.987)))
    assert known == {
        "heart_rate": "61.3",
        "rhythm": "N",
        "quality": "99.0",
        "link": "online",
        "battery": "None",
        "no_data": "OFF",
        "electrodes_off": "OFF",
        "unreadable": "OFF",
        "serious_event": "OFF",
    }


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        (state(Current(None, "", "unreadable", 0.1)), {"unreadable"}),
        (state(Current(None, "", "lead_off", 0.1)), {"electrodes_off", "unreadable"}),
        (state(contact=False), {"electrodes_off"}),
        (state(silent_s=61), {"no_data"}),
        (state(changes=[change(severity="advisory")]), set()),
        (state(changes=[change(severity="critical")]), {"serious_event"}),
    ],
)
def test_problems_are_shown_and_what_is_not_known_is_none(document: dict[str, Any], problems: set[str]) -> None:
    now = shown(document)
    assert {key for key, value in now.items() if value == "ON"} == problems
    assert now["heart_rate"] == now["rhythm"] == "None"


def test_an_event_renders_to_json_with_a_known_event_type() -> None:
    event = payloads()["homeassistant/device/anyecg_cellar_anna/config"]["cmps"]["event"]
    real = event_document(change(), Recording(), analysis="a", now_ns=START_NS, config=CONFIG)
    for document, expected in ((real, "vt"), (a_test_document(CONFIG, "anna", START_NS), "test")):
        rendered = json.loads(render(event["value_template"], document))
        assert rendered["event_type"] == expected
        assert expected in event["event_types"]
        assert rendered["revision"] == 1
    last = payloads()["homeassistant/device/anyecg_cellar_anna/config"]["cmps"]["last_event"]
    assert len(render(last["value_template"], real | {"text": "x" * 300})) == 255


def test_a_gateway_that_is_gone_makes_its_wearers_unavailable() -> None:
    wearer, gateway = (
        payloads()[f"homeassistant/device/anyecg_cellar{name}/config"] for name in ("_anna", "")
    )  # fmt: skip
    (availability,) = wearer["availability"]
    assert availability["topic"] == gateway["state_topic"] == "anyecg/v1/cellar/status"
    assert "availability" not in gateway, "what says that it is gone must itself be there"
    for status, shown_as in (("online", "ON"), ("offline", "OFF")):
        assert render(availability["value_template"], {"status": status}) == status
        assert render(gateway["cmps"]["running"]["value_template"], {"status": status}) == shown_as


def test_only_its_birth_message_counts() -> None:
    announcer = Announcer(CONFIG)
    assert announcer.birth_topics == ["homeassistant/status"]
    for topic, payload, is_birth in (
        ("homeassistant/status", b"online", True),
        ("homeassistant/status", b"offline", False),
        ("other/status", b"online", False),
    ):
        assert announcer.is_birth(Received(topic, payload, False)) is is_birth
