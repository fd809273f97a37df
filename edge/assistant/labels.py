"""What can be asked about: labels (rule names, beats, severities), what they are called, and the terms explained."""

from __future__ import annotations

from edge.rhythm.events import RULES, SYSTEM_RULES

BEAT_LABELS = {
    "pvc": ("V",),
    "sve": ("S",),
    "ectopic_beats": ("S", "V", "F"),
    "all_beats": ("N", "S", "V", "F", "Q"),
}
"""Labels that count beats → AAMI classes."""
ANY = "any"
"""Every rule."""
SEVERITY_LABELS = {"serious": ("urgent", "critical"), "critical": ("critical",)}
"""Labels that stand for every rule of these severities."""
GENERAL_LABELS = (ANY, *SEVERITY_LABELS)
EVENT_LABELS = (*RULES, *GENERAL_LABELS)
"""Labels that stand for findings, with an onset and a length."""
LABELS = (*RULES, *BEAT_LABELS, *GENERAL_LABELS)
MORPHOLOGY_LABELS = ("lbbb", "rbbb", "paced", "noise")
"""Labels that only the model that looks can mark."""
TERMS = (
    *(label for label in (*RULES, *BEAT_LABELS) if label != "all_beats"),
    *("heart_rate", "hrv", "sdnn", "rmssd", "pnn50", "pr", "qrs", "qt", "qtc", "sinus_rhythm", "burden", "lead"),
    *("strip", "holter", "lbbb", "rbbb", "paced", "st_segment", "t_wave", "p_wave", "r_peak", "readable", "coverage"),
)
"""What the glossary explains."""
SIGNAL_RULES = frozenset({"gap", "lead_off", "flat", "unreadable", *SYSTEM_RULES, "symptom"})
"""Rules about the recording or the wearer's own doing: they rest on recorded, not on readable time."""

SPOKEN = {
    "af": ("episode of atrial fibrillation", "episodes of atrial fibrillation"),
    "svt": ("episode of supraventricular tachycardia", "episodes of supraventricular tachycardia"),
    "vt": ("episode of ventricular tachycardia", "episodes of ventricular tachycardia"),
    "vf": ("episode of ventricular fibrillation or flutter", "episodes of ventricular fibrillation or flutter"),
    "pause": ("pause", "pauses"),
    "asystole": ("episode of asystole", "episodes of asystole"),
    "bradycardia": ("episode of bradycardia", "episodes of bradycardia"),
    "tachycardia": ("episode of tachycardia", "episodes of tachycardia"),
    "extreme_bradycardia": ("episode of very slow beats", "episodes of very slow beats"),
    "extreme_tachycardia": ("episode of very fast beats", "episodes of very fast beats"),
    "ectopy_rate": ("period of frequent ventricular ectopy", "periods of frequent ventricular ectopy"),
    "couplet": ("couplet", "couplets"),
    "run": ("run of ectopic beats", "runs of ectopic beats"),
    "bigeminy": ("episode of bigeminy", "episodes of bigeminy"),
    "trigeminy": ("episode of trigeminy", "episodes of trigeminy"),
    "r_on_t": ("R-on-T beat", "R-on-T beats"),
    "gap": ("gap in the recording", "gaps in the recording"),
    "lead_off": ("lead-off period", "lead-off periods"),
    "flat": ("flat-line period", "flat-line periods"),
    "unreadable": ("unreadable period", "unreadable periods"),
    "link_lost": ("lost connection", "lost connections"),
    "battery_low": ("low-battery report", "low-battery reports"),
    "recording_stopped": ("stop of the recording", "stops of the recording"),
    "gateway_down": ("time without the gateway", "times without the gateway"),
    "symptom": ("symptom mark", "symptom marks"),
    "pvc": ("ventricular ectopic beat", "ventricular ectopic beats"),
    "sve": ("supraventricular ectopic beat", "supraventricular ectopic beats"),
    "ectopic_beats": ("ectopic beat", "ectopic beats"),
    "all_beats": ("beat", "beats"),
    ANY: ("event", "events"),
    "serious": ("urgent or critical event", "urgent or critical events"),
    "critical": ("critical event", "critical events"),
}
"""Label → one, several."""
