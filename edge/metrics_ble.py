"""Bluetooth links as metrics: state, how often and how long each was, what was lost and dropped, and the lag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from edge.sources.ble.link import State
from edge.sources.ble.outlet import LAG_BOUNDS_S

GAUGES = {
    "battery_percent": ("Battery level as the device says it.", "battery"),
    "signal_dbm": ("Signal of its last advertisement.", "rssi"),
    "late_seconds": ("How long after it was taken the newest frame arrived, above the least latency.", "late_s"),
    "waiting_seconds": ("Signal that is not committed yet.", "waiting_s"),
    "rate_hertz": ("Samples per second by the device's clock.", "rate_hz"),
    "drift_ppm": ("How much faster this machine's clock passes.", "drift_ppm"),
}
LINK_EVENTS = ("connections", "failures", "refusals", "silences", "losses")
SAMPLES = ("samples", "lost_samples", "dropped_samples", "dropped_reports")


def ble_metrics(devices: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield the families of `status["ble"]["devices"]`; none of them is about health."""
    state = GaugeMetricFamily("anyecg_ble_state", "1 for the state of a Bluetooth link.", labels=["device", "state"])
    entered = CounterMetricFamily("anyecg_ble_state_entered", "How often a state began.", labels=["device", "state"])
    seconds = CounterMetricFamily("anyecg_ble_state_seconds", "How long each state was.", labels=["device", "state"])
    events = CounterMetricFamily("anyecg_ble_links", "What became of connections.", labels=["device", "kind"])
    samples = CounterMetricFamily(
        "anyecg_ble_samples",
        "Received, lost on the air, dropped at the queue; reports: 5 s of RR intervals.",
        labels=["device", "kind"],
    )
    lag = HistogramMetricFamily("anyecg_ble_commit_seconds", "From notification to commit.", labels=["device"])
    for device, figures in devices.items():
        for name in get_args(State):
            state.add_metric([device, name], figures["state"] == name)
        for name, value in figures["entered"].items():
            entered.add_metric([device, name], value)
        for name, value in figures["seconds_in"].items():
            seconds.add_metric([device, name], value)
        for kind in LINK_EVENTS:
            events.add_metric([device, kind], figures[kind])
        for kind in SAMPLES:
            samples.add_metric([device, kind], figures[kind])
        counts = accumulate(figures["commit_lags"]["counts"])
        bounds = [*(str(bound) for bound in LAG_BOUNDS_S), "+Inf"]
        lag.add_metric([device], list(zip(bounds, counts, strict=True)), figures["commit_lags"]["sum_s"])
    yield from (state, entered, seconds, events, samples, lag)
    for name, (text, key) in GAUGES.items():
        gauge = GaugeMetricFamily(f"anyecg_ble_{name}", text, labels=["device"])
        for device, figures in devices.items():
            if figures[key] is not None:
                gauge.add_metric([device], figures[key])
        yield gauge
