"""False alarms: alerts per hour and rule on annotated recordings, true and false apart.

    python -m bench.alarms [--json FILE] [--only mitdb|vfdb|cinc2015]

mitdb is de Chazal's DS2 and vfdb the test records, first lead each; cinc2015 is the PhysioNet/CinC Challenge 2015
with its two ECG leads, 300 s up to the monitor's alarm. Scores of the encoder are kept in build/bench/scores by the
hash of the weights, so that a change of rules costs seconds. Rules are the shipped ones.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.figures import FOLDER, Figures, write_json
from bench.machine import this_machine
from bench.reference import Reference
from edge.analyze import Analyzer
from edge.encoder.card import Card
from edge.encoder.contract import HopScores
from edge.encoder.session import Encoder
from edge.encoder.windows import hops_in
from edge.rhythm.events import SEVERITIES, Finding
from edge.rhythm.rules import Rules
from edge.rhythm.session import RhythmSession
from edge.sources.data_folder import data_folder
from edge.sources.record import Record, read_record
from export.datasets.splits import DS2, part

DATA = data_folder()
SCORES = FOLDER / "scores"
ALARM_S, LOOK_S = 300, 10
"""The monitor's alarm lies at 300 s; what it is about began within the 10 s before it (rules of the challenge)."""
ALARMS = {
    "a": ("asystole", ("asystole",)),
    "b": ("bradycardia", ("extreme_bradycardia", "bradycardia", "asystole", "pause")),
    "t": ("tachycardia", ("extreme_tachycardia", "tachycardia", "svt", "vt")),
    "f": ("VF or flutter", ("vf",)),
    "v": ("VT", ("vt", "vf")),
}
"""First letter of a record: the monitor's alarm, and the findings that say the same."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=FOLDER / "alarms.json")
    parser.add_argument("--only", choices=("mitdb", "vfdb", "cinc2015"))
    arguments = parser.parse_args()
    machine = this_machine()
    analyzer = Analyzer(Encoder(Card.load()), Rules())
    rows: list[list[str]] = []
    found = {}
    for db in ("mitdb", "vfdb"):
        if arguments.only in (None, db):
            hours, counts = _annotated(analyzer, db)
            found[db] = {"hours": hours, "findings": {" ".join(key): n for key, n in sorted(counts.items())}}
            rows += _hourly(f"{'DS2' if db == 'mitdb' else 'vfdb test'}, {hours:.1f} h", hours, counts)
    if arguments.only in (None, "cinc2015"):
        found["cinc2015"] = cinc = _challenge(analyzer)
        rows += [
            [f"cinc2015 odd: {name}", f"{c['TP']}", f"{c['FP']}", f"missed {c['FN']}, rightly quiet {c['TN']}",
             f"score {score(c):.3f}"]
            for name, c in cinc["odd"].items()
        ]  # fmt: skip
        even = f"even records {score(cinc['even']['all']):.3f}"
        rows[-1][-1] += f" ({even})"
    card = analyzer.encoder.card
    title = f"Alarms · {card.checkpoint}, weights {card.sha256[:8]} · {machine.line}"
    figures = Figures(title, ["rule", "true", "false", "not judged", "per hour true / false"], rows)
    Console().print(figures.as_rich())
    write_json(arguments.json, figures, machine, checkpoint=card.checkpoint, weights_sha256=card.sha256, **found)
    return 0


def score(counts: dict[str, int]) -> float:
    """Return the challenge's score: (TP + TN) / (TP + TN + FP + 5 FN)."""
    right = counts["TP"] + counts["TN"]
    return right / max(right + counts["FP"] + 5 * counts["FN"], 1)


def _annotated(analyzer: Analyzer, db: str) -> tuple[float, Counter[tuple[str, str, str]]]:
    """Return hours and the count of findings by (rule, severity, verdict)."""
    names = DS2 if db == "mitdb" else [p.stem for p in sorted((DATA / db).glob("*.hea")) if part(db, p.stem) == "test"]
    hours, counts = 0.0, Counter[tuple[str, str, str]]()
    for name in names:
        path = DATA / db / name
        record = _first_lead(read_record(path))
        reference = Reference.read(path, beats=db == "mitdb")
        hours += record.duration_s / 3600
        for finding in _findings(analyzer, record, db):
            start_s, end_s = (sample / record.fs_hz for sample in (finding.start_sample, finding.end_sample))
            counts[finding.rule, finding.severity, reference.verdict(finding.rule, start_s, end_s)] += 1
    return hours, counts


def _hourly(title: str, hours: float, counts: Counter[tuple[str, str, str]]) -> list[list[str]]:
    """Return a row per rule and severity, and the sum of what is told by default."""
    rows = [[f"**{title}**", "", "", "", ""]]
    kinds = sorted({(rule, severity) for rule, severity, _ in counts}, key=lambda k: (-SEVERITIES.index(k[1]), k[0]))
    for rule, severity in kinds:
        rows.append([f"{rule} ({severity})", *_cells([counts[rule, severity, v] for v in VERDICTS], hours)])
    told = [sum(n for (_, s, v), n in counts.items() if s != "info" and v == verdict) for verdict in VERDICTS]
    return [*rows, ["all but info: what is told", *_cells(told, hours)]]


VERDICTS = ("true", "false", "not judged")


def _cells(counts: Sequence[int], hours: float) -> list[str]:
    return [*map(str, counts), f"{counts[0] / hours:.2f} / {counts[1] / hours:.2f}"]


def _challenge(analyzer: Analyzer) -> dict[str, dict[str, dict[str, int]]]:
    """Return TP, FP, FN, TN per kind of alarm, of even and odd record numbers."""
    found: dict[str, dict[str, Counter[str]]] = {half: {} for half in ("odd", "even")}
    for header in sorted((DATA / "cinc2015").glob("*.hea")):
        name = header.stem
        half = "odd" if int(name[1:4]) % 2 else "even"
        kind, rules = ALARMS[name[0]]
        record = read_record(header.with_suffix(""))
        record = replace(record, samples=record.samples[:, : round(ALARM_S * record.fs_hz)])
        is_true = "True alarm" in header.read_text(encoding="utf-8")
        says_so = any(
            finding.rule in rules and finding.end_sample > (ALARM_S - LOOK_S) * record.fs_hz
            for finding in _findings(analyzer, record, "cinc2015")
        )
        outcome = {(True, True): "TP", (True, False): "FN", (False, True): "FP", (False, False): "TN"}
        for key in (kind, "all"):
            found[half].setdefault(key, Counter())[outcome[is_true, says_so]] += 1
    return {
        half: {
            kind: {name: kinds[kind][name] for name in ("TP", "FP", "FN", "TN")}
            for kind in sorted(kinds, key=lambda kind: (kind == "all", kind))
        }
        for half, kinds in found.items()
    }


def _findings(analyzer: Analyzer, record: Record, db: str) -> list[Finding]:
    """Return the last state of every finding of a record."""
    session = RhythmSession(record.name, record.fs_hz, record.leads, analyzer.rules)
    latest: dict[str, Finding] = {}
    for hop in _scores(analyzer, record, db):
        latest.update((f.id, f) for f in session.feed(hop).findings)
    latest.update((f.id, f) for f in session.finish(record.n).findings)
    return list(latest.values())


def _scores(analyzer: Analyzer, record: Record, db: str) -> Iterator[HopScores]:
    """Yield what the encoder says, from build/bench/scores where it has said it before."""
    card = analyzer.encoder.card
    path = SCORES / card.sha256[:16] / f"{db}-{record.name}-{len(record.leads)}.npz"
    names = [field.name for field in fields(HopScores) if field.name not in ("k", "embedding")]
    hops = hops_in(record.fs_hz, record.n)
    if not path.exists():
        scored = [hop for block in analyzer.scored(record, hops) for hop in block]
        path.parent.mkdir(parents=True, exist_ok=True)
        part_path = path.with_suffix(".part.npz")
        np.savez(part_path, **{name: np.stack([getattr(hop, name) for hop in scored]) for name in names})
        part_path.replace(path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in names}
    nothing = np.full(0, np.nan, np.float32)
    for k in range(hops):
        yield HopScores(k=k, embedding=nothing, **{name: array[k] for name, array in arrays.items()})


def _first_lead(record: Record) -> Record:
    return replace(record, leads=record.leads[:1], uv_per_lsb=record.uv_per_lsb[:1], samples=record.samples[:1])


if __name__ == "__main__":
    raise SystemExit(main())
