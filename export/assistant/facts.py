"""What is true of a clip: the spans of each label, rate, rhythm, ectopy, conduction, quality, as annotated.

The span of a beat runs from the beat before it to the beat after it, clipped to the clip, overlaps merged, to 0.1 s,
as the anyECG paper has it. A label that is not in `spans` is unknown in this clip, which is not the same as absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.assistant.soft import LABELS
from edge.assistant.wording import merge
from edge.encoder.contract import BEAT_CLASSES, MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS
from export.datasets.record import NOT_AF, UNKNOWN
from export.encoder.batch import Crop

Spans = list[tuple[float, float]]

BY_CLASS = {"PVC": "V", "SVPB": "S"}
BY_SHAPE = {"LBBB": "LBBB", "RBBB": "RBBB", "paced": "paced"}
BEAT_LABELS = (*BY_CLASS, *BY_SHAPE)
BIGEMINY_PAIRS = 3
"""So many PVCs in turn with other beats are bigeminy (the gateway's rule)."""
PAUSE_S = 2.0
WHOLE_RECORD = ("ptbxl", "ludb")
"""Databases whose statements hold for the whole recording; their beats are not annotated from end to end."""

_AF = (RHYTHMS.index("AFIB"), RHYTHMS.index("AFL"))


@dataclass(frozen=True, slots=True)
class Facts:
    """The truth about one clip."""

    db: str
    record: str
    leads: int
    length_s: float
    spans: dict[str, Spans]
    beat_at: NDArray[np.float32]
    """[beats] seconds."""
    kinds: NDArray[np.int8]
    """[beats, 5] 1, 0 or `UNKNOWN` for each of `BEAT_LABELS`."""
    beats_known: bool
    rate_bpm: int | None
    rhythm: str | None
    """One of `RHYTHMS` if at least two thirds of the clip have it."""
    pvcs: int | None
    svpbs: int | None
    conduction: str | None
    """narrow, LBBB, RBBB or paced if all beats that are not ectopic have it."""
    quality: str | None
    """good, partly (unreadable in part) or poor."""
    statements: tuple[str, ...] = ()
    """PTB-XL diagnostic superclasses."""

    def as_json(self) -> dict[str, Any]:
        """Return what `of_json` takes."""
        return asdict(self) | {"beat_at": self.beat_at.tolist(), "kinds": self.kinds.tolist()}

    @staticmethod
    def of_json(told: dict[str, Any]) -> Facts:
        """Return the facts that `as_json` told."""
        return Facts(
            **told
            | {
                "beat_at": np.array(told["beat_at"], dtype=np.float32),
                "kinds": np.array(told["kinds"], dtype=np.int8).reshape(-1, len(BEAT_LABELS)),
                "spans": {label: [(a, b) for a, b in spans] for label, spans in told["spans"].items()},
                "statements": tuple(told["statements"]),
            }
        )


def facts_of(crop: Crop, db: str, record: str, length_s: float, statements: tuple[str, ...] = ()) -> Facts:
    """Return what is known of the first `length_s` seconds of a crop."""
    seconds = int(np.ceil(length_s))
    inside = crop.beat_at < length_s * MODEL_FS_HZ
    at = (crop.beat_at[inside] / MODEL_FS_HZ).astype(np.float32)
    beat, shape = crop.beat[inside], crop.morphology[inside]
    known = bool(crop.beats_known[:seconds].all())
    rhythm, quality = crop.rhythm[:seconds], crop.quality[:seconds]
    whole = db in WHOLE_RECORD
    kinds = np.full((at.size, len(BEAT_LABELS)), UNKNOWN, dtype=np.int8)
    for column, (label, name) in enumerate([*BY_CLASS.items(), *BY_SHAPE.items()]):
        source, index = (beat, BEAT_CLASSES.index(name)) if label in BY_CLASS else (shape, MORPHOLOGIES.index(name))
        kinds[:, column] = np.where(source == UNKNOWN, UNKNOWN, source == index)
    spans: dict[str, Spans] = {}
    for column, label in enumerate(BEAT_LABELS):
        one = kinds[:, column]
        if known and at.size and not (one == UNKNOWN).any():
            spans[label] = beat_spans(at, one == 1, length_s)
        elif whole and at.size and not (one == UNKNOWN).any() and label in BY_SHAPE:
            spans[label] = [(0.0, round(length_s, 1))] if (one == 1).all() else []
    if (rhythm != UNKNOWN).all():
        spans["AF"] = _second_spans(np.isin(rhythm, _AF), length_s)
    if (rhythm >= 0).all() and not whole:
        spans["VT"] = _second_spans(rhythm == RHYTHMS.index("VT"), length_s)
    if known and at.size > 1:
        spans["bigeminy"] = _bigeminy(at, kinds[:, 0] == 1)
        spans["pause"] = [_span(a, b) for a, b in pairwise(at.tolist()) if b - a > PAUSE_S]
    if (quality != UNKNOWN).all():
        spans["noise"] = _second_spans(quality == 0, length_s)
    return Facts(
        db=db,
        record=record,
        leads=crop.ecg.shape[0],
        length_s=round(length_s, 1),
        spans=spans,
        beat_at=at.astype(np.float32),
        kinds=kinds,
        beats_known=known,
        rate_bpm=_rate(at) if (known or db == "ludb") else None,
        rhythm=_rhythm(rhythm),
        pvcs=int((kinds[:, 0] == 1).sum()) if "PVC" in spans else None,
        svpbs=int((kinds[:, 1] == 1).sum()) if "SVPB" in spans else None,
        conduction=_conduction(shape, kinds),
        quality=_quality(quality),
        statements=statements,
    )


def beat_spans(at: NDArray[np.float32], chosen: NDArray[np.bool_], length_s: float) -> Spans:
    """Return the spans of the chosen beats, in seconds."""
    spans: Spans = []
    for n in np.flatnonzero(chosen).tolist():
        start = float(at[n - 1]) if n else 0.0
        end = float(at[n + 1]) if n + 1 < at.size else length_s
        spans.append(_span(start, end))
    return merge(spans)


def _span(start: float, end: float) -> tuple[float, float]:
    return round(float(start), 1), round(float(end), 1)


def _second_spans(inside: NDArray[np.bool_], length_s: float) -> Spans:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return [_span(a, min(b, length_s)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _bigeminy(at: NDArray[np.float32], pvc: NDArray[np.bool_]) -> Spans:
    return [_span(at[first], at[last]) for first, last in _alternating(pvc)]


def _alternating(pvc: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield the first and last beat of each stretch in which every second beat is a PVC, three of them at least."""
    n = 0
    while n < pvc.size:
        end = n
        while end + 1 < pvc.size and pvc[end + 1] != pvc[end]:
            end += 1
        if int(pvc[n : end + 1].sum()) >= BIGEMINY_PAIRS:
            yield n, end
        n = end + 1


def _rate(at: NDArray[np.float32]) -> int | None:
    return round(60 * (at.size - 1) / float(at[-1] - at[0])) if at.size >= 3 else None


def _rhythm(rhythm: NDArray[np.int8]) -> str | None:
    for index, name in enumerate(RHYTHMS):
        if 3 * int((rhythm == index).sum()) >= 2 * rhythm.size:
            return name
    return None


def _conduction(shape: NDArray[np.int8], kinds: NDArray[np.int8]) -> str | None:
    usual = shape[(kinds[:, 0] != 1) & (shape != MORPHOLOGIES.index("other"))]
    if not usual.size or (usual == UNKNOWN).any() or (usual != usual[0]).any():
        return None
    return MORPHOLOGIES[int(usual[0])]


def _quality(quality: NDArray[np.int8]) -> str | None:
    if (quality == UNKNOWN).any():
        return None
    good = float((quality == 1).mean())
    return "good" if good == 1 else "partly" if good >= 0.5 else "poor"


def not_af(rhythm: NDArray[np.int8]) -> bool:
    """Return whether all that is known of a rhythm is that it is not AF."""
    return bool((rhythm == NOT_AF).all())


assert len(LABELS) == len(BEAT_LABELS) + 5
