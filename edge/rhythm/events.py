"""What rhythm says: beats, per-minute trends and findings, all in sample indices of the recording."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["info", "advisory", "urgent", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "advisory", "urgent", "critical")

RULES = (
    *("af", "svt", "vt", "vf", "pause", "asystole", "bradycardia", "tachycardia"),
    *("extreme_bradycardia", "extreme_tachycardia"),
    *("ectopy_rate", "couplet", "run", "bigeminy", "trigeminy", "r_on_t"),
    *("gap", "lead_off", "flat", "unreadable", "link_lost", "battery_low", "recording_stopped", "gateway_down"),
    "symptom",
)
SYSTEM_RULES = ("link_lost", "battery_low", "recording_stopped", "gateway_down")
"""Found by the gateway's clock, not in the signal."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat at its R peak."""

    sample: int
    type: str
    """AAMI class: N S V F Q."""
    confidence: float
    """P(beat) · P(class), 0-1."""
    morphology: str


@dataclass(frozen=True, slots=True)
class RhythmSpan:
    """A maximal span of one rhythm, for display and annotation files; [start, end) in samples."""

    rhythm: str
    """A name of `edge.encoder.contract.RHYTHMS`, or "" where nothing readable was recorded."""
    start_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class TrendMinute:
    """One data minute of a recording: minute m covers samples [m·60·fs, (m+1)·60·fs)."""

    minute: int
    hr_bpm: float | None
    """From the RR intervals within readable signal; None with fewer than 5 of them."""
    hr_min_bpm: float | None
    hr_max_bpm: float | None
    beats: dict[str, int]
    """Count per AAMI class."""
    readable_s: float
    recorded_s: float
    rhythm: str
    """The rhythm of most readable seconds, "" if none was readable."""
    af_s: float
    rmssd_ms: float | None = None
    """Of successive NN intervals (see `edge.rhythm.trends`); None with fewer than 20 of them."""
    sdnn_ms: float | None = None
    """Standard deviation of the NN intervals; None with fewer than 20."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth telling, from when it opened; a later one of the same `id` supersedes it."""

    id: str
    rule: str
    severity: Severity
    state: Literal["open", "closed"]
    start_sample: int
    end_sample: int
    """Exclusive; while open, how far it is known to reach."""
    opened_sample: int
    """The beat or second that opened it: frozen, part of the identity."""
    detected_sample: int
    """The newest sample that was needed to open it."""
    evidence: dict[str, float | int | str] = field(default_factory=dict)
    """Figures a person would ask for: beats, hr_bpm, confidence, threshold, …"""


def finding_id(recording: str, rule: str, opened_sample: int) -> str:
    """Return the 16-hex-digit identity of a finding: the same samples give the same id, whoever analyses them."""
    return hashlib.blake2b(f"{recording}\0{rule}\0{opened_sample}".encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Current:
    """How things stand at the end of a hop, for a subscriber that only wants to know now."""

    hr_bpm: float | None
    """Mean of up to 10 RR intervals that ended within the newest 15 s; None without one, or when not readable."""
    rhythm: str
    """The confirmed rhythm, "" while there is none."""
    signal: str
    """One of `edge.rhythm.seconds.SIGNALS`, of the newest second."""
    quality: float | None
    """P(readable) of the newest second, None where nothing was recorded."""

    @property
    def readable(self) -> bool:
        """Whether the newest second can be read."""
        return self.signal == "readable"


@dataclass(frozen=True, slots=True)
class HopResult:
    """What one hop added. Nothing in it is ever revised, except findings by a later one of the same id."""

    beats: list[Beat]
    """Final, in order."""
    findings: list[Finding]
    """Opened, escalated, updated or closed in this hop, each id at most once (a short one appears only closed)."""
    trends: list[TrendMinute]
    spans: list[RhythmSpan]
    """Closed spans, in order and without holes. A long one comes in pieces (see `edge.rhythm.label.extend_spans`)."""
    current: Current
