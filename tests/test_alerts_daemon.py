"""Through the subscriber's eyes: a real daemon on a real broker, commands, outages, restarts, Home Assistant."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import paho.mqtt.client as mqtt
import pytest
from gateway_kit import START_NS, Daemon, Listener, Wearable, cut, stored_findings, wait_for
from mosquitto_kit import end
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.mosquitto import Mosquitto
from edge.alerts.topics import iso
from edge.control import request
from edge.sources.record import read_record

ROOT = Path(__file__).resolve().parents[1]
STATE_SCHEMA, EVENT_SCHEMA, STATUS_SCHEMA = (
    jsonschema.Draft202012Validator(json.loads((ROOT / f"docs/schema/{name}.schema.json").read_text()))
    for name in ("state", "event", "status")
)
HOME_ASSISTANT = "[home_assistant]\nenabled = true\n"
REPLY = "anyecg/v1/test/anna/reply/phone"

pytestmark = [pytest.mark.usefixtures("mosquitto_path"), pytest.mark.timeout(300)]


class Phone:
    """Sends commands with a response topic and waits for the answers; keeps every retained message it sees."""

    def __init__(self, broker: Mosquitto) -> None:
        self.answers: list[tuple[bytes, dict[str, Any]]] = []
        self.seen: list[tuple[str, str]] = []
        ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="phone", protocol=mqtt.MQTTv5)
        topics = [(REPLY, 1), ("anyecg/v1/test/+/state", 1), ("anyecg/v1/test/status", 1), ("homeassistant/#", 1)]
        topics.append(("anyecg/v1/test/ben/#", 1))
        self._client.on_connect = lambda client, *_: client.subscribe(topics)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert ready.wait(30)

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == REPLY:
            self.answers.append((message.properties.CorrelationData, json.loads(message.payload)))  # type: ignore[union-attr]
        else:
            self.seen.append((message.topic, message.payload.decode()))

    def send(self, topic: str, payload: str, *, response: str | None = None, tag: bytes = b"") -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if response is not None:
            properties.ResponseTopic = response
            properties.CorrelationData = tag
        self._client.publish(topic, payload, qos=1, properties=properties).wait_for_publish(10)

    def ask(self, name: str, command: Any, *, wearer: str = "anna") -> dict[str, Any]:
        tag = f"{len(self.answers)}".encode()
        text = command if isinstance(command, str) else json.dumps(command)
        self.send(f"anyecg/v1/test/{wearer}/cmd/{name}", text, response=REPLY, tag=tag)
        wait_for(lambda: self.answers and self.answers[-1][0] == tag, 30, f"the answer to {name}")
        return self.answers[-1][1]

    def states(self) -> list[dict[str, Any]]:
        found = [json.loads(payload) for topic, payload in self.seen if topic.endswith("/anna/state")]
        for state in found:
            STATE_SCHEMA.validate(state)
        return found

    def close(self) -> None:
        end(self._client)


@contextmanager
def house(tmp_path: Path, config: str = "") -> Iterator[tuple[Mosquitto, Daemon, Listener, Phone]]:
    with (
        Mosquitto(tmp_path / "broker") as broker,
        Daemon(tmp_path / "state", broker.url, config=config) as daemon,
    ):
        listener, phone = Listener(broker), Phone(broker)
        daemon.start()
        daemon.wait_ready()
        try:
            yield broker, daemon, listener, phone
        finally:
            listener.close()
            phone.close()


def feed(broker: Mosquitto, daemon: Daemon, ecg_data: Path, seconds: float = 90) -> None:
    """Let a wearable send ectopy, and wait until it is read and told."""
    wearable = Wearable(broker.url, cut(read_record(ecg_data / "mitdb/200"), seconds), speed=0)
    wearable.start()
    wearable.result()
    daemon.settle()


def link(daemon: Daemon) -> str:
    status = daemon.status()
    return status["broker"]["publisher"]["link"] if status else ""


def test_people_and_home_assistant(ecg_data: Path, tmp_path: Path) -> None:
    with house(tmp_path, HOME_ASSISTANT) as (broker, daemon, listener, phone):
        feed(broker, daemon, ecg_data)
        listener.catch_up()
        assert listener.messages
        for message in listener.messages:
            EVENT_SCHEMA.validate(message)
        event = listener.messages[-1]
        assert event["wearer"] == "anna"

        acked = phone.ask("ack", {"event": event["id"], "author": "eve"})
        assert (acked["ok"], acked["result"]["kind"], acked["result"]["author"]) == (True, "ack", "eve")
        wait_for(lambda: listener.messages[-1]["revision"] > event["revision"], 60, "the acknowledgement")
        assert listener.messages[-1]["id"] == event["id"]
        assert listener.messages[-1]["status"] in ("acknowledged", "ended")

        snoozed = phone.ask("snooze", {"minutes": 30, "rule": "ectopy_rate"})
        until = iso(snoozed["result"]["value"]["until_ns"])
        silence = {"why": "snoozed", "rules": ["ectopy_rate"], "below": "critical", "until": until}
        wait_for(lambda: any(silence in state["not_alerted"] for state in phone.states()[-1:]), 60, "the snooze")

        felt_ns = START_NS + 60 * 10**9
        marked = phone.ask("mark", {"kind": "symptom", "at_ns": felt_ns, "note": "dizzy"})
        assert marked["ok"], marked
        wait_for(lambda: listener.messages[-1]["rule"] == "symptom", 60, "the symptom")
        assert listener.messages[-1]["end_ns"] - listener.messages[-1]["start_ns"] == 90 * 10**9

        for name, command, error in (
            ("ack", {"event": "ffffffffffffffff"}, "there is no event"),
            ("ack", {"event": event["id"], "colour": 1}, "takes no colour"),
            ("snooze", {"minutes": 1e9}, "minutes must be a number"),
            ("snooze", {"minutes": 5, "rule": "paus"}, "no rule 'paus'"),
            ("mark", {"kind": "beat"}, "no mark 'beat'"),
            ("mark", "[1]", "not a JSON object"),
            ("mark", "{", "not JSON"),
            ("mark", '{"note": "' + "x" * 5000 + '"}', "at most 4096 bytes"),
            ("reboot", {}, "no command 'reboot'; known: ack, ask, mark, snooze"),
        ):
            answer = phone.ask(name, command)
            assert not answer["ok"]
            assert error in answer["error"]

        foreign = json.dumps({"event": event["id"]})
        before = listener.messages[-1]
        phone.send("anyecg/v1/test/ben/cmd/ack", foreign, response="anyecg/v1/test/ben/reply/phone", tag=b"x")
        wait_for(lambda: any("ben/reply" in topic for topic, _ in phone.seen), 60, "the refusal")
        ben = json.loads(next(payload for topic, payload in phone.seen if "ben/reply" in topic))
        assert ben == {"ok": False, "error": f"there is no event {event['id']!r}; `anyecg events` lists them"}
        phone.send("anyecg/v1/test/anna/cmd/ack", foreign, response="anyecg/v1/test/ben/state", tag=b"x")
        assert phone.ask("ack", {"event": "ffffffffffffffff"})["ok"] is False
        assert not any(topic == "anyecg/v1/test/ben/state" for topic, _ in phone.seen), "a confused deputy"
        assert before["rule"] == "symptom"

        tested = request(daemon.state, "alerts_test", wearer="anna")
        assert tested["heard"] is True
        wait_for(lambda: listener.messages[-1]["test"], 60, "the test event")
        EVENT_SCHEMA.validate(listener.messages[-1])

        config = "homeassistant/device/anyecg_test_anna/config"
        announced = [payload for topic, payload in phone.seen if topic == config]
        assert len(set(announced)) == 1
        states = len(phone.states())
        phone.send("homeassistant/status", "online")
        again = len(announced) + 1
        wait_for(lambda: [t for t, _ in phone.seen].count(config) == again, 60, "the announcement after a birth")
        wait_for(lambda: len(phone.states()) > states, 60, "the state after it")

        seen = listener.latest()
        daemon.kill()
        wait_for(lambda: "connection lost" in phone.seen[-1][1], 60, "the last will")
        STATUS_SCHEMA.validate(json.loads(phone.seen[-1][1]))
        told = len(listener.messages)
        daemon.start()
        daemon.wait_ready()
        daemon.settle()
        listener.catch_up()
        assert len(listener.messages) == told, "nothing twice"
        assert listener.latest() == seen
        wait_for(lambda: silence in phone.states()[-1]["not_alerted"], 60, "the snooze after the restart")
        assert phone.ask("ack", {"event": event["id"]})["ok"]


def test_an_outage_of_the_broker_and_an_absent_subscriber(ecg_data: Path, tmp_path: Path) -> None:
    """The daemon reads on without a broker; events come afterwards, in order, once, with their own times."""
    with Mosquitto(tmp_path / "broker") as broker, Daemon(tmp_path / "state", broker.url) as daemon:
        listener = Listener(broker, session_s=3600)
        daemon.start()
        daemon.wait_ready()
        feed(broker, daemon, ecg_data)
        listener.catch_up()
        assert listener.messages
        listener.close()  # its session stays
        first = next(iter(stored_findings(daemon.state).values()))

        broker.stop()
        wait_for(lambda: link(daemon) == "unreachable", 60, "the outage")
        known = len(listener.messages)
        for minute in range(1, 6):
            at_ns = START_NS + minute * 15 * 10**9
            request(daemon.state, "mark", kind="symptom", author="eve", wearer="anna", at_ns=at_ns, note="")
        request(daemon.state, "mark", kind="confirm", author="eve", event=first["id"], note="")
        assert daemon.stop() == 0
        daemon.start()
        daemon.wait_ready()  # a restart in the outage
        broker.start()
        wait_for(lambda: link(daemon) == "connected", 120, "the broker")
        daemon.settle()
        listener.reconnect(broker)
        wait_for(lambda: len(listener.messages) >= known + 6, 60, "what was missed")

        missed = listener.messages[known:]
        assert [m["rule"] for m in missed] == ["symptom"] * 5 + [first["rule"]]
        assert [m["start_ns"] for m in missed[:5]] == sorted(m["start_ns"] for m in missed[:5])
        assert len({(m["id"], m["revision"]) for m in listener.messages}) == len(listener.messages), "nothing twice"
        assert all(m["told"] < iso(2**62) for m in missed)
        assert all(0 < s <= 86_400 for s in listener.expiries[known:]), "an expiry policy"
