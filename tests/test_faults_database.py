"""A database that somebody locks, and one with a destroyed page: nothing confirmed is lost, and it comes back."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import numpy as np
from faults_kit import BUSY_S, back, broker, committed_to, record, started
from gateway_kit import Daemon, Wearable, assert_same_as_batch, stored_samples, wait_for

from broker.mosquitto import Mosquitto
from edge.sources.record import Record
from edge.store import backup
from edge.store.database import FILE_NAME
from edge.store.rescue import past_rescues

__all__ = ["broker", "record"]


def test_database_locked(broker: Mosquitto, record: Record, tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", broker.url) as daemon:
        started(daemon)
        wearable = Wearable(broker.url, record, speed=10)
        wearable.start()
        committed_to(wearable, 5, record)
        other = sqlite3.connect(daemon.state / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        wait_for(lambda: (daemon.status() or {})["intake"]["store_retry"] > 0, BUSY_S, "a refused commit")
        storage = (daemon.status() or {})["storage"]
        assert storage["state"] == "failing"
        assert "locked" in storage["reason"]
        told = wearable.told_committed()
        other.execute("ROLLBACK")
        other.close()
        back(wearable)
        assert told < record.n
        daemon.settle()
        assert daemon.stop() == 0
        assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)
        assert_same_as_batch(daemon.state, record)


def test_database_damaged(broker: Mosquitto, record: Record, tmp_path: Path) -> None:
    """A page of signal is destroyed while the gateway is down, as a power cut on a cheap card does."""
    with Daemon(tmp_path / "state", broker.url) as daemon:
        started(daemon)
        wearable = Wearable(broker.url, record, speed=10)
        wearable.start()
        committed_to(wearable, 40, record)
        backup.make_backup(daemon.state, daemon.state / "backups", keep=1, now_ns=time.time_ns())
        committed_to(wearable, 45, record)
        daemon.kill()
        told = wearable.told_committed()
        with sqlite3.connect(daemon.state / FILE_NAME) as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (page,) = conn.execute(
                "SELECT pageno FROM dbstat WHERE name = 'block' AND pagetype = 'leaf' ORDER BY pageno LIMIT 1"
            ).fetchone()
        conn.close()
        with (daemon.state / FILE_NAME).open("r+b") as file:
            file.seek((page - 1) * 8192)
            file.write(b"\xa5" * 8192)
        started(daemon)
        assert np.array_equal(stored_samples(daemon.state, 0, told), record.samples[:, :told])
        back(wearable)
        daemon.settle()
        (done,) = past_rescues(daemon.state)
        assert done.lost_s == 0
        assert (Path(done.aside) / FILE_NAME).exists()
        assert daemon.stop() == 0
        assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)
        assert_same_as_batch(daemon.state, record)
