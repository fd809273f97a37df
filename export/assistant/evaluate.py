"""`python -m export.assistant.evaluate`: how well the shipped assistant looks, with its controls, into docs/.

    --questions FILE   the frozen localisation questions, as the paper scores them
    --reports          attributes of reports on the test parts
    --compare          comparison questions about clips of DS2
    --hours LABEL...   localise over whole DS2 records: recall and false spans per hour

Everything goes through `edge`: encoder, projector, merged GGUF, grammar.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edge.assistant.comparing import Comparison
from edge.assistant.hours import scan_record
from edge.assistant.look import Clip, Looker, open_looker
from edge.assistant.reports import read_report
from edge.assistant.soft import LABELS, frames
from edge.assistant.wording import Span
from edge.encoder.contract import MODEL_FS_HZ
from edge.sources.record import read_record
from export.assistant import tasks
from export.assistant.corpus import superclasses
from export.assistant.facts import Facts, facts_of
from export.assistant.page import markdown
from export.assistant.reading import spans_of
from export.assistant.wording import SUPERCLASSES
from export.datasets.folders import records_folder
from export.datasets.reader import digital, lead_names, load
from export.datasets.record import Record
from export.datasets.splits import DS2
from export.encoder.batch import crop_of
from export.evaluate.localisation import iou, load_questions
from export.evaluate.page import replace_section

COMPARED = ("exact", "rate within 5 bpm", "all ECGs in one prompt")
BOOTSTRAP = 1000
"""Draws of clips with replacement for 95 % intervals."""
DOCS = Path(__file__).parent.parent.parent / "docs"
WAYS = ("soft tokens", "one lead", "heads alone", "zeroed", "shuffled", "whole clip", "nothing")


def localise(looker: Looker, questions: Sequence[dict[str, Any]], ways: Sequence[str]) -> dict[str, Any]:
    """Answer every question in several ways; return mean IoU by way, label, part and length."""
    scores: dict[str, list[tuple[str, bool, float, float]]] = defaultdict(list)
    took: list[float] = []
    for one in questions:
        samples, uv_per_lsb, fs_hz, names = _digital(one["db"], one["record"])
        piece = samples[:, one["start_sample"] : one["end_sample"]]
        for way in ways:
            leads = 1 if way == "one lead" else piece.shape[0]
            clip = Clip.of_samples(piece[:leads], uv_per_lsb[:leads], fs_hz, names[:leads])
            began = time.perf_counter()
            spans = _answer(looker, clip, one, way)
            if way == "soft tokens":
                took.append(time.perf_counter() - began)
            scores[way].append((one["label"], bool(one["spans"]), clip.length_s, iou(one["spans"], spans)))
    told = {way: _means(found) for way, found in scores.items()}
    return {
        "questions": len(questions),
        "seconds_per_clip": {
            "median": round(float(np.median(took)), 2),
            "p95": round(float(np.quantile(took, 0.95)), 2),
        }
        if took
        else {},
        "iou": told,
    }


def _answer(looker: Looker, clip: Clip, one: dict[str, Any], way: str) -> list[Span]:
    length_s = clip.length_s
    if way == "whole clip":
        return [(0.0, length_s)]
    if way == "nothing":
        return []
    if way in ("soft tokens", "one lead"):
        return looker.spans(clip, one["label"], str(one["question"]))
    found = frames(looker.encoder, clip.ecg, clip.leads)
    if way == "heads alone":
        sight = looker.projector.see(found, length_s)
        return spans_of(sight.flags, sight.places.tenths, one["label"])
    rng = np.random.default_rng(one["start_sample"])
    if way == "shuffled":
        soft = looker.projector(np.ascontiguousarray(rng.permutation(found)), length_s)
    else:
        soft = looker.projector(found, length_s, blind=True)
    return looker.spans(clip, one["label"], str(one["question"]), soft)


def _means(found: Sequence[tuple[str, bool, float, float]]) -> dict[str, Any]:
    def mean(values: list[float]) -> float | None:
        return round(100 * float(np.mean(values)), 1) if values else None

    def parts(chosen: Sequence[tuple[str, bool, float, float]]) -> dict[str, float | None]:
        return {
            "all": mean([score for *_, score in chosen]),
            "positives": mean([score for _, positive, _, score in chosen if positive]),
            "negatives": mean([score for _, positive, _, score in chosen if not positive]),
        }

    labels = sorted({label for label, *_ in found}, key=LABELS.index)
    told: dict[str, Any] = {label: parts([one for one in found if one[0] == label]) for label in labels}
    told["macro"] = {
        part: round(float(np.mean([told[label][part] for label in labels if told[label][part] is not None])), 1)
        for part in ("all", "positives", "negatives")
    }
    bounds = ((0, 10.05, "10 s"), (10.05, 25, "to 25 s"), (25, 40, "to 40 s"), (40, 61, "to 60 s"))
    told["by length"] = {name: parts([one for one in found if low <= one[2] < high]) for low, high, name in bounds}
    return told


_last: dict[tuple[str, str], tuple[Any, list[float], float, list[str]]] = {}


def _digital(db: str, name: str) -> tuple[Any, list[float], float, list[str]]:
    if (db, name) not in _last:
        _last.clear()
        _last[db, name] = (*digital(db, name), lead_names(db, name))
    return _last[db, name]


def clips_of_test(db: str, seconds: int, per_record: int, seed: int = 1) -> Iterator[tuple[Record, Clip, Facts]]:
    """Yield clips of a database's test part with their facts, both leads (all, of twelve)."""
    for record in load(db, "test"):
        rng = random.Random(f"{seed}-{record.name}")
        names = tuple(lead_names(db, record.name))
        for _ in range(per_record):
            length_s = min(seconds, record.seconds)
            start = rng.randrange(record.seconds - length_s + 1)
            crop = crop_of(record, np.arange(record.ecg.shape[0]), start, length_s, record.ecg.shape[0])
            if np.isnan(crop.ecg).all():
                continue
            facts = facts_of(crop, record.db, record.name, float(length_s), superclasses(record))
            yield record, Clip(crop.ecg[:, : length_s * MODEL_FS_HZ], names), facts


def reports(looker: Looker, most: int) -> dict[str, Any]:
    """Return attribute scores of reports: DS2 (10 s), cinc2017's test part, PTB-XL's fold 10 on 12, 2 and 1 leads."""
    told: dict[str, Any] = {}
    for name, db, per_record, leads in (
        ("DS2", "mitdb", most // 20, 2),
        ("cinc2017", "cinc2017", 1, 1),
        ("PTB-XL fold 10, 12 leads", "ptbxl", 1, 12),
        ("PTB-XL fold 10, 2 leads", "ptbxl", 1, 2),
        ("PTB-XL fold 10, 1 lead", "ptbxl", 1, 1),
    ):
        pairs = []
        for n, (_, clip, facts) in enumerate(clips_of_test(db, 30 if db == "cinc2017" else 10, per_record)):
            if n >= most and db == "cinc2017":
                break
            cut = Clip(clip.ecg[:leads], clip.leads[:leads])
            if np.isnan(cut.ecg).all():
                continue
            said = looker.report(cut)
            classes = looker.tell([cut], "Which diagnostic classes apply?") if db == "ptbxl" else ""
            pairs.append((facts, read_report(said), classes))
        told[name] = _attributes(pairs)
    return told


def _attributes(pairs: Sequence[tuple[Facts, Any, str]]) -> dict[str, Any]:
    told: dict[str, Any] = {"clips": len(pairs)}
    rhythm = [(f.rhythm, a.rhythm) for f, a, _ in pairs if f.rhythm is not None]
    quality = [(f.quality, a.quality) for f, a, _ in pairs if f.quality is not None]
    conduction = [(f.conduction, a.conduction) for f, a, _ in pairs if f.conduction is not None]
    for name, found in (("rhythm", rhythm), ("quality", quality), ("conduction", conduction)):
        if found:
            told[name] = _f1(found)
    rates = [(f.rate_bpm, a.rate_bpm) for f, a, _ in pairs if f.rate_bpm is not None]
    if rates:
        near = [b is not None and abs(a - b) <= 5 for a, b in rates if a is not None]
        told["rate within 5 bpm"] = round(float(np.mean(near)), 3)
    for name, column in (("PVC", "pvcs"), ("SVPB", "svpbs")):
        told_of = [(getattr(f, column), getattr(a, column)) for f, a, _ in pairs if getattr(f, column) is not None]
        if told_of:
            told[f"{name} present"] = _binary([(bool(a), bool(b)) for a, b in told_of])
    if any(classes for *_, classes in pairs):
        told["superclass"] = {
            name: _binary([(name in f.statements, said.lower() in classes.lower()) for f, _, classes in pairs])
            for name, said in SUPERCLASSES.items()
        }
    return told


def _f1(found: Sequence[tuple[str, str | None]]) -> dict[str, Any]:
    """Return accuracy with its interval, F1 of each true value that occurs, and their mean."""
    each = {name: _binary([(a == name, b == name) for a, b in found]) for name in sorted({a for a, _ in found})}
    mean = float(np.mean([one["f1"] for one in each.values()]))
    right = np.array([a == b for a, b in found])
    drawn = right[np.random.default_rng(1).integers(0, right.size, (BOOTSTRAP, right.size))].mean(axis=1)
    interval = _interval(drawn)
    return {"accuracy": round(float(right.mean()), 3), "95 %": interval, "macro_f1": round(mean, 3), "each": each}


def _binary(found: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    tp = sum(a and b for a, b in found)
    fn, fp = sum(a and not b for a, b in found), sum(b and not a for a, b in found)
    rng = np.random.default_rng(1)
    drawn = (
        np.array(found)[rng.integers(0, len(found), (BOOTSTRAP, len(found)))] if found else np.zeros((1, 1, 2), bool)
    )
    both = 2 * (drawn[..., 0] & drawn[..., 1]).sum(axis=1)
    f1s = both / np.maximum(both + (drawn[..., 0] != drawn[..., 1]).sum(axis=1), 1)
    f1 = round(2 * tp / max(2 * tp + fn + fp, 1), 3)
    return {"tp": tp, "fn": fn, "fp": fp, "f1": f1, "95 %": _interval(f1s)}


def _interval(drawn: NDArray[np.floating]) -> list[float]:
    """Return the middle 95 % of what was drawn."""
    return [round(float(one), 2) for one in np.quantile(drawn, (0.025, 0.975))]


def comparisons(looker: Looker, count: int) -> dict[str, Any]:
    """Return the share of exact answers to comparison questions about two to four 10 s clips of DS2.

    As shipped (each ECG read on its own) and by the language model with all of them in one prompt.
    """
    pool = [(clip, facts) for _, clip, facts in clips_of_test("mitdb", 10, 8)]
    by_record: dict[str, list[int]] = defaultdict(list)
    for n, (_, facts) in enumerate(pool):
        by_record[facts.record].append(n)
    once = cast(Looker, _Once(looker))
    right: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for n in range(count):
        rng = random.Random(n)
        number = rng.choice((2, 2, 3, 4))
        own = by_record[rng.choice(list(by_record))]
        chosen = rng.sample(own if rng.random() < 0.5 and len(own) >= number else range(len(pool)), number)
        clips = [pool[i][0] for i in chosen]
        for item in tasks.compare(rng, [pool[i][1] for i in chosen], 1):
            said, alone = Comparison(once, clips).answer(item.question), looker.tell(clips, item.question)
            kind = "what changed" if item.label == tasks.CHANGED else "which, yes or no"
            for name in ("all", f"{number} ECGs", kind):
                right[name].append(
                    (same_text(said, item.answer), same_change(said, item.answer), same_text(alone, item.answer))
                )
    told: dict[str, Any] = {}
    for name, one in sorted(right.items()):
        shares = [round(float(np.mean(way)), 3) for way in zip(*one, strict=True)]
        told[name] = dict(zip(COMPARED, shares, strict=True)) | {"questions": len(one)}
    return told


class _Once:
    """A looker that reads the same clip but once."""

    def __init__(self, looker: Looker) -> None:
        self.tell = looker.tell
        self.report = cache(looker.report)
        self.spans = cache(looker.spans)


def same_text(said: str, wanted: str) -> bool:
    """Return whether two answers are the same but for spaces and capitals."""
    return " ".join(said.lower().split()) == " ".join(wanted.lower().split())


def same_change(said: str, wanted: str) -> bool:
    """Return whether two answers are the same where rates may differ by 5 bpm, as in reports."""
    parts = [[part.strip().lower() for part in text.split(";")] for text in (said, wanted)]
    if len(parts[0]) != len(parts[1]):
        return False
    for a, b in zip(*parts, strict=True):
        rates = [re.fullmatch(r"rate (up|down) from (\d+) to (\d+) bpm", one) for one in (a, b)]
        if rates[0] and rates[1]:
            near = all(abs(int(rates[0][n]) - int(rates[1][n])) <= 5 for n in (2, 3))
            if rates[0][1] != rates[1][1] or not near:
                return False
        elif a != b:
            return False
    return True


def hours(looker: Looker, labels: Sequence[str], records: Sequence[str] = DS2) -> dict[str, Any]:
    """Return recall and false spans per hour over whole records, of the model and of the engine."""
    told: dict[str, Any] = {}
    truth = {record.name: record for record in load("mitdb", "test")}
    for label in labels:
        counts = {who: {"spans": 0, "found": 0, "false": 0} for who in ("model", "engine", "either")}
        recorded_h = read_h = 0.0
        for name in records:
            record = truth[name]
            crop = crop_of(record, np.arange(2), 0, record.seconds, 2)
            wanted = facts_of(crop, "mitdb", name, float(record.seconds)).spans.get(label)
            if wanted is None:
                continue
            done = scan_record(looker, read_record(records_folder("mitdb") / name), label)
            recorded_h += record.seconds / 3600
            read_h += done.read_s / 3600
            for who, count in counts.items():
                said = [one for one in done.found if who == "either" or getattr(one, who)]
                count["spans"] += len(wanted)
                count["found"] += sum(any(s.start_s < b and a < s.end_s for s in said) for a, b in wanted)
                count["false"] += sum(not any(s.start_s < b and a < s.end_s for a, b in wanted) for s in said)
        told[label] = {
            who: {
                "recall": round(c["found"] / max(c["spans"], 1), 3),
                "false_per_hour": round(c["false"] / max(recorded_h, 1e-9), 1),
            }
            | c
            for who, c in counts.items()
        } | {"hours": round(recorded_h, 2), "read_by_model_h": round(read_h, 2)}
    return told


def write_metrics(card: Path, found: dict[str, Any]) -> None:
    """Write the figures that belong to weights into their card."""
    facts = json.loads(card.read_text(encoding="utf-8"))
    told = {}
    if "localisation" in found:
        iou_of = found["localisation"]["iou"]
        told["localisation IoU, all / positives"] = {
            way: {label: [one["all"], one["positives"]] for label, one in means.items() if label != "by length"}
            for way, means in iou_of.items()
        }
    if "comparisons" in found:
        told["comparisons"] = found["comparisons"]
    facts["metrics"] = told
    card.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Evaluate what is asked for and write it into docs/assistant-model.json."""
    parser = argparse.ArgumentParser(prog="python -m export.assistant.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=Path, metavar="FILE")
    parser.add_argument("--every", type=int, default=1, help="only every n-th question")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--reports", type=int, metavar="CLIPS", nargs="?", const=400)
    parser.add_argument("--compare", type=int, metavar="QUESTIONS", nargs="?", const=200)
    parser.add_argument("--hours", nargs="+", metavar="LABEL", choices=LABELS)
    parser.add_argument("--records", nargs="+", default=list(DS2), choices=DS2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="print and write nothing")
    given = parser.parse_args()
    looker = open_looker(threads=given.threads)
    found: dict[str, Any] = {"projector": looker.card.checkpoint, "encoder": looker.card.encoder}
    if given.questions:
        asked = sorted(load_questions(given.questions)[:: given.every], key=lambda one: one["record"])
        name = "localisation" if given.every == 1 else f"localisation, one question in {given.every}"
        found[name] = localise(looker, asked, given.ways)
    if given.reports:
        found["reports"] = reports(looker, given.reports)
    if given.compare:
        found["comparisons"] = comparisons(looker, given.compare)
    if given.hours:
        found["hours"] = hours(looker, given.hours, given.records)
    print(json.dumps(found, indent=1))
    if not given.dry_run:
        path = DOCS / "assistant-model.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if before.get("projector") != found["projector"]:
            before = {}
        path.write_text(json.dumps(before | found, indent=1) + "\n", encoding="utf-8")
        replace_section(DOCS / "assistant.md", "looking", markdown(before | found))
        write_metrics(looker.card.path, before | found)


if __name__ == "__main__":
    main()
