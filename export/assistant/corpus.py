"""`python -m export.assistant.corpus`: the anyECG-style data set: clips of annotated recordings, encoded once.

Clips come patient-wise from the parts of `export.datasets.splits`: nothing of the test parts. A clip is drawn for a
label and then evenly over the patients who have it, spoiled half of the time the way wearables spoil signals, and
encoded alone, as it will be when somebody asks. The command writes counts and diversity to docs/assistant-corpus.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge.assistant.soft import FRAME, Places, frames, places
from edge.assistant.wording import merge
from edge.encoder.card import Card
from edge.encoder.contract import MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS
from edge.encoder.session import Encoder
from export.assistant.facts import Facts, facts_of
from export.assistant.tasks import Item, about_one, compare
from export.assistant.wording import SUPERCLASSES
from export.datasets import ptbxl
from export.datasets.folders import tables_folder
from export.datasets.reader import lead_names, load
from export.datasets.record import Record
from export.datasets.splits import DATABASES, Part
from export.encoder.batch import crop_of
from export.encoder.spoil import Noise, spoil

WANTED = {
    "PVC": 0.22,
    "SVPB": 0.22,
    "LBBB": 0.11,
    "RBBB": 0.11,
    "paced": 0.05,
    "AF": 0.08,
    "VT": 0.05,
    "noise": 0.03,
    "any": 0.13,
}
"""What a clip is drawn for, and how often."""
ANY = {"mitdb": 0.3, "svdb": 0.15, "vfdb": 0.1, "cinc2017": 0.15, "ludb": 0.1, "ptbxl": 0.2}
RATE_AS_SEEN = ("cinc2017", "ptbxl")
"""Databases without annotated beats whose reports tell the rate of the beats that the encoder sees."""
MIN_S, SHORT_S, MAX_S = 5, 10, 60
SHORT_SHARE = 0.6
SPOILED = 0.5
FOLDER = Path.home() / ".cache" / "anyecg" / "assistant"
_CODES = {"NORM": "NORM"}


@dataclass(frozen=True, slots=True)
class Clip:
    """An encoded clip and what is true of it, spans from place to place: what can be said of it is said so."""

    frames: NDArray[np.float16]
    """[T, FRAME]."""
    facts: Facts
    places: Places

    @staticmethod
    def of(found: NDArray[np.float16], facts: Facts) -> Clip:
        """Lay the annotated spans of a clip on its places."""
        where = places(found, facts.length_s)

        def laid(start: float, end: float) -> tuple[float, float]:
            first = min(where.nearest(start), where.tenths.size - 2)
            last = max(where.nearest(end), first + 1)
            return float(where.tenths[first] / 10), float(where.tenths[last] / 10)

        spans = {label: merge([laid(*span) for span in spans]) for label, spans in facts.spans.items()}
        rate = where.rate_bpm if facts.rate_bpm is None and facts.db in RATE_AS_SEEN else facts.rate_bpm
        return Clip(found, replace(facts, spans=spans, rate_bpm=rate), where)


class Clips:
    """Encoded clips in one array, by number."""

    def __init__(self, found: NDArray[np.float16], ends: NDArray[np.int64], facts: list[Facts]):
        self._frames, self._ends, self.facts = found, ends, facts
        self._made: dict[int, Clip] = {}
        self.by_record: dict[tuple[str, str], list[int]] = {}
        for n, one in enumerate(facts):
            self.by_record.setdefault((one.db, one.record), []).append(n)

    def __len__(self) -> int:
        return len(self.facts)

    def tokens(self, n: int) -> int:
        """Return how many frames clip `n` has."""
        return int(self._ends[n] - (self._ends[n - 1] if n else 0))

    def __getitem__(self, n: int) -> Clip:
        if n not in self._made:
            start = int(self._ends[n - 1]) if n else 0
            self._made[n] = Clip.of(self._frames[start : int(self._ends[n])], self.facts[n])
        return self._made[n]


def clips(encoder: Card, part: Part, count: int, seed: int = 1, workers: int = 1) -> Clips:
    """Return `count` clips of a part as this encoder sees them, from the cache if they are there.

    They depend on seed and encoder, not on the number of workers.
    """
    stem = FOLDER / f"clips-{encoder.checkpoint}-{FRAME}-{part}-{count}-{seed}"
    arrays, told = stem.with_suffix(".npy"), stem.with_suffix(".json")
    if not told.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        made = list(_encode(encoder, part, count, seed, workers))
        np.save(arrays, np.concatenate([clip.frames for clip in made]))
        ends = np.cumsum([clip.frames.shape[0] for clip in made])
        told.write_text(json.dumps({"ends": ends.tolist(), "facts": [clip.facts.as_json() for clip in made]}))
    kept = json.loads(told.read_text())
    return Clips(np.load(arrays, mmap_mode="r"), np.array(kept["ends"]), [Facts.of_json(one) for one in kept["facts"]])


def _encode(encoder: Card, part: Part, count: int, seed: int, workers: int) -> Iterator[Clip]:
    draw = Draw({db: load(db, part) for db in DATABASES})
    noise = Noise.first_halves() if part == "train" else None
    _Worker.given = (draw, noise, encoder, seed)
    done = 0
    with multiprocessing.get_context("fork").Pool(workers, _Worker.begin) as pool:
        for clip in pool.imap(_Worker.clip, range(50 * count), chunksize=8):
            if clip is None:
                continue
            yield clip
            done += 1
            if done % 1000 == 0:
                print(f"{part}: {done} of {count} clips", flush=True)
            if done == count:
                pool.terminate()
                return


class _Worker:
    """What a process that encodes clips holds: records shared with its parent, an encoder of its own."""

    given: ClassVar[tuple[Draw, Noise | None, Card, int]]
    encoder: ClassVar[Encoder]

    @classmethod
    def begin(cls) -> None:
        cls.encoder = Encoder(cls.given[2], provider="cpu")

    @classmethod
    def clip(cls, n: int) -> Clip | None:
        draw, noise, _, seed = cls.given
        return draw.clip(np.random.default_rng((seed, n)), cls.encoder, noise)


class Draw:
    """Draws crops for labels, evenly over patients."""

    def __init__(self, records: dict[str, list[Record]]):
        self._records = records
        self._having: dict[str, list[tuple[Record, NDArray[np.int64]]]] = {label: [] for label in WANTED}
        for db in records:
            for record in records[db]:
                for label, seconds in _seconds_of(record).items():
                    if seconds.size:
                        self._having[label].append((record, seconds))

    def clip(self, rng: np.random.Generator, encoder: Encoder, noise: Noise | None) -> Clip | None:
        """Return a clip with its facts; None if nothing of it is known."""
        label = str(rng.choice(list(WANTED), p=list(WANTED.values())))
        having = self._having[label]
        around: int | None = None
        if having:
            record, seconds = having[int(rng.integers(len(having)))]
            around = int(rng.choice(seconds))
        else:
            dbs = [db for db in ANY if self._records.get(db)]
            share = np.array([ANY[db] for db in dbs])
            db = str(rng.choice(dbs, p=share / share.sum()))
            record = self._records[db][int(rng.integers(len(self._records[db])))]
        long = rng.random() >= SHORT_SHARE
        length_s = round(float(rng.uniform(SHORT_S, MAX_S)), 1) if long else float(SHORT_S)
        if record.seconds <= SHORT_S and rng.random() < 0.3:
            length_s = round(float(rng.uniform(MIN_S, SHORT_S)), 1)
        length_s = min(length_s, float(record.seconds))
        whole = int(np.ceil(length_s))
        latest = record.seconds - whole
        start = int(rng.integers(0, latest + 1))
        if around is not None:
            start = min(max(around - int(rng.integers(0, whole)), 0), latest)
        leads = int(rng.choice((1, 2), p=(0.55, 0.45))) if record.ecg.shape[0] <= 2 else int(rng.choice((1, 2, 3, 12)))
        order = rng.permutation(record.ecg.shape[0])[:leads]
        crop = crop_of(record, order, start, whole, order.size)
        names = lead_names(record.db, record.name)
        known = [names[n] for n in order]
        if noise is not None and rng.random() < SPOILED:
            crop, known = spoil(rng, crop, noise), []  # nobody knows what a spoiled lead is called
        ecg = crop.ecg[:, : round(length_s * MODEL_FS_HZ)]
        if np.isnan(ecg).all():
            return None
        present = int((~np.isnan(ecg).all(axis=1)).sum())
        facts = facts_of(crop, record.db, record.name, length_s, superclasses(record))
        if not facts.spans and facts.rhythm is None and facts.quality is None:
            return None
        return Clip.of(frames(encoder, ecg, known).astype(np.float16), replace(facts, leads=present))


def _seconds_of(record: Record) -> dict[str, NDArray[np.int64]]:
    """Return the seconds in which each label lies."""
    second = (record.beat_at // MODEL_FS_HZ).astype(np.int64)
    found = {"PVC": second[record.beat == 2], "SVPB": second[record.beat == 1]}
    for label in ("LBBB", "RBBB", "paced"):
        found[label] = second[record.morphology == MORPHOLOGIES.index(label)]
    found["AF"] = np.flatnonzero(np.isin(record.rhythm, (RHYTHMS.index("AFIB"), RHYTHMS.index("AFL"))))
    found["VT"] = np.flatnonzero(record.rhythm == RHYTHMS.index("VT"))
    found["noise"] = np.flatnonzero(record.quality == 0)
    return {label: np.unique(seconds[seconds < record.seconds]) for label, seconds in found.items()}


def superclasses(record: Record) -> tuple[str, ...]:
    """Return the PTB-XL diagnostic superclasses of statements with a likelihood of 50 % or more, as the paper's."""
    if record.db != "ptbxl":
        return ()
    if len(_CODES) == 1:
        import csv

        with (tables_folder("ptbxl") / "scp_statements.csv").open(newline="", encoding="utf-8") as file:
            _CODES.update({row[""]: row["diagnostic_class"] for row in csv.DictReader(file) if row["diagnostic_class"]})
    said = ptbxl.statements(record.name)
    found = {_CODES[code] for code, likely in said.items() if code in _CODES and likely >= 50}
    return tuple(name for name in SUPERCLASSES if name in found)


@dataclass(frozen=True, slots=True)
class Row:
    """ECGs that are seen together, and the questions about them."""

    numbers: tuple[int, ...]
    """Of the clips."""
    clips: tuple[Clip, ...]
    items: tuple[Item, ...]


def row(found: Clips, step: int, n: int, wanted: Sequence[str], most: int, seed: int) -> Row | None:
    """Return row `n` of step `step`: a clip with its questions, or two to four ECGs compared."""
    rng = random.Random(f"{seed}-{step}-{n}")
    if "compare" in wanted and (wanted[0] == "compare" or rng.random() < 0.3):
        number = rng.choice((2, 2, 2, 3, 4))
        first = rng.randrange(len(found))
        own = found.by_record[found.facts[first].db, found.facts[first].record]
        pool: Sequence[int] = own if len(own) >= number and rng.random() < 0.6 else range(len(found))
        chosen = rng.sample(pool, number)
        if sum(found.facts[i].length_s for i in chosen) <= 60:
            seen = tuple(found[i] for i in chosen)
            items = compare(rng, [one.facts for one in seen], most)
            if items:
                return Row(tuple(chosen), seen, tuple(items))
    one = rng.randrange(len(found))
    clip = found[one]
    items = about_one(rng, clip.facts, wanted, most)
    return Row((one,), (clip,), tuple(items)) if items else None


def describe(found: Clips, rows: int, seed: int = 1) -> dict[str, Any]:
    """Return counts per task, source, label, length and leads over `rows` rows, and how diverse the wording is."""
    from export.assistant.tasks import TASKS

    tasks: Counter[str] = Counter()
    labels: dict[str, Counter[str]] = {}
    questions: Counter[str] = Counter()
    reports: Counter[str] = Counter()
    for n in range(rows):
        made = row(found, 0, n, TASKS, 6, seed)
        for item in made.items if made else ():
            tasks[item.task] += 1
            questions[item.question] += 1
            if item.task == "localise":
                labels.setdefault(item.label, Counter())["absent" if "none" in item.answer else "there"] += 1
            if item.task == "report":
                reports[item.answer] += 1
    return {
        "clips": len(found),
        "rows": rows,
        "source": dict(Counter(one.db for one in found.facts)),
        "patients": len(found.by_record),
        "length_s": dict(Counter(f"{10 * int((one.length_s - 0.1) // 10)}-" for one in found.facts)),
        "leads": dict(Counter(str(one.leads) for one in found.facts)),
        "tasks": dict(tasks),
        "localise": {label: dict(counted) for label, counted in sorted(labels.items())},
        "wording": {
            "questions": sum(questions.values()),
            "different questions": len(questions),
            "most frequent question": questions.most_common(1)[0][1] if questions else 0,
            "reports": sum(reports.values()),
            "different reports": len(reports),
            "distinct-2 of questions": _distinct(questions, 2),
        },
    }


def _distinct(said: Counter[str], n: int) -> float:
    """Return distinct-n over the different texts: different n-grams over all of them (Li et al. 2016)."""
    grams = [tuple(words[i : i + n]) for text in said if (words := text.split()) for i in range(len(words) - n + 1)]
    return round(len(set(grams)) / max(len(grams), 1), 3)


def main() -> None:
    """Build the clips of training and validation and describe them."""
    parser = argparse.ArgumentParser(prog="python -m export.assistant.corpus", description=__doc__)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--card", type=Path, default=None, help="card of the encoder; default: the shipped one")
    parser.add_argument("--out", type=Path, default=Path("docs/assistant-corpus.json"))
    given = parser.parse_args()
    encoder = Card.load(given.card)
    told: dict[str, Any] = {"encoder": encoder.checkpoint}
    for part, count in (("train", given.clips), ("validation", given.clips // 10)):
        found = clips(encoder, part, count, workers=given.workers)  # type: ignore[arg-type]
        told[part] = describe(found, count)
    given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
