"""`python -m export.evaluate`: every figure of the shipped encoder, into docs/, README.md and the model card.

Each part writes its JSON beside docs/encoder.md and its own section of that page; `--only` picks parts. What takes
long and does not depend on our weights, the peers, is kept between runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.encoder.card import Card, shipped_card
from edge.encoder.library import INT8
from edge.encoder.session import Encoder
from edge.errors import BadInputError
from export.datasets.folders import records_folder
from export.datasets.splits import DS2
from export.evaluate import calibration, embeddings, folds, goals, localisation, peers, speed, strap, waves, wearer
from export.evaluate.bootstrap import headline
from export.evaluate.page import interval_table, markdown, replace_section, summary
from export.evaluate.report import evaluate

DOCS = Path(__file__).parent.parent.parent / "docs"
README = DOCS.parent / "README.md"


@dataclass(frozen=True, slots=True)
class Run:
    """What the parts work with."""

    encoder: Encoder
    int8: Encoder | None
    """The same weights in eight bits, if there are any."""
    records: tuple[str, ...]
    questions: Path | None
    writes: bool

    @property
    def card(self) -> Card:
        """Of the encoder."""
        return self.encoder.card

    @property
    def told(self) -> dict[str, Any]:
        """What every JSON begins with."""
        return {"checkpoint": self.card.checkpoint, "runtime": self.encoder.runtime}

    @property
    def forms(self) -> dict[str, Encoder]:
        """Both forms by name."""
        return {"anyecg": self.encoder} | ({} if self.int8 is None else {"anyecg int8": self.int8})


def _figures(run: Run) -> None:
    figures, thresholds = evaluate(run.encoder, "test")
    found = {**run.told, **figures, "intervals": headline(figures)}
    page = markdown(found) + "\n\n" + interval_table(found["intervals"])
    print(page)
    if run.writes:
        (DOCS / "encoder.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        replace_section(DOCS / "encoder.md", "figures", page)
        facts = run.card.facts | {"metrics": summary(found), "thresholds": dict(thresholds)}
        run.card.path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _peers(run: Run) -> None:
    found = run.told | peers.compare(run.forms, run.records)
    _keep(run, "peers", found, peers.table(found))
    if run.writes:
        replace_section(README, "peers", peers.table(found))


def _localisation(run: Run) -> None:
    if run.questions is None:
        print("localisation: left out, --questions FILE names no questions")
        return
    found = run.told | localisation.answer(run.encoder, localisation.load_questions(run.questions))
    _keep(run, "localisation", found, localisation.table(found))


def _embeddings(run: Run) -> None:
    found = run.told | embeddings.measure(run.encoder, DOCS / "embeddings.png" if run.writes else None)
    _keep(run, "embeddings", found, embeddings.table(found))


def _folds(run: Run) -> None:
    models = folds.encoders()
    found = _of_folds(models) | folds.measure(models)
    _keep(run, "folds", found, folds.table(found))


def _waves(run: Run) -> None:
    names = sorted((path.stem for path in records_folder("ludb").glob("*.hea")), key=int)
    models = folds.encoders()
    found = _of_folds(models) | waves.measure(models, names)
    _keep(run, "waves", found, waves.table(found))


def _of_folds(models: Sequence[Encoder]) -> dict[str, Any]:
    return {"checkpoints": [model.card.checkpoint for model in models], "runtime": models[0].runtime}


def _calibration(run: Run) -> None:
    picture = DOCS / "calibration.png" if run.writes else None
    found = run.told | calibration.measure(run.encoder, picture)
    _keep(run, "calibration", found, calibration.table(found))


def _wearer(run: Run) -> None:
    found = run.told | wearer.measure(run.encoder)
    _keep(run, "wearer", found, wearer.table(found))


def _strap(run: Run) -> None:
    found = run.told | strap.measure(run.encoder)
    _keep(run, "strap", found, strap.table(found))


def _speed(run: Run) -> None:
    found = run.told | speed.measure(run.forms)
    _keep(run, "speed", found, speed.table(found))


PARTS: Mapping[str, Callable[[Run], None]] = {
    "figures": _figures,
    "waves": _waves,
    "folds": _folds,
    "calibration": _calibration,
    "wearer": _wearer,
    "strap": _strap,
    "localisation": _localisation,
    "embeddings": _embeddings,
    "speed": _speed,
    "peers": _peers,
}


def main() -> None:
    """Evaluate everything, or the parts asked for."""
    parser = argparse.ArgumentParser(prog="python -m export.evaluate", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--card", type=Path, default=None, help="model card; default: the shipped one")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="localisation questions")
    parser.add_argument("--records", nargs="+", metavar="NAME", choices=DS2, default=DS2, help="peers: only these")
    parser.add_argument("--validation", action="store_true", help="score the validation records, write nothing")
    parser.add_argument("--dry-run", action="store_true", help="print and write nothing")
    given = parser.parse_args()
    card = Card.load(given.card)
    encoder = Encoder(card, provider="cpu")
    if given.validation:
        print(json.dumps(evaluate(encoder, "validation")[0], indent=1))
        return
    int8 = card.path.parent / INT8
    same = int8.exists() and Card.load(int8).checkpoint == card.checkpoint
    run = Run(
        encoder=encoder,
        int8=Encoder(Card.load(int8), provider="cpu") if same else None,
        records=tuple(given.records),
        questions=given.questions,
        writes=not given.dry_run and card.path == shipped_card(),
    )
    failed = []
    for name in given.only:
        try:
            PARTS[name](run)
        except BadInputError as error:
            failed.append(f"{name}: {error}")
    if run.writes:
        replace_section(DOCS / "encoder.md", "goals", goals.table(goals.load(DOCS)))
    if failed:
        raise SystemExit("left out:\n" + "\n".join(failed))


def _keep(run: Run, name: str, found: Mapping[str, Any], page: str) -> None:
    """Print a comparison, and write its JSON and its section."""
    print(page)
    if run.writes:
        (DOCS / f"encoder-{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        replace_section(DOCS / "encoder.md", name, page)


if __name__ == "__main__":
    main()
