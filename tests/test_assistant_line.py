"""Plan lines: what the model sees, what it may write, and that both ways agree."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.assistant.model import LanguageModel
from edge.assistant.plan import MAX_STEPS, TOOLS, Marked, Step, grammar, line, mark, parse_line, prompt

NIGHT = Step("count", {"label": "pvc", "period": "last night", "wearer": ""})


def test_time_words_and_names_are_marked() -> None:
    marked = mark("How many PVCs last night and yesterday for Bob (not bobby) or ann-marie?", ("ann", "bob"))
    assert marked.text == "How many PVCs (t1: last night) and (t2: yesterday) for (w1: Bob) not bobby or ann-marie?"
    assert (marked.phrases, marked.wearers) == (("last night", "yesterday"), ("bob",))


def test_a_prompt_shows_the_plan_before_without_its_time_words() -> None:
    marked = mark("and the night before last?")
    assert prompt(marked, (NIGHT,)) == "Plan\nC: count pvc t0\nQ: and (t1: the night before last)?\nA:"
    assert prompt(marked) == "Plan\nQ: and (t1: the night before last)?\nA:"


@pytest.mark.parametrize(
    ("text", "tool", "args"),
    [
        ("count pvc t1", "count", {"label": "pvc", "period": "last night", "wearer": ""}),
        ("count pvc t2 w1", "count", {"label": "pvc", "period": "yesterday", "wearer": "bob"}),
        ("count pvc", "count", {"label": "pvc", "period": "", "wearer": ""}),
        ("total_time af share t0", "total_time", {"label": "af", "measure": "share", "period": "today", "wearer": ""}),
        (
            "compare af t1 t2",
            "compare",
            {"of": "af", "period": "last night", "versus": "yesterday", "wearer": ""},
        ),
        ("compare heart_rate t2", "compare", {"of": "heart_rate", "period": "", "versus": "yesterday", "wearer": ""}),
        ("strip any period t1", "strip", {"label": "any", "which": "period", "period": "last night", "wearer": ""}),
        ("device", "device", {"period": "", "wearer": ""}),
    ],
)
def test_a_line_is_a_step_and_back(text: str, tool: str, args: dict[str, str]) -> None:
    marked = mark("PVCs last night and yesterday for bob", ("bob",))
    context = (Step("count", {"label": "af", "period": "today", "wearer": ""}),)
    assert parse_line(text, marked, context) == (Step(tool, args),)
    assert line((Step(tool, args),), marked, context) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "count",
        "count zorb",
        "count pvc t3",
        "drop table",
        "count pvc 999",
        "none t1",
        "count pvc; ",
        "count pvc; " * 9,
    ],
)
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_line(text, mark("PVCs last night"))


def sample(rules: dict[str, str], rule: str, rng: random.Random) -> str:
    """Return a random sentence of a GBNF made of alternatives, sequences, literals, optional rules and repeats."""
    text = rules[rule]
    if rule == "root":
        more = "".join("; " + sample(rules, "step", rng) for _ in range(rng.randrange(MAX_STEPS)))
        return rng.choice([" none", " " + sample(rules, "step", rng) + more]) + "\n"
    parts = re.findall(r'"(?:[^"\\]|\\.)*"|[a-z_-]+\??', rng.choice(text.split(" | ")))
    found = []
    for part in parts:
        if part[0] == '"':
            found.append(part[1:-1])
        elif not part.endswith("?") or rng.random() < 0.5:
            found.append(sample(rules, part.rstrip("?"), rng))
    return "".join(found)


@given(seed=st.integers(0, 2**32), phrases=st.integers(0, 3), names=st.integers(0, 2), after=st.booleans())
def test_every_sentence_of_the_grammar_is_a_plan(seed: int, phrases: int, names: int, after: bool) -> None:
    marked = Marked("", ("today", "last night", "yesterday")[:phrases], ("ann", "bob")[:names])
    context = (NIGHT,) if after else ()
    rules = dict(row.split(" ::= ", 1) for row in grammar(marked, context).strip().split("\n"))
    rng = random.Random(seed)
    for _ in range(20):
        steps = parse_line(sample(rules, "root", rng), marked, context)
        assert len(steps) <= MAX_STEPS
        assert all(set(step.args) - {"versus"} == {*TOOLS[step.tool], "period", "wearer"} for step in steps)


def test_llama_cpp_obeys_the_grammar() -> None:
    marked = mark("How many PVCs did bob have last night?", ("ann", "bob"))
    with LanguageModel(threads=1) as model:
        text = model.write(prompt(marked), grammar(marked), 64)
    parse_line(text, marked)


def test_a_grammar_tried_on_the_best_token_first_gives_the_text_of_llama_cpp() -> None:
    """And so does a prompt of which the context holds the beginning."""
    marked = mark("How many PVCs did bob have last night?", ("ann", "bob"))
    free = "root ::= [a-zA-Z0-9 :.,?()\\n]+\n"
    with LanguageModel(threads=1) as model:
        llama, module = model.llama, model.module
        for text, rules in ((prompt(marked), grammar(marked)), (prompt(marked) + " count", free), ("Q", free)):
            written = model.write(text, rules, 24)
            llama.reset()
            whole = llama.create_completion(
                llama.tokenize(text.encode(), add_bos=True, special=False),
                max_tokens=24,
                temperature=0.0,
                grammar=module.LlamaGrammar.from_string(rules, verbose=False),
            )
            assert written == whole["choices"][0]["text"]
        with pytest.raises(ValueError, match="not a grammar"):
            model.write("Q", "root ::= ((", 4)
