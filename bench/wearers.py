"""Many simulated wearables in one process that costs next to nothing: signal made and encoded before the clock starts.

    python -m bench.wearers --url mqtt://127.0.0.1:1883 --wearers 50 --seconds 120 --out FILE

Every wearable has an MQTT connection of its own and publishes a chunk a second, when its last sample would exist, at a
phase of its own. One thread serves all sockets. FILE (JSON) tells what was published when, what the gateway
acknowledged when, and what really happened in the signal.
"""

from __future__ import annotations

import argparse
import heapq
import json
import selectors
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.chunk import Chunk
from edge.sources.payload import decode_ack, encode
from edge.sources.script import Script, parse_script
from edge.sources.simulator import LEAD, UV_PER_LSB, Simulation, blocks, simulate
from edge.sources.topics import ack_topic, chunk_topic

FS_HZ = 250.0
CHUNK_S = 1.0
DEVICE = "patch"
KEEPS_CHUNKS = 60
"""Chunks a wearable says it still holds: a minute."""
CONNECT_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Wearable:
    """One wearable: payloads ready to go, and the log of what became of them."""

    wearer: str
    simulation: Simulation
    boot: int
    first_s: float = 0.0
    """When sample 0 exists, seconds since 1970."""
    payloads: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Sample after the last one of each chunk."""
    published_s: list[float] = field(default_factory=list)
    acked_s: list[float] = field(default_factory=list)
    client: mqtt.Client | None = None

    def due_s(self, seq: int) -> float:
        return self.first_s + self.ends[seq] / FS_HZ

    def encode(self) -> None:
        """Fill `payloads` for a recording that begins at `first_s`."""
        first_ns = round(self.first_s * 1e9)
        for seq, (start, samples, contact) in enumerate(blocks(self.simulation, CHUNK_S)):
            chunk = Chunk(
                wearer=self.wearer,
                device=DEVICE,
                leads=(LEAD,),
                fs_hz=FS_HZ,
                boot=self.boot,
                seq=seq,
                oldest=max(0, seq - KEEPS_CHUNKS),
                device_time_ns=round(start / FS_HZ * 1e9),
                utc_ns=first_ns + round(start / FS_HZ * 1e9),
                samples=samples,
                uv_per_lsb=(UV_PER_LSB,),
                contact=contact,
            )
            self.payloads.append(encode(chunk))
            self.ends.append(start + samples.shape[1])

    def publish(self) -> None:
        """Send the next chunk."""
        assert self.client is not None
        seq = len(self.published_s)
        self.published_s.append(time.time())
        self.client.publish(chunk_topic(self.wearer, DEVICE), self.payloads[seq], qos=1)

    def on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        ack = decode_ack(bytes(message.payload))
        now_s = time.time()
        if ack.boot == self.boot:
            self.acked_s += [now_s] * (ack.seq + 1 - len(self.acked_s))


def script_of(index: int) -> Script:
    """Return what wearer `index` goes through: every rhythm that is told at once, in an order and form of its own."""
    rng = np.random.default_rng(index)
    stations: list[list[dict[str, Any]]] = [
        [{"kind": "vt", "seconds": 12, "hr_bpm": round(rng.uniform(150, 220))}],
        [{"kind": "vf", "seconds": 14, "f_hz": rng.uniform(3.5, 5.5), "mv": rng.uniform(0.6, 1.5)}],
        [{"kind": "asystole", "seconds": 14}],
        [{"kind": "pause", "seconds": 14, "pause_s": rng.uniform(3.2, 4.0)}],
        [{"kind": "lead_off", "seconds": 12}],
        [{"kind": "bigeminy", "seconds": 20}],
    ]
    turned = stations[index % len(stations) :] + stations[: index % len(stations)]
    segments: list[dict[str, Any]] = []
    for station in turned:
        sinus_s = rng.uniform(16, 20)  # no onset keeps step with the hops of the analysis
        segments += [{"kind": "sinus", "seconds": sinus_s, "hr_bpm": round(rng.uniform(55, 95))}, *station]
    return parse_script(segments, f"w{index:02d}", "bench")


def make(count: int, seconds: float) -> list[Wearable]:
    """Simulate `count` wearables of `seconds` each."""
    return [
        Wearable(f"w{i:02d}", simulate(script_of(i), seed=i, fs_hz=FS_HZ, duration_s=seconds), boot=1000 + i)
        for i in range(count)
    ]


def connect(wearables: list[Wearable], url: str, selector: selectors.BaseSelector) -> None:
    """Give every wearable its connection, subscribed to its acknowledgements."""
    address = urlsplit(url)
    subscribed: set[str] = set()
    for one in wearables:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"bench-{one.wearer}", protocol=mqtt.MQTTv5)
        topic = ack_topic(one.wearer, DEVICE)
        client.on_connect = lambda c, *_, topic=topic: c.subscribe(topic, qos=0)
        client.on_subscribe = lambda *_, name=one.wearer: subscribed.add(name)
        client.on_message = one.on_message
        client.connect(address.hostname or "127.0.0.1", address.port or 1883)
        socket = client.socket()
        assert socket is not None
        selector.register(socket.fileno(), selectors.EVENT_READ, client)
        one.client = client
    deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
    while len(subscribed) < len(wearables):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"only {len(subscribed)} of {len(wearables)} wearables could connect to {url}")
        serve(selector, 0.1)


def serve(selector: selectors.BaseSelector, timeout_s: float) -> None:
    """Take in what the broker says for at most `timeout_s`, or until something came."""
    for key, _ in selector.select(max(0.0, timeout_s)):
        if key.data.loop_read(20) != mqtt.MQTT_ERR_SUCCESS:
            raise SystemExit("the broker ended a wearable's connection")
        if key.data.want_write():
            key.data.loop_write()


def play(wearables: list[Wearable], selector: selectors.BaseSelector) -> None:
    """Publish every chunk at its time, then wait up to 15 s for the last acknowledgements."""
    due = [(one.due_s(0), i) for i, one in enumerate(wearables)]
    heapq.heapify(due)
    while due:
        wait_s = due[0][0] - time.time()
        if wait_s > 0:
            serve(selector, wait_s)
            continue
        _, i = heapq.heappop(due)
        one = wearables[i]
        one.publish()
        if len(one.published_s) < len(one.payloads):
            heapq.heappush(due, (one.due_s(len(one.published_s)), i))
    until_s = time.time() + 15
    while time.time() < until_s and any(len(one.acked_s) < len(one.payloads) for one in wearables):
        serve(selector, 0.2)


def log_of(one: Wearable) -> dict[str, Any]:
    simulation = one.simulation
    return {
        "wearer": one.wearer,
        "first_s": one.first_s,
        "ends": one.ends,
        "published_s": one.published_s,
        "acked_s": one.acked_s,
        "late_s": max(at - one.due_s(seq) for seq, at in enumerate(one.published_s)),
        "spans": [(span.kind, span.start, span.end) for span in simulation.spans],
        "beats": [sample for sample, _ in simulation.beats],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--wearers", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    wearables = make(options.wearers, options.seconds)
    first_s = time.time() + 3.0 + 0.0005 * options.wearers * options.seconds
    for i, one in enumerate(wearables):
        one.first_s = first_s + i / options.wearers * CHUNK_S
        one.encode()
    selector = selectors.DefaultSelector()
    connect(wearables, options.url, selector)
    if time.time() > first_s:
        raise SystemExit("this machine was too slow to encode the signal in time: fewer wearers or seconds")
    print(json.dumps({"first_s": first_s}), flush=True)
    began_cpu_s = time.process_time()
    play(wearables, selector)
    cpu_s = time.process_time() - began_cpu_s
    options.out.write_text(json.dumps({"cpu_s": cpu_s, "wearables": [log_of(one) for one in wearables]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
