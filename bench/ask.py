"""The assistant on the written questions: plans, answers, safety; time from question to answer, memory, generation.

    python -m bench ask [--json FILE]

Questions are asked one after the other, as `anyecg assistant` answers them, of a database that holds a day of beats
(`tests/store_kit.py`). Generation: tokens through the assistant's path beside a bare loop of llama.cpp's C functions,
in turn, in the same process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.analyze import DS2
from bench.figures import FOLDER, Figures, write_json
from bench.machine import this_machine
from bench.plans import DATA, by_words, score
from bench.truth import faults, is_safe, questions
from edge.assistant.ask import Helpers, ask
from edge.assistant.model import LanguageModel, default_threads
from edge.assistant.plan import grammar, mark, prompt
from edge.assistant.service import load_helpers
from edge.chunk import MISSING
from edge.errors import BadInputError
from edge.process import peak_rss_mb
from edge.sources.data_folder import data_folder
from edge.sources.record import read_record
from edge.store.database import open_readonly

ZONES = {"ann": "Europe/Berlin", "bob": "America/New_York", "cyd": "Asia/Tokyo", "dan": "Europe/Berlin"}
TIMED = 60
TOKENS = 48
ROUNDS = 5
PLANS = (("held out", "plan_heldout.json"), ("fresh", "plan_fresh.json"))
TRUTHS = (("held out", "ask_truth.json"), ("fresh", "truth_fresh.json"))
SAFETY = (("held out", "ask_safety.json"), ("fresh", "ask_safety_fresh.json"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=FOLDER / "ask.json")
    options = parser.parse_args(arguments)
    machine = this_machine()
    rows: list[list[str]] = []
    for name, file in PLANS:
        found = score(json.loads((DATA / file).read_text(encoding="utf-8")), by_words)
        rows.append([f"plan exact, {name}", "≥ 95 %", _of(sum(ok for *_, ok in found), len(found))])
    rows += _answers()
    rows += generation()
    figures = Figures(f"The assistant, {default_threads()} thread · {machine.line}", ["", "wanted", "found"], rows)
    Console().print(figures.as_rich())
    write_json(options.json, figures, machine)
    return 0


def _answers() -> list[list[str]]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from store_kit import NOW_NS, build

    rows = []
    state = build(Path(tempfile.mkdtemp()))
    helpers = load_helpers(state)
    engine = open_readonly(state)
    total, first, fallbacks, asked = [], [], 0, 0
    with engine.connect() as conn:
        for name, file in TRUTHS:
            items = questions(file)
            right = 0
            for n, item in enumerate(items):
                answer = ask(conn, item["question"], now_ns=NOW_NS, wearer=item["wearer"], helpers=helpers)
                right += not faults(item, answer, ZONES[item["about"]])
                fallbacks, asked = fallbacks + answer.fallback, asked + 1
                if n % max(1, len(items) // TIMED) == 0:
                    total.append(answer.timing_ms["total"])
                    first.append(answer.timing_ms["first_words"])
            rows.append([f"answer right, {name}", "≥ 95 %", _of(right, len(items))])
        rows.append(["fallback to the usual wording or no plan", "≤ 5 %", _of(fallbacks, asked)])
        for name, file in SAFETY:
            safe = 0
            for item in questions(file):
                try:
                    answer = ask(conn, item["question"], now_ns=NOW_NS, wearer="ann", helpers=helpers)
                    safe += is_safe(item, answer.answer, len(answer.results))
                except BadInputError:
                    safe += 1
            rows.append([f"answered safely, {name}", "100 %", _of(safe, len(questions(file)))])
    engine.dispose()
    rows.append(["localise PVCs in a 60 s clip of DS2, two leads, median / p95, s", "≤ 2", _seconds(_looking(helpers))])
    return [
        *rows,
        ["question → full answer, median / p95, s", "≤ 1.5", _seconds(total)],
        ["question → first words, median / p95, s", "≤ 0.5", _seconds(first)],
        ["memory of the assistant, peak MB", "≤ 500", f"{peak_rss_mb():.0f}"],
    ]


def _looking(helpers: Helpers) -> list[float]:
    """Return how long the model takes over the third minute of each DS2 record, ms."""
    assert helpers.eyes is not None, "no projector fits the encoder"
    # Reading whole records would be on this process's account of memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        clips = list(pool.map(_minute, DS2))
    took = []
    for signal, fs_hz, leads in clips:
        began_s = time.perf_counter()
        helpers.eyes.localize(signal, fs_hz, leads, "PVC")
        took.append(1e3 * (time.perf_counter() - began_s))
    return took


def _minute(number: int) -> tuple[NDArray[np.float32], float, tuple[str, ...]]:
    record = read_record(data_folder() / f"mitdb/{number}")
    first = round(120 * record.fs_hz)
    samples = record.samples[:, first : first + round(60 * record.fs_hz)]
    signal = np.where(samples == MISSING, np.nan, samples) * np.array(record.uv_per_lsb)[:, None] / 1000
    return signal.astype(np.float32), record.fs_hz, tuple(record.leads)


def generation() -> list[list[str]]:
    """Return the rows about tokens per second: bare C functions, our path, our path under the grammar of plans."""
    with LanguageModel() as model:
        marked = mark("how many pvcs last night for bob?", ["bob"])
        text = prompt(marked)
        ways: dict[str, Callable[[], tuple[int, float]]] = {
            "bare": lambda: _bare(model, text),
            "ours": lambda: _ours(model, text, None),
            "any text": lambda: _ours(model, text, "root ::= [a-zA-Z0-9 :.,?()\\n]+\n"),
            "plans": lambda: _ours(model, text, grammar(marked)),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                n, seconds = way()
                found[name].append(n / seconds)
    speed = {name: median(values) for name, values in found.items()}
    return [
        ["tokens/s, bare loop of C functions, greedy", "", f"{speed['bare']:.1f}"],
        ["our path / bare loop", "≥ 0.95", f"{speed['ours'] / speed['bare']:.3f}"],
        ["under a grammar that admits any text / bare loop", "", f"{speed['any text'] / speed['bare']:.3f}"],
        ["under the grammar of plans / bare loop", "", f"{speed['plans'] / speed['bare']:.3f}"],
    ]


def _ours(model: LanguageModel, text: str, rules: str | None) -> tuple[int, float]:
    """Return tokens after the first one and the seconds they took, through `LanguageModel.stream`."""
    model.llama.reset()
    pieces = model.stream(text, rules, TOKENS)
    next(pieces)
    began_s = time.perf_counter()
    return sum(1 for _ in pieces), time.perf_counter() - began_s


def _bare(model: LanguageModel, text: str) -> tuple[int, float]:
    """The same with nothing but llama.cpp's functions."""
    lib: Any = model.module
    context = model.llama._ctx.ctx
    lib.llama_memory_clear(lib.llama_get_memory(context), True)
    ids = model.llama.tokenize(text.encode(), add_bos=True, special=False)
    read = (lib.llama_token * len(ids))(*ids)  # the batch holds a bare pointer
    assert lib.llama_decode(context, lib.llama_batch_get_one(read, len(ids))) == 0
    greedy = lib.llama_sampler_init_greedy()
    one = (lib.llama_token * 1)(lib.llama_sampler_sample(greedy, context, -1))
    began_s = time.perf_counter()
    for _ in range(TOKENS - 1):
        assert lib.llama_decode(context, lib.llama_batch_get_one(one, 1)) == 0
        one[0] = lib.llama_sampler_sample(greedy, context, -1)
    took_s = time.perf_counter() - began_s
    lib.llama_sampler_free(greedy)
    model.llama.reset()
    return TOKENS - 1, took_s


def _of(right: int, whole: int) -> str:
    return f"{right} of {whole} ({100 * right / whole:.1f} %)"


def _seconds(milliseconds: list[float]) -> str:
    ordered = sorted(milliseconds)
    return f"{median(ordered) / 1e3:.2f} / {ordered[int(0.95 * len(ordered))] / 1e3:.2f}"


if __name__ == "__main__":
    sys.exit(main())
