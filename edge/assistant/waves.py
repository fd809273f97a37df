"""PR, QRS, QT and QTc over a period: short clips spread over it are read again for their waves.

Reading everything would take minutes for a day; medians over `CLIPS` clips of `CLIP_S` say the same. Only normal beats
count, as the rhythm engine told them apart.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edge.assistant.find import minutes
from edge.assistant.localtime import NS
from edge.assistant.result import Fact, Result, Scope, span
from edge.encoder.card import Card
from edge.encoder.contract import BEAT_CLASSES, MODEL_FS_HZ
from edge.encoder.intervals import Waves, delineate, intervals
from edge.encoder.session import Encoder
from edge.errors import AnyecgError
from edge.signal.prepare import prepare, step
from edge.store import queries, waveform

CLIPS = 12
CLIP_S = 20
EDGE_S = 1.0
"""Beats this near to the end of a clip may lack a wave."""


@lru_cache(maxsize=1)
def _encoder() -> Encoder:
    return Encoder(Card.load(None), provider="cpu")


def interval(result: Result, scope: Scope) -> None:
    """Measure one interval of the period; `missing` says why where it cannot be told."""
    try:
        encoder = _encoder()
    except AnyecgError as error:
        result.missing = str(error)
        return
    read = [row for row in minutes(scope, result.period) if row["readable_s"] >= 30]
    result.facts["minutes"] = Fact("count", len(read))
    chosen = [read[n] for n in sorted({round(x) for x in np.linspace(0, len(read) - 1, CLIPS)})] if read else []
    beats: list[Waves] = []
    cited: list[tuple[int, int]] = []
    for row in chosen:
        recording = queries.find_recording(scope.conn, row["recording_id"])
        found = _read(scope, encoder, recording, row["utc_ns"] + 20 * NS)
        if found:
            beats += found
            cited.append((row["utc_ns"] + 20 * NS, row["utc_ns"] + (20 + CLIP_S) * NS))
    measured = intervals(beats)
    name = result.step.args["name"]
    one = getattr(measured, name)
    result.facts["beats"] = Fact("count", one.beats)
    result.facts["clips"] = Fact("count", len(cited))
    result.citations = [span(a, b) for a, b in cited]
    if one.median_ms is None:
        result.missing = one.reason or "too few beats show it"
        return
    result.facts["median"] = Fact("ms", one.median_ms)
    if one.spread_ms is not None:
        result.facts["spread"] = Fact("ms", one.spread_ms)
    result.facts["formula"] = Fact("text", measured.formula.capitalize())


def _read(scope: Scope, encoder: Encoder, recording: queries.Recording, start_ns: int) -> list[Waves]:
    """Return the waves of the normal beats of a clip; none where a sample is missing."""
    spans = recording.sample_spans(start_ns, start_ns + CLIP_S * NS)
    if len(spans) != 1:
        return []
    first, last = spans[0]
    samples = waveform.read(scope.conn, recording.id, first, last).samples
    size = int(samples.shape[1] / float(step(recording.fs_hz))) // MODEL_FS_HZ * MODEL_FS_HZ
    if size < 5 * MODEL_FS_HZ:
        return []
    ecg = prepare(samples, 0, recording.uv_per_lsb, recording.fs_hz, 0, size)
    present = ecg[~np.isnan(ecg).any(axis=1)]
    if not present.size:
        return []
    told = queries.beats(scope.conn, recording, first, last)
    peaks = (told["sample"] - first) * (MODEL_FS_HZ / recording.fs_hz)
    found = delineate(encoder.run(present[None]).delineation[0], peaks.tolist())
    normal = told["type"] == BEAT_CLASSES.index("N")
    inside = (peaks >= EDGE_S * MODEL_FS_HZ) & (peaks < size - EDGE_S * MODEL_FS_HZ)
    return [waves for waves, kept in zip(found, normal & inside, strict=True) if kept]
