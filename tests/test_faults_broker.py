"""A broker that refuses the gateway, and a wearable that sends ten times what it should."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import numpy as np
from faults_kit import BACK_S, BUSY_S, broker, committed_to, configure, record, started
from gateway_kit import Daemon, Wearable, cut, stored_samples, wait_for

from broker.mosquitto import Mosquitto
from edge.config import Mqtt
from edge.sources.record import Record, read_record
from edge.store.database import FILE_NAME

__all__ = ["broker", "record"]


def test_broker_refuses_credentials(record: Record, tmp_path: Path) -> None:
    """The gateway's password is changed at the broker, and only later in the gateway's file."""
    users = {"gateway": "first-word", "patch": "patch-word"}
    with Mosquitto(tmp_path / "broker", users=users) as broker, Daemon(tmp_path / "state", broker.url) as daemon:
        secret, patch_secret = daemon.state / "secret", tmp_path / "patch"
        for path, word in ((secret, "first-word"), (patch_secret, "patch-word")):
            path.write_text(f"{word}\n")
            path.chmod(0o600)
        configure(daemon.state, 'username = "gateway"\npassword_file = "secret"\n')
        started(daemon)
        settings = Mqtt(url=broker.url, username="patch", password_file=patch_secret)
        wearable = Wearable(broker.url, record, speed=5, settings=settings)
        wearable.start()
        committed_to(wearable, 5, record)

        def links() -> set[str]:
            told = (daemon.status() or {}).get("broker", {"source": {"state": ""}, "publisher": {"link": ""}})
            return {told["source"]["state"], told["publisher"]["link"]}

        broker.stop()
        broker.users["gateway"] = "second-word"
        broker.start()
        wait_for(lambda: links() == {"refused"}, BUSY_S, "a refusal that is told")
        secret.write_text("second-word\n")
        wait_for(lambda: links() == {"connected"}, BACK_S, "both connections")
        wearable.result(BUSY_S)
        assert daemon.stop() == 0
        assert "-word" not in (daemon.state / "daemon.log").read_text()
        assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)


def test_ten_times_the_rate_delays_nobody_else(
    broker: Mosquitto, ecg_data: Path, record: Record, tmp_path: Path
) -> None:
    """A device sends ten seconds a second, another one as it should; both are kept whole."""
    fast = cut(read_record(ecg_data / "mitdb/200"), 100)
    slow = cut(record, 8)
    with Daemon(tmp_path / "state", broker.url) as daemon:
        started(daemon)
        flood = Wearable(broker.url, fast, speed=10, resend_s=BACK_S)
        calm = Wearable(broker.url, slow, speed=1, boot=9, device="calm", resend_s=BACK_S)
        flood.start()
        calm.start()
        began_s = time.monotonic()
        calm.result(BUSY_S)
        assert time.monotonic() - began_s < 8 + BACK_S
        flood.result(BUSY_S)
        status = daemon.settle()
        assert status["intake"]["failed"] == 0
        assert status["intake"]["duplicate"] == 0
        assert daemon.stop() == 0
    with sqlite3.connect(tmp_path / "state" / FILE_NAME) as conn:
        ends = dict(conn.execute("SELECT device, end_sample FROM recording").fetchall())
    conn.close()
    assert ends == {"patch": fast.n, "calm": slow.n}
