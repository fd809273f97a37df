"""`anyecg alerts …`: what was told, what is held, and what a person does about it."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json
from edge.cli.review import EventArgument, NoteOption, say
from edge.errors import BadInputError

alerts = typer.Typer(no_args_is_help=True, help="Who was told what; acknowledge, snooze, test.")
app.add_typer(alerts, name="alerts")

WearerOption = Annotated[str, typer.Option("--wearer", help="Whose alerts.")]


@alerts.command("list")
def list_(
    wearer: Annotated[str | None, typer.Option("--wearer", help="Only this person.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The newest so many.")] = 50,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """List events by what became of their alert: told, acknowledged, false, held (and why) or dropped; newest first."""
    from edge.alerts.listing import listing
    from edge.assistant.localtime import show, zone
    from edge.cli.read import reading
    from edge.store import queries

    with reading(state) as conn:
        if wearer is not None:
            queries.find_wearer(conn, wearer)
        found = listing(conn, wearer, limit)
        zones = {person.id: zone(person.timezone) for person in queries.wearers(conn)}
    if as_json:
        print_json(found)
        return
    for row in found:
        why = f" ({row['reason']})" if row["reason"] and row["alert"] in ("held", "dropped") else ""
        strip = f", strip: {row['strip']}" if row["strip"] else ""
        at = show(row["start_ns"], zones[row["wearer"]])
        line = f"{row['id']}  {at}  {row['wearer']}: {row['rule']} {row['severity']}, {row['alert']}{why}{strip}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not found:
        console.print("nothing was told, nothing is held", highlight=False)


@alerts.command()
def ack(
    event: EventArgument, note: NoteOption = "", state: StateOption = DEFAULT_STATE, as_json: JsonOption = False
) -> None:
    """Acknowledge an event: its updates stop, a rise in severity and its end are still told."""
    from edge.cli.read import reading
    from edge.store import queries

    with reading(state) as conn:
        full = str(queries.find_finding(conn, event)["id"])
    say(state, as_json, kind="ack", event=full, note=note)


@alerts.command()
def snooze(
    wearer: WearerOption,
    length: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")] = "1h",
    rule: Annotated[str | None, typer.Option("--rule", help="Only this rule.")] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Tell nothing of a wearer for a while, except what is critical; `anyecg review undo` ends it early."""
    units = {"m": 60, "h": 3600, "d": 86_400}
    number, unit = length[:-1], length[-1:]
    if unit not in units or not number.isdigit() or int(number) == 0:
        raise BadInputError(f"--for {length!r} is no length of time; write 30m, 2h or 1d")
    say(state, as_json, kind="snooze", wearer=wearer, seconds=int(number) * units[unit], rule=rule)


@alerts.command("test")
def send_test(wearer: WearerOption, state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Send an event marked as a test the whole way to the broker, and say whether anybody is subscribed."""
    from edge import control

    done = control.request(state, "alerts_test", wearer=wearer)
    if as_json:
        print_json(done)
        return
    listening = {
        True: "somebody is subscribed",
        False: "nobody is subscribed to it: nobody would be told",
        None: "whether anybody is subscribed, an MQTT 3.1.1 broker does not say",
    }[done["heard"]]
    console.print(
        f"the broker took a test event on {done['topic']} after {done['took_s']} s; {listening}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
