"""What mosquitto's queue costs, and what saving it costs: `python -m bench.broker`.

Publishes 573-byte messages for a session that is away, with QoS 1 and 20 in flight, and measures rate, memory and
bytes written by the kernel's count. The figures in docs/broker.md and broker/sizing.py come from here.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import tempfile
import time
from pathlib import Path

import paho.mqtt.client as mqtt

from bench.figures import FOLDER, Figures, write_json
from bench.machine import this_machine
from broker.mosquitto import Mosquitto

BYTES = 573
CASES = (
    (60, False, 20_000, 2_000),
    (1, True, 0, 300),
    (1, True, 1_000, 300),
    (1, True, 3_600, 100),
    (10, True, 3_600, 500),
)
"""(autosave_interval, autosave_on_changes, queue before, messages measured)"""


def measure(interval: int, on_changes: bool, before: int, count: int) -> list[str]:
    extra = f"autosave_on_changes {str(on_changes).lower()}\nautosave_interval {interval}\nconnection_messages false"
    with tempfile.TemporaryDirectory() as folder, Mosquitto(Path(folder) / "broker", extra=extra) as broker:
        _leave(broker.port)
        done: queue.Queue[int] = queue.Queue()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.max_inflight_messages_set(20)
        client.on_publish = lambda *_: done.put(1)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        rss, payload = _process(broker.pid, "status", "VmRSS"), os.urandom(BYTES)
        _send(client, done, payload, before)
        began_s = time.perf_counter()
        _send(client, done, payload, count)
        seconds = time.perf_counter() - began_s
        memory = (_process(broker.pid, "status", "VmRSS") - rss) * 1024 / (before + count)
        written = _process(broker.pid, "io", "write_bytes") / 1e6
        client.disconnect()
        client.loop_stop()
    how = f"every {interval} {'messages' if on_changes else 's'}"
    return [how, f"{before:,}", f"{count / seconds:,.0f}", f"{memory:,.0f}", f"{written:,.0f}"]


def _leave(port: int) -> None:
    """Subscribe in a session that outlives its connection, and go."""
    granted: queue.Queue[int] = queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "away", protocol=mqtt.MQTTv311, clean_session=False)
    client.on_connect = lambda *_: client.subscribe("a/#", qos=1)
    client.on_subscribe = lambda *_: granted.put(1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    granted.get(timeout=30)
    client.disconnect()
    client.loop_stop()


def _send(client: mqtt.Client, done: queue.Queue[int], payload: bytes, count: int) -> None:
    for _ in range(count):
        client.publish("a/b", payload, qos=1)
    for _ in range(count):
        done.get(timeout=300)


def _process(pid: int | None, file: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    machine = this_machine()
    rows = []
    for case in CASES:
        rows.append(measure(*case))
        print(*rows[-1], sep="  ", flush=True)
    columns = ["saved", "queue before", "messages/s", "memory B each", "MB written"]
    figures = Figures(f"mosquitto's queue · {machine.line}", columns, rows)
    print(figures.as_markdown())
    write_json(FOLDER / "broker.json", figures, machine)


if __name__ == "__main__":
    main()
