"""Findings in plain words. They describe what was seen; they are no diagnosis and no alarm."""

from __future__ import annotations

from collections.abc import Mapping

NAMES = {
    "af": "Atrial fibrillation or flutter",
    "svt": "Supraventricular tachycardia",
    "vt": "Ventricular tachycardia",
    "vf": "Ventricular fibrillation or flutter",
    "pause": "Pause between heartbeats",
    "asystole": "No heartbeat seen",
    "bradycardia": "Slow heart rate",
    "tachycardia": "Fast heart rate",
    "extreme_bradycardia": "Very slow heart rate over a few beats",
    "extreme_tachycardia": "Very fast heart rate over a few beats",
    "ectopy_rate": "Many ventricular extra beats",
    "couplet": "Ventricular couplet",
    "run": "Run of slow ventricular beats",
    "bigeminy": "Bigeminy",
    "trigeminy": "Trigeminy",
    "r_on_t": "R-on-T beat",
    "gap": "Nothing recorded",
    "lead_off": "Electrodes off the body",
    "flat": "Flat line: the heart cannot be seen",
    "unreadable": "Signal too noisy to read",
    "link_lost": "No data from the device",
    "battery_low": "Battery of the device is low",
    "recording_stopped": "The device has stopped recording",
    "gateway_down": "The gateway was not running",
    "symptom": "Symptom noted",
}

AWAY = {
    "asleep": "asleep, not worn",
    "out_of_range": "out of range",
    "busy": "connected to another device",
    "no_bluetooth": "no Bluetooth at the gateway",
    "refused": "it does not start",
}
"""Why a Bluetooth device is away, where its link can tell."""


def sentence(
    rule: str, state: str, start_ns: int, end_ns: int, evidence: Mapping[str, object], *, retracted: bool
) -> str:
    """Return one sentence: what, whether it lasts, how long, at which rate."""
    name = NAMES.get(rule, rule)
    if (why := AWAY.get(str(evidence.get("link")))) is not None:
        name = f"{name} ({why})"
    if retracted:
        return f"{name}: withdrawn, a second look at the recording did not show it."
    parts = [f"for {duration(end_ns - start_ns)}" + (" so far" if state == "open" else "")]
    rate = evidence.get("hr_bpm")
    if isinstance(rate, int | float) and not isinstance(rate, bool):
        parts.append(f"at {rate:.0f} beats per minute")
    return f"{name} {', '.join(parts)}{', over' if state == 'closed' else ''}."


def duration(ns: int) -> str:
    """Return a length of time with two units at most: `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if ns < 60_000_000_000:
        return f"{max(ns, 0) / 1e9:.1f} s"
    seconds = ns // 1_000_000_000
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
