"""`anyecg replay` and `anyecg simulate`: wearables without a wearer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import JsonOption, app, console, errors, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge.config import Mqtt
    from edge.sources.pace import Block
    from edge.sources.sender import Run

UrlOption = Annotated[str, typer.Option("--mqtt", help="Broker: mqtt://HOST[:PORT] or mqtts://HOST[:PORT].")]
WearerOption = Annotated[str, typer.Option("--wearer", help="Who wears it: a-z, 0-9, - and _.")]
DeviceOption = Annotated[str, typer.Option("--device", help="Name of the device: a-z, 0-9, - and _.")]
SpeedOption = Annotated[float, typer.Option("--speed", help="Times real time; 0 is as fast as possible.")]
ChunkOption = Annotated[float, typer.Option("--chunk-s", help="Seconds per message, at most 10.")]
PatienceOption = Annotated[
    float, typer.Option("--timeout", help="Give up after this many seconds without any acknowledgement.")
]
UserOption = Annotated[str | None, typer.Option("--username", help="User at the broker.")]
PasswordOption = Annotated[Path | None, typer.Option("--password-file", help="File whose first line is the password.")]
CaOption = Annotated[Path | None, typer.Option("--ca-file", help="PEM file of the broker's authority (mqtts).")]
CertOption = Annotated[Path | None, typer.Option("--cert-file", help="PEM file of the wearable's own certificate.")]
KeyOption = Annotated[Path | None, typer.Option("--key-file", help="PEM file of its key.")]
DEFAULT_URL = "mqtt://127.0.0.1:1883"


@app.command()
def replay(
    record: Annotated[Path, typer.Argument(help="WFDB record (path without extension) or EDF file.")],
    wearer: WearerOption,
    mqtt: UrlOption = DEFAULT_URL,
    device: DeviceOption = "replay",
    speed: SpeedOption = 1.0,
    chunk_s: ChunkOption = 1.0,
    lead: Annotated[list[str] | None, typer.Option("--lead", help="Lead name or index; repeat for more.")] = None,
    start: Annotated[
        str | None, typer.Option("--start", help="UTC of the first sample (ISO 8601); default: the end is now.")
    ] = None,
    timeout_s: PatienceOption = 60.0,
    username: UserOption = None,
    password_file: PasswordOption = None,
    ca_file: CaOption = None,
    cert_file: CertOption = None,
    key_file: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a recording over MQTT as a wearable would; done when the gateway has committed all of it."""
    from edge.clock import utc_ns_of
    from edge.sources.record import read_record
    from edge.sources.replay import blocks, replay_stream, start_for_end_at

    recording = read_record(record, lead)
    for note in recording.notes:
        errors.print(f"note: {note}", highlight=False, markup=False)
    start_ns = start_for_end_at(recording, time.time_ns(), speed) if start is None else utc_ns_of(start)
    stream = replay_stream(recording, wearer=wearer, device=device, start_utc_ns=start_ns)
    result = _send(
        broker_settings(mqtt, username, password_file, ca_file, cert_file, key_file),
        stream,
        blocks(recording, chunk_s),
        n=recording.n,
        speed=speed,
        timeout_s=timeout_s,
        title=recording.name,
    )
    _finish({"record": recording.name, **result}, as_json)


@app.command()
def simulate(
    wearer: WearerOption = "simulated",
    mqtt: Annotated[
        str | None, typer.Option("--mqtt", help="Broker: mqtt://HOST[:PORT]; none: only write files.")
    ] = None,
    device: DeviceOption = "simulator",
    script: Annotated[
        str, typer.Option("--script", help="TOML or JSON file, or the name of a built-in script.")
    ] = "tour",
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same signal.")] = 1,
    fs_hz: Annotated[float, typer.Option("--fs", help="Sampling rate in Hz.")] = 250.0,
    duration_s: Annotated[
        float | None, typer.Option("--duration", help="Seconds; repeats or cuts the script. Default: once through.")
    ] = None,
    speed: SpeedOption = 1.0,
    chunk_s: ChunkOption = 1.0,
    wfdb_dir: Annotated[
        Path | None, typer.Option("--wfdb", help="Write signal and truth as a WFDB record here.")
    ] = None,
    truth_dir: Annotated[Path | None, typer.Option("--truth", help="Write the truth as JSON here.")] = None,
    timeout_s: PatienceOption = 60.0,
    username: UserOption = None,
    password_file: PasswordOption = None,
    ca_file: CaOption = None,
    cert_file: CertOption = None,
    key_file: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a wearable with scripted rhythms; truth annotations come out with the signal."""
    from edge.errors import BadInputError
    from edge.sources.replay import replay_stream, start_for_end_at
    from edge.sources.script import load_script
    from edge.sources.simulator import blocks, simulate
    from edge.sources.truth import write_json, write_wfdb

    if mqtt is None and wfdb_dir is None and truth_dir is None:
        raise BadInputError("nothing to do: give --mqtt URL to send, or --wfdb DIR or --truth DIR to write files")
    simulation = simulate(load_script(script), seed=seed, fs_hz=fs_hz, duration_s=duration_s)
    recording = simulation.record
    start_ns = start_for_end_at(recording, time.time_ns(), speed)
    result: dict[str, Any] = {
        "script": script,
        "seed": seed,
        "samples": recording.n,
        "duration_s": recording.duration_s,
    }
    if wfdb_dir is not None:
        result["wfdb"] = str(write_wfdb(simulation, wfdb_dir))
    if truth_dir is not None:
        result["truth"] = str(write_json(simulation, truth_dir, start_ns if mqtt is not None else None))
    if mqtt is not None:
        stream = replay_stream(recording, wearer=wearer, device=device, start_utc_ns=start_ns)
        result |= _send(
            broker_settings(mqtt, username, password_file, ca_file, cert_file, key_file),
            stream,
            blocks(simulation, chunk_s),
            n=recording.n,
            speed=speed,
            timeout_s=timeout_s,
            title=recording.name,
        )
    _finish(result, as_json)


def broker_settings(
    url: str,
    username: str | None,
    password_file: Path | None,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
) -> Mqtt:
    """Return what the options say about the broker. Raises `BadInputError`."""
    from pydantic import ValidationError

    from edge.config import Mqtt
    from edge.errors import BadInputError

    try:
        return Mqtt(
            url=url,
            username=username,
            password_file=password_file,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
    except ValidationError as error:
        raise BadInputError(f"--mqtt: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _send(
    broker: Mqtt,
    stream: Run,
    chunks: Iterable[Block],
    *,
    n: int,
    speed: float,
    timeout_s: float,
    title: str,
) -> dict[str, Any]:
    """Send everything and wait for the gateway; returns the sender's counters and times."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from edge.clock import SystemClock
    from edge.sources.pace import send_blocks
    from edge.sources.sender import Sender

    began_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=errors, transient=True) as bar,
        Sender(broker, stream, patience_s=timeout_s) as sender,
    ):
        task = bar.add_task(title, total=n)
        send_blocks(
            chunks,
            sender,
            fs_hz=stream.fs_hz,
            speed=speed,
            clock=SystemClock(),
            sleep=time.sleep,
            progress=lambda sent: bar.update(task, completed=sent),
        )
        bar.update(task, description=f"{title}: waiting for the gateway")
        sender.finish()
        counters = sender.snapshot()
    seconds = time.monotonic() - began_s
    return {
        "wearer": stream.wearer,
        "device": stream.device,
        "leads": list(stream.leads),
        "fs_hz": stream.fs_hz,
        "start_utc_ns": stream.utc_ns,
        **counters,
        "seconds": round(seconds, 3),
        "times_real_time": round(n / stream.fs_hz / seconds, 2),
    }


def _finish(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for key, value in result.items():
        console.print(f"{key:>16}  {value}", highlight=False, markup=False)
