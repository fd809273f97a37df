"""An hour without a broker, a gateway that is killed in it, a subscriber that is away: what arrives afterwards."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from faults_kit import BUSY_S, broker, started
from gateway_kit import (
    SEVERE,
    START_NS,
    Daemon,
    Listener,
    Wearable,
    assert_same_as_batch,
    cut,
    stored_findings,
    stored_samples,
    wait_for,
)

from broker.mosquitto import Mosquitto
from edge.alerts.topics import iso
from edge.sources.record import read_record

__all__ = ["broker"]
CHUNK_S = 10.0
HOUR_S = 3600
BEFORE_S = 300


def test_an_hour_without_a_broker(broker: Mosquitto, ecg_data: Path, tmp_path: Path) -> None:
    """Everything comes afterwards: every sample, each event once, in order, with its own time and expiry."""
    half = cut(read_record(ecg_data / "mitdb/200"), 1800)
    record = replace(half, samples=np.tile(half.samples[:1], 3)[:, : round((BEFORE_S + HOUR_S) * half.fs_hz)],
                     leads=half.leads[:1], uv_per_lsb=half.uv_per_lsb[:1])  # fmt: skip
    with Daemon(tmp_path / "state", broker.url) as daemon:
        listener = Listener(broker, session_s=3600)
        started(daemon)
        wearable = Wearable(broker.url, record, speed=600, chunk_s=CHUNK_S, window=500, pause_s=BEFORE_S)
        wearable.start()
        wait_for(lambda: wearable.told_committed() >= (BEFORE_S - CHUNK_S) * record.fs_hz, BUSY_S, "the time before")
        daemon.settle()  # an event on its way when the broker ends comes twice
        listener.catch_up()
        assert listener.messages
        broker.stop()
        told_s = wearable.told_committed() / record.fs_hz
        listener.close()  # its session stays
        wearable.go.set()
        chunks = record.n / record.fs_hz / CHUNK_S
        wait_for(lambda: wearable.sender.snapshot()["chunks"] >= chunks, BUSY_S, "an hour of signal")
        assert wearable.told_committed() / record.fs_hz <= told_s + CHUNK_S
        daemon.kill()
        started(daemon)
        broker.start()
        wearable.result(BUSY_S)
        daemon.settle()
        listener.reconnect(broker)

        def is_told() -> bool:
            ended = {m["id"] for m in listener.messages if m["type"] == "end"}
            found = stored_findings(daemon.state)
            wanted = {key for key, row in found.items() if row["severity"] in SEVERE}
            return wanted <= set(listener.latest()) and {k for k in wanted if found[k]["state"] == "closed"} <= ended

        wait_for(is_told, BUSY_S, "every event")
        listener.catch_up()
        listener.close()
        assert daemon.stop() == 0
    log = (daemon.state / "daemon.log").read_text()
    about_health = "|".join(
        (*(row["rule"] for row in stored_findings(daemon.state).values()), "bpm", "beats", "rhythm")
    )
    assert not re.search(rf"\b({about_health})\b", log.replace("link_lost", "")), "the log tells of nobody's heart"
    assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)
    assert_same_as_batch(daemon.state, record)
    by_the_signal = [m for m in listener.messages if m["rule"] not in ("link_lost", "gateway_down")]
    assert len({(m["id"], m["revision"]) for m in listener.messages}) == len(listener.messages), "nothing twice"
    found = stored_findings(daemon.state)
    for message in by_the_signal:
        assert message["start_ns"] == found[message["id"]]["start_ns"] or message["status"] != "ended"
        assert START_NS <= message["start_ns"] < START_NS + (BEFORE_S + HOUR_S) * 10**9
        assert message["late"], "the record is of another day"
    opened = [m["start_ns"] for m in by_the_signal if m["type"] == "new"]
    assert opened == sorted(opened), "in order"
    for key in found:
        revisions = [m["revision"] for m in listener.messages if m["id"] == key]
        assert revisions == sorted(revisions)
    assert all(0 < left_s <= 86_400 for left_s in listener.expiries)
    assert all(m["told"] > iso(START_NS) for m in listener.messages)
