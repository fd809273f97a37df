"""How spans are written, what is read of a long recording, and how model and engine are laid side by side."""

from __future__ import annotations

import itertools

import llama_cpp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.assistant.candidates import Blocks, Embeddings, candidates, similar
from edge.assistant.engine import beat_spans
from edge.assistant.pointing import point
from edge.assistant.reports import read_report, report_grammar
from edge.assistant.scan import Budget, scan
from edge.assistant.wording import Span, merge, told, write_spans
from edge.clock import ManualClock
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
    for numbers in ((72, 3, 1), (72, 0, 0), (None, 0, 2)):
        assert llama_cpp.LlamaGrammar.from_string(report_grammar(*numbers), verbose=False) is not None
    assert '"3 PVCs and 1 SVPB"' in report_grammar(72, 3, 1)
    assert "PVC" not in report_grammar(72, 0, 0)


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


def hops(count: int, *special: int) -> Blocks:
    """Return embeddings of noise but for the special ones, in two blocks."""
    vectors = np.random.default_rng(0).normal(0, 1, (count, 16)).astype(np.float32)
    vectors[list(special)] = 8.0 + np.arange(16)
    vectors[5] = np.nan
    at_s = 2.0 * np.arange(count)
    return lambda: [(at_s[: count // 3], vectors[: count // 3]), (at_s[count // 3 :], vectors[count // 3 :])]


def nothing() -> list[Embeddings]:
    return []


def test_what_looks_like_a_mark_is_read_too() -> None:
    found = hops(1800, 100, 700, 1500)
    assert [at for at, _ in similar(found, [(200.0, 201.5)], 12)] == [1400.0, 3000.0]
    assert similar(found, [(200.0, 201.5)], 1) == similar(found, [(200.0, 201.5)], 12)[:1]
    clips = candidates(3600.0, [(200.0, 201.5)], found)
    assert [clip.marked_s for clip in clips] == [1.5, 0.0, 0.0]
    assert clips[0].start_s < 200
    assert all(clip.start_s <= at <= clip.end_s for clip, at in zip(clips[1:], (1401, 3001), strict=True))
    assert candidates(3600.0, [], found) == []


def test_a_mark_that_nothing_resembles_is_read_alone() -> None:
    assert similar(hops(1800), [(200.0, 201.5)], 12) == []
    assert similar(hops(1800), [(10.0, 11.5)], 12) == [], "the hop of the mark has no embedding"


def test_most_is_marked_first_and_every_third_only_resembles() -> None:
    marks = [(200.0, 202.0), (1000.0, 1004.0), (2000.0, 2003.0)]
    clips = candidates(3600.0, marks, hops(1800, 100, 101, 700, 1500))
    assert [clip.marked_s > 0 for clip in clips] == [True, True, False, True, False]
    assert [clip.marked_s for clip in clips if clip.marked_s] == [4.0, 3.0, 2.0]


def test_of_long_marks_the_beginnings_come_first() -> None:
    clips = candidates(3600.0, [(100.0, 250.0), (1000.0, 1150.0)], nothing)
    assert [round(clip.start_s) for clip in clips[:2]] == [96, 996]
    assert {round(clip.start_s) for clip in clips[2:4]} == {122, 1022}


@given(st.lists(st.tuples(st.floats(0, 3599), st.floats(0.1, 400)), max_size=20), st.booleans())
def test_clips_fit_the_model_and_cover_every_mark(given_: list[tuple[float, float]], whole: bool) -> None:
    marks = merge([(a, min(a + b, 3600.0)) for a, b in given_])
    clips = sorted((clip.start_s, clip.end_s) for clip in candidates(3600.0, marks, nothing, whole=whole))
    assert all(0.9 <= b - a <= 30.1 for a, b in clips)
    assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(clips))

    def read(start: float, end: float) -> float:
        return sum(max(0.0, min(b, end) - max(a, start)) for a, b in clips)

    assert all(read(start, end) >= end - start - 0.3 for start, end in marks)
    if whole:
        assert read(0.0, 3600.0) >= 3600.0 - len(marks) - 2


def one_each(start: float, end: float) -> tuple[list[Span], float]:
    """A model that sees a span in every clip, from the fourth to the fifth second."""
    return [(start + 4.0, start + 5.0)], end - start


def test_who_says_so_is_told() -> None:
    def read(start: float, end: float) -> tuple[list[Span], float]:
        if start > 2000:
            return [], 0.0
        return [(50.0, 52.5), (56.0, 57.0)] if start < 100 else [], end - start

    marks = [(50.0, 51.0), (52.0, 53.0), (500.0, 501.0), (2100.0, 2101.0)]
    done = scan(3600.0, marks, nothing, read, budget=Budget())
    assert done.looked_at == marks[:3]
    assert done.agreed == marks[:2]
    assert (done.engine_only, done.model_only) == ([(500.0, 501.0)], [(56.0, 57.0)])
    assert done.unread == ((2096.0, 2105.0),)
    assert done.read_s == pytest.approx(20.0)
    assert not done.whole
    assert [(one.start_s, one.agreed, one.read) for one in done.found] == [
        *((50.0, "both", True), (56.0, "model", True), (500.0, "engine", True), (2100.0, "engine", False))
    ]


def test_half_an_hour_is_read_whole() -> None:
    done = scan(1800.0, [(50.0, 51.0)], nothing, one_each, budget=Budget())
    assert done.whole
    assert done.read_s == pytest.approx(1800.0, abs=1)
    assert not done.left


def test_no_more_than_half_an_hour_is_read() -> None:
    marks = [(60.0 * n, 60.0 * n + 2 + n / 200) for n in range(400)]
    done = scan(24_000.0, marks, nothing, one_each, budget=Budget())
    assert 1780 < done.read_s <= 1801
    assert len(done.clips) + len(done.left) == 400
    assert min(start for start, _ in done.clips) > max(start for start, _ in done.left), "the longest marks are last"


def test_reading_ends_in_time_with_the_most_promising_read() -> None:
    clock = ManualClock()

    def read(start: float, end: float) -> tuple[list[Span], float]:
        clock.advance(0.3 * (end - start))
        return one_each(start, end)

    marks = [(200.0 * n, 200.0 * n + 2) for n in range(1, 18)] + [(3600.0, 3612.0)]
    done = scan(7200.0, marks, nothing, read, budget=Budget(40.0, clock))
    assert 35 < clock.monotonic_s() <= 40
    assert (3596.0, 3616.0) in done.clips
    assert done.left == tuple((200.0 * n - 4, 200.0 * n + 6) for n in range(12, 18))
    assert done.left_s == pytest.approx(60.0)
    assert len(done.looked_at) == 12


def test_on_the_slowest_machine_one_clip_is_read() -> None:
    clock = ManualClock()
    budget = Budget(40.0, clock)
    clock.advance(50.0)  # looking for candidates took all the time
    done = scan(7200.0, [(100.0, 101.0), (900.0, 901.0)], nothing, one_each, budget=budget)
    assert (len(done.clips), len(done.left)) == (1, 1)
