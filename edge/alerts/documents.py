"""The published documents: event, state, gateway status, and what is answered to a command.

Their JSON schemas in docs/schema are made from here (`make docs`); the tests hold every document against them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from edge.alerts.policy import MAX_EVIDENCE
from edge.alerts.state import MAX_NOT_ALERTED, MAX_OPEN_SHOWN
from edge.rhythm.events import RULES, Severity

Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
Nanoseconds = Annotated[
    int, Field(description="ns since 1970-01-01 UTC. Beyond 2^53: read it as a 64-bit integer, or use the text.")
]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
RuleName = Annotated[str, Field(json_schema_extra={"enum": list(RULES)})]
Link = Literal["online", "stale", "offline"]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[int, Field(ge=0, le=100)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, title="")


class Event(_Document):
    """Published on anyecg/v1/<gateway>/<wearer>/events with QoS 1, not retained. A subscriber keeps the highest
    revision of each id; an id it does not know is new to it, whatever the type. Research software, not a medical
    device."""

    schema_: Literal[1] = Field(alias="schema")
    """Version of this document."""
    type: Literal["new", "update", "end"]
    """end: nothing more follows, unless a person changes their mind."""
    status: Literal["open", "acknowledged", "ended", "retracted", "false"]
    """acknowledged: a person has seen it. false: a person called it a false alarm. retracted: late data showed it."""
    id: Id
    """Identity of the finding; the same in every message about it."""
    revision: Annotated[int, Field(ge=1)]
    """Grows with every change of the finding and every word of a person on it; not every revision is told."""
    rule: RuleName
    severity: Severity
    text: Annotated[str, StringConstraints(max_length=300)]
    """One sentence in plain words; no diagnosis."""
    gateway: str
    wearer: str
    device: str
    start: Time
    """When it began, by the recording's own time."""
    start_ns: Nanoseconds
    end: Time
    """When it ended; how far it is known to reach while it lasts (type new or update)."""
    end_ns: Nanoseconds
    detected: Time
    """Time of the last sample that was needed to see it."""
    detected_ns: Nanoseconds
    told: Time
    """Gateway's wall clock when the message was written."""
    late: bool
    """True if the news was told more than alerts.late_after_s (5 min) after the samples that brought it."""
    held: Literal["cooldown", "quiet", "snoozed"] | None
    """Why it was first told later than it was seen."""
    strip: Literal["fastest", "slowest", "longest", "second longest", "symptom"] | None
    """Why its strip is, at this moment, one of those its day and rule keep; null: it is not."""
    test: bool
    """True: sent by `anyecg alerts test`, nothing happened."""
    retracted: bool
    """True on the end of a finding that late data showed not to be one."""
    superseded_by: str | None
    """Id of the finding that took the place of a retracted one."""
    evidence: Annotated[dict[str, float | str | bool], Field(max_length=MAX_EVIDENCE)]
    """Figures of the rule: beats, rates, thresholds, …"""
    analysis: str
    """Version of what read the signal."""


class Device(_Document):
    """A device of the wearer."""

    device: str
    link: Link
    last_sample: Time
    battery_percent: Percent | None


class OpenEvent(_Document):
    """An event that lasts."""

    id: Id
    rule: RuleName
    severity: Severity
    since: Time
    since_ns: Nanoseconds
    acknowledged: bool


class NotAlerted(_Document):
    """Something nobody is told of at the moment."""

    why: Literal[
        "no_data", "not_read_yet", "gap", "lead_off", "flat", "unreadable", "below_severity", "rule_off", "quiet_hours",
        "snoozed",
    ]  # fmt: skip
    """From `no_data` to `unreadable`: nothing about the heart can be seen."""
    rules: list[RuleName] | None
    """Of these rules; null: of all."""
    below: Severity | None
    """Only what is less severe than this; null: everything."""
    until: Time | None
    """When it ends; null: not known."""


class State(_Document):
    """Retained on anyecg/v1/<gateway>/<wearer>/state. Null means not known; heart rate and rhythm are known only while
    the link is online. Whether the gateway itself is there says its own status topic (last will). Research software,
    not a medical device."""

    schema_: Literal[1] = Field(alias="schema")
    """Version of this document."""
    gateway: str
    wearer: str
    link: Link
    """Of the device that delivers best."""
    device: str | None
    """The device that link, contact and readings are of."""
    contact: bool | None
    """False: electrodes off the body, says the device. Null: it cannot tell, or is offline."""
    hr_bpm: Annotated[float, Field(ge=0)] | None
    """Heart rate of the newest 15 s, beats per minute."""
    rhythm: Literal["N", "AFIB", "AFL", "SVTA", "VT", "VF", "P", "ASYS"] | None
    """WFDB rhythm name; N is sinus and every other organised rhythm, P is paced."""
    signal: Literal["gap", "lead_off", "flat", "unreadable", "readable"] | None
    """Of the newest second that was read."""
    readable: bool | None
    quality: Share | None
    """P(readable) of the newest second."""
    battery_percent: Percent | None
    """Of the device."""
    last_sample: Time | None
    """When the newest sample was taken."""
    last_sample_ns: Nanoseconds | None
    written: Time
    """When this was written, by the gateway's clock; at least once a minute while it runs."""
    written_ns: Nanoseconds
    devices: list[Device]
    not_alerted: Annotated[list[NotAlerted], Field(max_length=MAX_NOT_ALERTED)]
    """What nobody is told of at the moment, and why. Empty: whatever the rules find is told."""
    open_count: Annotated[int, Field(ge=0)]
    open_events: Annotated[list[OpenEvent], Field(max_length=MAX_OPEN_SHOWN)]
    """Most severe first, then newest; of any severity, also those that are not told as events."""


class Status(_Document):
    """Retained on anyecg/v1/<gateway>/status, and its last will: offline means that nobody watches."""

    schema_: Literal[1] = Field(alias="schema")
    gateway: str
    status: Literal["online", "offline"]
    reason: Literal["", "stopped", "connection lost"]
    since: Time
    version: str


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a document."""
    made = model.model_json_schema(by_alias=True)
    made["title"] = f"anyECG {model.__name__.lower()}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _text(model: type[BaseModel]) -> str:
    return json.dumps(schema(model), indent=2, ensure_ascii=False) + "\n"


def pages() -> dict[Path, Callable[[], str]]:
    """Return where each schema lies and what makes it."""
    models = (Event, State, Status)
    return {Path(f"docs/schema/{model.__name__.lower()}.schema.json"): partial(_text, model) for model in models}
