"""Whether a finding is true, by the annotations of its record.

A finding is true if the annotated beats or rhythms show the same within it, give or take `AROUND_S`. VT, VF and flutter
count for one another: who is told of either looks at the same strip. Rates are those of the annotated beats within the
finding, and may miss the limit by 5 bpm or 10 % (AAMI EC13). Signal rules are judged only where noise is annotated,
and VT is not judged in what vfdb calls HGEA: high-grade ectopy with runs in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES
from edge.rhythm.rules import Rules
from export.datasets.labels import BEAT

AROUND_S = 3.0
_RULES = Rules()
_VENTRICULAR = ("VT", "VFL", "VF", "VFIB")
_RHYTHMS = {
    "af": ("AFIB", "AFL"),
    "svt": ("SVTA",),
    "vt": _VENTRICULAR,
    "vf": _VENTRICULAR,
    "asystole": ("ASYS",),
    "unreadable": ("NOISE",),
    "bigeminy": ("B",),
    "trigeminy": ("T",),
}
_TURNS = ("bigeminy", "trigeminy")
_PATTERNS = {
    "svt": r"S{4,}",
    "vt": r"V{3,}",
    "run": r"V{3,}",
    "couplet": r"(?<!V)VV(?!V)",
    "bigeminy": r"(?:NV){3,}",
    "trigeminy": r"(?:NNV){3,}",
}
_LIMITS = {
    "bradycardia": ("below", _RULES.bradycardia.limit_bpm),
    "extreme_bradycardia": ("below", _RULES.extreme_bradycardia.limit_bpm),
    "tachycardia": ("above", _RULES.tachycardia.limit_bpm),
    "extreme_tachycardia": ("above", _RULES.extreme_tachycardia.limit_bpm),
}
_SILENCE_S = {"pause": _RULES.pause.min_s, "asystole": _RULES.asystole.min_s}


@dataclass(frozen=True)
class Reference:
    """The annotations of one record."""

    beat_s: NDArray[np.float64]
    kinds: str
    """An AAMI class per beat."""
    rhythms: list[tuple[str, float, float]]
    """(WFDB name, from, to) in seconds."""
    has_beats: bool
    has_noise: bool

    @classmethod
    def read(cls, path: Path, *, beats: bool) -> Reference:
        """Read `path.atr`; vfdb has no beats."""
        notes = wfdb.rdann(str(path), "atr")
        fs_hz = float(wfdb.rdheader(str(path)).fs)
        at_s = np.asarray(notes.sample) / fs_hz
        is_beat = np.array([symbol in BEAT for symbol in notes.symbol]) & beats
        marks = [
            (str(aux).strip("\0 ")[1:], float(t))
            for t, aux in zip(at_s, notes.aux_note, strict=True)
            if str(aux).startswith("(")
        ]
        flutter = [("[", float(t)) for t, s in zip(at_s, notes.symbol, strict=True) if s == "["]
        ends = [float(t) for t, s in zip(at_s, notes.symbol, strict=True) if s == "]"]
        stops = [*(t for _, t in marks[1:]), np.inf]
        rhythms = [(name, t, stop) for (name, t), stop in zip(marks, stops, strict=True)]
        rhythms += [("VFL", t, end) for (_, t), end in zip(flutter, ends, strict=False)]
        kinds = "".join(BEAT_CLASSES[BEAT[s]] for s, there in zip(notes.symbol, is_beat.tolist(), strict=True) if there)
        return cls(at_s[is_beat], kinds, rhythms, beats, any(name == "NOISE" for name, _, _ in rhythms))

    def verdict(self, rule: str, start_s: float, end_s: float) -> str:
        """Return "true", "false", or "not judged" where the annotations cannot tell."""
        start_s, end_s = start_s - AROUND_S, end_s + AROUND_S
        judged = [self._by_rhythm(rule, start_s, end_s), self._by_beats(rule, start_s, end_s)]
        known = [verdict for verdict in judged if verdict is not None]
        if any(known):
            return "true"
        mixed = rule in ("vt", "vf") and any(
            name == "HGEA" and a < end_s and b > start_s for name, a, b in self.rhythms
        )
        return "not judged" if mixed or not known else "false"

    def _by_rhythm(self, rule: str, start_s: float, end_s: float) -> bool | None:
        names = _RHYTHMS.get(rule)
        if names is None or (rule == "unreadable" and not self.has_noise) or (rule in _TURNS and not self.has_beats):
            return None
        return any(name in names and a < end_s and b > start_s for name, a, b in self.rhythms)

    def _by_beats(self, rule: str, start_s: float, end_s: float) -> bool | None:
        if not self.has_beats:
            return None
        first, last = np.searchsorted(self.beat_s, [start_s, end_s])
        kinds, beat_s = self.kinds[first:last], self.beat_s[first:last]
        if rule in _PATTERNS:
            return re.search(_PATTERNS[rule], kinds) is not None
        if rule in _LIMITS:
            return self._rate(*_LIMITS[rule], beat_s)
        if rule in _SILENCE_S:
            around = self.beat_s[max(first - 1, 0) : last + 1]
            return bool(around.size < 2 or np.diff(around).max() > _SILENCE_S[rule])
        if rule == "ectopy_rate":
            v_s = beat_s[[kind == "V" for kind in kinds]]
            most = max((int(np.searchsorted(v_s, t + 60) - i) for i, t in enumerate(v_s)), default=0)
            return most > _RULES.ectopy_rate.per_min
        if rule == "r_on_t":
            rr_s = np.diff(beat_s)
            early = [kind == "V" for kind in kinds[1:]]
            return bool(rr_s.size and (rr_s[early] < 0.4 * np.median(rr_s)).any())
        return None

    def _rate(self, side: str, limit_bpm: float, beat_s: NDArray[np.float64]) -> bool:
        inside = beat_s[(beat_s >= beat_s[0] + AROUND_S) & (beat_s <= beat_s[-1] - AROUND_S)] if beat_s.size else beat_s
        if inside.size < 2:
            return side == "below"
        bpm = 60 / float(np.median(np.diff(inside)))
        margin = max(5.0, 0.1 * limit_bpm)
        return bpm < limit_bpm + margin if side == "below" else bpm > limit_bpm - margin
