"""What a question about several ECGs asks, and the answers computed from what the model reads of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest

from edge.assistant.comparing import UNKNOWN, Asked, Comparison
from edge.assistant.look import Clip, Looker
from edge.errors import BadInputError


@dataclass
class Eyes:
    """Readings given by hand; counts how often an ECG is read."""

    reports: Sequence[str]
    shows: Sequence[Sequence[str]]
    read: list[str] = field(default_factory=list)

    def report(self, clip: Clip) -> str:
        self.read.append("report")
        return self.reports[int(clip.ecg[0, 0])]

    def spans(self, clip: Clip, label: str) -> list[tuple[float, float]]:
        self.read.append(label)
        return [(0.0, 1.0)] if label in self.shows[int(clip.ecg[0, 0])] else []

    def tell(self, clips: Sequence[Clip], question: str) -> str:
        return f"the model about {len(clips)} ECGs"


def comparison(eyes: Eyes) -> Comparison:
    clips = [Clip(np.full((1, 1280), n, np.float32)) for n in range(len(eyes.reports))]
    return Comparison(cast(Looker, eyes), clips)


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Which one is fastest?", Asked("fastest")),
        ("In which ECG is the rate lowest?", Asked("slowest")),
        ("Where are more PVCs?", Asked("most", "PVC")),
        ("Which ones have PACs?", Asked("which", "SVPB")),
        ("In which of them is there atrial fibrillation?", Asked("which", "AF")),
        ("Which ECGs contain left bundle branch block beats?", Asked("which", "LBBB")),
        ("Which shows V-tach?", Asked("which", "VT")),
        ("Is the rhythm unchanged?", Asked("same")),
        ("Do all ECGs have the same rhythm?", Asked("same")),
        ("How does ECG 3 differ from ECG 2?", Asked("changed", pair=(1, 2))),
        ("What changed?", Asked("changed", pair=(0, 2))),
        ("Which has the longest QT?", None),
    ],
)
def test_a_question_says_what_it_asks(question: str, asked: Asked | None) -> None:
    assert Asked.of(question, 3) == asked


def test_an_ecg_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadInputError, match="there are 2, from ECG 1"):
        Asked.of("What changed from ECG 1 to ECG 4?", 2)


def test_each_ecg_is_read_once_and_compared_by_code() -> None:
    eyes = Eyes(
        [
            "Sinus rhythm, 62 bpm. No ectopy. Narrow QRS. Good quality.",
            "Atrial fibrillation, 104 bpm. There are 3 PVCs. Narrow QRS. Noise in part.",
            "Sinus rhythm, 64 bpm. No ectopy. Narrow QRS. Good quality.",
        ],
        [[], ["AF", "PVC"], []],
    )
    both = comparison(eyes)
    assert both.answer("Which one is fastest?") == "ECG 2"
    assert both.answer("Which ECG has the lowest heart rate?") == "ECG 1"
    assert both.answer("In which ECG are PVCs most frequent?") == "ECG 2"
    assert both.answer("Do all ECGs have the same rhythm?") == "No"
    assert both.answer("Compare ECG 1 and ECG 2.") == (
        "Rate up from 62 to 104 bpm; rhythm from sinus rhythm to atrial fibrillation; PVCs from 0 to 3; "
        "quality from good to partly"
    )
    assert both.answer("What changed from ECG 1 to ECG 3?") == "No change"
    assert eyes.read == ["report"] * 3
    assert both.answer("Which ECGs contain AFib?") == "ECG 2"
    assert both.answer("Which ECG shows VT?") == "None"
    assert both.answer("Which of them would worry you?") == "the model about 3 ECGs"
    assert eyes.read == ["report"] * 3 + ["AF"] * 3 + ["VT"] * 3


def test_what_the_model_cannot_tell_is_not_guessed() -> None:
    two = comparison(Eyes(["Sinus rhythm. No ectopy. Good quality.", "Sinus rhythm, 64 bpm. No ectopy."], [[], []]))
    assert two.answer("Which one is fastest?") == UNKNOWN
    assert two.answer("What changed from ECG 1 to ECG 2?") == UNKNOWN
