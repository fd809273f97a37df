"""Weights that are missing or not those of the card, a runtime that hangs, fails or crashes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from faults_kit import BACK_S, back, broker, committed_to, configure, in_this_process, record, started, until
from gateway_kit import Daemon, Wearable, assert_same_as_batch, stored_samples
from numpy.typing import NDArray

from broker.mosquitto import Mosquitto
from edge.daemon import Daemon as InProcess
from edge.encoder.card import shipped_card
from edge.encoder.session import Encoder, Outputs
from edge.sources.record import Record

__all__ = ["broker", "record"]


def test_weights_missing_or_of_another_hash(broker: Mosquitto, record: Record, tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", broker.url) as daemon:
        card = shipped_card()
        weights = json.loads(card.read_text())["file"]
        shutil.copy(card, daemon.state / card.name)
        shutil.copy(card.parent / weights, daemon.state / weights)
        configure(daemon.state, f'[encoder]\nmodel = "{card.name}"\n')
        started(daemon)
        wearable = Wearable(broker.url, record, speed=10)
        wearable.start()
        committed_to(wearable, 5, record)
        assert daemon.stop() == 0
        sound = (daemon.state / weights).read_bytes()
        for damaged, said in ((sound[:-1] + b"\x00\x01", "sha256 is"), (None, "cannot be read")):
            (daemon.state / weights).unlink()
            if damaged is not None:
                (daemon.state / weights).write_bytes(damaged)
            daemon.start()
            assert daemon.process is not None
            assert daemon.process.wait(60) == 1
            assert said in (daemon.state / "daemon.log").read_text()
            (daemon.state / weights).write_bytes(sound)
        started(daemon)
        back(wearable)
        assert daemon.stop() == 0
        assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)


@pytest.fixture
def pings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What systemd is told: monotonic times of WATCHDOG=1."""
    came: list[float] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def listen() -> None:
            while True:
                try:
                    message = sock.recv(4096)
                except OSError:
                    return
                if b"WATCHDOG=1" in message:
                    came.append(time.monotonic())
                if b"THE END" in message:
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield came
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"THE END", str(tmp_path / "notify"))
        thread.join(10)


def test_a_stuck_encoder_stops_the_watchdog_and_a_failing_one_is_tried_again(
    broker: Mosquitto, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pings: list[float]
) -> None:
    """Pings stop while a transaction or a batch hangs; samples go on being kept, and afterwards nothing is missing."""
    monkeypatch.setattr("edge.daemon.HEALTH_S", 0.2)
    monkeypatch.setattr("edge.daemon.STUCK_S", 3.0)
    monkeypatch.setattr("edge.analyst.REST_S", 0.5)
    go, stuck, writing = threading.Event(), threading.Event(), threading.Event()
    sound = Encoder.run
    mode = ["sound"]

    def run(self: Encoder, ecg: NDArray[np.float32]) -> Outputs:
        if mode[0] == "hang":
            stuck.set()
            assert go.wait(60)
        if mode[0] == "crash":
            raise RuntimeError("CUDA error 700: an illegal memory access was encountered")
        return sound(self, ecg)

    state = Daemon(tmp_path / "state", broker.url, config="[alerts]\nlink_lost_s = 1800\n").state

    async def scenario(daemon: InProcess) -> None:
        monkeypatch.setattr(Encoder, "run", run)
        await until(lambda: len(pings) > 2, 30, "pings")
        daemon._gateway.writer.submit(lambda conn: writing.wait(60) and None)
        before = len(pings)
        await until(lambda: len(pings) > before + 1, 30, "pings while a long transaction runs")
        await until(lambda: daemon._gateway.writer.busy_s() > 4.0, 30, "a transaction that takes too long")
        before = len(pings)
        await until(lambda: daemon._gateway.writer.busy_s() > 5.0, 30, "a second more")
        assert len(pings) == before
        writing.set()
        wearable = Wearable(broker.url, record, speed=6)
        wearable.start()
        await until(lambda: wearable.told_committed() >= 10 * record.fs_hz, 60, "10 s")
        mode[0] = "hang"
        await until(stuck.is_set, 30, "the encoder to hang")
        await until(lambda: daemon._gateway.analyst.busy_s() > 4.0, 30, "a batch that takes too long")
        before = len(pings)
        told = wearable.told_committed()
        await until(lambda: daemon._gateway.analyst.busy_s() > 6.0, 30, "two seconds more")
        assert len(pings) == before
        assert wearable.told_committed() > told or not wearable.is_alive()
        mode[0] = "crash"
        go.set()
        await until(lambda: len(pings) > before, BACK_S, "pings again")
        await until(lambda: daemon._gateway.analyst.counters["failures"] > 0, 30, "a failure that is counted")
        await until(lambda: "CUDA error 700" in daemon._gateway.analyst.failing, 30, "the reason")
        mode[0] = "sound"
        await asyncio.to_thread(back, wearable)
        await until(lambda: daemon._gateway.analyst.is_idle, BACK_S, "analysis to be back")
        assert daemon._gateway.analyst.failing == ""
        assert "CUDA error 700" in daemon._gateway.analyst.last_failure

    in_this_process(state, scenario)
    assert np.array_equal(stored_samples(state, 0, record.n), record.samples)
    assert_same_as_batch(state, record)


def test_a_segmentation_fault_of_the_runtime_is_a_restart(broker: Mosquitto, record: Record, tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", broker.url) as daemon:
        started(daemon)
        wearable = Wearable(broker.url, record, speed=10)
        wearable.start()
        committed_to(wearable, 5, record)
        assert daemon.process is not None
        os.kill(daemon.process.pid, signal.SIGSEGV)
        assert daemon.process.wait(60) == -signal.SIGSEGV
        started(daemon)
        back(wearable)
        daemon.settle()
        assert daemon.stop() == 0
        assert np.array_equal(stored_samples(daemon.state, 0, record.n), record.samples)
        assert_same_as_batch(daemon.state, record)
