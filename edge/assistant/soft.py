"""Soft tokens: what the encoder sees in a clip, as rows of a language model's embedding space.

A frame is one encoder token of present leads (4 Hz) with the encoder's own scores of the same quarter of a second and
what can be measured of a beat in it; nothing of the rhythm engine is in it. The projector reads all frames and makes a
row for each **place**: the beginning, every beat, every second without one, the end. Time is explicit: behind each row
stands its time as the language model would write it, "3.4", as rows of its own embedding, so that
"where" is answered by copying. Heart rate and the numbers of PVCs and SVPBs that the projector sees follow the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.assistant import beats
from edge.encoder.contract import BEAT_CLASSES, BEAT_FS_HZ, MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS, TOKEN_DIM, TOKEN_FS_HZ
from edge.encoder.session import Encoder, Outputs, open_small
from edge.errors import AnyecgError, BadInputError

LABELS = ("PVC", "SVPB", "LBBB", "RBBB", "paced", "AF", "VT", "bigeminy", "pause", "noise")
"""What can be localised; the order is part of a projector."""
KINDS = LABELS[:5]
"""Labels that are kinds of beats."""
QUALITIES = ("good", "partly", "poor")
"""How much of a clip can be read: all, half at least, less."""
PEAKS = BEAT_FS_HZ // TOKEN_FS_HZ
_SCORES = PEAKS + len(BEAT_CLASSES) + len(MORPHOLOGIES) + len(RHYTHMS) + 1
FRAME = TOKEN_DIM + _SCORES + beats.MEASURES
"""Width of a frame: token; R-peak scores, classes and shapes weighted by them, rhythm and quality of the second;
measures of the beat in it."""
QUIET_S = 1.6
"""Where no beat is for longer than this, every whole second is a place."""
MARKS = "0123456789.;"
"""Characters that times and numbers are written with; each is one token of the language model."""
WRITTEN, CODES, UNTIMED = "written", "codes", "none"
"""How rows know their time: written behind them, a learned vector per decimal digit added to them, or not at all."""
MAX_S = 60.0
"""Longest clip that is read in one piece."""
MIN_S = 1.0

CARD = Path(__file__).parent.parent / "models" / "projector.json"


def frames(encoder: Encoder, ecg: NDArray[np.float32], leads: Sequence[str] = ()) -> NDArray[np.float32]:
    """Return the frames [T, FRAME] of a clip [leads, n] in mV at 128 Hz, NaN = missing; T = ceil(4 · n / 128).

    `leads` are the names of the leads where they are known.

    Raises:
        BadInputError: shorter than a second, longer than `MAX_S`, or without any sample.
    """
    length_s = ecg.shape[1] / MODEL_FS_HZ
    if not MIN_S <= length_s <= MAX_S:
        raise BadInputError(f"a clip of {length_s:.1f} s cannot be read in one piece: {MIN_S:g} to {MAX_S:g} s can")
    there = ~np.isnan(ecg).all(axis=1)
    present = ecg[there]
    if not present.size:
        raise BadInputError("nothing was recorded in this clip")
    seconds = -(-ecg.shape[1] // MODEL_FS_HZ)
    padded = np.full((1, present.shape[0], seconds * MODEL_FS_HZ), np.nan, dtype=np.float32)
    padded[0, :, : ecg.shape[1]] = present
    tokens = -(-ecg.shape[1] * TOKEN_FS_HZ // MODEL_FS_HZ)
    names = [leads[int(n)] for n in np.flatnonzero(there)] if leads else []
    return collect(encoder.run(padded), padded[0], names)[:tokens]


def collect(outputs: Outputs, ecg: NDArray[np.float32], leads: Sequence[str] = ()) -> NDArray[np.float32]:
    """Return the frames [tokens, FRAME] of the first window of `outputs`, whose signal [leads, time] is `ecg`."""
    tokens = outputs.tokens[0]
    peak = outputs.r_peak[0].reshape(-1, PEAKS)

    def weighted(scores: NDArray[np.float32]) -> NDArray[np.float32]:
        by_token = scores[0].reshape(peak.shape[0], PEAKS, -1)
        return np.asarray((by_token * peak[:, :, None]).max(axis=1))

    def held(scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.repeat(scores[0].reshape(-1, scores[0].size // (tokens.shape[0] // TOKEN_FS_HZ)), TOKEN_FS_HZ, axis=0)

    at = beats.find(outputs.r_peak[0])
    measured = np.zeros((tokens.shape[0], beats.MEASURES), dtype=np.float32)
    measured[at // PEAKS] = beats.measure(outputs, ecg, at, leads)
    parts = [tokens, peak, weighted(outputs.beat), weighted(outputs.morphology)]
    parts += [held(outputs.rhythm), held(outputs.quality), measured]
    return np.concatenate(parts, axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Places:
    """Which rows of a clip the language model sees, and when they are."""

    row: NDArray[np.int64]
    """[places] 0 the beginning, 1 + n frame n, T + 1 the end; ascending."""
    tenths: NDArray[np.int64]
    """[places] time in tenths of a second."""
    rate_bpm: int | None
    """Heart rate from the beats' times; None with fewer than three beats."""

    def nearest(self, at_s: float) -> int:
        """Return the place nearest to a time."""
        return int(np.abs(self.tenths - 10 * at_s).argmin())

    def written(self, n: int, counts: tuple[int, int]) -> str:
        """Return what stands behind row `n`: its time, at the end also heart rate (0 unknown) and `counts`."""
        told = f"{self.tenths[n] / 10:.1f}"
        if n + 1 < self.row.size:
            return told
        return ";".join([told, str(self.rate_bpm or 0), *map(str, counts)])


def counts_of(said: NDArray[np.floating]) -> tuple[int, int]:
    """Return how many PVCs and SVPBs the projector sees, of what it says of a clip's places [places, 1 + KINDS + …]."""
    beat = said[1:-1, 0] > 0.5
    pvcs, svpbs = (int((beat & (said[1:-1, 1 + n] > 0.5)).sum()) for n in range(2))
    return pvcs, svpbs


def places(found: NDArray[np.floating], length_s: float) -> Places:
    """Return the places of frames [T, FRAME]: the beginning, beats, every second without any, the end."""
    at = beats.find(np.asarray(found[:, TOKEN_DIM : TOKEN_DIM + PEAKS], dtype=np.float32).reshape(-1))
    row = at // PEAKS + 1
    first_of_row = np.concatenate([[True], row[1:] != row[:-1]]) if row.size else np.zeros(0, dtype=bool)
    at, row = at[first_of_row], row[first_of_row]
    when_s = (at + 0.375) / BEAT_FS_HZ
    edges = np.concatenate([[0.0], when_s, [length_s]])
    quiet = [
        second
        for start, end in pairwise(edges.tolist())
        if end - start > QUIET_S
        for second in range(int(np.ceil(start + 0.5)), int(np.floor(end - 0.5)) + 1)
    ]
    rows = np.concatenate([[0], row, TOKEN_FS_HZ * np.array(quiet, dtype=np.int64) + 1, [found.shape[0] + 1]])
    tenths = np.rint(10 * np.concatenate([[0.0], when_s, np.array(quiet, dtype=float), [length_s]])).astype(np.int64)
    order = np.argsort(tenths, kind="stable")
    rate = round(60 * (at.size - 1) / float(when_s[-1] - when_s[0])) if at.size >= 3 else None
    return Places(rows[order], tenths[order], rate)


@dataclass(frozen=True, slots=True)
class ProjectorCard:
    """What is known about projector and adapter, which belong together, to one encoder and to one base model."""

    path: Path
    facts: dict[str, Any]

    @staticmethod
    def load(path: Path | None = None) -> ProjectorCard:
        """Read a card; default: the shipped one.

        Raises:
            AnyecgError: there is none, or it is no such card.
        """
        path = path or CARD
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AnyecgError(f"no projector for the assistant: {path} cannot be read ({error})") from None
        needed = ("checkpoint", "encoder", "base_sha256", "file", "sha256", "adapter", "adapter_sha256")
        if not isinstance(facts, dict) or (missing := [key for key in needed if not isinstance(facts.get(key), str)]):
            raise AnyecgError(f"{path} is no card of a projector: it lacks {', '.join(missing or needed)}")
        return ProjectorCard(path, facts)

    @property
    def encoder(self) -> str:
        return str(self.facts["encoder"])

    @property
    def checkpoint(self) -> str:
        return str(self.facts["checkpoint"])

    def verified(self, which: str) -> Path:
        """Return the path of `file` or `adapter` after comparing its hash. Raises `AnyecgError` if it differs."""
        path = self.path.parent / str(self.facts[which])
        wanted = str(self.facts["sha256" if which == "file" else f"{which}_sha256"])
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise AnyecgError(f"cannot read {path}: {error.strerror}") from None
        if found != wanted:
            raise AnyecgError(f"{path} is not the file its card names (sha256 {found[:12]}…, not {wanted[:12]}…)")
        return path

    def accept(self, encoder: str) -> None:
        """Refuse an encoder that this projector was not trained on. Raises `BadInputError`."""
        if encoder != self.encoder:
            raise BadInputError(
                f"the projector was trained on encoder {self.encoder} and cannot read the tokens of {encoder}: "
                f"use that encoder, or train a projector for this one (python -m export.assistant.train)"
            )


class Projector:
    """The projector as loaded, one thread, safe to call from several threads."""

    def __init__(self, card: ProjectorCard, encoder: str) -> None:
        """Load the verified weights for the encoder with checkpoint id `encoder`.

        Raises:
            BadInputError: it was trained on another encoder.
            AnyecgError: the file is missing or not the one of the card.
        """
        card.accept(encoder)
        self.card = card
        self._session = open_small(card.verified("file").read_bytes())
        self.width = int(self._session.get_outputs()[0].shape[-1])
        self._inputs = {one.name for one in self._session.get_inputs()}  # times that are written are no input
        self.written = card.facts.get("time", WRITTEN) == WRITTEN

    def __call__(self, found: NDArray[np.float32], length_s: float, *, blind: bool = False) -> NDArray[np.float32]:
        """Return the rows [n, width] that the language model reads for frames [T, FRAME], times included.

        `blind` leaves the times and zeroes what is seen (a control).
        """
        return self.see(found, length_s, blind=blind).rows

    def see(self, found: NDArray[np.float32], length_s: float, *, blind: bool = False) -> Sight:
        """Return these rows with what the projector itself says, without the language model."""
        where = places(found, length_s)
        given = {"frames": found, "row": where.row, "tenths": where.tenths}
        soft, said, marks = self._session.run(
            ["soft", "said", "marks"], {name: value for name, value in given.items() if name in self._inputs}
        )
        seen = np.zeros_like(soft) if blind else soft
        counts = (0, 0) if blind else counts_of(said)
        rows = interleaved(seen, marks, where, counts, written=self.written)
        return Sight(where, rows, counts, said[:, 1 + len(KINDS) :].reshape(-1, len(LABELS), 3))


@dataclass(frozen=True, slots=True)
class Sight:
    """What a projector makes of a clip."""

    places: Places
    rows: NDArray[np.float32]
    """[n, width] for the language model, times included."""
    counts: tuple[int, int]
    """PVCs and SVPBs."""
    flags: NDArray[np.float32]
    """[places, labels, 3] probability that a span starts here, ends here, covers this place."""


def interleaved(
    soft: NDArray[np.float32],
    marks: NDArray[np.float32],
    where: Places,
    counts: tuple[int, int],
    *,
    written: bool,
) -> NDArray[np.float32]:
    """Return the rows of places [places, width], each followed by its time in rows of `marks` [len(MARKS), width]."""
    if not written:
        return soft
    parts: list[NDArray[np.float32]] = []
    for n in range(where.row.size):
        parts += [soft[n : n + 1], marks[[MARKS.index(char) for char in where.written(n, counts)]]]
    return np.concatenate(parts)
