"""Two to four ECGs compared: the model reads each on its own, code lays the readings side by side.

Shown several ECGs at once the model names the right one less than half of the time (docs/assistant.md): it sees what is
in each and cannot weigh one against the other. So it is asked about one after the other, and what is faster, more or
different is computed. Questions of another kind go to the model with all ECGs in the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from edge.assistant.look import Clip, Looker
from edge.assistant.reports import Attributes, read_report, upper
from edge.assistant.wording import NAMES, RHYTHM_NAMES, SHORT
from edge.errors import BadInputError

ENOUGH_BPM = 5
"""Rates that differ by less are not told apart."""
UNKNOWN = "Not known"
_FAST, _SLOW = re.compile(r"\b(fast|high|quick)"), re.compile(r"\b(slow|low)")
_MOST, _SAME = re.compile(r"\b(most|more|frequent|often)"), re.compile(r"\b(same|unchanged|alike)\b")
_CHANGED = re.compile(r"\b(chang|differ|compar)")
_COUNTED = {"PVC": "pvcs", "SVPB": "svpbs"}


class Told(Protocol):
    """What is compared of an ECG; None is unknown."""

    @property
    def rate_bpm(self) -> int | None: ...
    @property
    def rhythm(self) -> str | None: ...
    @property
    def pvcs(self) -> int | None: ...
    @property
    def quality(self) -> str | None: ...


def changes(a: Told, b: Told) -> str | None:
    """Return what changed from one ECG to another in rate, rhythm, PVCs and quality; None if too little is known."""
    if a.rate_bpm is None or b.rate_bpm is None or a.rhythm is None or b.rhythm is None:
        return None
    if a.pvcs is None or b.pvcs is None or a.quality is None or b.quality is None:
        return None
    said = []
    if abs(a.rate_bpm - b.rate_bpm) >= ENOUGH_BPM:
        said.append(f"rate {'up' if b.rate_bpm > a.rate_bpm else 'down'} from {a.rate_bpm} to {b.rate_bpm} bpm")
    if a.rhythm != b.rhythm:
        said.append(f"rhythm from {RHYTHM_NAMES[a.rhythm]} to {RHYTHM_NAMES[b.rhythm]}")
    if a.pvcs != b.pvcs:
        said.append(f"PVCs from {a.pvcs} to {b.pvcs}")
    if a.quality != b.quality:
        said.append(f"quality from {a.quality} to {b.quality}")
    return upper("; ".join(said)) if said else "No change"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about several ECGs: `fastest`, `slowest`, `most`, `which`, `same` or `changed`."""

    kind: str
    label: str = ""
    pair: tuple[int, int] = (0, 1)
    """The ECGs that `changed` compares, from 0."""

    @staticmethod
    def of(question: str, ecgs: int) -> Asked | None:
        """Return what a question asks; None if it is of another kind.

        Raises:
            BadInputError: it names an ECG that is not among them.
        """
        text = question.lower()
        label = label_in(text)
        if label in _COUNTED and _MOST.search(text):
            return Asked("most", label)
        if label:
            return Asked("which", label)
        if "rhythm" in text and _SAME.search(text):
            return Asked("same")
        if _CHANGED.search(text):
            named = [int(n) - 1 for n in re.findall(r"\becg (\d+)", text)] or [0, ecgs - 1]
            if any(not 0 <= n < ecgs for n in named):
                raise BadInputError(f"{question!r} names an ECG that is not there: there are {ecgs}, from ECG 1")
            return Asked("changed", pair=(min(named), max(named))) if len(named) == 2 else None
        if _FAST.search(text):
            return Asked("fastest")
        return Asked("slowest") if _SLOW.search(text) else None


def label_in(text: str) -> str:
    """Return the label that a lower-case text names, the longest name first; empty if none."""
    names = [(name.lower(), label) for label, long in NAMES.items() for name in (long, *SHORT[label])]
    for name, label in sorted(names, key=lambda one: -len(one[0])):
        if re.search(rf"\b{re.escape(name)}s?\b", text):
            return label
    return ""


class Comparison:
    """Two to four ECGs; each is read once, however much is asked."""

    def __init__(self, looker: Looker, clips: Sequence[Clip]) -> None:
        self._looker, self._clips = looker, clips
        self._shown: dict[str, list[bool]] = {}

    def answer(self, question: str) -> str:
        """Return the answer in a line. Raises `BadInputError` if the question names an ECG that is not there."""
        asked = Asked.of(question, len(self._clips))
        if asked is None:
            return self._looker.tell(self._clips, question)
        if asked.kind == "which":
            return named(self._shows(asked.label))
        if asked.kind == "changed":
            a, b = asked.pair
            return changes(self._reports[a], self._reports[b]) or UNKNOWN
        if asked.kind == "same":
            rhythms = {one.rhythm for one in self._reports}
            return UNKNOWN if None in rhythms else "Yes" if len(rhythms) == 1 else "No"
        if asked.kind == "most":
            return self._extreme(_COUNTED[asked.label], max)
        return self._extreme("rate_bpm", max if asked.kind == "fastest" else min)

    @cached_property
    def _reports(self) -> list[Attributes]:
        return [read_report(self._looker.report(clip)) for clip in self._clips]

    def _shows(self, label: str) -> list[bool]:
        if label not in self._shown:
            self._shown[label] = [bool(self._looker.spans(clip, label)) for clip in self._clips]
        return self._shown[label]

    def _extreme(self, attribute: str, of: Callable[[list[int]], int]) -> str:
        values: list[int | None] = [getattr(one, attribute) for one in self._reports]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return UNKNOWN
        return named([value == of(known) for value in values])


def named(chosen: Sequence[bool]) -> str:
    """Return the ECGs that are chosen: `ECG 1 and ECG 3`, `None`."""
    return " and ".join(f"ECG {n + 1}" for n, one in enumerate(chosen) if one) or "None"
