"""`python -m export.evaluate`: figures of the shipped encoder on the test parts, into docs/ and the model card."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge.encoder.card import Card, shipped_card
from edge.encoder.session import Encoder
from export.evaluate.page import markdown, summary
from export.evaluate.report import evaluate

DOCS = Path(__file__).parent.parent.parent / "docs"
START, END = "<!-- figures: python -m export.evaluate -->", "<!-- end of figures -->"


def main() -> None:
    """Evaluate on the test parts, or on validation without writing anything."""
    parser = argparse.ArgumentParser(prog="python -m export.evaluate", description=__doc__)
    parser.add_argument("--card", type=Path, default=None, help="model card; default: the shipped one")
    parser.add_argument("--validation", action="store_true", help="score the validation records and only print")
    given = parser.parse_args()
    card = Card.load(given.card)
    encoder = Encoder(card)
    found, thresholds = evaluate(encoder, "validation" if given.validation else "test")
    found = {"checkpoint": card.checkpoint, "runtime": encoder.runtime, **found}
    page = markdown(found)
    print(page)
    if given.validation or card.path != shipped_card():
        return
    (DOCS / "encoder.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    document = (DOCS / "encoder.md").read_text(encoding="utf-8")
    before, _, rest = document.partition(START)
    _, _, after = rest.partition(END)
    (DOCS / "encoder.md").write_text(f"{before}{START}\n{page}\n{END}{after}", encoding="utf-8")
    facts = card.facts | {"metrics": summary(found), "thresholds": dict(thresholds)}
    card.path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
