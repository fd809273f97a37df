"""Figures for Prometheus on a loopback port, off unless asked for. About the machine and the links, none about health.

They are the last figures of `status`, at most 5 s old: asking costs the gateway nothing. A gateway that hangs shows in
`anyecg_status_age_seconds`, which goes on growing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge import __version__
from edge.errors import AnyecgError
from edge.metrics_ble import ble_metrics

HOST = "127.0.0.1"
LINKS = ("online", "stale", "offline")
DISK_STATES = ("ok", "degraded", "failing")

GAUGES: dict[str, tuple[str, tuple[str, ...], float]] = {
    "uptime_seconds": ("Since the gateway started.", ("daemon", "uptime_s"), 1),
    "resident_memory_bytes": ("Resident memory.", ("daemon", "rss_mb"), 2**20),
    "chunks_waiting": ("Chunks waiting to be committed.", ("queues", "chunks"), 1),
    "chunks_waiting_limit": ("Beyond this the broker keeps them.", ("queues", "chunks_limit"), 1),
    "outbox_rows": ("Messages waiting for the broker.", ("queues", "outbox"), 1),
    "writes_waiting": ("Jobs waiting for the database.", ("writer", "depth"), 1),
    "analysis_lag_seconds": ("Signal waiting for analysis.", ("analysis", "lag_s"), 1),
    "disk_free_bytes": ("Free on the disk of the state folder.", ("storage", "disk_free_mb"), 2**20),
    "database_used_bytes": ("Pages of the database in use.", ("storage", "database_mb"), 2**20),
    "database_spare_bytes": ("Pages of the database to be used again.", ("storage", "spare_mb"), 2**20),
}
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "intake": ("What became of chunks, by outcome (edge/intake/outcome.py).", ("intake",)),
    "writer": ("Jobs and commits of the database, by kind.", ("writer",)),
    "analysis": ("What analysis did, by kind; no figure of it is about a finding.", ("analysis",)),
    "expired": ("Rows that retention deleted, by tier.", ("storage", "expired")),
}
NOT_TOLD = {"beats", "findings", "depth", "lag_s", "is_idle", "dropped_messages"}
"""Keys of those groups that are health data, or no counters."""


class _Figures(Collector):
    def __init__(self) -> None:
        self.status: Mapping[str, Any] = {}
        self.at_s = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("anyecg_info", "What runs.", labels=["version", "provider"])
        status = self.status
        info.add_metric([__version__, str(_at(status, ("encoder", "provider")) or "")], 1)
        yield info
        yield GaugeMetricFamily("anyecg_status_age_seconds", "Age of these figures.", time.monotonic() - self.at_s)
        for name, (text, path, factor) in GAUGES.items():
            value = _at(status, path)
            if isinstance(value, int | float):
                yield GaugeMetricFamily(f"anyecg_{name}", text, value * factor)
        for name, (text, path) in COUNTERS.items():
            family = CounterMetricFamily(f"anyecg_{name}", text, labels=["kind"])
            for kind, value in sorted((_at(status, path) or {}).items()):
                if kind not in NOT_TOLD and isinstance(value, int | float) and not isinstance(value, bool):
                    family.add_metric([kind], value)
            yield family
        disk = GaugeMetricFamily("anyecg_disk_state", "1 for the state the disk is in.", labels=["state"])
        for state in DISK_STATES:
            disk.add_metric([state], _at(status, ("storage", "state")) == state)
        yield disk
        broker = GaugeMetricFamily("anyecg_broker_connected", "1 if the broker has let this side in.", labels=["side"])
        for side, key in (("source", "state"), ("publisher", "link")):
            broker.add_metric([side], _at(status, ("broker", side, key)) == "connected")
        yield broker
        link = GaugeMetricFamily(
            "anyecg_device_link", "1 for the state of a link.", labels=["wearer", "device", "link"]
        )
        for wearer, devices in (status.get("links") or {}).items():
            for device, now in devices.items():
                for state in LINKS:
                    link.add_metric([wearer, device, state], now == state)
        yield link
        yield from ble_metrics(_at(status, ("ble", "devices")) or {})


class Metrics:
    """Serves the last `update` until `close`; a port of 0 serves nobody."""

    def __init__(self, port: int) -> None:
        """Listen on loopback. Raises `AnyecgError` if the port is taken."""
        self._figures = _Figures()
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None
        if not port:
            return
        registry = CollectorRegistry()
        registry.register(self._figures)
        try:
            self._server, self._thread = start_http_server(port, addr=HOST, registry=registry)
        except OSError as error:
            raise AnyecgError(f"metrics.port {port} cannot be listened on: {error.strerror}") from None

    def update(self, status: Mapping[str, Any]) -> None:
        """Take over fresh figures."""
        self._figures.status, self._figures.at_s = status, time.monotonic()

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _at(status: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = status
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
