"""`anyecg models list|verify|pull`: the encoder weights on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, errors, print_json

if TYPE_CHECKING:
    from edge.encoder.card import Card
    from edge.encoder.library import Checked

group = typer.Typer(no_args_is_help=True, help="List, verify and fetch encoder weights.")
app.add_typer(group, name="models")


@group.command("list")
def list_(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show every set of weights: what it is, its figures and limits, its hash, and which one is active."""
    from edge.encoder import library

    active = _active(state)
    documents = [_document(library.check(path, weights=False), active) for path in library.card_paths(state)]
    if as_json:
        print_json(documents)
        return
    for document in documents:
        mark = " (active)" if document["active"] else ""
        console.print(f"[bold]{document['name']}[/]{mark}", highlight=False)
        if document["error"]:
            console.print(f"  {document['error']}", highlight=False, markup=False)
            continue
        size = f"{document['size_bytes'] / 1e6:.1f} MB" if document["size_bytes"] is not None else "weights missing"
        console.print(
            f"  {document['what']}\n  checkpoint {document['checkpoint']}, {document['precision']}, {size}\n"
            f"  sha256 {document['sha256']}",
            *([f"  {line}" for line in _figures(document["metrics"])] + [f"  limit: {x}" for x in document["limits"]]),
            sep="\n",
            highlight=False,
            markup=False,
        )


@group.command()
def verify(
    name: Annotated[list[str] | None, typer.Argument(help="Names as `models list` shows them; else all.")] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Compare the hash of every set of weights with its card; exit code 1 if one differs."""
    from edge.encoder import library
    from edge.errors import AnyecgError, BadInputError

    paths = library.card_paths(state)
    if unknown := sorted(set(name or ()) - {path.stem for path in paths}):
        raise BadInputError(f"no model {', '.join(unknown)}; there are {', '.join(path.stem for path in paths)}")
    active = _active(state)
    checked = [library.check(path, weights=True) for path in paths if not name or path.stem in name]
    if as_json:
        print_json([_document(one, active) for one in checked])
    else:
        for one in checked:
            console.print(f"{one.path.stem}: {one.error or 'ok'}", highlight=False, markup=False, soft_wrap=True)
    if bad := [one.path.stem for one in checked if one.error]:
        raise AnyecgError(f"{len(bad)} of {len(checked)} models are not what their cards say: {', '.join(bad)}")


@group.command()
def pull(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="https URL or path of a card or of ONNX weights.")],
    sha256: Annotated[str, typer.Option("--sha256", help="What SOURCE must hash to; refused otherwise.")],
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model into the state folder's `models`; over https or from a file, only if its hash is right.

    A card (.json) brings the weights that it names and pins. It is not used before `encoder.model` in config.toml
    names it.
    """
    from rich.progress import Progress

    from edge.encoder import library

    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(Path(source).name, total=None)
        card = library.pull(source, sha256, state, progress=lambda n: bar.advance(task, n))
    document = _document(library.check(card.path, weights=True), _active(state))
    if as_json:
        print_json(document)
        return
    console.print(
        f"{card.path}: checkpoint {card.checkpoint}, sha256 {card.sha256}\n"
        f'to use it, write into config.toml under [encoder]: model = "{library.FOLDER}/{card.path.name}"',
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _active(state: Path) -> Card | None:
    """Return the card that the gateway would load, None if it could not."""
    from edge.config import load
    from edge.encoder import library
    from edge.errors import AnyecgError

    wanted = load(state).encoder
    try:
        return library.choose_card(wanted.model, wanted.precision, wanted.provider)[0]
    except AnyecgError:
        return None


def _document(checked: Checked, active: Card | None) -> dict[str, Any]:
    card = checked.card
    facts = {} if card is None else card.facts
    is_there = card is not None and card.weights.is_file()
    return {
        "name": checked.path.stem,
        "card": str(checked.path),
        "what": facts.get("what", ""),
        "checkpoint": None if card is None else card.checkpoint,
        "precision": facts.get("precision", "unknown"),
        "sha256": None if card is None else card.sha256,
        "size_bytes": card.weights.stat().st_size if card is not None and is_there else None,
        "metrics": facts.get("metrics", {}),
        "limits": facts.get("limits", []),
        "active": active is not None and checked.path.resolve() == active.path.resolve(),
        "error": checked.error,
    }


def _figures(metrics: dict[str, Any]) -> list[str]:
    """Return one line per set of figures: F1 in per cent where a card gives it, numbers as they are."""
    lines = []
    for name, value in metrics.items():
        if isinstance(value, int | float):
            lines.append(f"{name}: {value}")
        elif isinstance(value, dict):
            f1 = {key: one["f1"] for key, one in value.items() if isinstance(one, dict) and one.get("f1") is not None}
            if f1:
                lines.append(f"{name}, F1: " + ", ".join(f"{key} {one}" for key, one in f1.items()))
    return lines
