"""Which signals of a file are ECG leads, and which of them were asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge.chunk import FS_RANGE_HZ, LEAD_NAMES, MAX_LEADS, UNKNOWN_LEAD
from edge.errors import BadInputError

UV_PER_LSB_RANGE = (1e-4, 1e4)
"""Plausible microvolts per digital unit: from 24-bit front ends at full gain to whole-millivolt steps and beyond."""
_CANONICAL = {name.lower(): name for name in LEAD_NAMES}
_UV_PER_UNIT = {"v": 1e6, "mv": 1e3, "uv": 1.0, "µv": 1.0, "μv": 1.0, "nv": 1e-3}
_ECG = re.compile(
    r"(ecg|ekg|lead)\b.*|(ecg|ekg)\d*|(m?l?(i{1,3}|[1-3]))|av[rlf]|v\d?r?|mc?l[iv]*[1-6]?|[ea]-?[si]|c[mcs]\d+|d[1-9]|mod.*",
    re.IGNORECASE,
)
_NOT_ECG = re.compile(
    r"eeg|eog|emg|erg|meg|resp|pleth|ppg|abp|cvp|pap|icp|art|thor|abdo|flow|acc|temp|mark", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """What a file's header says about one of its signals."""

    name: str
    unit: str
    fs_hz: float

    @property
    def uv_per_unit(self) -> float | None:
        """Microvolts per physical unit of the file; None when the signal is not a voltage."""
        return _UV_PER_UNIT.get(self.unit.strip().lower())


def lead_name(label: str) -> str:
    """The field's name of a signal label: `ECG V1` (EDF+) is `V1`, `avf` is `aVF`; others are kept as they are."""
    label = " ".join(label.split())
    bare = re.sub(r"^(ecg|ekg|lead)[ _-]+(?=\S)", "", label, flags=re.IGNORECASE)
    bare = "".join(c for c in bare if " " <= c <= "~")[:32].strip()
    return _CANONICAL.get(bare.lower()) or _CANONICAL.get(label.lower()) or bare or UNKNOWN_LEAD


def plausible_scale(uv_per_lsb: float) -> bool:
    """Whether a digital unit can be that many microvolts; False for NaN."""
    return UV_PER_LSB_RANGE[0] <= uv_per_lsb <= UV_PER_LSB_RANGE[1]


def choose(
    signals: Sequence[SignalInfo], wanted: Sequence[str | int] | None, where: str
) -> tuple[list[int], tuple[str, ...]]:
    """Return the indices of the leads to read, all voltages at one rate, and a note per signal left out.

    wanted: names (any case), indices or indices as text. None takes every ECG-like signal (any voltage that is not
    named as something else, where no name is a lead's) that shares the rate of the first one, at most 12.
    Raises BadInputError, listing the signals, for an unknown lead, one that is not a voltage, leads of different
    rates, none or more than 12.
    """
    options = ", ".join(f"{i}: {s.name}" for i, s in enumerate(signals)) or "none"
    notes: list[str] = []
    if wanted is None:
        voltages = [i for i, s in enumerate(signals) if s.uv_per_unit is not None]
        chosen = [i for i in voltages if _ECG.fullmatch(lead_name(signals[i].name))]
        if not chosen:
            chosen = [i for i in voltages if not _NOT_ECG.match(signals[i].name)]
            notes = ["no signal is named as an ECG lead: every voltage was taken"]
        if not chosen:
            raise BadInputError(f"{where}: no ECG signal found; name a lead (signals: {options})")
        same = [i for i in chosen if signals[i].fs_hz == signals[chosen[0]].fs_hz][:MAX_LEADS]
        notes += [f"signal {i} ({s.name}, {s.fs_hz:g} Hz) left out" for i, s in enumerate(signals) if i not in same]
        chosen = same
    else:
        chosen = [_index(signals, lead, where, options) for lead in wanted]
        if not chosen or len(set(chosen)) != len(chosen) or len(chosen) > MAX_LEADS:
            raise BadInputError(f"{where}: choose 1 to {MAX_LEADS} different leads (signals: {options})")
        for i in chosen:
            if signals[i].uv_per_unit is None:
                raise BadInputError(f"{where}: signal {signals[i].name} is in {signals[i].unit!r}, not a voltage")
        rates = sorted({signals[i].fs_hz for i in chosen})
        if len(rates) > 1:
            raise BadInputError(
                f"{where}: the chosen leads have different rates ({rates} Hz); choose leads of one rate"
            )
    fs_hz = signals[chosen[0]].fs_hz
    if not (math.isfinite(fs_hz) and FS_RANGE_HZ[0] <= fs_hz <= FS_RANGE_HZ[1]):
        raise BadInputError(f"{where}: sampling rate {fs_hz:g} Hz is outside {FS_RANGE_HZ[0]:g}-{FS_RANGE_HZ[1]:g} Hz")
    return chosen, tuple(notes)


def _index(signals: Sequence[SignalInfo], lead: str | int, where: str, options: str) -> int:
    if isinstance(lead, str):
        for i, signal in enumerate(signals):
            if lead.lower() in (signal.name.lower(), lead_name(signal.name).lower()):
                return i
        if not lead.isdecimal():
            raise BadInputError(f"{where}: no lead {lead!r}; choose one of {options}")
        lead = int(lead)
    if not 0 <= lead < len(signals):
        raise BadInputError(f"{where}: no lead number {lead}; choose one of {options}")
    return lead
