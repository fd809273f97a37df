"""Guarantees 1 and 3: killed at any instant, the gateway loses nothing it confirmed and tells nothing twice."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from gateway_kit import SEVERE, Daemon, Listener, Wearable, assert_same_as_batch, cut, stored_findings, stored_samples

from broker.mosquitto import Mosquitto
from edge.sources.record import read_record

KILLS = int(os.environ.get("ANYECG_KILLS", "25"))
"""How many times the daemon is killed; `python -m bench kill` asks for more."""
SECONDS_PER_KILL = 2.5
START = 60


@pytest.mark.timeout(60 + 20 * KILLS)
@pytest.mark.usefixtures("mosquitto_path")
def test_sigkill_at_random_instants(ecg_data: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    instants = random.Random(seed)
    record = read_record(ecg_data / "mitdb/200")
    speed = record.duration_s / (KILLS * SECONDS_PER_KILL)
    with Mosquitto(tmp_path / "broker") as broker, Daemon(tmp_path / "state", broker.url) as daemon:
        listener = Listener(broker)
        wearable = Wearable(broker.url, record, speed=speed)
        daemon.start()
        daemon.wait_ready()
        wearable.start()
        for _ in range(KILLS):
            time.sleep(instants.expovariate(1.5))
            daemon.kill()
            told = wearable.told_committed()
            if told:
                assert np.array_equal(stored_samples(daemon.state, 0, told), record.samples[:, :told])
            daemon.start()
            if instants.random() < 0.7:  # the others are killed while they start
                daemon.wait_ready()
        wearable.result(120)
        daemon.wait_ready()
        daemon.settle()
        listener.catch_up()
        listener.close()
        assert daemon.stop() == 0
    assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)
    assert_same_as_batch(daemon.state, record)
    assert_all_told(daemon.state, listener)


def assert_all_told(state: Path, listener: Listener) -> None:
    """Every finding worth telling arrived, ends in its last state, and no revision says two things."""
    findings = {key: row for key, row in stored_findings(state).items() if row["severity"] in SEVERE}
    latest = listener.latest()
    assert set(latest) == set(findings)
    assert findings, "nothing was found: the test proves nothing"
    for key, row in findings.items():
        if row["state"] == "closed":
            assert latest[key]["type"] == "end"
            assert (latest[key]["revision"], latest[key]["end_ns"]) == (row["revision"], row["end_ns"])
    said: dict[tuple[str, int], str] = {}
    for message in listener.messages:
        content = repr({name: message[name] for name in ("type", "rule", "severity", "start_ns", "end_ns", "evidence")})
        assert said.setdefault((message["id"], message["revision"]), content) == content


@pytest.mark.usefixtures("mosquitto_path")
def test_a_lying_gateway_would_be_caught(ecg_data: Path, tmp_path: Path) -> None:
    """The checks above fail when one confirmed sample differs: they can fail."""
    record = cut(read_record(ecg_data / "mitdb/200"), 30)
    with Mosquitto(tmp_path / "broker") as broker, Daemon(tmp_path / "state", broker.url) as daemon:
        daemon.start()
        wearable = Wearable(broker.url, record, speed=0)
        wearable.start()
        wearable.result()
        assert daemon.stop() == 0
    stored = stored_samples(daemon.state, 0, record.n)
    assert np.array_equal(stored, record.samples)
    record.samples[0, 5000] += 1
    assert not np.array_equal(stored, record.samples)
