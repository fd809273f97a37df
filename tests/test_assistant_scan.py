"""How spans are written, what is read of a long recording, and how model and engine are laid side by side."""

from __future__ import annotations

import itertools

import llama_cpp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.assistant.engine import beat_spans
from edge.assistant.pointing import point
from edge.assistant.reports import read_report, report_grammar
from edge.assistant.scan import beside, plan_clips, scan, similar_hops
from edge.assistant.wording import Span, merge, told, write_spans
from edge.rhythm.events import Beat


class Writer:
    """Stands for a model that has made up its mind: wants to write `text`, else the first token that is allowed."""

    def __init__(self, text: str = "", choices: list[int] | None = None) -> None:
        self.text, self.choices, self.said = text, choices or [], ""

    def again(self) -> None:
        self.said = ""

    def tokens(self, text: str) -> list[int]:
        return [0, *map(ord, text[5:])] if text.startswith(" none") else list(map(ord, text))

    def say(self, tokens: list[int]) -> None:
        self.said += "".join(" none" if token == 0 else chr(token) for token in tokens)

    def likeliest(self, among: list[int]) -> int:
        if self.choices:
            return among[self.choices.pop() % len(among)]
        rest = self.text.removeprefix(self.said.removeprefix("Q"))
        return next(
            (token for token in among if rest.startswith(" none" if token == 0 else chr(token)) and rest), among[0]
        )


places = st.lists(st.integers(0, 600), min_size=2, max_size=40, unique=True).map(sorted)


@given(places, st.data())
def test_a_model_that_wants_to_say_something_true_says_it(times: list[int], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(times), unique=True).map(sorted))
    wanted = [(a / 10, b / 10) for a, b in zip(chosen[::2], chosen[1::2], strict=False)]
    writer = Writer(write_spans(wanted) + "\n")
    assert point(writer, "Q", times) == wanted  # type: ignore[arg-type]
    assert writer.said == "Q" + write_spans(wanted) + "\n"


@given(places, st.lists(st.integers(0, 99), max_size=400))
def test_whatever_a_model_wants_its_spans_are_ordered_and_on_places(times: list[int], choices: list[int]) -> None:
    found: list[Span] = point(Writer(choices=choices), "Q", times)  # type: ignore[arg-type]
    edges = [edge for span in found for edge in span]
    assert edges == sorted(set(edges))
    assert set(edges) <= {time / 10 for time in times}


def test_answers_are_told_in_the_papers_words() -> None:
    assert told([(1.3, 2.9), (5.0, 6.2)], "PVC") == "Duration: 1.3s-2.9s, 5.0s-6.2s"
    assert told([], "SVPB") == "No Supraventricular premature beat Found"
    assert told(None, "LBBB") == "No Left bundle branch block beat Found"


def test_the_grammar_of_reports_is_taken_by_llama_cpp() -> None:
    for rate in (True, False):
        assert llama_cpp.LlamaGrammar.from_string(report_grammar(rate=rate), verbose=False) is not None


def test_a_report_is_read() -> None:
    said = read_report("Atrial fibrillation, 112 bpm. Ectopy: 3 PVCs and 1 SVPB. LBBB. Noise in part.")
    assert (said.rhythm, said.rate_bpm, said.pvcs, said.svpbs) == ("AFIB", 112, 3, 1)
    assert (said.conduction, said.quality) == ("LBBB", "partly")
    said = read_report("Sinus rhythm at 999 bpm. No ectopy. Good quality.")
    assert (said.rhythm, said.rate_bpm, said.pvcs, said.svpbs, said.conduction) == ("N", None, 0, 0, None)
    assert read_report("Rhythm: Asystole.").pvcs is None


def beat(sample: int, kind: str = "N", morphology: str = "narrow") -> Beat:
    return Beat(sample=sample, type=kind, confidence=1.0, morphology=morphology)  # type: ignore[arg-type]


def test_span_of_a_beat_is_from_the_beat_before_to_the_beat_after() -> None:
    beats = [beat(0), beat(100), beat(150, "V"), beat(300), beat(400), beat(450, "V")]
    assert beat_spans(beats, "PVC", 0, 500, 100.0) == [(1.0, 3.0), (4.0, 5.0)]
    assert beat_spans(beats, "PVC", 120, 500, 100.0) == [(0.0, 1.8), (2.8, 3.8)]
    assert beat_spans(beats, "SVPB", 0, 500, 100.0) == []


def embeddings(hops: int, special: dict[int, float]) -> np.ndarray:
    found = np.random.default_rng(0).normal(0, 1, (hops, 16)).astype(np.float32)
    for hop in special:
        found[hop] = 8.0 + np.arange(16)
    return found


def test_what_looks_like_a_mark_is_read_too() -> None:
    found = embeddings(1800, {100: 1, 700: 1, 1500: 1})
    assert similar_hops(found, [(200.0, 201.5)], 12)[:2] == [700, 1500]
    clips = plan_clips(3600.0, [(200.0, 201.5)], found)
    assert [(a <= 200 and b >= 201.5) for a, b in clips].count(True) == 1
    assert any(a <= 1400 <= b for a, b in clips)
    assert any(a <= 3001 <= b for a, b in clips)
    assert plan_clips(3600.0, [], found) == []


@given(st.lists(st.tuples(st.floats(0, 3599), st.floats(0.1, 400)), max_size=20))
def test_clips_fit_the_model_and_cover_every_mark(given_: list[tuple[float, float]]) -> None:
    marks = merge([(a, min(a + b, 3600.0)) for a, b in given_])
    clips = plan_clips(3600.0, marks, np.zeros((0, 16), np.float32))
    assert all(1 <= b - a <= 60.1 for a, b in clips)
    assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(clips))
    for start, end in marks:
        read = sum(max(0.0, min(b, end) - max(a, start)) for a, b in clips)
        assert read >= end - start - 0.3


def test_disagreement_is_shown() -> None:
    found = beside([(1.0, 2.0), (10.0, 12.0)], [(1.5, 2.5), (20.0, 21.0)])
    assert [(one.start_s, one.agreed) for one in found] == [(1.0, "both"), (10.0, "model"), (20.0, "engine")]


def test_a_scan_reads_the_candidates_and_tells_absolute_times() -> None:
    def read(start: float, end: float) -> list[tuple[float, float]] | None:
        return None if start > 1000 else [(start + 4.0, start + 5.0)]

    done = scan(3600.0, [(50.0, 51.0), (2000.0, 2001.0)], np.zeros((0, 16), np.float32), read)
    assert [(one.start_s, one.agreed) for one in done.found] == [(50.0, "both"), (2000.0, "engine")]
    assert done.unread == ((1996.0, 2005.0),)
    assert done.read_s == pytest.approx(9.0)
