"""`anyecg wearers add|list|rename|timezone|assign|forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json
from edge.errors import BadInputError

wearers = typer.Typer(no_args_is_help=True, help="People by pseudonym: who wears what, and where they live.")
app.add_typer(wearers, name="wearers")

WearerArgument = Annotated[str, typer.Argument(metavar="WEARER", help="Pseudonym: a-z, 0-9, - and _.")]
ZoneArgument = Annotated[str, typer.Argument(metavar="ZONE", help="IANA name such as Europe/Berlin.")]


@wearers.command()
def add(
    wearer: WearerArgument,
    timezone: Annotated[str | None, typer.Option(help="IANA time zone; else the gateway's.")] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Add a wearer before the first data (data of a new wearer do so by themselves)."""
    from edge.config import load

    done = _ask(state, action="add", wearer=wearer, timezone=timezone or load(state).timezone(wearer))
    _tell(done, as_json, f"{wearer} lives in {done['timezone']}")


@wearers.command("list")
def list_(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """List wearers with their devices, hours and events."""
    from rich.markup import escape
    from rich.table import Table

    from edge.assistant.localtime import iso_utc
    from edge.cli.read import reading
    from edge.store.wearers import listing

    with reading(state) as conn:
        rows = listing(conn)
    if as_json:
        print_json(rows)
        return
    table = Table("wearer", "time zone", "devices", "hours", "events", "last data")
    for row in rows:
        given = [f"{move['device']} (topic {move['named']})" for move in row["given"]]
        last = "never" if row["last_data_ns"] is None else iso_utc(row["last_data_ns"])
        devices = ", ".join([*row["devices"], *given])
        table.add_row(
            *(escape(str(x)) for x in (row["wearer"], row["timezone"], devices, row["hours"], row["events"], last))
        )
    console.print(table if rows else "nobody yet: a wearer appears with its first data", highlight=False)


@wearers.command()
def rename(
    wearer: WearerArgument,
    to: Annotated[str, typer.Argument(metavar="NEW", help="The new pseudonym.")],
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Give a wearer another name everywhere; devices that go on sending under the old one are followed."""
    done = _ask(state, action="rename", wearer=wearer, to=to)
    _tell(done, as_json, f"{wearer} is {to} now; rename [wearers.{wearer}] in config.toml, if it has one")


@wearers.command()
def timezone(
    wearer: WearerArgument, zone: ZoneArgument, state: StateOption = DEFAULT_STATE, as_json: JsonOption = False
) -> None:
    """Set the time zone in which a wearer's days are counted and times shown."""
    from edge.config import FILE_NAME, load

    own = load(state).wearers.get(wearer)
    if own is not None and own.timezone not in (None, zone):
        raise BadInputError(
            f"{state / FILE_NAME} says [wearers.{wearer}] timezone = {own.timezone!r}: change or remove it there"
        )
    _tell(_ask(state, action="timezone", wearer=wearer, timezone=zone), as_json, f"{wearer} lives in {zone} now")


@wearers.command()
def assign(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Name of the strap or patch.")],
    giver: Annotated[str, typer.Option("--from", help="Who wore it until now.")],
    taker: Annotated[str, typer.Option("--to", help="Who wears it from now on.")],
    at: Annotated[str | None, typer.Option("--at", help="Since when: ISO time, 2h, …; else now.")] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Give a device to another wearer: what it measures from then on is theirs, whatever its topic says."""
    from edge.assistant.localtime import iso_utc, parse_instant, zone
    from edge.clock import SystemClock
    from edge.config import load

    now_ns = SystemClock().utc_ns()
    since_ns = now_ns if at is None else parse_instant(at, now_ns, zone(load(state).timezone(taker)))
    done = _ask(state, action="assign", wearer=giver, device=device, to=taker, since_ns=since_ns)
    _tell(done, as_json, f"{device} is worn by {taker} since {iso_utc(since_ns)}")


@wearers.command()
def forget(
    wearer: WearerArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Erase everything of a wearer, backups here included, and verify that nothing is left; this cannot be undone."""
    if not yes and typer.prompt(f"Type {wearer} to erase everything of {wearer} for ever", err=True) != wearer:
        raise BadInputError("nothing was erased")
    done = _ask(state, action="forget", wearer=wearer)
    rows = sum(done["rows"].values())
    copies = f", {len(done['copies'])} copies of the database" if done["copies"] else ""
    bindings = f", the bindings of {', '.join(done['bindings'])}" if done["bindings"] else ""
    text = (
        f"{wearer} is erased: {rows} rows{bindings}{copies}; verified, free pages included. Not reached: exports and "
        f"reports, backups elsewhere, what subscribers received, the journal, [wearers.{wearer}] in config.toml"
    )
    _tell(done, as_json, text)


def _ask(state: Path, **request: Any) -> dict[str, Any]:
    """Let the daemon do it, or do it here under the lock of the state folder."""
    from edge import control
    from edge.clock import SystemClock
    from edge.config import load
    from edge.store.writer import Writer
    from edge.wearers import change, check, forget

    try:
        return dict(control.request(state, "wearers", timeout_s=3600, **request))
    except control.NotRunningError:
        pass
    check(request)
    now_ns = SystemClock().utc_ns()
    with Writer(state) as writer:
        if request["action"] == "forget":
            return forget(writer, state, load(state).backup.folder, wearer=request["wearer"], now_ns=now_ns)
        return writer.submit(lambda conn: change(conn, state, request, now_ns)).result()


def _tell(done: dict[str, Any], as_json: bool, text: str) -> None:
    if as_json:
        print_json(done)
    else:
        console.print(text, highlight=False, markup=False)
