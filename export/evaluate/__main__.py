"""`python -m export.evaluate`: figures of the shipped encoder, into docs/ and the model card.

Without options the test parts; `--peers`, `--questions FILE` and `--embeddings` do one comparison each. Every one
writes its JSON beside docs/encoder.md and its own section of that page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.encoder.card import Card, shipped_card
from edge.encoder.library import INT8
from edge.encoder.session import Encoder
from export.datasets.splits import DS2
from export.evaluate import embeddings, localisation, peers
from export.evaluate.bootstrap import headline
from export.evaluate.page import interval_table, markdown, replace_section, summary
from export.evaluate.report import evaluate

DOCS = Path(__file__).parent.parent.parent / "docs"
README = DOCS.parent / "README.md"


def main() -> None:
    """Evaluate on the test parts, or on validation without writing anything."""
    parser = argparse.ArgumentParser(prog="python -m export.evaluate", description=__doc__)
    parser.add_argument("--card", type=Path, default=None, help="model card; default: the shipped one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--validation", action="store_true", help="score the validation records and only print")
    what.add_argument("--peers", action="store_true", help="other packages on the same records")
    what.add_argument("--questions", type=Path, metavar="FILE", help="localisation questions, answered from beats")
    what.add_argument("--embeddings", action="store_true", help="retrieval, linear probes and a picture")
    parser.add_argument("--records", nargs="+", metavar="NAME", choices=DS2, help="with --peers: only these of DS2")
    parser.add_argument("--dry-run", action="store_true", help="print and write nothing")
    given = parser.parse_args()
    card = Card.load(given.card)
    encoder = Encoder(card, provider="cpu")
    writes = not given.dry_run and card.path == shipped_card()
    told = {"checkpoint": card.checkpoint, "runtime": encoder.runtime}
    if given.peers:
        encoders = {"anyecg": encoder}
        if (int8 := card.path.parent / INT8).exists() and Card.load(int8).checkpoint == card.checkpoint:
            encoders["anyecg int8"] = Encoder(Card.load(int8), provider="cpu")
        found = told | peers.compare(encoders, given.records or DS2)
        _keep("peers", found, peers.table(found), writes)
        if writes:
            replace_section(README, "peers", peers.table(found))
    elif given.questions:
        found = told | localisation.answer(encoder, localisation.load_questions(given.questions))
        _keep("localisation", found, localisation.table(found), writes)
    elif given.embeddings:
        picture = DOCS / "embeddings.png" if writes else None
        found = told | embeddings.measure(encoder, picture)
        _keep("embeddings", found, embeddings.table(found), writes)
    else:
        _test_figures(card, encoder, told, validation=given.validation, writes=writes and not given.validation)


def _test_figures(card: Card, encoder: Encoder, told: Mapping[str, Any], *, validation: bool, writes: bool) -> None:
    figures, thresholds = evaluate(encoder, "validation" if validation else "test")
    found = {**told, **figures, "intervals": headline(figures)}
    page = markdown(found) + "\n\n" + interval_table(found["intervals"])
    print(page)
    if not writes:
        return
    (DOCS / "encoder.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    replace_section(DOCS / "encoder.md", "figures", page)
    facts = card.facts | {"metrics": summary(found), "thresholds": dict(thresholds)}
    card.path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _keep(name: str, found: Mapping[str, Any], page: str, writes: bool) -> None:
    """Print a comparison, and write its JSON and its section."""
    print(page)
    if writes:
        (DOCS / f"encoder-{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        replace_section(DOCS / "encoder.md", name, page)


if __name__ == "__main__":
    main()
