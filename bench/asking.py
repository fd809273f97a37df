"""A storm of questions over the assistant's socket, MQTT and the command line, each asker as fast as it can.

    python -m bench.asking --state DIR --url mqtt://127.0.0.1:1883 --seconds 60 --wearers 50 --out FILE

Every caller asks the next question as soon as the last one is answered or refused. FILE (JSON) tells what became of
them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.assistant.client import converse
from edge.errors import AnyecgError

GATEWAY = "demo"
SOCKET_CALLERS = 8
MQTT_ASKERS = 4
REFUSED_S = 0.2
"""Who is refused asks again after so long."""
ANSWER_S = 60.0
DAY = "anna"
"""The wearer with a day of data."""
OF_THE_DAY = (
    "how many PVCs in the past 24 hours?",
    "what happened last night?",
    "how did my heart rate change over the past 24 hours?",
    "what is my HRV over the past 24 hours?",
    "what was the QTc last night?",
    "which moments look like the longest run?",
    "compare the pvcs of today with yesterday",
    "what share of last night was I in AF?",
    "when was the longest pause and how long did it last?",
    "describe the last PVC",
    "was anything strange going on with the ticker, would you say?",
)
OF_NOW = ("what is my heart rate right now?", "any VT in the last hour?", "how much was recorded today?")


@dataclass(slots=True)
class Tally:
    """What became of the questions of one way of asking."""

    answered_s: list[float] = field(default_factory=list)
    first_words_s: list[float] = field(default_factory=list)
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, took_s: float, first_s: float | None = None) -> None:
        with self.lock:
            self.answered_s.append(took_s)
            if first_s is not None:
                self.first_words_s.append(first_s)

    def fault(self, text: str) -> None:
        with self.lock:
            if "are waiting" in text:
                self.refused += 1
            else:
                self.failed.append(text[:200])


def over_socket(state: Path, caller: str, until_s: float, tally: Tally) -> None:
    """Ask about the day over the assistant's socket until the time is over."""
    for question in cycle(OF_THE_DAY):
        if time.time() >= until_s:
            return
        began_s = time.monotonic()
        first_s = None
        try:
            for said in converse(state, {"question": question, "wearer": DAY, "caller": caller}):
                if "text" in said and first_s is None:
                    first_s = time.monotonic() - began_s
            tally.note(time.monotonic() - began_s, first_s)
        except AnyecgError as error:
            tally.fault(str(error))
            time.sleep(REFUSED_S)


def over_mqtt(url: str, wearer: str, until_s: float, tally: Tally) -> None:
    """Ask about a live wearer with MQTT 5 requests until the time is over."""
    address = urlsplit(url)
    reply = f"anyecg/v1/{GATEWAY}/{wearer}/reply/storm"
    came, subscribed = threading.Event(), threading.Event()
    newest: dict[str, object] = {}

    def on_message(_c: object, _d: object, message: mqtt.MQTTMessage) -> None:
        newest.clear()
        newest.update(json.loads(message.payload))
        came.set()

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"storm-{wearer}", protocol=mqtt.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe(reply, qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = on_message
    client.connect(address.hostname or "127.0.0.1", address.port or 1883)
    client.loop_start()
    subscribed.wait(10)
    try:
        for n, question in enumerate(cycle(OF_NOW)):
            if time.time() >= until_s:
                return
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = reply
            properties.CorrelationData = str(n).encode()
            came.clear()
            began_s = time.monotonic()
            topic = f"anyecg/v1/{GATEWAY}/{wearer}/cmd/ask"
            client.publish(topic, json.dumps({"question": question}), qos=1, properties=properties)
            if not came.wait(ANSWER_S):
                tally.fault(f"no answer within {ANSWER_S:g} s")
            elif newest.get("ok"):
                tally.note(time.monotonic() - began_s)
            else:
                tally.fault(str(newest.get("error")))
                time.sleep(REFUSED_S)
    finally:
        client.disconnect()
        client.loop_stop()


def by_command(state: Path, until_s: float, tally: Tally) -> None:
    """Ask on the command line, a process for each question, until the time is over."""
    for question in cycle(OF_THE_DAY):
        if time.time() >= until_s:
            return
        began_s = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "edge", "ask", question, "--wearer", DAY, "--state", str(state)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            tally.fault(" ".join(done.stderr.split()))
        else:
            tally.note(time.monotonic() - began_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--wearers", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    until_s = time.time() + options.seconds
    tallies = {"socket": Tally(), "mqtt": Tally(), "command line": Tally()}
    askers = [
        threading.Thread(target=over_socket, args=(options.state, f"caller {n}", until_s, tallies["socket"]))
        for n in range(SOCKET_CALLERS)
    ]
    askers += [
        threading.Thread(target=over_mqtt, args=(options.url, f"w{n:02d}", until_s, tallies["mqtt"]))
        for n in range(min(MQTT_ASKERS, options.wearers))
    ]
    askers.append(threading.Thread(target=by_command, args=(options.state, until_s, tallies["command line"])))
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    found = {
        name: {
            "answered_s": tally.answered_s,
            "first_words_s": tally.first_words_s,
            "refused": tally.refused,
            "failed": tally.failed,
        }
        for name, tally in tallies.items()
    }
    options.out.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
