"""`anyecg demo`: the whole product on one machine, in under three minutes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import JsonOption, app, console, print_json

if TYPE_CHECKING:
    from rich.progress import Progress

COLOURS = {"critical": "bold red", "urgent": "red", "advisory": "yellow", "info": "cyan"}


@app.command()
def demo(
    record: Annotated[Path | None, typer.Option("--record", help="WFDB or EDF record to play instead.")] = None,
    keep: Annotated[Path | None, typer.Option("--keep", help="State folder to leave behind for a closer look.")] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="mosquitto or amqtt; default: what is there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Play a wearable through a real broker into a real gateway, see the alerts, ask a question."""
    from edge.errors import BadInputError

    if broker not in (None, "mosquitto", "amqtt"):
        raise BadInputError(f"--broker {broker!r}: mosquitto or amqtt")
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise BadInputError(f"--keep {keep} is not empty: name a new folder")
    state = keep or Path(tempfile.mkdtemp(prefix="anyecg-demo-"))
    try:
        result = _run(state, record, broker, quiet=as_json)
    finally:
        if keep is None:
            shutil.rmtree(state, ignore_errors=True)
    if as_json:
        print_json(result)


def _run(state: Path, record: Path | None, wanted: Any, *, quiet: bool) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from broker.local import local_broker
    from edge import demo

    out = Console(stderr=True) if quiet else console
    wearable = demo.choose_wearable(record)
    minutes = wearable.record.duration_s / 60
    with local_broker(wanted=wanted) as broker:
        out.print(f"[bold]broker[/]    {broker.kind}: {broker.reason}", highlight=False)
        out.print(f"[bold]wearable[/]  {wearable.title}: {minutes:.1f} min, {', '.join(wearable.record.leads)}")
        subscriber = demo.Subscriber()
        with demo.subscribed(broker.url, broker.protocol, subscriber), demo.daemon(state, broker) as daemon:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
            with Progress(*columns, TextColumn("{task.fields[state]}"), TimeRemainingColumn(), console=out) as progress:
                subscriber.on_event = lambda event: _show(progress, event)
                task = progress.add_task("playing", total=wearable.record.n, state="")

                def advance(sent: int) -> None:
                    progress.update(task, completed=sent, state=_state_line(subscriber.state))

                samples = demo.send(wearable, broker, advance)
                progress.update(task, description="reading", state=_state_line(subscriber.state))
                status = demo.settle(state, daemon)
                demo.received_all(state, subscriber)
            out.print(f"[bold]question[/]  {demo.QUESTION}")
            answer = demo.ask(state, demo.QUESTION)
        out.print(f"[bold]answer[/]    {answer['answer']}", highlight=False)
        if answer["fallback"]:
            out.print("[dim]          planned from keywords: the untuned language model chose otherwise[/]")
    events = demo.found_events(state)
    analysis = status["analysis"]
    out.print(
        f"[bold]in all[/]    {samples} samples, {analysis['hops']} windows, {analysis['beats']} beats, "
        f"{len(events)} events, {subscriber.received} alert messages for {len(subscriber.events)} events",
        highlight=False,
    )
    out.print("[dim]Research software, not a medical device.[/]")
    return {
        "record": wearable.record.name,
        "broker": broker.kind,
        "samples": samples,
        "windows": analysis["hops"],
        "beats": analysis["beats"],
        "beat_classes": demo.beat_classes(state),
        "events": events,
        "alerts_received": subscriber.received,
        "alerted_events": len(subscriber.events),
        "question": demo.QUESTION,
        "answer": answer["answer"],
        "citations": answer["citations"],
        "fallback": answer["fallback"],
    }


def _show(progress: Progress, event: dict[str, Any]) -> None:
    colour = COLOURS[event["severity"]]
    progress.console.print(
        f"  {event['start'][11:19]}  [{colour}]{event['severity']:<9}[/] {event['type']:<7}{event['text']}",
        highlight=False,
        soft_wrap=True,
    )


def _state_line(state: dict[str, Any]) -> str:
    rate = state.get("hr_bpm")
    return f"{rate:.0f}/min {state.get('rhythm') or ''}" if rate is not None else ""
