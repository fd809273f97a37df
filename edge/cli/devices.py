"""`anyecg devices scan|add|list|remove|test`: Bluetooth wearables."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, errors, print_json
from edge.errors import AnyecgError, BadInputError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rich.table import Table

    from edge.sources.ble.bindings import Binding
    from edge.sources.ble.generic import Profile
    from edge.sources.ble.radio import Advertisement

devices = typer.Typer(no_args_is_help=True, help="Find Bluetooth wearables and bind them to wearers.")
app.add_typer(devices, name="devices")

SecondsOption = Annotated[float, typer.Option("--seconds", min=1, max=120, help="How long to listen.")]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Name it was given, or its address.")]
STYLES = {
    "streaming": "green",
    **dict.fromkeys(("behind", "low_battery", "off_body", "searching", "asleep", "out_of_range"), "yellow"),
    **dict.fromkeys(("starting", "connecting"), "cyan"),
}


@devices.command()
def scan(
    seconds: SecondsOption = 6.0,
    everything: Annotated[bool, typer.Option("--all", help="Also what is no wearable of ours.")] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """List the wearables that can be heard, strongest first. A strap sleeps until it is worn: moisten and wear it."""
    from edge.sources.ble.bindings import read_bindings, read_profiles
    from edge.sources.ble.kinds import kind_of

    bound = {binding.address: device for device, binding in read_bindings(state).items()}
    profiles = read_profiles(state)
    rows: list[dict[str, Any]] = []
    for heard in _survey(state, seconds):
        kind = kind_of(heard.name, list(heard.services), profiles)
        if kind is not None or everything:
            rows.append(
                {
                    "address": heard.address,
                    "name": heard.name,
                    "rssi": heard.rssi,
                    "kind": kind,
                    "offers": _offers(kind, heard),
                    "bound": bound.get(heard.address),
                }
            )
    if as_json:
        print_json(rows)
        return
    table = _table("address", "name", "signal", "kind", "offers", "bound as")
    for row in rows:
        signal = f"{row['rssi']} dBm"
        _row(table, row["address"], row["name"], signal, row["kind"], ", ".join(row["offers"]), row["bound"])
    nothing = "nothing heard: is it worn, close, and not connected to a phone? (connected wearables do not advertise)"
    console.print(table if rows else nothing, highlight=False)


@devices.command()
def add(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="What to call it: a-z, 0-9, - and _.")],
    wearer: Annotated[str, typer.Option(help="Who wears it.")],
    address: Annotated[str, typer.Option(help="Its Bluetooth address, as `scan` shows it.")],
    kind: Annotated[
        str | None, typer.Option(help="polar, movesense, heart_rate, viatom, or a profile; default: look.")
    ] = None,
    profile: Annotated[Path | None, typer.Option(help="TOML description of a device of another make.")] = None,
    lead: Annotated[str, typer.Option(help="Name of its lead.")] = "ECG",
    fs_hz: Annotated[float | None, typer.Option("--fs", help="Rate to ask for, in Hz (Movesense).")] = None,
    motion: Annotated[bool, typer.Option(help="Also read the accelerometer, if there is one.")] = True,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Bind a wearable to a wearer; a running gateway takes it up at once."""
    from pydantic import ValidationError

    from edge.sources.ble.bindings import Binding, change_bindings, read_profiles
    from edge.sources.ble.kinds import KINDS
    from edge.sources.payload import ID

    if not ID.fullmatch(device):
        raise BadInputError(f"device {device[:80]!r} must match {ID.pattern}")
    name = ""
    if profile is not None:
        kind = _keep_profile(state, profile)
    if kind is None:
        kind, name = _look(state, address)
    profiles = read_profiles(state)
    if kind not in KINDS and kind not in profiles:
        raise BadInputError(f"--kind {kind!r} is none of {', '.join([*KINDS, *profiles])}")
    fields = {"wearer": wearer, "address": address, "kind": kind, "name": name[:64]}
    try:
        binding = Binding.model_validate({**fields, "lead": lead, "fs_hz": fs_hz, "motion": motion})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInputError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    if binding.fs_hz is not None:
        _check_rate(binding)

    def bind(bindings: dict[str, Binding]) -> None:
        for other, found in bindings.items():
            if found.address == binding.address and other != device:
                raise BadInputError(f"{binding.address} is already bound as {other}: remove that first")
        bindings[device] = binding

    change_bindings(state, bind)
    running = _reload(state)
    result = {"device": device, **binding.model_dump(), "gateway": "running" if running else "not running"}
    if as_json:
        print_json(result)
        return
    then = "the gateway is connecting to it" if running else "it is taken up when the gateway runs"
    console.print(f"{device}: {binding.kind} at {binding.address}, worn by {binding.wearer}; {then}", highlight=False)


@devices.command()
def remove(device: DeviceArgument, state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Let go of a wearable; what it recorded stays."""
    from edge.sources.ble.bindings import change_bindings, read_bindings

    name, _ = _bound(device, read_bindings(state))
    change_bindings(state, lambda bindings: void(bindings.pop(name, None)))
    running = _reload(state)
    if as_json:
        print_json({"device": name, "gateway": "running" if running else "not running"})
    else:
        console.print(f"{name} is no longer bound", highlight=False)


@devices.command("list")
def list_(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show bound wearables: link, signal, battery, measured rate and loss."""
    from edge.sources.ble.bindings import read_bindings

    live = _live(state)
    rows = [
        {"device": device, **binding.model_dump(), **(live or {}).get(device, {"state": "unknown", "reason": ""})}
        for device, binding in read_bindings(state).items()
    ]
    if as_json:
        print_json(rows)
        return
    if live is None:
        errors.print("note: the gateway does not run, so links are unknown", highlight=False)
    table = _table("device", "wearer", "kind", "link", "signal", "battery", "rate", "loss")
    for row in rows:
        _row(table, row["device"], row["wearer"], row["kind"], _link(row), *_figures(row))
    console.print(table if rows else "no wearables are bound: anyecg devices scan, then add", highlight=False)


@devices.command("test")
def try_(
    device: DeviceArgument,
    seconds: SecondsOption = 10.0,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Stream from a bound wearable for a while and say what came; a gateway that runs is asked instead."""
    from edge.sources.ble.bindings import read_bindings

    name, binding = _bound(device, read_bindings(state))
    live = _live(state)
    if live is None or name not in live:
        row = _run(_try(state, name, binding, seconds))
    else:
        before = live[name]
        time.sleep(seconds)
        row = (_live(state) or {}).get(name, before)
        row["samples"] -= before["samples"]
        row["lost_samples"] -= before["lost_samples"]
        total = row["samples"] + row["lost_samples"]
        row["loss"] = row["lost_samples"] / total if total else None
    works = bool(row["samples"]) or (binding.kind == "heart_rate" and row["hr_bpm"] is not None)
    result = {"device": name, "works": works, "seconds": seconds, **row}
    if as_json:
        print_json(result)
    else:
        table = _table("device", "link", "signal", "battery", "rate", "loss", "samples", "first after", "bad frames")
        first = "-" if row["first_samples_s"] is None else f"{row['first_samples_s']:.1f} s"
        _row(table, name, _link(row), *_figures(row), str(row["samples"]), first, str(sum(row["bad"].values())))
        console.print(table, highlight=False)
    if not works:
        raise AnyecgError(
            f"{name}: nothing came in {seconds:g} s: {row['state']}, {row['reason'] or 'no reason given'}"
        )


async def _try(state: Path, device: str, binding: Binding, seconds: float) -> dict[str, Any]:
    """Keep one device without a gateway; its samples are thrown away."""
    import asyncio

    from edge.chunk import Delivery
    from edge.clock import SystemClock
    from edge.config import load
    from edge.sources.ble.bindings import read_profiles
    from edge.sources.ble.source import BleSource

    def throw_away(delivery: Delivery) -> bool:
        delivery.committed()
        return True

    source = BleSource(
        state, load(state).ble, offer=throw_away, offer_intervals=lambda intervals: True, clock=SystemClock()
    )
    source.keep({device: binding}, read_profiles(state))
    try:
        await asyncio.sleep(seconds)
        row: dict[str, Any] = source.snapshot()["devices"][device]
        return row
    finally:
        await source.stop()


def _survey(state: Path, seconds: float) -> list[Advertisement]:
    from edge.config import load
    from edge.sources.ble.radio import RADIO_ERRORS, Radio, reason_of

    adapter = load(state).ble.adapter

    async def listen() -> list[Advertisement]:
        try:
            return await Radio(adapter).survey(seconds)
        except RADIO_ERRORS as error:
            raise AnyecgError(f"no bluetooth: {reason_of(error)}") from None

    found: list[Advertisement] = _run(listen())
    return found


def _look(state: Path, address: str) -> tuple[str, str]:
    """Return (kind, name) of a device that can be heard."""
    from edge.sources.ble.bindings import read_profiles
    from edge.sources.ble.kinds import kind_of

    for heard in _survey(state, 6.0):
        if heard.address == address.upper():
            kind = kind_of(heard.name, list(heard.services), read_profiles(state))
            if kind is None:
                raise BadInputError(f"{address} is no wearable we know: describe it in TOML and pass --profile")
            return kind, heard.name or ""
    raise AnyecgError(f"{address} is not heard: wear it, come closer, or pass --kind")


def _keep_profile(state: Path, path: Path) -> str:
    """Copy a sound description into the state folder; return its name."""
    from edge.sources.ble.bindings import PROFILE_FOLDER
    from edge.sources.ble.generic import read_profile
    from edge.sources.ble.kinds import KINDS

    profile: Profile = read_profile(path)
    if profile.name in KINDS:
        raise BadInputError(f"{path}: the name {profile.name} is taken by a built-in kind")
    folder = state / PROFILE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{profile.name}.toml").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    return profile.name


def _check_rate(binding: Binding) -> None:
    from edge.sources.ble.movesense import RATES_HZ

    if binding.kind != "movesense" or binding.fs_hz not in RATES_HZ:
        rates = ", ".join(f"{rate:g}" for rate in RATES_HZ)
        raise BadInputError(f"--fs is for Movesense sensors, which offer {rates} Hz")


def _bound(device: str, bindings: dict[str, Binding]) -> tuple[str, Binding]:
    for name, binding in bindings.items():
        if device == name or device.upper() == binding.address:
            return name, binding
    raise BadInputError(f"no device {device!r} is bound; bound: {', '.join(bindings) or 'none'}")


def _live(state: Path) -> dict[str, Any] | None:
    """Return what the running gateway says of each device, None without one."""
    from edge import control

    try:
        status = control.request(state, "status")
    except control.NotRunningError:
        return None
    found: dict[str, Any] = status["ble"]["devices"]
    return found


def _reload(state: Path) -> bool:
    """Tell a running gateway; return whether there is one."""
    from edge import control

    try:
        control.request(state, "devices")
    except control.NotRunningError:
        return False
    return True


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("bleak").setLevel(logging.ERROR)
    return asyncio.run(coroutine)


def _offers(kind: str | None, heard: Advertisement) -> list[str]:
    from edge.sources.ble import heart_rate

    ecg = [] if kind in (None, "heart_rate") else ["ECG"]
    rr = ["RR"] if heart_rate.SERVICE in heard.services else []
    motion = ["motion"] if kind == "polar" else []
    return ecg + rr + motion


def _link(row: dict[str, Any]) -> Any:
    from rich.text import Text

    reason = f" ({row['reason']})" if row.get("reason") else ""
    return Text.assemble((row["state"], STYLES.get(row["state"], "red")), reason)


def _figures(row: dict[str, Any]) -> list[str]:
    """Signal, battery, rate, loss."""

    def shown(key: str, form: str) -> str:
        value = row.get(key)
        return "-" if value is None else form.format(value)

    return [
        shown("rssi", "{} dBm"),
        shown("battery", "{} %"),
        shown("rate_hz", "{:.3f} Hz"),
        shown("loss", "{:.3%}"),
    ]


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, min_width=12 if column == "link" else None, no_wrap=column in ("device", "address"))
    return table


def _row(table: Table, *cells: Any) -> None:
    """Add a row; what a device calls itself is text, never markup."""
    from rich.text import Text

    table.add_row(*(Text(cell or "-") if isinstance(cell, str | None) else cell for cell in cells))


def void(_: object) -> None:
    """Drop a value."""
