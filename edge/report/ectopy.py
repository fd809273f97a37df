"""Patterns of ectopic beats, read from the order of the beats.

Couplet: two in a row; run: three or more. Bigeminy: normal and ventricular beats in turn, three ventricular ones at
least; trigeminy: every third beat ventricular, three times at least (Steinberg et al., 2017 ISHNE-HRS expert consensus
statement on ambulatory ECG, Heart Rhythm 14:e55-e96). What is not readable ends a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES

_BREAK = "|"
PATTERNS = {
    "v_single": re.compile(r"(?<!V)V(?!V)"),
    "couplet": re.compile(r"(?<!V)VV(?!V)"),
    "v_run": re.compile(r"V{3,}"),
    "s_single": re.compile(r"(?<!S)S(?!S)"),
    "s_couplet": re.compile(r"(?<!S)SS(?!S)"),
    "s_run": re.compile(r"S{3,}"),
    "bigeminy": re.compile(r"(?:NV){3,}(?!V)N?"),
    "trigeminy": re.compile(r"(?:NNV){3,}(?!V)"),
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """Beats [first, last) of the series."""

    name: str
    first: int
    last: int
    rate_bpm: float | None
    """Mean rate within it; None for a single beat."""

    @property
    def beats(self) -> int:
        return self.last - self.first


def find(kinds: NDArray[np.uint8], interval_s: NDArray[np.float64]) -> dict[str, list[Pattern]]:
    """Return every pattern of a beat series.

    Args:
        kinds: [n] indices of `BEAT_CLASSES`.
        interval_s: [n] RR interval that ends at each beat; NaN breaks the series before the beat.
    """
    text, index = _text(kinds, interval_s)
    return {name: list(_matches(name, pattern, text, index, interval_s)) for name, pattern in PATTERNS.items()}


def _text(kinds: NDArray[np.uint8], interval_s: NDArray[np.float64]) -> tuple[str, NDArray[np.int64]]:
    """Return a letter per beat with `_BREAK` where the series breaks, and the beat of each letter."""
    letters = np.array([ord(c) for c in BEAT_CLASSES], np.uint8)[kinds]
    breaks = np.flatnonzero(np.isnan(interval_s))
    text = np.insert(letters, breaks, ord(_BREAK))
    index = np.insert(np.arange(kinds.size), breaks, breaks)
    return text.tobytes().decode("ascii"), index


def _matches(
    name: str, pattern: re.Pattern[str], text: str, index: NDArray[np.int64], interval_s: NDArray[np.float64]
) -> Iterator[Pattern]:
    for match in pattern.finditer(text):
        first, last = int(index[match.start()]), int(index[match.end() - 1]) + 1
        inside = interval_s[first + 1 : last]
        rate = 60 * inside.size / float(inside.sum()) if inside.size else None
        yield Pattern(name, first, last, rate)
