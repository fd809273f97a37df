"""`anyecg report`: the Holter report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json
from edge.errors import BadInputError

if TYPE_CHECKING:
    from edge.report.document import Document

TIME_HELP = "ISO time, date, 24h, 7d, yesterday, last night, … in the wearer's time zone."


@app.command()
def report(
    wearer: Annotated[str, typer.Option("--wearer", help="Whose report.")],
    since: Annotated[str, typer.Option("--since", help=TIME_HELP)] = "24h",
    until: Annotated[str | None, typer.Option("--until", help="As --since; a date or a word means its end.")] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help='Compare with an earlier period: "last week", A..B, or "previous".'),
    ] = None,
    pdf: Annotated[Path | None, typer.Option("--pdf", metavar="FILE", help="Write A4 pages.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML file.")] = None,
    disclose: Annotated[bool, typer.Option("--full-disclosure", help="Add every minute of the signal.")] = False,
    deidentify: Annotated[bool, typer.Option("--deidentify", help="Without names, notes and dates.")] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Write a Holter report: rates, rhythms, ectopy, variability, strips, what was reviewed, and how it was read."""
    import secrets

    from edge.assistant.localtime import zone
    from edge.cli.read import local_span, reading
    from edge.clock import SystemClock
    from edge.config import load
    from edge.encoder.card import Card
    from edge.exchange.disguise import hide, plain
    from edge.report.compare import compare
    from edge.report.compose import compose
    from edge.report.holter import read_holter
    from edge.report.summary import as_json as figures
    from edge.store import queries

    if pdf is None and html is None and not as_json:
        raise BadInputError("say what to write: --pdf FILE, --html FILE or --json")
    if against is not None and disclose:
        raise BadInputError("--full-disclosure goes with one period, not with --against")
    now_ns = SystemClock().utc_ns()
    with reading(state) as conn:
        person = queries.find_wearer(conn, wearer)
        tz = zone(person.timezone)
        start_ns, end_ns, _ = local_span(person, since, _end(since, until), now_ns, 86_400)
        first_ns = start_ns
        if against is not None:
            before_ns = _earlier(against, start_ns, end_ns, now_ns, person.timezone)
            first_ns = min(first_ns, before_ns[0])
        disguise = hide(tz, first_ns, secrets.token_bytes(16)) if deidentify else plain(wearer, tz)
        after = read_holter(conn, wearer, start_ns, end_ns, tz)
        if against is not None:
            before = read_holter(conn, wearer, *before_ns, tz)
            document = compare(before, after, disguise)
            numbers = {"a": figures(before, disguise), "b": figures(after, disguise)}
        else:
            config = load(state)
            rules = config.rules_of(wearer)
            card = Card.load(config.encoder.model).facts
            document = compose(conn, after, disguise, rules, card, disclose=disclose)
            numbers = figures(after, disguise)
        _write(document, pdf, html, quiet=as_json)
    if as_json:
        print_json(numbers)


def _end(since: str, until: str | None) -> str | None:
    """A period in words has an end of its own: "yesterday" ends at midnight."""
    from edge.assistant.period import find_phrases

    if until is None and find_phrases(since) == [since.strip()]:
        return since
    return until


def _earlier(against: str, start_ns: int, end_ns: int, now_ns: int, timezone: str) -> tuple[int, int]:
    from edge.assistant.localtime import parse_instant, zone

    tz = zone(timezone)
    if against.strip().lower() == "previous":
        return 2 * start_ns - end_ns, start_ns
    first, dots, last = against.partition("..")
    begin = parse_instant(first, now_ns, tz)
    end = parse_instant(last if dots else first, now_ns, tz, "end")
    if begin >= end:
        raise BadInputError(f"--against {against!r} is no period: give words (last week), a date, A..B or previous")
    return begin, end


def _write(document: Document, pdf: Path | None, html: Path | None, *, quiet: bool) -> None:
    if pdf is not None:
        from edge.report.pdf import write_pdf

        pages = write_pdf(document, pdf)
        if not quiet:
            console.print(f"{pdf}: {pages} pages", highlight=False, markup=False)
    if html is not None:
        from edge.report.html import write_html

        size = write_html(document, html)
        if not quiet:
            console.print(f"{html}: {size / 1e6:.1f} MB", highlight=False, markup=False)
