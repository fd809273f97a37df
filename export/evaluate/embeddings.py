"""What the hop embeddings know: retrieval of like segments, linear probes, and a picture in two dimensions.

An embedding is the mean of a hop's tokens (2 s, 192 numbers), as the gateway stores it. Hops are labelled from the
annotations that lie within them. Retrieval: the nearest hops by cosine, once among other patients (does the space mean
the same for everyone?) and once within the same recording at least `APART_S` away (what "similar episodes" shows).
Probes: ridge regression to ±1 on standardised embeddings of training records, area under the ROC curve on test
records. Nothing here was trained or chosen on test records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES, HOP_S, MORPHOLOGIES, RHYTHMS
from edge.encoder.scoring import HopJob, score_hops
from edge.encoder.session import Encoder
from edge.encoder.windows import hops_in
from export.datasets.reader import digital, load
from export.datasets.record import Record
from export.datasets.splits import Part
from export.evaluate.reading import LONG_HOPS, samples_reader
from export.evaluate.rhythms import auc

SETS = ("mitdb", "svdb", "vfdb")
KINDS = ("normal", "V beat", "S beat", "AF", "VT or VF", "LBBB", "RBBB", "noise")
"""Labels of a hop; the first that applies from the right end of this list, normal otherwise."""
MAX_QUERIES = 200
"""Per kind and record set, drawn at random."""
NEAREST = 10
APART_S = 30.0
RIDGE = 10.0
PICTURED = 150
"""Points per kind."""
_BLOCK_HOPS = 600


@dataclass(frozen=True, slots=True)
class Embedded:
    """Hops of many records."""

    vectors: NDArray[np.float32]
    """[hops, 192]."""
    kind: NDArray[np.int64]
    """[hops] index into `KINDS`."""
    record: NDArray[np.int64]
    """[hops] number of the record, one patient each."""
    at_s: NDArray[np.float64]
    """[hops] start within the record."""


def embed(encoder: Encoder, part: Part, sets: Sequence[str] = SETS) -> Embedded:
    """Return the labelled hops of every record of a part, first lead; hops without a known label are left out."""
    vectors, kinds, numbers, starts = [], [], [], []
    number = 0
    for db in sets:
        for record in load(db, part):
            found = hop_kinds(record)
            embedded = _vectors(encoder, db, record.name)[: found.size]
            known = (found[: len(embedded)] >= 0) & ~np.isnan(embedded[:, 0])
            vectors.append(embedded[known])
            kinds.append(found[: len(embedded)][known])
            numbers.append(np.full(int(known.sum()), number))
            starts.append(np.flatnonzero(known) * float(HOP_S))
            number += 1
    return Embedded(np.concatenate(vectors), np.concatenate(kinds), np.concatenate(numbers), np.concatenate(starts))


def hop_kinds(record: Record) -> NDArray[np.int64]:
    """Return [hops] index into `KINDS`, −1 where the annotations do not say."""
    hops = record.seconds // HOP_S
    out = np.full(hops, -1, dtype=np.int64)
    rhythm = record.rhythm[: hops * HOP_S].reshape(hops, HOP_S)
    known = record.beats_known[: hops * HOP_S].reshape(hops, HOP_S).all(axis=1)
    at = (record.beat_at // (128 * HOP_S)).astype(np.int64)

    def holds(which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        inside = at[which & (at < hops)]
        return np.bincount(inside, minlength=hops).astype(bool)

    def is_rhythm(*names: str) -> NDArray[np.bool_]:
        return np.asarray(np.isin(rhythm, [RHYTHMS.index(name) for name in names]).all(axis=1))

    out[known | is_rhythm("N")] = KINDS.index("normal")
    for name in ("V", "S"):
        out[holds(record.beat == BEAT_CLASSES.index(name))] = KINDS.index(f"{name} beat")
    out[is_rhythm("AFIB", "AFL")] = KINDS.index("AF")
    out[is_rhythm("VT", "VF")] = KINDS.index("VT or VF")
    for name in ("LBBB", "RBBB"):
        out[holds(record.morphology == MORPHOLOGIES.index(name))] = KINDS.index(name)
    out[(record.quality[: hops * HOP_S].reshape(hops, HOP_S) == 0).all(axis=1)] = KINDS.index("noise")
    return out


def _vectors(encoder: Encoder, db: str, name: str) -> NDArray[np.float32]:
    samples, uv_per_lsb, fs_hz = digital(db, name)
    hops = hops_in(fs_hz, samples.shape[1])
    out = []
    for first in range(0, hops, _BLOCK_HOPS):
        job = HopJob(samples_reader(samples[:1]), tuple(uv_per_lsb[:1]), fs_hz, first, min(first + _BLOCK_HOPS, hops))
        out += [hop.embedding for hop in score_hops(encoder, [job], stride_hops=LONG_HOPS)[0]]
    return np.stack(out)


def retrieve(found: Embedded, *, same_record: bool, seed: int = 0) -> dict[str, Any]:
    """Return per kind: share of queries whose nearest hop, and of the nearest 10 hops, is of the kind; and by chance.

    A kind counts only where the gallery holds it: with `same_record` queries of records that have it elsewhere.
    """
    rng = np.random.default_rng(seed)
    unit = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    out: dict[str, Any] = {}
    for kind, name in enumerate(KINDS):
        queries = rng.permutation(np.flatnonzero(found.kind == kind))
        first: list[bool] = []
        near: list[float] = []
        chance: list[float] = []
        for query in queries.tolist():
            if len(first) == MAX_QUERIES:
                break
            mine = found.record == found.record[query]
            gallery = mine & (np.abs(found.at_s - found.at_s[query]) >= APART_S) if same_record else ~mine
            index = np.flatnonzero(gallery)
            share = float((found.kind[index] == kind).mean()) if index.size else 0.0
            if share == 0.0 or index.size <= NEAREST or share == 1.0:
                continue
            score = unit[index] @ unit[query]
            best = index[np.argpartition(score, -NEAREST)[-NEAREST:]]
            first.append(bool(found.kind[index[int(score.argmax())]] == kind))
            near.append(float((found.kind[best] == kind).mean()))
            chance.append(share)
        if first:
            means = (np.mean(first), np.mean(near), np.mean(chance))
            first_, near_, chance_ = (round(100 * float(mean), 1) for mean in means)
            out[name] = {"queries": len(first), "nearest": first_, "nearest_10": near_, "chance": chance_}
    return out


def probe(train: Embedded, test: Embedded) -> dict[str, Any]:
    """Return the AUC of a linear probe per kind (this kind against every other), with the number of test hops."""
    mean, spread = train.vectors.mean(axis=0), train.vectors.std(axis=0) + 1e-6

    def design(one: Embedded) -> NDArray[np.float64]:
        scaled = (one.vectors.astype(np.float64) - mean) / spread
        return np.hstack([scaled, np.ones((len(scaled), 1))])

    x, y = design(train), design(test)
    out: dict[str, Any] = {}
    for kind, name in enumerate(KINDS):
        is_so, was = train.kind == kind, test.kind == kind
        if not (is_so.any() and was.any()):
            continue
        weight = np.where(is_so, 0.5 / is_so.mean(), 0.5 / (~is_so).mean())
        gram = (x * weight[:, None]).T @ x + RIDGE * np.eye(x.shape[1])
        answer = np.linalg.solve(gram, (x * weight[:, None]).T @ np.where(is_so, 1.0, -1.0))
        value = auc(y @ answer, was)
        out[name] = {
            "auc": round(100 * value, 1),
            "hops": int(was.sum()),
            "records": int(np.unique(test.record[was]).size),
        }
    return out


def draw(found: Embedded, path: Path, seed: int = 0) -> dict[str, float]:
    """Write the first two principal components of test hops as a PNG; return the share of variance they hold."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(found.kind == kind))[:PICTURED] for kind in range(len(KINDS))]
    )
    centred = found.vectors - found.vectors[chosen].mean(axis=0)
    _, size, axes = np.linalg.svd(centred[chosen], full_matrices=False)
    x, y = (centred[chosen] @ axes[:2].T).T
    figure, plot = pyplot.subplots(figsize=(7, 5), dpi=100)
    for kind, name in enumerate(KINDS):
        mine = found.kind[chosen] == kind
        plot.scatter(x[mine], y[mine], s=9, alpha=0.6, linewidths=0, label=f"{name}", color=f"C{kind}")
    share = size**2 / (size**2).sum()
    plot.set_xlabel(f"first principal component ({100 * share[0]:.0f} % of variance)")
    plot.set_ylabel(f"second ({100 * share[1]:.0f} %)")
    plot.set_title("Hops of 2 s of people never seen in training")
    plot.legend(frameon=False, markerscale=2, fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return {"first": round(float(share[0]), 3), "second": round(float(share[1]), 3)}


def measure(encoder: Encoder, picture: Path | None) -> dict[str, Any]:
    """Return retrieval and probes on test records; draw the picture if a path is given."""
    train, test = embed(encoder, "train"), embed(encoder, "test")
    return {
        "hops": {"train": int(train.kind.size), "test": int(test.kind.size)},
        "other_patients": retrieve(test, same_record=False),
        "same_record": retrieve(test, same_record=True),
        "probes": probe(train, test),
        "variance": None if picture is None else draw(test, picture),
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        f"{found['hops']['test']} labelled hops of test records (mitdb, svdb, vfdb), probes trained on "
        f"{found['hops']['train']} hops of training records. Retrieval in per cent: the nearest hop is of the same "
        "kind, mean share among the nearest 10, share by chance.",
        "",
        "| kind | other patients: nearest / 10 / chance | same recording, ≥ 30 s away | probe AUC | hops, records |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in KINDS:
        cells = [_retrieved(found[where].get(name)) for where in ("other_patients", "same_record")]
        one = found["probes"].get(name)
        cells += ["–", "–"] if one is None else [f"{one['auc']:.1f}", f"{one['hops']}, {one['records']}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![Embeddings of test hops in two dimensions](embeddings.png)"])


def _retrieved(one: Mapping[str, Any] | None) -> str:
    return "–" if one is None else f"{one['nearest']:.1f} / {one['nearest_10']:.1f} / {one['chance']:.1f}"
