"""Kinds of devices: which driver each has, and what an advertisement promises."""

from __future__ import annotations

from collections.abc import Callable

from edge.sources.ble import heart_rate, movesense, polar, viatom
from edge.sources.ble.bindings import Binding
from edge.sources.ble.drivers.driver import Driver
from edge.sources.ble.drivers.generic import GenericDriver
from edge.sources.ble.drivers.heart_rate import HeartRateDriver
from edge.sources.ble.drivers.movesense import MovesenseDriver
from edge.sources.ble.drivers.polar import PolarDriver
from edge.sources.ble.drivers.viatom import ViatomDriver
from edge.sources.ble.generic import Profile

KINDS: dict[str, Callable[[Binding], Driver]] = {
    "polar": PolarDriver,
    "movesense": MovesenseDriver,
    "heart_rate": HeartRateDriver,
    "viatom": ViatomDriver,
}
SERVICES = {polar.SERVICE: "polar", movesense.SERVICE: "movesense", viatom.SERVICE: "viatom"}
"""Service → kind; heart rate is offered by most straps and says nothing of ECG."""


def driver_of(binding: Binding, profiles: dict[str, Profile]) -> Driver:
    """Return the driver of a bound device; a kind that is no built-in names a profile."""
    make = KINDS.get(binding.kind)
    return make(binding) if make is not None else GenericDriver(profiles[binding.kind])


def kind_of(name: str | None, services: list[str], profiles: dict[str, Profile]) -> str | None:
    """Return what an advertisement promises, None if it is nothing of ours.

    A Polar H10 advertises the heart rate service only: its name tells it.
    """
    offered = {uuid.lower() for uuid in services}
    for profile in profiles.values():
        if profile.service in offered:
            return profile.name
    for service, kind in SERVICES.items():
        if service in offered:
            return kind
    if name is not None and name.startswith("Polar H10"):
        return "polar"
    if name is not None and name.startswith("Movesense"):
        return "movesense"
    return "heart_rate" if heart_rate.SERVICE in offered else None
