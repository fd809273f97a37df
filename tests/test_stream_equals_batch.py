"""Guarantee 2: the same samples give the same findings, bit for bit, however they arrived."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from gateway_kit import Daemon, Wearable, assert_same_as_batch, cut, stored_samples

from broker.mosquitto import Mosquitto
from edge.sources.faults import Faults
from edge.sources.record import Record, read_record


def played(record: Record, tmp_path: Path, wearable: Wearable, broker: Mosquitto, restarts: int = 0) -> Path:
    """Play a record into a daemon that is restarted now and then; return its state folder."""
    with Daemon(tmp_path / "state", broker.url) as daemon:
        daemon.start()
        daemon.wait_ready()
        wearable.start()
        for _ in range(restarts):
            time.sleep(random.Random(restarts).uniform(0.5, 1.5))
            assert daemon.stop() in (0, -15)  # SIGTERM may come before the daemon has a handler for it
            daemon.start()
        wearable.result()
        daemon.wait_ready()
        daemon.settle()
        assert daemon.stop() == 0
    assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)
    return daemon.state


@pytest.mark.usefixtures("mosquitto_path")
@pytest.mark.parametrize(
    ("name", "start_s", "chunk_s", "speed"),
    [("mitdb/233", 0, 0.25, 0), ("mitdb/233", 0, 1.0, 30), ("vfdb/422", 1000, 7.3, 0), ("mitdb/202", 900, 2.0, 60)],
)
def test_chunk_size_and_speed(
    ecg_data: Path, tmp_path: Path, name: str, start_s: float, chunk_s: float, speed: float
) -> None:
    record = cut(read_record(ecg_data / name), 300, start_s)
    with Mosquitto(tmp_path / "broker") as broker:
        wearable = Wearable(broker.url, record, speed=speed, chunk_s=chunk_s)
        assert_same_as_batch(played(record, tmp_path, wearable, broker), record)


@pytest.mark.usefixtures("mosquitto_path")
def test_restarts(ecg_data: Path, tmp_path: Path) -> None:
    record = cut(read_record(ecg_data / "mitdb/200"), 300)
    with Mosquitto(tmp_path / "broker") as broker:
        wearable = Wearable(broker.url, record, speed=40, chunk_s=0.7)
        assert_same_as_batch(played(record, tmp_path, wearable, broker, restarts=3), record)


@pytest.mark.usefixtures("mosquitto_path")
def test_late_shuffled_and_duplicate_chunks(ecg_data: Path, tmp_path: Path) -> None:
    """Lost transmissions come again after the watermark: they were gaps, were read as gaps, and are read again."""
    record = cut(read_record(ecg_data / "vfdb/422"), 400, 1000)
    faults = Faults(seed=3, lose=0.06, duplicate=0.1, shuffle=4)
    with Mosquitto(tmp_path / "broker") as broker:
        wearable = Wearable(broker.url, record, speed=40, chunk_s=1.0, faults=faults)
        state = played(record, tmp_path, wearable, broker, restarts=1)
    assert_same_as_batch(state, record, same_ids=False)
