"""A long recording in a file, marked by the model and by the rhythm engine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from edge.analyze import Analyzer
from edge.assistant.engine import engine_spans
from edge.assistant.look import Clip, Looker
from edge.assistant.scan import Scan, scan
from edge.assistant.wording import Span
from edge.sources.record import Record


def scan_record(looker: Looker, signal: Record, label: str) -> Scan:
    """Analyze a recording, then let the model read what is worth a look."""
    analysis = Analyzer(looker.encoder).analyze(signal)
    embeddings = np.stack(analysis.embeddings).astype(np.float32)

    def read(start_s: float, end_s: float) -> list[Span] | None:
        first, last = round(start_s * signal.fs_hz), round(end_s * signal.fs_hz)
        clip = Clip.of_samples(signal.samples[:, first:last], signal.uv_per_lsb, signal.fs_hz)
        if np.isnan(clip.ecg).all():
            return None
        return [(round(start_s + a, 1), round(start_s + b, 1)) for a, b in looker.spans(clip, label)]

    return scan(signal.duration_s, engine_spans(analysis, label), embeddings, read)


def localize_long(looker: Looker, signal: Record, label: str, start_s: float, end_s: float) -> dict[str, Any]:
    """Return what `anyecg localize` tells of more than 60 s: spans of model and engine side by side."""
    whole = scan_record(looker, signal, label)
    found = [one for one in whole.found if one.end_s > start_s and one.start_s < end_s]
    return {
        "label": label,
        "spans": [[one.start_s, one.end_s] for one in found if one.model],
        "found": [asdict(one) | {"agreed": one.agreed} for one in found],
        "length_s": round(end_s - start_s, 1),
        "read_s": round(whole.read_s, 1),
        "unread": [list(span) for span in whole.unread],
        "source": "model",
        "model": looker.name,
    }
