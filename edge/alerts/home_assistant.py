"""Device discovery by Home Assistant (2024.11 and later): one device per wearer, one for the gateway.

After https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload and the pages of the sensor,
binary_sensor and event platforms: `dev` and `o` are mandatory, every component has a platform (`p`) and a `unique_id`,
an event names its `event_types` and takes JSON with `event_type`. The messages are retained, and sent again when Home
Assistant says `online` on `<prefix>/status`.
"""

from __future__ import annotations

from typing import Any

from edge import __version__
from edge.alerts.commands import Received
from edge.alerts.liveness import LINKS
from edge.alerts.topics import dump, events_topic, state_topic, status_topic
from edge.config import Config
from edge.encoder.contract import RHYTHMS
from edge.rhythm.events import RULES

STALE_S = 180
"""A state that is not written again for so long is no longer shown; the gateway writes it once a minute."""
_EVENT = (
    "{{ {'event_type': 'test' if value_json.test else value_json.rule, 'type': value_json.type, "
    "'status': value_json.status, 'severity': value_json.severity, 'text': value_json.text, 'id': value_json.id, "
    "'revision': value_json.revision, 'start': value_json.start, 'end': value_json.end, 'late': value_json.late} "
    "| tojson }}"
)


class Announcer:
    """Writes the discovery messages; nothing unless `home_assistant.enabled`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = config.home_assistant

    @property
    def birth_topics(self) -> list[str]:
        """Topics to listen to."""
        return [f"{self._settings.prefix}/status"] if self._settings.enabled else []

    def is_birth(self, message: Received) -> bool:
        """Return whether a message says that Home Assistant has started."""
        return message.topic in self.birth_topics and message.payload == b"online"

    def messages(self, wearer: str | None) -> list[tuple[str, str]]:
        """Return (topic, payload) to be retained for a wearer; for the gateway itself if None."""
        if not self._settings.enabled:
            return []
        name = f"anyecg_{self._config.gateway.id}" + ("" if wearer is None else f"_{wearer}")
        document = self._gateway(name) if wearer is None else self._wearer(name, wearer)
        return [(f"{self._settings.prefix}/device/{name}/config", dump(document))]

    def _device(self, name: str, title: str, model: str) -> dict[str, Any]:
        return {
            "dev": {"ids": [name], "name": title, "mf": "anyECG Edge", "mdl": model, "sw": __version__},
            "o": {"name": "anyECG Edge", "sw": __version__},
            "qos": 1,
        }

    def _gateway(self, name: str) -> dict[str, Any]:
        gateway = self._config.gateway.id
        running = {
            "p": "binary_sensor",
            "unique_id": f"{name}_running",
            "name": "Running",
            "device_class": "connectivity",
            "value_template": "{{ 'ON' if value_json.status == 'online' else 'OFF' }}",
        }
        return self._device(name, f"ECG gateway {gateway}", "gateway") | {
            "state_topic": status_topic(gateway),
            "cmps": {"running": running},
        }

    def _wearer(self, name: str, wearer: str) -> dict[str, Any]:
        gateway = self._config.gateway.id
        events = events_topic(gateway, wearer)
        components: dict[str, dict[str, Any]] = {
            "heart_rate": _sensor("Heart rate", "hr_bpm", unit_of_measurement="bpm", state_class="measurement"),
            "rhythm": _sensor("Rhythm", "rhythm", device_class="enum", options=list(RHYTHMS)),
            "quality": {
                **_sensor("Signal quality", "quality", unit_of_measurement="%", state_class="measurement"),
                "value_template": "{{ none if value_json.quality is none else (100 * value_json.quality) | round }}",
            },
            "link": _sensor("Link", "link", device_class="enum", options=list(LINKS), entity_category="diagnostic"),
            "battery": _sensor(
                "Battery",
                "battery_percent",
                device_class="battery",
                unit_of_measurement="%",
                state_class="measurement",
                entity_category="diagnostic",
            ),
            "last_event": {
                "p": "sensor",
                "name": "Last event",
                "state_topic": events,
                "value_template": "{{ value_json.text[:255] }}",
                "json_attributes_topic": events,
            },
            "event": {
                "p": "event",
                "name": "Event",
                "state_topic": events,
                "event_types": [*RULES, "test"],
                "value_template": _EVENT,
            },
            "no_data": _problem("No data", "value_json.link != 'online'"),
            "electrodes_off": _problem(
                "Electrodes off", "value_json.contact == false or value_json.signal == 'lead_off'"
            ),
            "unreadable": _problem("Signal unreadable", "value_json.readable == false"),
            "serious_event": _problem(
                "Serious event", "value_json.open_events | selectattr('severity', 'in', ['urgent', 'critical']) | list"
            ),
        }
        for key, component in components.items():
            component["unique_id"] = f"{name}_{key}"
        return self._device(name, f"ECG {wearer}", "wearer") | {
            "state_topic": state_topic(gateway, wearer),
            "availability": [{"topic": status_topic(gateway), "value_template": "{{ value_json.status }}"}],
            "cmps": components,
        }


def _sensor(name: str, field: str, **options: Any) -> dict[str, Any]:
    return {
        "p": "sensor",
        "name": name,
        "value_template": f"{{{{ value_json.{field} }}}}",
        "expire_after": STALE_S,
        **options,
    }


def _problem(name: str, condition: str) -> dict[str, Any]:
    return {
        "p": "binary_sensor",
        "name": name,
        "device_class": "problem",
        "value_template": f"{{{{ 'ON' if {condition} else 'OFF' }}}}",
        "expire_after": STALE_S,
    }
