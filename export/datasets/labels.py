"""From the databases' own annotation codes to the encoder's labels, with the traps each database lays.

- Rhythm marks carry forward to the next mark; before the first one the rhythm is unknown.
- Ventricular flutter between `[` and `]` (mitdb 207) has waves (`!`) instead of beats: its beats are not known.
- vfdb writes VFIB, VF and VFL for what is VF here, NSR for N, PM for paced (P), and BI for first-degree block, which
  is an organised rhythm and no bigeminy. HGEA (high-grade ectopy) mixes runs and sinus beats: not used. NOISE says
  that nothing is readable, not what the heart does. vfdb has no beats at all.
- cinc2017 labels whole recordings: A is AF, N is sinus, O is only known not to be AF, ~ is unreadable.
- svdb has no rhythm marks, and its N includes bundle branch blocks: rhythm and the morphology of N are unknown there.
- AAMI EC57 puts paced beats and fusions with them into Q.
"""

from __future__ import annotations

from edge.encoder.contract import BEAT_CLASSES, MORPHOLOGIES, RHYTHMS
from export.datasets.record import UNKNOWN

_BEATS = {
    **dict.fromkeys("NLReBnj", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VEr", "V"),
    "F": "F",
    **dict.fromkeys("/fQ?", "Q"),
}
BEAT = {symbol: BEAT_CLASSES.index(name) for symbol, name in _BEATS.items()}
"""WFDB symbol to AAMI class."""

_MORPHOLOGY = {
    "N": "narrow",
    "L": "LBBB",
    "R": "RBBB",
    "/": "paced",
    "f": "paced",
    "V": "other",
    "E": "other",
    "F": "other",
}
MORPHOLOGY = {symbol: MORPHOLOGIES.index(name) for symbol, name in _MORPHOLOGY.items()}
"""WFDB symbol to morphology; symbols that say nothing about the QRS are absent."""

_RHYTHM = {
    **dict.fromkeys(("N", "NSR", "SBR", "BII", "BI", "PREX", "B", "T", "AB", "IVR", "NOD", "VER"), "N"),
    "AFIB": "AFIB",
    "AFL": "AFL",
    "SVTA": "SVTA",
    "VT": "VT",
    **dict.fromkeys(("VFL", "VF", "VFIB"), "VF"),
    **dict.fromkeys(("P", "PM"), "P"),
    "ASYS": "ASYS",
}
RHYTHM = {name: RHYTHMS.index(to) for name, to in _RHYTHM.items()} | {"HGEA": UNKNOWN, "NOISE": UNKNOWN}
"""WFDB rhythm name (without the parenthesis) to rhythm."""
DOUBTED = {("vfdb", "418"): "N"}
"""What a recording calls its rhythm but plainly is not, seen by eye: 418's N is a wide-QRS rhythm of 110-120/min
between its runs of flutter. Such seconds are unknown."""
