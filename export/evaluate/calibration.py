"""Do probabilities mean what they say? Reliability curves and expected calibration error of every head.

    beats    confidence of every beat told (P(beat) · P(class)): is a beat of that class annotated within 150 ms?
    rhythm   largest rhythm probability of every second of known rhythm: is the rhythm right?
    quality  P(readable) of every second: is it readable?

The expected calibration error is the mean over ten equal bins of |share right − mean probability|, weighted by their
size (Naeini et al. 2015, Guo et al. 2017). A temperature is chosen on validation records by likelihood; both are shown
for the test records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.session import Encoder
from edge.rhythm.rules import Rules
from export.datasets.reader import load
from export.datasets.record import Record
from export.datasets.splits import PACED, Part
from export.evaluate import beats as ec57
from export.evaluate.reading import Reading, read

BINS = 10
HEADS = ("beats", "rhythm", "quality")
DATABASES = {"beats": ("mitdb", "svdb"), "rhythm": ("mitdb", "vfdb"), "quality": ("vfdb", "cinc2017")}
TEMPERATURES = tuple(float(t) for t in np.round(np.geomspace(0.4, 3.0, 41), 3))


@dataclass(frozen=True, slots=True)
class Said:
    """What a head said about many things."""

    probability: NDArray[np.float64]
    right: NDArray[np.bool_]


def curve(said: Said) -> list[dict[str, float | int]]:
    """Return the bins that hold anything: mean probability, share right, how many."""
    which = np.minimum((said.probability * BINS).astype(int), BINS - 1)
    return [
        {
            "said": round(float(said.probability[which == i].mean()), 4),
            "right": round(float(said.right[which == i].mean()), 4),
            "n": int((which == i).sum()),
        }
        for i in range(BINS)
        if (which == i).any()
    ]


def ece(said: Said) -> float:
    """Return the expected calibration error."""
    found = curve(said)
    n = sum(one["n"] for one in found)
    return sum(one["n"] * abs(one["said"] - one["right"]) for one in found) / n if n else float("nan")


def tempered(said: Said, temperature: float) -> Said:
    """Return the same with log-odds divided by the temperature."""
    p = np.clip(said.probability, 1e-6, 1 - 1e-6)
    return Said(1 / (1 + np.exp(-np.log(p / (1 - p)) / temperature)), said.right)


def likeliest(said: Said) -> float:
    """Return the temperature with the highest likelihood."""

    def loss(temperature: float) -> float:
        p = tempered(said, temperature).probability
        return float(-np.log(np.where(said.right, p, 1 - p)).mean())

    return min(TEMPERATURES, key=loss)


def of_beats(record: Record, reading: Reading) -> Said:
    """Return the confidence of the beats told where beats are annotated."""
    at_s = record.beat_at.astype(np.float64) / 128
    partner = {j: i for i, j in ec57.pairs(at_s, reading.beats.at_s)}
    told = [j for j, at in enumerate(reading.beats.at_s) if at < record.seconds and record.beats_known[int(at)]]
    return Said(
        np.array([reading.marks[j].confidence for j in told]),
        np.array([j in partner and record.beat[partner[j]] == reading.beats.label[j] for j in told], dtype=bool),
    )


def of_rhythm(record: Record, reading: Reading) -> Said:
    """Return the rhythm head's confidence in seconds of known rhythm."""
    n = min(record.seconds, len(reading.rhythm_scores))
    scores, truth = reading.rhythm_scores[:n].astype(np.float64), record.rhythm[:n]
    known = (truth >= 0) & np.isfinite(scores).all(axis=1)
    return Said(scores[known].max(axis=1), scores[known].argmax(axis=1) == truth[known])


def of_quality(record: Record, reading: Reading) -> Said:
    """Return P(readable) in seconds that are known to be readable or not."""
    n = min(record.seconds, len(reading.quality))
    quality, truth = reading.quality[:n].astype(np.float64), record.quality[:n]
    known = (truth >= 0) & np.isfinite(quality)
    return Said(quality[known], truth[known] == 1)


def gather(encoder: Encoder, part: Part) -> dict[str, Said]:
    """Return what the heads say about the records of a part, first lead."""
    of = {"beats": of_beats, "rhythm": of_rhythm, "quality": of_quality}
    found: dict[str, list[Said]] = {head: [] for head in HEADS}
    for db in sorted({db for dbs in DATABASES.values() for db in dbs}):
        for record in load(db, part):
            if record.name in PACED:
                continue
            reading = read(encoder, db, record.name, (0,), Rules())
            for head in HEADS:
                if db in DATABASES[head]:
                    found[head].append(of[head](record, reading))
    return {
        head: Said(np.concatenate([one.probability for one in all_]), np.concatenate([one.right for one in all_]))
        for head, all_ in found.items()
    }


def measure(encoder: Encoder, picture: Path | None) -> dict[str, Any]:
    """Return curves and errors; temperatures come from the validation records."""
    chosen, shown = gather(encoder, "validation"), gather(encoder, "test")
    out: dict[str, Any] = {}
    for head in HEADS:
        temperature = likeliest(chosen[head])
        out[head] = {
            "databases": list(DATABASES[head]),
            "temperature": temperature,
            "validation": _told(chosen[head], temperature),
            "test": _told(shown[head], temperature),
        }
    if picture is not None:
        draw(out, picture)
    return out


def _told(said: Said, temperature: float) -> dict[str, Any]:
    after = tempered(said, temperature)
    return {
        "n": int(said.right.size),
        "ece": round(100 * ece(said), 2),
        "ece_tempered": round(100 * ece(after), 2),
        "brier": round(float(((said.probability - said.right) ** 2).mean()), 4),
        "brier_tempered": round(float(((after.probability - after.right) ** 2).mean()), 4),
        "curve": curve(said),
    }


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write the reliability curves of the test records as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(1, len(HEADS), figsize=(9, 3.2), dpi=100, sharey=True)
    for head, plot in zip(HEADS, plots, strict=True):
        bins = found[head]["test"]["curve"]
        plot.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        plot.plot([one["said"] for one in bins], [one["right"] for one in bins], marker="o", markersize=4)
        plot.set_title(f"{head}: ECE {found[head]['test']['ece']} %", fontsize=10)
        plot.set_xlabel("probability said")
        plot.set_xlim(0, 1)
        plot.set_ylim(0, 1)
    plots[0].set_ylabel("share right")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def table(found: Mapping[str, Any]) -> str:
    """Return errors and curves as Markdown."""
    lines = [
        "Expected calibration error (ECE) and Brier score of test records, first lead; “tempered”: with the "
        "temperature that validation records choose.",
        "",
        "| head | databases | n | ECE % | Brier | temperature | ECE %, tempered | Brier, tempered |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for head in HEADS:
        one, test = found[head], found[head]["test"]
        cells = [head, ", ".join(one["databases"]), f"{test['n']:,}", test["ece"], test["brier"], one["temperature"]]
        lines.append(f"| {' | '.join(map(str, [*cells, test['ece_tempered'], test['brier_tempered']]))} |")
    lines += ["", "| head | said → right (share of all) |", "| --- | --- |"]
    for head in HEADS:
        test = found[head]["test"]
        bins = (
            f"{100 * b['said']:.0f} → {100 * b['right']:.0f} ({100 * b['n'] / test['n']:.1f} %)" for b in test["curve"]
        )
        lines.append(f"| {head} | {' · '.join(bins)} |")
    return "\n".join([*lines, "", "![Reliability of test records](calibration.png)"])
