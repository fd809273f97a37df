"""A long recording in a file, marked by the model and by the rhythm engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from edge.analyze import Analyzer
from edge.assistant.candidates import LEAST_S, Embeddings
from edge.assistant.engine import engine_spans
from edge.assistant.look import Clip, Looker
from edge.assistant.scan import Budget, Scan, scan
from edge.assistant.wording import Span
from edge.encoder.contract import HOP_S
from edge.sources.record import Record


def scan_record(looker: Looker, signal: Record, label: str, start_s: float = 0.0, end_s: float | None = None) -> Scan:
    """Analyze a recording, then let the model read what is worth a look in [start_s, end_s); times are from there."""
    until_s = signal.duration_s if end_s is None else end_s
    analysis = Analyzer(looker.encoder).analyze(signal)
    embeddings = np.stack(analysis.embeddings).astype(np.float32)
    hop_s = HOP_S * np.arange(len(embeddings)) - start_s
    inside = (hop_s + HOP_S > 0) & (hop_s < until_s - start_s)
    marks = [(max(a, start_s) - start_s, min(b, until_s) - start_s) for a, b in engine_spans(analysis, label)]

    def blocks() -> Iterable[Embeddings]:
        return [(hop_s[inside], embeddings[inside])]

    def read(from_s: float, to_s: float) -> tuple[list[Span], float]:
        first, last = round((start_s + from_s) * signal.fs_hz), round((start_s + to_s) * signal.fs_hz)
        clip = Clip.of_samples(signal.samples[:, first:last], signal.uv_per_lsb, signal.fs_hz, signal.leads)
        if clip.length_s < LEAST_S or np.isnan(clip.ecg).all():
            return [], 0.0
        return [(round(from_s + a, 1), round(from_s + b, 1)) for a, b in looker.spans(clip, label)], clip.length_s

    return scan(until_s - start_s, [(a, b) for a, b in marks if a < b], blocks, read, budget=Budget())


def localize_long(looker: Looker, signal: Record, label: str, start_s: float, end_s: float) -> dict[str, Any]:
    """Return what `anyecg localize` tells of more than 60 s: spans of model and engine side by side."""
    done = scan_record(looker, signal, label, start_s, end_s)

    def placed(span: Span) -> list[float]:
        return [round(start_s + span[0], 1), round(start_s + span[1], 1)]

    def told(one: dict[str, Any]) -> dict[str, Any]:
        start, end = placed((one["start_s"], one["end_s"]))
        return one | {"start_s": start, "end_s": end}

    return {
        "label": label,
        "spans": [placed(span) for span in done.model],
        "found": [told(asdict(one) | {"agreed": one.agreed}) for one in done.found],
        "length_s": round(end_s - start_s, 1),
        "read_s": round(done.read_s, 1),
        "left_s": round(done.left_s, 1),
        "unread": [placed(span) for span in done.unread],
        "source": "model",
        "model": looker.name,
    }
