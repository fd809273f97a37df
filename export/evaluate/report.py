"""The figures of one encoder on one part of the data, and the page that shows them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edge.encoder.session import Encoder
from edge.rhythm.rules import Rules
from export.datasets.reader import load
from export.datasets.record import Record
from export.datasets.splits import DS2, PACED, Part
from export.evaluate import beats as ec57
from export.evaluate import rhythms
from export.evaluate.beats import Beats, Score, figures
from export.evaluate.bootstrap import intervals
from export.evaluate.noise import noise_figures
from export.evaluate.reading import Reading, read

Figures = dict[str, Any]
NOISY = DS2[::2]
"""Test records of the noise stress test: every second one."""
AF_SHARE = 0.5
"""A recording is one of AF if the gateway calls so much of its readable time AF."""


def beat_figures(
    encoder: Encoder, db: str, part: Part, leads: tuple[int, ...], skip_s: float, rules: Rules | None = None
) -> Figures:
    """Score beats and, where the database marks rhythms, seconds of every record of a part."""
    records = [record for record in load(db, part) if record.name not in PACED]
    each, af = {}, {}
    seen_s, began = 0.0, time.process_time()
    readable = 0
    for record in records:
        reading = read(encoder, db, record.name, leads, rules or Rules())
        seen_s += record.seconds
        readable += int((reading.rhythm >= 0).sum())
        reference = Beats(record.beat_at.astype(np.float64) / 128, record.beat.astype(np.int64))
        each[record.name] = ec57.matrix(reference, reading.beats, unknown(record), skip_s)
        af[record.name] = rhythms.seconds(record.rhythm, reading.rhythm, rhythms.AF)
    out: Figures = {
        "records": len(records),
        "leads": list(leads),
        "hours": round(seen_s / 3600, 2),
        "readable_share": round(readable / seen_s, 4),
        "ecg_s_per_cpu_s": round(seen_s / (time.process_time() - began)),
        "per_record": {
            name: {
                "qrs": figures(ec57.qrs(m)),
                "V": figures(ec57.ventricular(m)),
                "S": figures(ec57.supraventricular(m)),
                "matrix": m.tolist(),
            }
            | ({"af_seconds": figures(af[name])} if db == "mitdb" else {})
            for name, m in each.items()
        },
    }
    for label, kept in (("gross", list(each)), ("gross_without_232", [name for name in each if name != "232"])):
        if label != "gross" and len(kept) == len(each):
            continue
        total = sum((each[name] for name in kept), np.zeros((6, 6), dtype=np.int64))
        out[label] = {
            "qrs": figures(ec57.qrs(total)),
            "V": figures(ec57.ventricular(total)),
            "S": figures(ec57.supraventricular(total)),
            "matrix": total.tolist(),
        }
        if db == "mitdb":
            out[label]["af_seconds"] = figures(sum((af[name] for name in kept), Score(0, 0, 0)))
    average = {
        name: [round(100 * x, 2) for x in ec57.average(score(m) for m in each.values())]
        for name, score in (("qrs", ec57.qrs), ("V", ec57.ventricular), ("S", ec57.supraventricular))
    }
    return out | {"average_se_ppv": average}


def unknown(record: Record) -> Iterable[tuple[float, float]]:
    """Return spans whose beats are not annotated, in seconds: flutter, and the part of a second at the end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], record.beats_known, [True]]).astype(np.int8)))
    spans = [(float(a), float(b)) for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
    return [*spans, (float(record.seconds), np.inf)]


def rhythm_figures(encoder: Encoder, part: Part) -> Figures:
    """Score seconds of VT or VF, asystole and AF in vfdb."""
    each: dict[str, dict[str, Score]] = {}
    noise_unread = noise = 0
    alarms: dict[str, list[str]] = {}
    for record in load("vfdb", part):
        reading = read(encoder, "vfdb", record.name, (0,), Rules())
        alarms[record.name] = [
            f"{found.rule} {found.start_sample / reading.fs_hz:.0f}-{found.end_sample / reading.fs_hz:.0f} s"
            for found in reading.findings
            if found.severity in ("urgent", "critical")
        ]
        n = min(record.seconds, reading.rhythm.size)
        bad = record.quality[:n] == 0
        noise += int(bad.sum())
        noise_unread += int((bad & (reading.rhythm[:n] < 0)).sum())
        each[record.name] = {
            name: rhythms.seconds(record.rhythm, reading.rhythm, group)
            for name, group in (
                ("vt_vf", rhythms.VENTRICULAR),
                ("vf", rhythms.VENTRICULAR[1:]),
                ("asystole", rhythms.ASYSTOLE),
                ("af", rhythms.AF),
            )
        }
    total = {
        name: figures(sum((one[name] for one in each.values()), Score(0, 0, 0)))
        for name in ("vt_vf", "vf", "asystole", "af")
    }
    return {
        "records": len(each),
        "gross": total,
        "noise_seconds": noise,
        "noise_seconds_unread": noise_unread,
        "per_record": {name: {key: figures(score) for key, score in one.items()} for name, one in each.items()},
        "urgent_findings": alarms,
    }


def record_scores(encoder: Encoder, part: Part) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[str]]:
    """Return scores [record, 3] of cinc2017's records and the kind of each (N, A, O, ~).

    The scores: share of the readable seconds that the gateway calls AF, mean P(AF), mean P(unreadable).
    """
    scores, kinds = [], []
    for record in load("cinc2017", part):
        reading: Reading = read(encoder, "cinc2017", record.name, (0,), Rules())
        readable = int((reading.rhythm >= 0).sum())
        scores.append(
            (
                float(np.isin(reading.rhythm, rhythms.AF).sum()) / max(readable, 1),
                float(np.nanmean(reading.rhythm_scores[:, list(rhythms.AF)].sum(axis=1))),
                float(np.nanmean(1 - reading.quality)),
            )
        )
        first = int(record.rhythm[0])
        kinds.append("~" if record.quality[0] == 0 else {0: "N", 1: "A"}.get(first, "O"))
    return np.array(scores), kinds


def cinc2017_figures(encoder: Encoder) -> tuple[Figures, Mapping[str, float]]:
    """Score AF and noise per record of cinc2017's test part.

    A record is one of AF if `AF_SHARE` of its readable time is, and noisy from a mean P(unreadable) that the
    validation part chooses; AUC is that of the mean probabilities.
    """
    chosen, chosen_kinds = record_scores(encoder, "validation")
    scores, kinds = record_scores(encoder, "test")
    called, p_af, p_noise = scores.T
    noisy = round(rhythms.best_threshold(chosen[:, 2], np.array([kind == "~" for kind in chosen_kinds])), 4)
    out: Figures = {"records": len(kinds)}
    for name, kind, rule, limit, score in (
        ("af", "A", called, AF_SHARE, p_af),
        ("noise", "~", p_noise, noisy, p_noise),
    ):
        is_so = np.array([k == kind for k in kinds])
        each = {
            str(n): Score(int(so and yes), int(so and not yes), int(yes and not so))
            for n, (so, yes) in enumerate(zip(is_so.tolist(), (rule >= limit).tolist(), strict=True))
        }
        out[name] = (
            figures(rhythms.at_threshold(rule, is_so, limit))
            | {"auc": round(100 * rhythms.auc(score, is_so), 2)}
            | {"interval": intervals(each)}
        )
    return out, {"cinc2017_noise": noisy}


def evaluate(encoder: Encoder, part: Part) -> tuple[Figures, Mapping[str, float]]:
    """Return every figure of a part (validation or test) and the thresholds chosen on validation."""
    found: Figures = {
        "mitdb": beat_figures(encoder, "mitdb", part, (0,), ec57.SKIP_S),
        "mitdb_second_lead": beat_figures(encoder, "mitdb", part, (1,), ec57.SKIP_S),
        "mitdb_two_leads": beat_figures(encoder, "mitdb", part, (0, 1), ec57.SKIP_S),
        "svdb": beat_figures(encoder, "svdb", part, (0,), ec57.SKIP_S),
        "vfdb": rhythm_figures(encoder, part),
    }
    thresholds: Mapping[str, float] = {}
    if part == "test":
        if sorted(found["mitdb"]["per_record"]) != sorted(DS2):
            raise AssertionError("the test part of mitdb is DS2")
        found["noise"] = noise_figures(encoder, NOISY)
        found["cinc2017"], thresholds = cinc2017_figures(encoder)
    return found, thresholds
