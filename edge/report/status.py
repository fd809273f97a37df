"""How the gateway and each wearer are, in five plain states, from the database alone.

`ok`, `degraded`, `failing`, `off`, `unknown`. Where there is no data the state is `unknown`, never `ok`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection

from edge.encoder.contract import HOP_S
from edge.store import queries

State = Literal["ok", "degraded", "failing", "off", "unknown"]
NS = queries.NS

HEARTBEAT_S = 20.0
"""The daemon writes its health every 5 s; silent for four times that, it is not running."""
LATE_S = 10.0
LOST_S = 60.0
"""A link without data for this long is late, lost (as `alerts.stale_s` and `alerts.link_lost_s` by default)."""
READABLE_SHARE = 0.5
"""With less of the last hour readable a wearer's signal is degraded."""
RATE_AGE_S = 180.0
"""A heart rate from a minute that ended longer ago is not the present one."""
LAG_S = 30.0


@dataclass(slots=True)
class WearerStatus:
    """One wearer now."""

    wearer: str
    timezone: str
    state: State
    reason: str
    devices: list[dict[str, Any]] = field(default_factory=list)
    """device, source, link, last_received_ns, freshness_s, analysis_lag_s."""
    hr_bpm: float | None = None
    """None when the last minute with one is too old: unknown, not zero."""
    hr_ns: int | None = None
    rhythm: str | None = None
    coverage: dict[str, float] = field(default_factory=dict)
    """Of the past 24 hours."""
    open_events: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Status:
    """The whole gateway now."""

    state: State
    reason: str
    heartbeat_age_s: float | None
    health: dict[str, Any]
    """The daemon's own figures as it wrote them last: daemon, encoder, broker, analysis, queues, counters."""
    backlog: dict[str, int]
    wearers: list[WearerStatus]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_status(conn: Connection, now_ns: int) -> Status:
    """Return the state of the gateway at `now_ns`."""
    health = queries.health(conn)
    values = {key: value for key, (value, _) in health.items()}
    written_ns = health["daemon"][1] if "daemon" in health else None
    age_s = None if written_ns is None else (now_ns - written_ns) / NS
    state, reason = daemon_state(values, age_s)
    running = state in ("ok", "degraded", "failing")
    return Status(
        state=state,
        reason=reason,
        heartbeat_age_s=age_s,
        health=values,
        backlog=queries.backlog(conn),
        wearers=[_wearer(conn, wearer, now_ns, running) for wearer in queries.wearers(conn)],
    )


def daemon_state(health: dict[str, Any], age_s: float | None) -> tuple[State, str]:
    """Return the state of the daemon and why, from its own figures and their age."""
    if age_s is None:
        return "unknown", "the daemon has never reported here"
    if age_s < -HEARTBEAT_S:
        return "unknown", "the daemon's last report lies in the future: was the clock set back?"
    if age_s > HEARTBEAT_S:
        return "off", f"no report from the daemon for {age_s:.0f} s"
    analysis, broker = health.get("analysis") or {}, health.get("broker") or {}
    if analysis.get("failing"):
        return "failing", f"analysis fails: {analysis['failing']}"
    for name, key in (("source", "state"), ("publisher", "link")):
        side = broker.get(name) or {}
        if side.get(key, "connected") != "connected":
            return "failing", f"{name} at the broker: {side[key]} ({side.get('reason', 'no reason given')})"
    storage = health.get("storage") or {}
    if storage.get("state", "ok") != "ok":
        return storage["state"], storage["reason"]
    queues = health.get("queues") or {}
    if queues.get("chunks", 0) > 0.8 * queues.get("chunks_limit", float("inf")):
        return "degraded", f"{queues['chunks']} chunks wait to be committed"
    if analysis.get("lag_s", 0) > LAG_S:
        return "degraded", f"analysis is {analysis['lag_s']:.0f} s behind"
    return "ok", "running"


def _wearer(conn: Connection, wearer: queries.Wearer, now_ns: int, running: bool) -> WearerStatus:
    recordings = queries.recordings(conn, wearer.id, ecg_only=False)
    minutes = queries.trends(conn, wearer.id, now_ns - 3600 * NS, now_ns)
    last = minutes[-1] if minutes else None
    devices = [_device(conn, recording, now_ns) for recording in _newest(recordings)]
    status = WearerStatus(wearer.id, wearer.timezone, *_wearer_state(devices, minutes, running), devices)
    if last is not None and now_ns - last["utc_ns"] - queries.MINUTE_NS <= RATE_AGE_S * NS:
        status.hr_bpm, status.rhythm, status.hr_ns = last["hr_bpm"], last["rhythm"] or None, last["utc_ns"]
    status.coverage = asdict(queries.coverage(conn, wearer.id, now_ns - 86_400 * NS, now_ns))
    status.open_events = [
        {name: row[name] for name in ("id", "rule", "severity", "start_ns")}
        for row in queries.findings(conn, wearer=wearer.id, states=("open",), newest_first=True, limit=20)
    ]
    return status


def _newest(recordings: list[queries.Recording]) -> list[queries.Recording]:
    newest = {recording.device: recording for recording in recordings}
    return sorted(newest.values(), key=lambda recording: recording.last_received_ns, reverse=True)


def _device(conn: Connection, recording: queries.Recording, now_ns: int) -> dict[str, Any]:
    freshness_s = (now_ns - recording.last_received_ns) / NS
    end_ns = recording.to_utc_ns(recording.end_sample)
    analysed_ns = queries.analysed_until_ns(conn, recording, HOP_S) if recording.leads else end_ns
    link = "import"
    if recording.source == "live":
        link = "offline" if freshness_s > LOST_S else "stale" if freshness_s > LATE_S else "online"
    return {
        "device": recording.device,
        "source": recording.source,
        "leads": list(recording.leads),
        "fs_hz": recording.fs_hz,
        "link": link,
        "last_received_ns": recording.last_received_ns,
        "freshness_s": freshness_s,
        "analysis_lag_s": None if analysed_ns is None else max((end_ns - analysed_ns) / NS, 0.0),
    }


def _wearer_state(devices: list[dict[str, Any]], minutes: list[dict[str, Any]], running: bool) -> tuple[State, str]:
    links = {device["link"] for device in devices}
    if not devices:
        return "unknown", "nothing was ever recorded"
    if links == {"import"}:
        return "off", "imported recordings only"
    if not running:
        return "unknown", "the daemon is not running"
    if "online" not in links and "stale" not in links:
        return "off", f"no data for {min(d['freshness_s'] for d in devices):.0f} s"
    if "online" not in links:
        return "degraded", "data are late"
    recorded_s = sum(minute["recorded_s"] for minute in minutes)
    if not recorded_s and any(minute["pulse_s"] for minute in minutes):
        return "ok", "heart rate only: a strap without ECG"
    if not recorded_s:
        return "unknown", "not analysed yet"
    readable = sum(minute["readable_s"] for minute in minutes) / recorded_s
    if readable <= 0:
        return "failing", "nothing of the last hour was readable"
    if readable < READABLE_SHARE:
        return "degraded", f"only {readable:.0%} of the last hour was readable"
    return "ok", "recording"
