"""`anyecg status|events|trends`: what the database says, read directly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json
from edge.errors import BadInputError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from rich.table import Table
    from sqlalchemy import Connection

    from edge.report.status import Status, WearerStatus
    from edge.store.queries import Wearer

WearerOption = Annotated[str | None, typer.Option("--wearer", help="Only this person.")]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", help="ISO time, date, 24h, 7d, yesterday, last night, … in the wearer's time zone."),
]
UntilOption = Annotated[str | None, typer.Option("--until", help="As --since; a date or a word means its end.")]

STYLES = {
    "ok": "green",
    "degraded": "yellow",
    "failing": "red",
    "off": "dim",
    "unknown": "magenta",
    "critical": "bold red",
    "urgent": "red",
    "advisory": "yellow",
    "info": "dim",
}


@contextlib.contextmanager
def reading(state: Path) -> Iterator[Connection]:
    """Open the database of a state folder for one command or question, in one snapshot."""
    from sqlalchemy.exc import DatabaseError

    from edge.store.database import StoreError, open_readonly

    engine = open_readonly(state)
    try:
        with engine.connect() as conn:
            yield conn
    except DatabaseError as error:
        raise StoreError(f"cannot read the database in {state}: {error.orig}") from None
    finally:
        engine.dispose()


def local_span(
    wearer: Wearer, since: str | None, until: str | None, now_ns: int, default_s: float
) -> tuple[int, int, ZoneInfo]:
    """Return (start_ns, end_ns, zone) of what a person typed, in the wearer's time zone."""
    from edge.assistant.localtime import parse_instant, zone

    tz = zone(wearer.timezone)
    end_ns = now_ns if until is None else parse_instant(until, now_ns, tz, "end")
    start_ns = end_ns - round(default_s * 1e9) if since is None else parse_instant(since, now_ns, tz)
    if start_ns >= end_ns:
        raise BadInputError(f"--since {since or ''} is not before --until {until or 'now'}")
    return start_ns, end_ns, tz


def _chosen(conn: Connection, wearer: str | None) -> list[Wearer]:
    from edge.store import queries

    return queries.wearers(conn) if wearer is None else [queries.find_wearer(conn, wearer)]


@app.command()
def events(
    wearer: WearerOption = None,
    rule: Annotated[list[str] | None, typer.Option("--rule", help="Only this rule (repeatable).")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    severity: Annotated[str | None, typer.Option("--severity", help="Only this severity and above.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The newest so many.")] = 50,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """List events, newest first (of the past 24 hours unless --since says otherwise)."""
    from edge.assistant.localtime import iso_utc, show_duration
    from edge.clock import SystemClock
    from edge.rhythm.events import RULES, SEVERITIES
    from edge.store import queries

    _check("rule", rule or [], RULES)
    _check("severity", [severity] if severity else [], SEVERITIES)
    severities = SEVERITIES[[*SEVERITIES].index(severity) :] if severity in SEVERITIES else ()
    now_ns = SystemClock().utc_ns()
    rows: list[tuple[dict[str, Any], ZoneInfo]] = []
    with reading(state) as conn:
        for person in _chosen(conn, wearer):
            start_ns, end_ns, tz = local_span(person, since, until, now_ns, 86_400)
            found = queries.findings(
                conn,
                wearer=person.id,
                rules=rule or (),
                severities=severities,
                start_ns=start_ns,
                end_ns=end_ns,
                newest_first=True,
                limit=limit,
            )
            rows += [(row, tz) for row in found]
    rows.sort(key=lambda pair: (-pair[0]["start_ns"], pair[0]["id"]))
    rows = rows[:limit]
    if as_json:
        keys = ("id", "wearer", "device", "rule", "severity", "state", "revision", "evidence")
        print_json(
            [
                {key: row[key] for key in keys}
                | {"start": iso_utc(row["start_ns"]), "end": iso_utc(row["end_ns"])}
                | {"duration_s": (row["end_ns"] - row["start_ns"]) / 1e9}
                for row, _ in rows
            ]
        )
        return
    table = _table("event", "wearer", "rule", "severity", "start", "duration")
    for row, tz in rows:
        so_far = ", open" if row["state"] == "open" else ""
        duration = show_duration((row["end_ns"] - row["start_ns"]) / 1e9) + so_far
        start = _short(row["start_ns"], now_ns, tz)
        _row(table, row["id"], row["wearer"], row["rule"], _styled(row["severity"]), start, duration)
    console.print(table if rows else "no events in this period", highlight=False)


def _short(utc_ns: int, now_ns: int, tz: ZoneInfo) -> str:
    """Return `29 Mar 03:00:00 CEST`, with the year if it is not this one."""
    from edge.assistant.localtime import to_local

    at = to_local(utc_ns, tz)
    year = "" if at.year == to_local(now_ns, tz).year else f"{at.year} "
    return f"{at.day} {at:%b} {year}{at:%H:%M:%S %Z}"


def _check(name: str, values: list[str], allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise BadInputError(f"there is no {name} {value!r}; choose from {', '.join(allowed)}")


@app.command()
def trends(
    wearer: WearerOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Show heart rate, rhythm and readable time per minute (of the past 24 hours unless --since says otherwise)."""
    from edge.assistant.localtime import iso_utc
    from edge.clock import SystemClock
    from edge.store import queries

    now_ns = SystemClock().utc_ns()
    output = []
    with reading(state) as conn:
        for person in _chosen(conn, wearer):
            start_ns, end_ns, tz = local_span(person, since, until, now_ns, 86_400)
            rows = queries.trends(conn, person.id, start_ns, end_ns)
            if not as_json:
                _print_trend(person.id, rows, start_ns, end_ns, tz)
            for row in rows:
                row["start"] = iso_utc(row.pop("utc_ns"))
            minutes = [{k: v for k, v in row.items() if k not in ("recording_id", "minute")} for row in rows]
            output.append(
                {"wearer": person.id, "from": iso_utc(start_ns), "to": iso_utc(end_ns), "minutes": minutes}
            )  # fmt: skip
    if as_json:
        print_json(output)


def _print_trend(wearer: str, rows: list[dict[str, Any]], start_ns: int, end_ns: int, tz: ZoneInfo) -> None:
    from edge.assistant.localtime import show_duration, show_minute
    from edge.report.braille import plot
    from edge.store import queries

    console.print(f"{wearer}: {show_minute(start_ns, tz)} to {show_minute(end_ns, tz)}", style="bold", highlight=False)
    known = [row for row in rows if row["hr_bpm"] is not None]
    readable_s, recorded_s = (sum(row[name] for row in rows) for name in ("readable_s", "recorded_s"))
    if not known:
        seen = "nothing recorded and analysed" if not recorded_s else "nothing readable"
        console.print(f"  no heart rate: {seen} in this period", highlight=False)
        return
    series = [float("nan")] * max(-(-(end_ns - start_ns) // queries.MINUTE_NS), 1)
    for row in known:
        series[min(max((row["utc_ns"] - start_ns) // queries.MINUTE_NS, 0), len(series) - 1)] = row["hr_bpm"]
    rates = [row["hr_bpm"] for row in known]
    low, high = 10 * int(min(rates) // 10), 10 * int(max(rates) // 10 + 1)
    lines = plot(series, max(console.width - 6, 20), 6, low, high, ascii_only=_ascii_only())
    for n, line in enumerate(lines):
        axis = f"{high if n == 0 else low if n == len(lines) - 1 else '':>4} "
        console.print(axis + line, highlight=False, markup=False, no_wrap=True)
    table = _table("heart rate bpm: mean", "lowest", "highest", "readable", "recorded", "N", "S", "V", "AF")
    beats = {c: sum(row["beats"].get(c, 0) for row in rows) for c in "NSV"}
    _row(
        table,
        f"{queries.mean_bpm(known):.0f}",
        f"{min(r['hr_min_bpm'] or r['hr_bpm'] for r in known):.0f}",
        f"{max(r['hr_max_bpm'] or r['hr_bpm'] for r in known):.0f}",
        show_duration(readable_s),
        show_duration(recorded_s),
        *(str(n) for n in beats.values()),
        show_duration(sum(row["af_s"] for row in rows)),
    )
    console.print(table)
    if pulse_s := sum(row["pulse_s"] for row in known):
        console.print(f"  {show_duration(pulse_s)} of it by a strap without ECG: heart rate only", highlight=False)


@app.command()
def status(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show how the gateway and each wearer are: ok, degraded, failing, off, or unknown where there is no data."""
    from edge.clock import SystemClock
    from edge.report.status import read_status

    now_ns = SystemClock().utc_ns()
    with reading(state) as conn:
        found = read_status(conn, now_ns)
    if as_json:
        print_json(found.as_json())
        return
    console.print(_styled(found.state), f"gateway: {found.reason}", highlight=False)
    _print_health(found)
    table = _table("wearer", "state", "now")
    for person in found.wearers:
        _row(table, *_wearer_cells(person))
    console.print(table if found.wearers else "no wearers yet: one appears with its first data")


def _print_health(found: Status) -> None:
    from edge.assistant.localtime import show_duration

    health = found.health
    table = _table("part", "now", head=False)
    daemon, encoder, broker, analysis = (health.get(k) or {} for k in ("daemon", "encoder", "broker", "analysis"))
    if daemon:
        _row(
            table,
            "daemon",
            f"pid {daemon.get('pid')}, version {daemon.get('version')}, up {show_duration(daemon.get('uptime_s', 0))}, "
            f"{daemon.get('rss_mb', 0):.0f} MB",
        )
    if encoder:
        _row(table, "encoder", f"{encoder.get('checkpoint')} on {encoder.get('provider')}: {encoder.get('reason')}")
    if broker:
        sides = (
            f"{name} {side.get('state') or side.get('link')} {side.get('protocol') or ''}".strip()
            for name in ("source", "publisher")
            if (side := broker.get(name) or {})
        )
        _row(table, "broker", f"{broker.get('url')}: {', '.join(sides)}")
    if analysis:
        _row(table, "analysis", f"{analysis.get('lag_s', 0):.0f} s behind, {analysis.get('failures', 0)} failures")
    _row(table, "waiting", ", ".join(f"{n} in {name}" for name, n in found.backlog.items()))
    for name in ("queues", "intake", "writer"):
        counters = {k: v for k, v in (health.get(name) or {}).items() if v}
        if counters:
            _row(table, name, ", ".join(f"{key} {value}" for key, value in counters.items()))
    console.print(table)


def _wearer_cells(person: WearerStatus) -> list[Any]:
    from rich.text import Text

    from edge.assistant.localtime import show_duration

    devices = (
        f"{device['device']} {device['link']}, data {show_duration(max(device['freshness_s'], 0))} ago"
        for device in person.devices
    )
    rate = "unknown" if person.hr_bpm is None else f"{person.hr_bpm:.0f} bpm"
    readable, recorded = (show_duration(person.coverage[name]) for name in ("readable_s", "recorded_s"))
    opened = ", ".join(f"{event['rule']} ({event['severity']})" for event in person.open_events)
    lines = [
        *devices,
        f"heart rate {rate}, rhythm {person.rhythm or 'unknown'}",
        f"{readable} readable of {recorded} recorded in the past 24 h",
        *([f"open: {opened}"] if opened else []),
    ]
    return [person.wearer, Text.assemble(_styled(person.state), f"\n{person.reason}"), "\n".join(lines)]


def _table(*columns: str, head: bool = True) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if head else None, show_header=head, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column in ("event", "rule", "severity", "start"))
    return table


def _row(table: Table, *cells: Any) -> None:
    """Add a row; text from the database is text, never markup."""
    from rich.text import Text

    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def _styled(word: str) -> Any:
    from rich.text import Text

    return Text(word, style=STYLES.get(word, ""))


def _ascii_only() -> bool:
    return not (console.encoding or "").lower().startswith("utf")
