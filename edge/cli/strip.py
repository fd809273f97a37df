"""`anyecg strip`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, errors, print_json
from edge.errors import BadInputError

if TYPE_CHECKING:
    from edge.report.strip import Strip


@app.command()
def strip(
    event: Annotated[str | None, typer.Option("--event", help="An event, by id or its beginning.")] = None,
    wearer: Annotated[str | None, typer.Option("--wearer", help="With --at: whose recording.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Where the strip begins, in the wearer's time zone.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Length, 1 to 90 s.")] = 10.0,
    record: Annotated[Path | None, typer.Option("--record", help="A WFDB record or EDF file instead.")] = None,
    from_s: Annotated[float | None, typer.Option("--from", help="With --record: first second.")] = None,
    to_s: Annotated[float | None, typer.Option("--to", help="With --record: last second.")] = None,
    lead: Annotated[str | None, typer.Option("--lead", help="Only this lead.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Write it as PNG, 25 mm/s and 10 mm/mV.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write it as SVG.")] = None,
    pdf: Annotated[Path | None, typer.Option("--pdf", help="Write it as PDF.")] = None,
    monitor: Annotated[bool, typer.Option("--monitor", help="Filter to 0.5-40 Hz: no drift, no hum.")] = False,
    deidentify: Annotated[bool, typer.Option("--deidentify", help="Without name, device and date.")] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Draw a few seconds of ECG: --event ID, or --wearer W --at TIME, or --record PATH --from S --to S."""
    if sum(choice is not None for choice in (event, at, record)) != 1:
        raise BadInputError("say which strip: --event ID, or --wearer W --at TIME, or --record PATH --from S --to S")
    if record is not None:
        from edge.report.strip import of_record
        from edge.sources.record import read_record

        start_s = 0.0 if from_s is None else from_s
        drawn = of_record(
            read_record(record, None if lead is None else [int(lead) if lead.isdigit() else lead]),
            start_s,
            start_s + seconds if to_s is None else to_s,
            monitor=monitor,
        )
    else:
        drawn = _from_store(state, event, wearer, at, seconds, lead, monitor, deidentify)
    files = {"png": png, "svg": svg, "pdf": pdf}
    for suffix, path in files.items():
        if path is not None:
            _write(drawn, path, suffix)
    if as_json:
        print_json(drawn.as_json() | {name: None if path is None else str(path) for name, path in files.items()})
    elif not any(files.values()):
        from edge.report.terminal import draw

        unicode_ok = (console.encoding or "").lower().startswith("utf")
        for line in draw(drawn, console.width, ascii_only=not unicode_ok):
            console.print(line, highlight=False, markup=False, no_wrap=True, crop=True)


def _write(drawn: Strip, path: Path, suffix: str) -> None:
    from edge.report.paper import write_strip

    if path.suffix.lower() != f".{suffix}":
        raise BadInputError(f"--{suffix} {path}: the file name must end in .{suffix}")
    errors.print(f"{path}: {write_strip(drawn, path)}", highlight=False, markup=False)


def _from_store(
    state: Path,
    event: str | None,
    wearer: str | None,
    at: str | None,
    seconds: float,
    lead: str | None,
    monitor: bool,
    deidentify: bool,
) -> Strip:
    import secrets

    from edge.assistant.localtime import parse_instant, zone
    from edge.cli.read import reading
    from edge.clock import SystemClock
    from edge.exchange.disguise import hide
    from edge.report.strip import of_event, of_wearer
    from edge.store import marks, queries

    with reading(state) as conn:
        if event is not None:
            found = marks.find_episode(conn, event)
            tz = zone(queries.find_wearer(conn, found["wearer"]).timezone)
            disguise = hide(tz, found["start_ns"], secrets.token_bytes(16)) if deidentify else None
            return of_event(conn, event, seconds, lead, monitor=monitor, disguise=disguise)
        if wearer is None or at is None:
            raise BadInputError("--at needs --wearer: the time is read in the wearer's time zone")
        tz = zone(queries.find_wearer(conn, wearer).timezone)
        at_ns = parse_instant(at, SystemClock().utc_ns(), tz)
        disguise = hide(tz, at_ns, secrets.token_bytes(16)) if deidentify else None
        return of_wearer(conn, wearer, at_ns, seconds, lead, monitor=monitor, disguise=disguise)
