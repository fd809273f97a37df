"""`anyecg export`: recordings and findings in formats others read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json
from edge.errors import AnyecgError, BadInputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from edge.exchange.disguise import Disguise

TIME_HELP = "ISO time, date, 24h, 7d, yesterday, last night, … in the wearer's time zone."


@app.command()
def export(
    wearer: Annotated[str, typer.Option("--wearer", help="Whose recordings.")],
    since: Annotated[str, typer.Option("--since", help=TIME_HELP)] = "24h",
    until: Annotated[str | None, typer.Option("--until", help="As --since; a date or a word means its end.")] = None,
    edf: Annotated[Path | None, typer.Option("--edf", metavar="DIR", help="EDF+ files with annotations.")] = None,
    wfdb: Annotated[Path | None, typer.Option("--wfdb", metavar="DIR", help="WFDB records with annotations.")] = None,
    fhir: Annotated[Path | None, typer.Option("--fhir", metavar="FILE", help="An HL7 FHIR R4 bundle (JSON).")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="DIR", help="Events, trends, beats, marks.")] = None,
    deidentify: Annotated[bool, typer.Option("--deidentify", help="Without names, notes and dates.")] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Hand over: EDF+, WFDB, FHIR R4 or CSV; several at once if you like."""
    import secrets

    from edge.assistant.localtime import zone
    from edge.cli.read import local_span, reading
    from edge.clock import SystemClock
    from edge.exchange.disguise import hide, plain
    from edge.store import queries

    if not any((edf, wfdb, fhir, csv)):
        raise BadInputError("say what to write: --edf DIR, --wfdb DIR, --fhir FILE, --csv DIR")
    now_ns = SystemClock().utc_ns()
    files: list[Path] = []
    with reading(state) as conn:
        person = queries.find_wearer(conn, wearer)
        start_ns, end_ns, _ = local_span(person, since, until, now_ns, 86_400)
        tz = zone(person.timezone)
        first_ns = _first(conn, wearer, start_ns)
        disguise = hide(tz, first_ns, secrets.token_bytes(16)) if deidentify else plain(wearer, tz)
        jobs: list[tuple[Path | None, Callable[[Connection, str, int, int, Path, Disguise], list[Path]]]] = [
            (edf, _edf),
            (wfdb, _wfdb),
            (csv, _csv),
            (fhir, _fhir),
        ]
        for target, write in jobs:
            if target is not None:
                files += _safely(conn, wearer, start_ns, end_ns, target, disguise, write)
    if as_json:
        print_json({"files": [str(path) for path in files], "deidentified": deidentify})
        return
    for path in files:
        console.print(f"{path}: {path.stat().st_size:,} bytes", highlight=False, markup=False)


def _first(conn: Connection, wearer: str, start_ns: int) -> int:
    from edge.store import queries

    known = queries.recorded_range(conn, wearer)
    return start_ns if known is None else max(start_ns, known[0])


def _safely(
    conn: Connection,
    wearer: str,
    start_ns: int,
    end_ns: int,
    target: Path,
    disguise: Disguise,
    write: Callable[[Connection, str, int, int, Path, Disguise], list[Path]],
) -> list[Path]:
    """Write into a new folder beside the target first, so that a failed export leaves nothing by halves."""
    import shutil
    import tempfile

    is_file = write is _fhir
    home = target.parent if is_file else target
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=home) as folder:
            inside = Path(folder)
            written = write(conn, wearer, start_ns, end_ns, inside / target.name if is_file else inside, disguise)
            for path in written:
                if (home / path.name).exists() and not is_file:
                    raise BadInputError(f"{home / path.name} exists already: choose an empty folder")
            return [Path(shutil.move(path, home / path.name)) for path in written]
    except OSError as error:
        raise AnyecgError(f"cannot write {target}: {error.strerror or error}") from None


def _edf(conn: Connection, wearer: str, start_ns: int, end_ns: int, folder: Path, hide: Disguise) -> list[Path]:
    from edge.exchange.edf import write_edf
    from edge.exchange.selection import file_name, stretches

    files: list[Path] = []
    for stretch in stretches(conn, wearer, start_ns, end_ns):
        path = folder / f"{file_name(stretch, hide, [p.stem for p in files])}.edf"
        write_edf(conn, stretch, path, hide)
        files.append(path)
    return files


def _wfdb(conn: Connection, wearer: str, start_ns: int, end_ns: int, folder: Path, hide: Disguise) -> list[Path]:
    from edge.exchange.selection import file_name, stretches
    from edge.exchange.wfdb_record import write_wfdb

    files: list[Path] = []
    for stretch in stretches(conn, wearer, start_ns, end_ns):
        name = file_name(stretch, hide, [p.stem for p in files])
        files += write_wfdb(conn, stretch, folder, name, hide)
    return files


def _csv(conn: Connection, wearer: str, start_ns: int, end_ns: int, folder: Path, hide: Disguise) -> list[Path]:
    from edge.exchange.csv_files import write_csv

    return write_csv(conn, wearer, start_ns, end_ns, folder, hide)


def _fhir(conn: Connection, wearer: str, start_ns: int, end_ns: int, path: Path, hide: Disguise) -> list[Path]:
    import json

    from edge.assistant.localtime import zone
    from edge.clock import SystemClock
    from edge.exchange.fhir import bundle
    from edge.report.holter import read_holter
    from edge.store import queries

    tz = zone(queries.find_wearer(conn, wearer).timezone)
    holter = read_holter(conn, wearer, start_ns, end_ns, tz)
    text = json.dumps(bundle(conn, holter, hide, SystemClock().utc_ns()), ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return [path]
