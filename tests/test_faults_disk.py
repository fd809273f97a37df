"""A disk that is full, and one that turns read-only: the gateway says so, loses nothing confirmed, and comes back."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
from faults_kit import BACK_S, BUSY_S, SmallDisk, back, broker, committed_to, configure, record, small_disk, started
from gateway_kit import Daemon, Listener, Wearable, assert_same_as_batch, cut, stored_samples, wait_for

from broker.mosquitto import Mosquitto
from edge.chunk import MISSING
from edge.sources.record import Record, read_record
from edge.store.database import FILE_NAME

__all__ = ["broker", "record", "small_disk"]
HOUR_NS = 3600 * 10**9


def _storage(daemon: Daemon) -> dict[str, Any]:
    return dict((daemon.status() or {}).get("storage", {}))


def _count(state: Path, table: str) -> int:
    with sqlite3.connect(f"file:{state / FILE_NAME}?mode=ro", uri=True) as conn:
        found = int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    conn.close()
    return found


def test_file_system_turns_read_only(broker: Mosquitto, record: Record, small_disk: SmallDisk) -> None:
    """Nothing is acknowledged and the state says why; repaired and started anew, everything arrives."""
    with Daemon(small_disk.path / "state", broker.url) as daemon:
        configure(daemon.state, "[retention]\nmin_free_mb = 1\nreserve_mb = 4\n")
        started(daemon)
        wearable = Wearable(broker.url, record, speed=10)
        wearable.start()
        committed_to(wearable, 5, record)
        small_disk.turn_read_only()
        wait_for(lambda: _storage(daemon).get("state") == "failing", BUSY_S, "a state that says so")
        wait_for(lambda: "readonly" in _storage(daemon)["reason"], BUSY_S, "a reason")
        told = wearable.told_committed()
        assert daemon.stop() == 0
        small_disk.repair()
        assert np.array_equal(stored_samples(daemon.state, 0, told), record.samples[:, :told])
        started(daemon)
        back(wearable)
        wait_for(lambda: _storage(daemon).get("state") == "ok", BACK_S, "ok")
        daemon.settle()
        assert daemon.stop() == 0
        assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)
        assert_same_as_batch(daemon.state, record)


def test_disk_full(broker: Mosquitto, ecg_data: Path, small_disk: SmallDisk) -> None:
    """Somebody else takes every byte: the oldest signal goes, the new one is kept, read and told, also after a kill."""
    whole = read_record(ecg_data / "mitdb/200")
    old, new = cut(whole, 1500), cut(whole, 150, start_s=1500)
    now_ns = time.time_ns()
    with Daemon(small_disk.path / "state", broker.url) as daemon:
        configure(daemon.state, "[retention]\nmin_free_mb = 2\nreserve_mb = 6\nkeep_hours = 1\n")
        listener = Listener(broker)
        started(daemon)
        first = Wearable(broker.url, old, speed=0, chunk_s=5, start_ns=now_ns - 3 * HOUR_NS)
        first.start()
        first.result(BUSY_S)
        daemon.settle()
        wait_for(lambda: _storage(daemon).get("reserve_mb") == 6, BUSY_S, "the reserve")
        told_before, blocks = len(listener.messages), _count(daemon.state, "block")
        small_disk.fill()
        second = Wearable(broker.url, new, speed=10, boot=8, start_ns=now_ns)
        second.start()
        wait_for(lambda: _storage(daemon).get("state") in ("degraded", "failing"), BUSY_S, "a state that says so")
        assert "wanted" in _storage(daemon)["reason"] or "full" in _storage(daemon)["reason"]

        def has_made_room() -> bool:
            small_disk.fill()  # whatever is given back
            return bool(_storage(daemon).get("expired", {}).get("raw_blocks", 0))

        wait_for(has_made_room, BUSY_S, "old signal to go")
        assert _storage(daemon)["state"] in ("degraded", "failing")
        daemon.kill()
        small_disk.fill()
        started(daemon)  # with the room of the reserve
        second.result(BUSY_S)
        daemon.settle()
        assert _count(daemon.state, "block") < blocks
        assert len(listener.messages) > told_before
        small_disk.empty()
        wait_for(lambda: _storage(daemon).get("state") == "ok", BACK_S, "ok")
        wait_for(lambda: _storage(daemon).get("reserve_mb") == 6, BACK_S, "the reserve")
        listener.close()
        assert daemon.stop() == 0
        stored = stored_samples(daemon.state, 0, 4 * 3600 * 360)
        there = stored[:, stored[0] != MISSING]
        assert np.array_equal(there[:, -new.n :], new.samples)
