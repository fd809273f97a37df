"""`anyecg analyze`: whole recordings from files, one after the other."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.app import app, console, errors, print_error
from edge.errors import AnyecgError, BadInputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from edge.analyze import Analysis, Analyzer


@app.command()
def analyze(
    records: Annotated[list[str], typer.Argument(metavar="RECORD...", help="WFDB paths (no extension) or EDF files.")],
    lead: Annotated[
        list[str] | None, typer.Option("--lead", metavar="NAME|INDEX", help="Lead to read (repeatable); else all.")
    ] = None,
    wfdb: Annotated[
        Path | None, typer.Option("--wfdb", metavar="DIR", help="Write DIR/<record>.edge, a WFDB annotation file.")
    ] = None,
    json_dir: Annotated[Path | None, typer.Option("--json", metavar="DIR", help="Write DIR/<record>.json.")] = None,
    provider: Annotated[
        str, typer.Option(help="Where the encoder runs: auto, cpu, cuda or tensorrt.", envvar="ANYECG_PROVIDER")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="Form of the weights: fp32 (as the daemon by default), int8 or auto (int8 on a CPU).")
    ] = "auto",
) -> None:
    """Find beats, rhythms and events in recordings.

    A record that cannot be read is reported and the others are still analysed (exit code 2).
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from edge.analyze import Analyzer
    from edge.encoder.library import choose_card
    from edge.encoder.session import Encoder

    folders = [folder for folder in (wfdb, json_dir) if folder is not None]
    _check_names(records, folders)
    for folder in folders:
        _make(folder)
    analyzer = Analyzer(Encoder(choose_card(None, precision, provider)[0], provider=provider))
    table, events = _table(), list[str]()
    refused = failed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=errors, transient=True) as progress:
        for at, path in enumerate(records):
            task = progress.add_task(f"{at + 1}/{len(records)}", total=None)
            try:
                analysis = _one(analyzer, path, lead, wfdb, json_dir, progress, task)
            except BadInputError as error:
                refused += 1
                print_error("bad input", error)
            except AnyecgError as error:
                failed += 1
                print_error("failed", error)
            else:
                _row(table, analysis)
                if analysis.findings:
                    events.append(_events(analysis))
            progress.remove_task(task)
    if table.row_count:
        console.print(table)
        console.print("Events", style="bold")
        for line in events or ["none"]:
            console.print(f" {line}", markup=False, highlight=False, soft_wrap=True)
        footer = f"{analyzer.encoder.choice.reason}. Research software, not a medical device."
        console.print(footer, style="dim", markup=False, soft_wrap=True)
    if refused or failed:
        raise typer.Exit(2 if refused else 1)


def _one(
    analyzer: Analyzer,
    path: str,
    lead: list[str] | None,
    wfdb: Path | None,
    json_dir: Path | None,
    progress: Progress,
    task: TaskID,
) -> Analysis:
    from edge.analysis_files import write_json, write_wfdb
    from edge.sources.record import read_record

    began = time.perf_counter()
    record = read_record(path, lead)
    read_s = time.perf_counter() - began
    progress.update(task, total=record.duration_s)
    analysis = analyzer.analyze(record, lambda seconds: progress.advance(task, seconds))
    analysis.timing["read_s"] = read_s
    if wfdb is not None:
        write_wfdb(analysis, wfdb)
    if json_dir is not None:
        write_json(analysis, analyzer.identity, json_dir)
    for note in record.notes:
        errors.print(f"{record.name}: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    return analysis


def _check_names(records: list[str], folders: list[Path]) -> None:
    """Refuse two records that would write the same file."""
    names = [Path(path).stem if path.lower().endswith(".edf") else Path(path).name for path in records]
    twice = sorted({name for name in names if names.count(name) > 1})
    if folders and twice:
        raise BadInputError(
            f"more than one record is called {', '.join(twice)}: their files would overwrite each other; "
            "analyze them one call at a time, into different folders"
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{folder} cannot be used as a folder for results: {error.strerror}") from None


def _table() -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("record (leads)", no_wrap=True, max_width=24)
    for name in ("duration", "readable", "N", "S", "V", "F+Q", "AF"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _row(table: Table, analysis: Analysis) -> None:
    from rich.markup import escape

    record = analysis.record
    count = {kind: sum(beat.type == kind for beat in analysis.beats) for kind in "NSV"}
    af_s = sum(s.end_sample - s.start_sample for s in analysis.rhythms if s.rhythm in ("AFIB", "AFL")) / record.fs_hz
    table.add_row(
        escape(f"{record.name} ({', '.join(record.leads)})"),
        _clock(record.duration_s),
        f"{100 * analysis.readable_fraction:.1f} %",
        *(str(count[kind]) for kind in "NSV"),
        str(len(analysis.beats) - sum(count.values())),
        _clock(af_s),
    )


def _events(analysis: Analysis) -> str:
    """Return how many events of which rules there were, in one line."""
    rules = Counter(finding.rule for finding in analysis.findings)
    return f"{analysis.record.name}: {', '.join(f'{n} {rule}' for rule, n in sorted(rules.items()))}"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
