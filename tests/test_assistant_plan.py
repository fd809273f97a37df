"""Plans: the grammar admits only steps, the words of the question are the judge, nothing read can steer."""

from __future__ import annotations

import random
import re

import pytest
from assistant_kit import QUESTIONS
from hypothesis import given
from hypothesis import strategies as st

from edge.assistant.examples import EXAMPLES, nearest
from edge.assistant.guard import DIAGNOSIS, EMERGENCY, MEDICINE, fixed_answer
from edge.assistant.keywords import MAX_STEPS, TOOLS, agrees, grammar, keyword_steps, make_plan, parse_step
from edge.assistant.labels import LABELS, SPOKEN
from edge.assistant.plan import Step, plain
from edge.assistant.vocabulary import read_words
from edge.rhythm.events import RULES


class Script:
    """A planner that writes what it is told to."""

    name = "script"

    def __init__(self, text: str) -> None:
        self.text = text

    def complete(self, question: str, grammar: str) -> str:
        return self.text


def argument(step: Step) -> str:
    return step.args.get("label") or step.args.get("aggregate") or ""


@pytest.mark.parametrize("case", QUESTIONS, ids=lambda case: case[0])
def test_keywords_plan_ordinary_questions(case: tuple[str, str, str, tuple[str, ...]]) -> None:
    question, tool, value, phrases = case
    words = read_words(question)
    steps = keyword_steps(words, "ann")
    assert [(step.tool, argument(step)) for step in steps] == [(tool, value)]
    assert words.phrases == phrases
    assert words.unknown_time is None
    assert words.unsupported is None


def test_every_example_is_planned_as_it_says_and_none_is_a_test_question() -> None:
    for question, tool, value, phrase in EXAMPLES:
        steps = keyword_steps(read_words(question), "ann")
        assert [(s.tool, argument(s), s.args["period"]) for s in steps] == [(tool, value, phrase)]
    assert not {e[0].lower() for e in EXAMPLES} & {q[0].lower() for q in QUESTIONS}


def test_the_nearest_examples_come_last() -> None:
    lines = nearest("How many pauses were there last night?").strip().split("\n")
    assert lines[-2] == "Q: How many pauses were there last night?"
    assert len(lines) == 2 * 3


def test_several_labels_or_periods_make_several_steps_up_to_a_limit() -> None:
    words = read_words("How many PVCs and couplets last night and yesterday?")
    steps = keyword_steps(words, "ann")
    assert [(s.tool, argument(s), s.args["period"]) for s in steps] == [
        ("count", "couplet", "last night"),
        ("count", "pvc", "last night"),
        ("count", "couplet", "yesterday"),
        ("count", "pvc", "yesterday"),
    ]
    many = "How many pauses, couplets, runs, PVCs, AF, VT and VF"
    assert len(keyword_steps(read_words(many), "ann")) == MAX_STEPS


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("any SVT", "svt"),
        ("supraventricular tachycardia", "svt"),
        ("ventricular tachycardia", "vt"),
        ("tachycardia", "tachycardia"),
        ("ventricular fibrillation", "vf"),
        ("a-fib", "af"),
        ("ventricular ectopic beats", "pvc"),
        ("supraventricular ectopic beats", "sve"),
        ("extra beats", "ectopic_beats"),
    ],
)
def test_names_that_contain_each_other_are_told_apart(question: str, label: str) -> None:
    assert read_words(question).labels == (label,)


@pytest.mark.parametrize(
    "question", ["What was my QT interval?", "Any ST elevation today?", "my blood pressure", "HRV"]
)
def test_what_is_not_measured_is_named(question: str) -> None:
    assert read_words(question).unsupported is not None


@pytest.mark.parametrize("question", ["PVCs while asleep", "AF in spring", "pauses in the last few nights"])
def test_times_that_code_cannot_resolve_are_noticed(question: str) -> None:
    assert read_words(question).unknown_time is not None


def test_a_step_that_agrees_is_kept_with_the_wearer_filled_in_by_code() -> None:
    words = read_words("How many PVCs last night?")
    planned = make_plan(
        "", words, ["ann"], "ann", Script('{"tool":"count","label":"pvc","period":"last night","wearer":""}')
    )
    assert planned.fallback is False
    assert planned.steps == (Step("count", {"label": "pvc", "period": "last night", "wearer": "ann"}),)


@pytest.mark.parametrize(
    "text",
    [
        '{"tool":"count","label":"af","period":"last night","wearer":""}',
        '{"tool":"count","label":"pvc","period":"","wearer":""}',
        '{"tool":"count","label":"pvc","period":"last night","wearer":"bob"}',
        '{"tool":"longest","label":"af","period":"last night","wearer":""}',
        '{"tool":"summary","period":"last night","wearer":""}',
        '{"tool":"count","label":"pvc","peri',
        '{"tool":"drop table","label":"pvc","period":"","wearer":""}',
        '{"tool":"count","label":"pvc; delete","period":"last night","wearer":""}',
        "999",
        "null",
        "",
    ],
)
def test_a_step_that_contradicts_the_question_falls_back_and_says_so(text: str) -> None:
    planned = make_plan("", read_words("How many PVCs last night?"), ["ann", "bob"], "ann", Script(text))
    assert planned.fallback is True
    assert planned.steps == (Step("count", {"label": "pvc", "period": "last night", "wearer": "ann"}),)


def test_where_the_words_leave_the_tool_open_the_model_may_choose_it() -> None:
    words = read_words("Tell me about AF last night")
    step = parse_step('{"tool":"longest","label":"af","period":"last night","wearer":""}')
    assert agrees(step, words, "ann")


def test_the_polarity_of_a_question_does_not_change_its_plan() -> None:
    asked = [keyword_steps(read_words(q), "a") for q in ("Did I have AF today?", "Did I not have AF today?")]
    assert asked[0] == asked[1]


def sample(rules: dict[str, str], rule: str, rng: random.Random) -> str:
    """Return a random sentence of a GBNF made of alternatives, sequences, literals and rule names."""
    choice = rng.choice(_split(rules[rule], " | "))
    parts = re.findall(r'"(?:[^"\\]|\\.)*"|[a-z-]+', choice)
    return "".join(
        re.sub(r"\\(.)", r"\1", part[1:-1]) if part[0] == '"' else sample(rules, part, rng) for part in parts
    )


def _split(text: str, separator: str) -> list[str]:
    parts = re.findall(r'(?:"(?:[^"\\]|\\.)*"|[^|"])+', text)
    assert separator.join(p.strip() for p in parts) == text
    return [p.strip() for p in parts]


@given(
    phrases=st.lists(
        st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12), max_size=3
    ),
    wearers=st.lists(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True), max_size=3),
    seed=st.integers(0, 2**32),
)
def test_every_sentence_of_the_grammar_is_a_step(phrases: list[str], wearers: list[str], seed: int) -> None:
    text = grammar([plain(p) for p in phrases], wearers)
    rules = dict(line.split(" ::= ", 1) for line in text.strip().split("\n"))
    rng = random.Random(seed)
    for _ in range(20):
        step = parse_step(sample(rules, "root", rng))
        assert step.tool in TOOLS
        assert step.args["period"] in [plain(p) for p in phrases] + [""]
        assert step.args["wearer"] in [*wearers, ""]


def test_labels_can_be_spoken_and_cover_the_rules() -> None:
    assert set(SPOKEN) == set(LABELS)
    assert set(RULES) < set(LABELS)
    assert not any(c.isdigit() for pair in SPOKEN.values() for words in pair for c in words)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("I have chest pain", EMERGENCY),
        ("I can't breathe, what was my pulse?", EMERGENCY),
        ("my mother fainted last night, was there a pause?", EMERGENCY),
        ("I feel dizzy", EMERGENCY),
        ("am I having a heart attack?", EMERGENCY),
        ("How much metoprolol should I take?", MEDICINE),
        ("Can I double my dose of bisoprolol?", MEDICINE),
        ("should I stop my blood thinner after this AF?", MEDICINE),
        ("is 5 mg enough", MEDICINE),
        ("Do you diagnose heart disease?", DIAGNOSIS),
        ("Am I healthy?", DIAGNOSIS),
        ("Is it dangerous?", DIAGNOSIS),
        ("Should I be worried about my PVCs?", DIAGNOSIS),
        ("why do I have PVCs?", DIAGNOSIS),
        ("What is my risk of stroke?", EMERGENCY),
    ],
)
def test_questions_for_a_doctor_get_a_fixed_answer(question: str, answer: str) -> None:
    assert fixed_answer(question) == answer


def test_ordinary_questions_are_not_sent_to_the_doctor() -> None:
    assert [q[0] for q in (*QUESTIONS, *EXAMPLES) if fixed_answer(q[0]) is not None] == []


@given(question=st.text(max_size=500))
def test_any_text_can_be_read(question: str) -> None:
    words = read_words(plain(question))
    assert len(keyword_steps(words, "ann")) <= MAX_STEPS
