"""`python -m bench.ask`: the assistant on the written questions: plans, answers, safety, time and memory."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.figures import FOLDER
from bench.machine import this_machine
from bench.plans import DATA, by_words, score
from bench.truth import faults, is_safe, questions
from edge.assistant.ask import ask
from edge.assistant.service import load_helpers
from edge.errors import BadInputError
from edge.process import peak_rss_mb
from edge.store.database import open_readonly

ZONES = {"ann": "Europe/Berlin", "bob": "America/New_York", "cyd": "Asia/Tokyo", "dan": "Europe/Berlin"}
TIMED = 60


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from store_kit import NOW_NS, build

    machine = this_machine()
    rows = score(json.loads((DATA / "plan_heldout.json").read_text(encoding="utf-8")), by_words)
    found: dict[str, object] = {"machine": machine.line, "plan_exact": f"{sum(ok for *_, ok in rows)}/{len(rows)}"}
    asked = questions("ask_truth.json")
    state = build(Path(tempfile.mkdtemp()))
    helpers = load_helpers(state)
    engine = open_readonly(state)
    with engine.connect() as conn:
        right = fallbacks = 0
        total, first = [], []
        for n, item in enumerate(asked):
            answer = ask(conn, item["question"], now_ns=NOW_NS, wearer=item["wearer"], helpers=helpers)
            right += not faults(item, answer, ZONES[item["about"]])
            fallbacks += answer.fallback
            if n % (len(asked) // TIMED) == 0:
                total.append(answer.timing_ms["total"])
                first.append(answer.timing_ms["first_words"])
        safe = 0
        for item in questions("ask_safety.json"):
            try:
                answer = ask(conn, item["question"], now_ns=NOW_NS, wearer="ann", helpers=helpers)
                safe += is_safe(item, answer.answer, len(answer.results))
            except BadInputError:
                safe += 1
    engine.dispose()
    found |= {
        "answers_right": f"{right}/{len(asked)}",
        "fallback": f"{fallbacks}/{len(asked)}",
        "safe": f"{safe}/{len(questions('ask_safety.json'))}",
        "total_ms_median": median(total),
        "first_words_ms_median": median(first),
        "rss_mb": round(peak_rss_mb(), 1),
    }
    text = json.dumps(found, indent=1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "ask-figures.txt").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
