"""Figures for Prometheus, and a configuration that is read again by a running gateway."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from gateway_kit import Daemon, Wearable, cut, wait_for
from prometheus_client.parser import text_string_to_metric_families

from broker.mosquitto import Mosquitto, free_port
from edge.config import parse
from edge.control import request
from edge.errors import BadInputError
from edge.metrics import Metrics
from edge.reload import take_over
from edge.sources.record import read_record


def test_what_is_taken_over_and_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    old = parse('[wearers.anna]\nmin_severity = "urgent"\n', path)
    new = parse(
        '[mqtt]\nurl = "mqtt://other"\n[alerts]\nstale_s = 5\n[retention]\nraw_days = 30\n[web]\nport = 9000\n'
        '[wearers.anna]\nmin_severity = "info"\n[wearers.anna.rules.pause]\nmin_s = 2.5\n'
        '[wearers.bert]\ntimezone = "Asia/Tokyo"\n',
        path,
    )
    done = take_over(old, new)
    assert {"alerts.stale_s", "retention.raw_days", "wearers.anna.min_severity", "wearers.bert.timezone"} <= set(
        done.applied
    )
    assert done.elsewhere == ("web.port",)
    assert set(done.restart) == {"mqtt.url", "wearers.anna.rules.pause.min_s"}
    assert done.config.alerts.stale_s == 5
    assert done.config.timezone("bert") == "Asia/Tokyo"
    assert done.config.mqtt.url == old.mqtt.url
    assert done.config.wearers["anna"].rules == {}
    assert take_over(old, old).as_json() == {"applied": (), "restart": (), "elsewhere": ()}


def test_without_a_port_nobody_is_served() -> None:
    metrics = Metrics(0)
    metrics.update({})
    metrics.close()


@pytest.mark.usefixtures("mosquitto_path")
def test_a_running_gateway(ecg_data: Path, tmp_path: Path) -> None:
    record = cut(read_record(ecg_data / "mitdb/200"), 30)
    port = free_port()
    with Mosquitto(tmp_path / "broker") as broker, Daemon(tmp_path / "state", broker.url) as daemon:
        path = daemon.state / "config.toml"
        start = path.read_text() + f"[metrics]\nport = {port}\n"
        path.write_text(start)
        daemon.start()
        daemon.wait_ready()
        wearable = Wearable(broker.url, record, speed=0)
        wearable.start()
        wearable.result(120)
        daemon.settle()

        def figures() -> dict[str, float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                text = answer.read().decode()
            return {
                " ".join([sample.name, *(f"{v}" for _, v in sorted(sample.labels.items()))]): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

        found: dict[str, float] = {}

        def are_fresh() -> bool:
            found.update(figures())
            return found.get("anyecg_intake_total stored") == 30 and found.get("anyecg_analysis_total hops", 0) > 10

        wait_for(are_fresh, 60, "the figures of all chunks")
        assert found["anyecg_broker_connected source"] == found["anyecg_broker_connected publisher"] == 1
        assert found["anyecg_disk_state ok"] + found["anyecg_disk_state degraded"] == 1
        assert not [name for name in found if any(word in name for word in ("bpm", "beat", "finding", "rhythm"))]
        assert socket.gethostbyname("localhost") == "127.0.0.1"

        assert request(daemon.state, "reload") == {"applied": [], "restart": [], "elsewhere": []}
        path.write_text(
            f'{start}[retention]\nraw_days = 40\n[wearers.anna]\ntimezone = "Asia/Tokyo"\n[ble]\nqueue_s = 9\n'
        )
        done = request(daemon.state, "reload")
        assert done["applied"] == ["retention.raw_days", "wearers.anna.timezone"]
        assert done["restart"] == ["ble.queue_s"]
        path.write_text(f"{start}[retention]\nraw_dys = 1\n")
        with pytest.raises(BadInputError, match="did you mean 'raw_days'"):
            request(daemon.state, "reload")
        path.write_text(start)
        assert daemon.process is not None
        os.kill(daemon.process.pid, signal.SIGHUP)
        wait_for(lambda: (daemon.state / "daemon.log").read_text().count("configuration read again") == 3, 60, "SIGHUP")
        assert "raw_dys" in (daemon.state / "daemon.log").read_text()
        assert daemon.stop() == 0
