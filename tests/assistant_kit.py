"""Questions with the plan a person would make of them: (question, tool, argument, time phrases)."""

from __future__ import annotations

QUESTIONS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("How many episodes of AF did I have last night?", "count", "af", ("last night",)),
    ("How many PVCs were there yesterday?", "count", "pvc", ("yesterday",)),
    ("Number of pauses in the past 24 hours", "count", "pause", ("in the past 24 hours",)),
    ("How often did VT occur this week?", "count", "vt", ("this week",)),
    ("Count the supraventricular ectopic beats since lunch", "count", "sve", ("since lunch",)),
    ("Did I have atrial fibrillation yesterday?", "list", "af", ("yesterday",)),
    ("Was there any ventricular tachycardia today?", "list", "vt", ("today",)),
    ("Were there pauses between 2 and 3?", "list", "pause", ("between 2 and 3",)),
    ("List all events of this morning", "list", "any", ("this morning",)),
    ("Show me every bradycardia in the last 3 days", "list", "bradycardia", ("in the last 3 days",)),
    ("When did the first AF episode of today start?", "first", "af", ("today",)),
    ("What was the first event after midnight?", "first", "any", ("after midnight",)),
    ("When was the last pause?", "last", "pause", ()),
    ("What is the most recent episode of VT?", "last", "vt", ()),
    ("What was the longest AF episode last night?", "longest", "af", ("last night",)),
    ("Longest pause this week?", "longest", "pause", ("this week",)),
    ("How long was I in AF yesterday?", "total_time", "af", ("yesterday",)),
    ("What percentage of last night was AF?", "total_time", "af", ("last night",)),
    ("What is my PVC burden today?", "total_time", "pvc", ("today",)),
    ("How much time in tachycardia since 10 pm yesterday?", "total_time", "tachycardia", ("since 10 pm yesterday",)),
    ("What was my average heart rate last night?", "heart_rate", "mean", ("last night",)),
    ("What was my highest pulse this morning?", "heart_rate", "max", ("this morning",)),
    ("What's the lowest heart rate in the last hour?", "heart_rate", "min", ("in the last hour",)),
    ("What is my heart rate right now?", "heart_rate", "latest", ("right now",)),
    ("How did my heart rate change over the past 24 hours?", "trend", "", ("over the past 24 hours",)),
    ("Show the heart rate trend of yesterday", "trend", "", ("yesterday",)),
    ("How much of last night was recorded?", "coverage", "", ("last night",)),
    ("Was the signal readable on 2026-03-28?", "coverage", "", ("on 2026-03-28",)),
    ("What happened last night?", "summary", "", ("last night",)),
    ("Give me a summary of yesterday", "summary", "", ("yesterday",)),
    ("Did the electrodes come off last night?", "list", "lead_off", ("last night",)),
    ("How many gaps in the recording today?", "count", "gap", ("today",)),
)
"""The argument is the label, or the aggregate for heart_rate."""
