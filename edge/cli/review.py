"""`anyecg review …` and `anyecg mark`: what a person says about the recordings."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json
from edge.errors import BadInputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

review = typer.Typer(no_args_is_help=True, help="Say whether an event is right; correct beats and episodes.")
app.add_typer(review, name="review")

EventArgument = Annotated[str, typer.Argument(metavar="EVENT", help="An event, by id or its beginning.")]
NoteOption = Annotated[str, typer.Option("--note", help="A remark, at most 2000 characters.")]
WearerOption = Annotated[str, typer.Option("--wearer", help="Whose recording.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="Of several devices, the one meant.")]
TIME_HELP = "Time in the wearer's time zone, or a length before now (5m)."


@review.command()
def confirm(
    event: EventArgument, note: NoteOption = "", state: StateOption = DEFAULT_STATE, as_json: JsonOption = False
) -> None:
    """Say that an event is what it was read as."""
    say(state, as_json, kind="confirm", event=_full_id(state, event), note=note)


@review.command("false")
def false_(
    event: EventArgument, note: NoteOption = "", state: StateOption = DEFAULT_STATE, as_json: JsonOption = False
) -> None:
    """Say that an event is a false alarm: it stays on record, but no burden or report counts it."""
    say(state, as_json, kind="false", event=_full_id(state, event), note=note)


@review.command()
def note(
    event: EventArgument,
    text: Annotated[str, typer.Argument(help="What to remember.")],
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Write a note on an event."""
    say(state, as_json, kind="note", event=_full_id(state, event), note=text)


@review.command()
def beat(
    kind: Annotated[str, typer.Argument(metavar="CLASS", help="N, S, V, F or Q; none: there is no beat.")],
    wearer: WearerOption,
    at: Annotated[str, typer.Option("--at", help="Time of the R peak (within 0.1 s), in the wearer's time zone.")],
    device: DeviceOption = None,
    note: NoteOption = "",
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Give the beat at a time another class, add one, or remove it (class none)."""
    from edge.cli.read import reading

    with reading(state) as conn:
        recording_id, sample = _place(conn, wearer, device, at)
    chosen = None if kind == "none" else kind
    say(state, as_json, kind="beat", recording_id=recording_id, sample=sample, type=chosen, note=note)


@review.command()
def episode(
    event: EventArgument,
    rule: Annotated[str | None, typer.Option("--rule", help="What it really is.")] = None,
    start: Annotated[str | None, typer.Option("--start", help="When it really began.")] = None,
    end: Annotated[str | None, typer.Option("--end", help="When it really ended.")] = None,
    note: NoteOption = "",
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Correct what an event is, or when it began and ended."""
    from edge.cli.read import reading
    from edge.store import queries

    if rule is None and start is None and end is None:
        raise BadInputError("say what is right: --rule, --start, --end")
    right: dict[str, Any] = {} if rule is None else {"rule": rule}
    with reading(state) as conn:
        found = queries.find_finding(conn, event)
        for name, time in (("start_sample", start), ("end_sample", end)):
            if time is not None:
                _, right[name] = _place(conn, found["wearer"], found["device"], time)
    say(state, as_json, kind="episode", event=found["id"], note=note, **right)


@review.command()
def add(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="What it is: af, vt, pause, … (docs/rules.md).")],
    wearer: WearerOption,
    start: Annotated[str, typer.Option("--start", help=f"When it began. {TIME_HELP}")],
    end: Annotated[str, typer.Option("--end", help="When it ended.")],
    device: DeviceOption = None,
    note: NoteOption = "",
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Add an episode that the machine missed; it counts in burden and report."""
    from edge.assistant.localtime import parse_instant, zone
    from edge.cli.read import reading
    from edge.clock import SystemClock
    from edge.store import marks, queries

    with reading(state) as conn:
        tz, now_ns = zone(queries.find_wearer(conn, wearer).timezone), SystemClock().utc_ns()
        start_ns, end_ns = (parse_instant(time, now_ns, tz) for time in (start, end))
        if start_ns >= end_ns:
            raise BadInputError(f"--start {start} is not before --end {end}")
        span = marks.place_span(conn, wearer, start_ns, end_ns, device)
    say(state, as_json, kind="episode", rule=rule, note=note, **span)


@review.command()
def undo(
    number: Annotated[int, typer.Argument(metavar="MARK", help="Number of the mark.")],
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Take a mark back; it stays on record as undone."""
    say(state, as_json, undo=number)


@review.command("list")
def list_(
    event: Annotated[str | None, typer.Argument(metavar="[EVENT]", help="Only what was said about it.")] = None,
    wearer: Annotated[str | None, typer.Option("--wearer", help="Without EVENT: about whose recordings.")] = None,
    since: Annotated[str, typer.Option("--since", help=f"Without EVENT. {TIME_HELP}")] = "24h",
    until: Annotated[str | None, typer.Option("--until", help="As --since.")] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Show what people said about an event, or about a wearer's recordings, undone marks included."""
    from edge.assistant.localtime import show, zone
    from edge.cli.read import local_span, reading
    from edge.clock import SystemClock
    from edge.store import marks, queries

    with reading(state) as conn:
        if event is not None:
            found = marks.find_episode(conn, event)
            said = marks.of_episode(conn, found["id"])
            tz = zone(queries.find_wearer(conn, found["wearer"]).timezone)
        elif wearer is not None:
            person = queries.find_wearer(conn, wearer)
            start_ns, end_ns, tz = local_span(person, since, until, SystemClock().utc_ns(), 86_400)
            said = marks.in_period(conn, wearer, start_ns, end_ns, undone=True)
        else:
            raise BadInputError("say what to list: an event, or --wearer and --since")
    if as_json:
        print_json([mark.as_json() for mark in said])
        return
    for mark in said:
        undone = f" (undone by {mark.undone_by})" if mark.undone_ns else ""
        about = "" if event is not None else f" on {mark.finding_id or show(mark.at_ns, tz)}"
        line = f"{mark.id}  {show(mark.written_ns, tz)}  {mark.author}: {mark.kind}{about}  {mark.note}{undone}"
        console.print(line, highlight=False, markup=False)
    if not said:
        console.print("nobody has said anything about it yet", highlight=False)


@app.command()
def mark(
    wearer: WearerOption,
    text: Annotated[str, typer.Argument(help="What was felt.")] = "",
    at: Annotated[str | None, typer.Option("--at", help=f"{TIME_HELP} Default: now.")] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Mark a symptom: "dizzy", "palpitations"."""
    from edge.assistant.localtime import parse_instant, zone
    from edge.cli.read import reading
    from edge.clock import SystemClock
    from edge.store import queries

    at_ns = None
    with reading(state) as conn:
        tz = zone(queries.find_wearer(conn, wearer).timezone)
        if at is not None:
            at_ns = parse_instant(at, SystemClock().utc_ns(), tz)
    say(state, as_json, kind="symptom", wearer=wearer, at_ns=at_ns, note=text)


def _full_id(state: Path, event: str) -> str:
    from edge.cli.read import reading
    from edge.store import queries

    with reading(state) as conn:
        return str(queries.find_finding(conn, event)["id"])


def _place(conn: Connection, wearer: str, device: str | None, time: str) -> tuple[int, int]:
    """Return (recording, sample) of a time: of the named device, or of the only one that recorded then."""
    from edge.assistant.localtime import parse_instant, show, zone
    from edge.clock import SystemClock
    from edge.store import queries

    tz = zone(queries.find_wearer(conn, wearer).timezone)
    at_ns = parse_instant(time, SystemClock().utc_ns(), tz)
    places = []
    for recording in queries.recordings(conn, wearer):
        spans = recording.sample_spans(at_ns, at_ns + round(2 * queries.NS / recording.fs_hz))
        if spans and device in (None, recording.device):
            places.append((recording, spans[0][0]))
    if not places:
        raise BadInputError(f"nothing of {wearer} was recorded at {show(at_ns, tz)}")
    if len(places) > 1:
        devices = ", ".join(sorted({recording.device for recording, _ in places}))
        raise BadInputError(f"several recordings hold {show(at_ns, tz)} ({devices}): choose with --device")
    return places[0][0].id, places[0][1]


def say(state: Path, as_json: bool, **request: Any) -> None:
    """Let the daemon write, or write under the lock of the state folder where none runs."""
    from edge import control
    from edge.alerts import people
    from edge.clock import SystemClock
    from edge.store.writer import Writer

    request |= {"author": _who()}
    try:
        done = control.request(state, "mark", **request)
    except control.NotRunningError:
        with Writer(state) as writer:
            now_ns = SystemClock().utc_ns()
            done = writer.submit(lambda conn: people.perform(conn, request, now_ns)).result().mark
    if as_json:
        print_json(done)
        return
    what = "undone" if done["undone_ns"] else f"noted; `anyecg review undo {done['id']}` takes it back"
    about = done["finding_id"] or done["wearer"]
    console.print(f"mark {done['id']}: {done['kind']} on {about}, {what}", highlight=False, markup=False)


def _who() -> str:
    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError):
        return "unknown"
