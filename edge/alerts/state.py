"""The retained state of each wearer: link, contact, heart rate, rhythm, open events, freshness, what is not alerted.

At most one message per wearer and `state_interval_s`, except that an event that opens, ends or gets worse is shown
at once, and one every `HEARTBEAT_S` even if nothing changes. What is not known is null: heart rate and rhythm vanish
as soon as the link is stale or the reading is older than `READING_S`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge.alerts.liveness import LINKS, Link, Pulse, link_of
from edge.alerts.policy import Recorded
from edge.alerts.topics import SCHEMA, dump, iso, state_topic
from edge.alerts.unalerted import below_severity, unseen
from edge.clock import Clock
from edge.config import Config
from edge.rhythm.events import SEVERITIES, Current
from edge.store.findings import Change

HEARTBEAT_S = 60.0
READING_S = 15.0
"""A window needs 5 s after its first sample; an older reading means that analysis is behind."""
MAX_OPEN_SHOWN = 32
MAX_NOT_ALERTED = 32
MAX_OPEN_KEPT = 256
"""Per wearer; the oldest is forgotten first (the store keeps it)."""


class Update(NamedTuple):
    """What a tick has to say."""

    states: list[tuple[str, str]]
    """(topic, payload) to be retained."""
    silences: list[tuple[Recorded, Change]]
    """Links lost and found, to be told as events."""


@dataclass(slots=True)
class _Device:
    pulse: Pulse
    last_sample_ns: int
    contact: bool | None = None
    current: Current | None = None
    current_s: float = 0.0
    link: Link = "offline"
    battery_percent: int | None = None


@dataclass(slots=True)
class _Wearer:
    devices: dict[str, _Device] = field(default_factory=dict)
    open: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    said: dict[str, str | None] = field(default_factory=dict)
    """What people said of open events: "ack" or "false"."""
    dirty: bool = True
    at_once: bool = True
    written_s: float | None = None


class Board:
    """Gathers what is known of every wearer; any thread may report, the daemon's loop ticks."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
        silenced: Callable[[str], list[dict[str, Any]]] = lambda wearer: [],
    ) -> None:
        """Make an empty board.

        Args:
            config: whole configuration.
            clock: decides freshness.
            wake: called, from the reporting thread, when a tick is wanted at once.
            silenced: what people have silenced for a wearer (`edge.alerts.unalerted`).
        """
        self._silenced = silenced
        self._config = config
        self._clock = clock
        self._wake = wake
        self._wearers: dict[str, _Wearer] = {}
        self._silences: list[tuple[Recorded, Change]] = []
        self._lock = threading.Lock()

    def configure(self, config: Config) -> None:
        """Go by another configuration from now on."""
        with self._lock:
            self._config = config

    def restore(
        self,
        recording: Recorded,
        *,
        next_sample: int,
        last_sample_ns: int,
        received_ns: int,
        open_findings: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Take over a recording of the store at the gateway's start; the newest of a device is the one that counts."""
        if recording.source == "import":
            return
        with self._lock:
            wearer = self._wearer(recording)
            for row in open_findings:
                self._note(wearer, row)
            known = wearer.devices.get(recording.device)
            if known is not None and known.pulse.received_ns > received_ns:
                return
            pulse = Pulse(recording, self._clock.monotonic_s(), received_ns, next_sample)
            pulse.assume_told(self._clock, self._config.alerts)
            wearer.devices[recording.device] = _Device(pulse, last_sample_ns)

    def heard(self, recording: Recorded, *, next_sample: int, last_sample_ns: int, contact: bool | None) -> None:
        """Note a committed chunk.

        Args:
            recording: where it went.
            next_sample: index after its last sample.
            last_sample_ns: UTC of its last sample.
            contact: what the device said of its electrodes.
        """
        with self._lock:
            wearer = self._wearer(recording)
            device = wearer.devices.get(recording.device)
            if device is None or device.pulse.recording.key != recording.key:
                ended = [] if device is None else self._silences_ended(device)
                pulse = Pulse(recording, self._clock.monotonic_s(), self._clock.utc_ns(), next_sample)
                device = wearer.devices[recording.device] = _Device(pulse, last_sample_ns)
                self._bound_devices()
            else:
                ended = [(recording, change) for change in device.pulse.spoke(self._clock, next_sample)]
            device.last_sample_ns = max(device.last_sample_ns, last_sample_ns)
            device.contact = contact
            self._silences += ended
            for _, change in ended:
                self._note(wearer, change.row)
            wearer.dirty = True
            urgent = wearer.at_once
        if urgent:
            self._wake()

    def read(self, recording: Recorded, current: Current) -> None:
        """Note what the newest analysed hop of a recording shows."""
        with self._lock:
            wearer = self._wearers.get(recording.wearer)
            device = None if wearer is None else wearer.devices.get(recording.device)
            if wearer is None or device is None or device.pulse.recording.key != recording.key:
                return
            device.current, device.current_s = current, self._clock.monotonic_s()
            wearer.dirty = True

    def changed(self, recording: Recorded, changes: Sequence[Change]) -> None:
        """Note findings that opened, changed or ended, of any severity."""
        if recording.source == "import" or not changes:
            return
        with self._lock:
            wearer = self._wearer(recording)
            for change in changes:
                self._note(wearer, change.row)
            urgent = wearer.at_once
        if urgent:
            self._wake()

    def forget(self, wearer_id: str, device_id: str | None = None) -> None:
        """Drop a wearer, or one device of them: its silence is no news any more."""
        with self._lock:
            wearer = self._wearers.get(wearer_id)
            if wearer is None:
                return
            if device_id is None:
                del self._wearers[wearer_id]
                return
            wearer.devices.pop(device_id, None)
            wearer.dirty = wearer.at_once = True

    def battery(self, wearer_id: str, device_id: str, percent: int) -> None:
        """Note the level of a device's battery."""
        with self._lock:
            wearer = self._wearers.get(wearer_id)
            device = None if wearer is None else wearer.devices.get(device_id)
            if wearer is not None and device is not None and device.battery_percent != percent:
                device.battery_percent, wearer.dirty = percent, True

    def refresh(self, wearer_id: str) -> None:
        """Write the state of a wearer at once: what is silenced has changed."""
        with self._lock:
            wearer = self._wearers.get(wearer_id)
            if wearer is not None:
                wearer.dirty = wearer.at_once = True
        self._wake()

    def tick(self) -> Update:
        """Return what is due now; call it at least once a second and after every `wake`."""
        now_s = self._clock.monotonic_s()
        states = []
        with self._lock:
            for wearer_id, wearer in self._wearers.items():
                self._look(wearer)
                if self._is_due(wearer, now_s):
                    payload = dump(self._document(wearer_id, wearer))
                    states.append((state_topic(self._config.gateway.id, wearer_id), payload))
                    wearer.dirty = wearer.at_once = False
                    wearer.written_s = now_s
            silences, self._silences = self._silences, []
        return Update(states, silences)

    def links(self) -> dict[str, dict[str, Link]]:
        """Return wearer → device → link, for `status`."""
        with self._lock:
            return {
                name: {device_id: self._link(device) for device_id, device in wearer.devices.items()}
                for name, wearer in self._wearers.items()
            }

    def _wearer(self, recording: Recorded) -> _Wearer:
        return self._wearers.setdefault(recording.wearer, _Wearer())

    def _link(self, device: _Device) -> Link:
        if device.pulse.dormant:
            return "offline"
        return link_of(device.pulse.silence_s(self._clock), self._config.alerts)

    def _look(self, wearer: _Wearer) -> None:
        for device in wearer.devices.values():
            for change in device.pulse.fallen_silent(self._clock, self._config.alerts):
                self._silences.append((device.pulse.recording, change))
                self._note(wearer, change.row)
            link = self._link(device)
            if link != device.link:
                device.link, wearer.dirty, wearer.at_once = link, True, True
            if device.current is not None and self._clock.monotonic_s() - device.current_s > READING_S:
                device.current, wearer.dirty = None, True

    def _silences_ended(self, device: _Device) -> list[tuple[Recorded, Change]]:
        pulse = device.pulse
        return [(pulse.recording, change) for change in pulse.spoke(self._clock, pulse.next_sample)]

    def _bound_devices(self) -> None:
        count = sum(len(wearer.devices) for wearer in self._wearers.values())
        if count > self._config.intake.max_devices:
            quietest = min(
                (
                    (device.pulse.heard_s, name, key)
                    for name, w in self._wearers.items()
                    for key, device in w.devices.items()
                )
            )
            del self._wearers[quietest[1]].devices[quietest[2]]

    def _note(self, wearer: _Wearer, row: Mapping[str, Any]) -> None:
        before = wearer.open.get(row["id"])
        is_said = "said" in row and wearer.said.get(row["id"]) != row["said"]
        if "said" in row:
            wearer.said[row["id"]] = row["said"]
        if row["state"] == "open" and wearer.said.get(row["id"]) != "false":
            wearer.open[row["id"]] = row
            if len(wearer.open) > MAX_OPEN_KEPT:
                oldest = next(iter(wearer.open))
                del wearer.open[oldest]
                wearer.said.pop(oldest, None)
            is_news = is_said or before is None or before["severity"] != row["severity"]
        else:
            is_news = wearer.open.pop(row["id"], None) is not None
        if row["state"] != "open":
            wearer.said.pop(row["id"], None)
        wearer.dirty = True
        wearer.at_once |= is_news

    def _is_due(self, wearer: _Wearer, now_s: float) -> bool:
        if wearer.written_s is None or wearer.at_once:
            return True
        since_s = now_s - wearer.written_s
        return since_s >= (self._config.alerts.state_interval_s if wearer.dirty else HEARTBEAT_S)

    def _document(self, wearer_id: str, wearer: _Wearer) -> dict[str, Any]:
        """Return the state as `docs/schema/state.schema.json` describes it."""
        devices = sorted(
            wearer.devices.items(), key=lambda item: (LINKS.index(self._link(item[1])), item[1].pulse.heard_s)
        )
        name, best = devices[-1] if devices else (None, None)
        link: Link = "offline" if best is None else self._link(best)
        current = best.current if best is not None and link == "online" else None
        opened = sorted(wearer.open.values(), key=lambda row: (-SEVERITIES.index(row["severity"]), -row["start_ns"]))
        now_ns = self._clock.utc_ns()
        return {
            "schema": SCHEMA,
            "gateway": self._config.gateway.id,
            "wearer": wearer_id,
            "link": link,
            "device": name,
            "contact": best.contact if best is not None and link != "offline" else None,
            "hr_bpm": None if current is None or current.hr_bpm is None else round(current.hr_bpm, 1),
            "rhythm": None if current is None else current.rhythm or None,
            "signal": None if current is None else current.signal or None,
            "readable": None if current is None else current.readable,
            "quality": None if current is None or current.quality is None else round(current.quality, 2),
            "battery_percent": None if best is None else best.battery_percent,
            "last_sample": None if best is None else iso(best.last_sample_ns),
            "last_sample_ns": None if best is None else best.last_sample_ns,
            "written": iso(now_ns),
            "written_ns": now_ns,
            "devices": [
                {
                    "device": key,
                    "link": self._link(device),
                    "last_sample": iso(device.last_sample_ns),
                    "battery_percent": device.battery_percent,
                }
                for key, device in reversed(devices)
            ],
            "not_alerted": [
                *unseen(link, None if current is None else current.signal),
                *below_severity(self._config.min_severity(wearer_id)),
                *self._silenced(wearer_id),
            ][:MAX_NOT_ALERTED],
            "open_count": len(opened),
            "open_events": [
                {
                    "id": row["id"],
                    "rule": row["rule"],
                    "severity": row["severity"],
                    "since": iso(row["start_ns"]),
                    "since_ns": row["start_ns"],
                    "acknowledged": wearer.said.get(row["id"]) == "ack",
                }
                for row in opened[:MAX_OPEN_SHOWN]
            ],
        }
