"""The words that question and answer share: names of labels and rhythms, and how spans are written."""

from __future__ import annotations

from collections.abc import Sequence

from edge.errors import BadInputError

Span = tuple[float, float]

NAMES = {
    "PVC": "premature ventricular contraction",
    "SVPB": "supraventricular premature beat",
    "LBBB": "left bundle branch block beat",
    "RBBB": "right bundle branch block beat",
    "paced": "paced beat",
    "AF": "atrial fibrillation",
    "VT": "ventricular tachycardia",
    "bigeminy": "bigeminy",
    "pause": "pause",
    "noise": "noise",
}
"""Long name of each label, as the anyECG paper asks for them."""
SHORT = {
    "PVC": ("PVC", "VPB", "ventricular ectopic beat"),
    "SVPB": ("SVPB", "PAC", "premature atrial beat"),
    "LBBB": ("LBBB", "left bundle branch block"),
    "RBBB": ("RBBB", "right bundle branch block"),
    "paced": ("pacing", "pacemaker beat"),
    "AF": ("AF", "AFib"),
    "VT": ("VT", "V-tach"),
    "bigeminy": ("ventricular bigeminy",),
    "pause": ("long RR interval",),
    "noise": ("unreadable signal", "artefact"),
}
LABEL_OF = {
    **{name.lower(): name for name in NAMES},
    "sve": "SVPB",
    "pac": "SVPB",
    "unreadable": "noise",
}
"""What may be asked for, rule names of events included → label."""
RHYTHM_NAMES = {
    "N": "sinus rhythm",
    "AFIB": "atrial fibrillation",
    "AFL": "atrial flutter",
    "SVTA": "supraventricular tachycardia",
    "VT": "ventricular tachycardia",
    "VF": "ventricular fibrillation",
    "P": "paced rhythm",
    "ASYS": "asystole",
}
"""WFDB rhythm to its name."""
NONE = " none"

MAX_SPANS = 40


def label_of(name: str) -> str:
    """Return the label that a name means. Raises `BadInputError` with the known ones."""
    label = LABEL_OF.get(name.lower())
    if label is None:
        raise BadInputError(f"{name!r} cannot be marked; known labels are {', '.join(NAMES)}")
    return label


def write_spans(spans: Sequence[Span]) -> str:
    """Return spans as the model writes them: ` 1.3-2.9 5.0-6.2`, ` none` without any."""
    return "".join(f" {start:.1f}-{end:.1f}" for start, end in spans) or NONE


def merge(spans: Sequence[Span]) -> list[Span]:
    """Return spans in order, those that overlap or touch made one."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def told(spans: Sequence[Span] | None, label: str) -> str:
    """Return an answer in the paper's words: `Duration: 1.3s-2.9s, 5.0s-6.2s` or `No … Found`."""
    if not spans:
        return f"No {NAMES[label][0].upper()}{NAMES[label][1:]} Found"
    return "Duration: " + ", ".join(f"{start:.1f}s-{end:.1f}s" for start, end in spans)
