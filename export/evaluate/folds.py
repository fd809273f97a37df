"""What one test part is too thin to tell, by patient-wise cross-validation: VT and VF, asystole, paced rhythm.

Each fold's network has seen none of the records it is asked about (`export.datasets.splits.fold`); recordings are read
as the gateway reads them. Cross-validated figures belong to the recipe, not to the shipped weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.card import Card
from edge.encoder.contract import RHYTHMS
from edge.encoder.session import Encoder
from edge.errors import BadInputError
from edge.rhythm.rules import Rules
from export.datasets import reader
from export.datasets.folders import records_folder
from export.datasets.record import Record
from export.datasets.splits import FOLDS, PACED, fold
from export.evaluate import rhythms
from export.evaluate.beats import Score, figures
from export.evaluate.bootstrap import interval, intervals
from export.evaluate.reading import Reading, read

FOLDER = Path.home() / ".cache" / "anyecg" / "encoder"
FALSE_PER_HOUR_S = 60
"""False seconds of VT or VF per hour that are allowed."""
_N, _PACED = RHYTHMS.index("N"), RHYTHMS.index("P")


@dataclass(frozen=True, slots=True)
class Read:
    """A record and how the fold's network reads it, cut to the same length."""

    record: Record
    reading: Reading

    @property
    def truth(self) -> NDArray[np.int64]:
        """[seconds] annotated rhythm."""
        return self.record.rhythm[: self.seconds].astype(np.int64)

    @property
    def called(self) -> NDArray[np.int64]:
        """[seconds] rhythm in force, −1 where nothing was read."""
        return self.reading.rhythm[: self.seconds]

    @property
    def ventricular(self) -> NDArray[np.float64]:
        """[seconds] P(VT) + P(VF), 0 where nothing was read: what is withheld is not called."""
        score = self.reading.rhythm_scores[: self.seconds, list(rhythms.VENTRICULAR)].sum(axis=1)
        return np.where(self.called < 0, 0.0, np.nan_to_num(score)).astype(np.float64)

    @property
    def seconds(self) -> int:
        """Seconds known to both."""
        return min(self.record.seconds, self.reading.rhythm.size)


def encoders(folder: Path = FOLDER) -> list[Encoder]:
    """Return the network of every fold, exported from its checkpoint where that is newer.

    Raises `BadInputError` if a checkpoint is missing.
    """
    found = []
    for number in range(FOLDS):
        checkpoint = folder / f"fold{number}" / "checkpoint.pt"
        if not checkpoint.exists():
            raise BadInputError(f"{checkpoint} is missing: train the folds with export/recipes/encoder.sh")
        weights = checkpoint.with_name("encoder.onnx")
        if not weights.exists() or weights.stat().st_mtime < checkpoint.stat().st_mtime:
            _export(checkpoint)
        found.append(Encoder(Card.load(checkpoint.with_name("encoder.json")), provider="cpu"))
    return found


def _export(checkpoint: Path) -> None:
    """Write the graph and its card beside a checkpoint, biases as they were trained."""
    import json

    from export.encoder.train import averaged
    from export.onnx import card, export

    network, weights = averaged(checkpoint), checkpoint.with_name("encoder.onnx")
    export(network, weights)
    facts = json.dumps(card(network, weights), indent=2, ensure_ascii=False)
    checkpoint.with_name("encoder.json").write_text(facts + "\n", encoding="utf-8")


def readings(models: Sequence[Encoder], db: str, names: Sequence[str]) -> Iterator[Read]:
    """Yield each record of a database that belongs to a fold, first lead, read by that fold's network."""
    for name in names:
        number = fold(db, name)
        if number is not None:
            yield Read(reader.read(db, name), read(models[number], db, name, (0,), Rules()))


def measure(models: Sequence[Encoder]) -> dict[str, Any]:
    """Return the cross-validated figures."""
    names = sorted(path.stem for path in records_folder("vfdb").glob("*.hea"))
    vfdb = list(readings(models, "vfdb", names))
    paced = [*readings(models, "mitdb", PACED), *(one for one in vfdb if (one.truth == _PACED).any())]
    return {
        "ventricular": ventricular(vfdb),
        "asystole": asystole(vfdb),
        "paced": paced_seconds(paced),
    }


def ventricular(found: Sequence[Read]) -> dict[str, Any]:
    """Score VT and VF: as the gateway calls them, and at the threshold that other folds' records allow.

    The threshold of a fold is the lowest at which all other folds' records have at most `FALSE_PER_HOUR_S` false
    seconds an hour. Sinus specificity is the share of seconds annotated N that are not called.
    """
    called = {one.record.name: np.isin(one.called, rhythms.VENTRICULAR) for one in found}
    chosen = {}
    for number in sorted({_fold(one) for one in found}):
        limit = threshold([one for one in found if _fold(one) != number])
        chosen[number] = limit
    at_limit = {one.record.name: one.ventricular >= chosen[_fold(one)] for one in found}
    return {
        "records": len(found),
        "as_called": _ventricular(found, called),
        "at_one_false_minute_per_hour": _ventricular(found, at_limit) | {"thresholds": list(chosen.values())},
    }


def threshold(found: Sequence[Read]) -> float:
    """Return the lowest threshold of P(VT) + P(VF) that keeps false seconds within the allowance."""
    score = np.concatenate([one.ventricular for one in found])
    truth = np.concatenate([one.truth for one in found])
    false = np.sort(score[(truth >= 0) & ~np.isin(truth, rhythms.VENTRICULAR)])[::-1]
    allowed = int(false.size / 3600 * FALSE_PER_HOUR_S)
    return float(np.nextafter(false[allowed], 2.0)) if allowed < false.size else 0.0


def _fold(one: Read) -> int:
    number = fold(one.record.db, one.record.name)
    assert number is not None
    return number


def _ventricular(found: Sequence[Read], called: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    each: dict[str, Score] = {}
    sinus: dict[str, Score] = {}
    other_s = 0
    for one in found:
        name, truth = one.record.name, one.truth
        known, is_so = truth >= 0, np.isin(truth, rhythms.VENTRICULAR)
        here = called[name]
        each[name] = Score(int((is_so & here).sum()), int((is_so & ~here).sum()), int((known & ~is_so & here).sum()))
        sinus[name] = Score(int(((truth == _N) & ~here).sum()), int(((truth == _N) & here).sum()), 0)
        other_s += int((known & ~is_so).sum())
    total = sum(each.values(), Score(0, 0, 0))
    return {
        "seconds": figures(total),
        "interval": intervals(each),
        "false_s_per_hour": round(3600 * total.fp / max(other_s, 1), 1),
        "sinus_specificity": figures(sum(sinus.values(), Score(0, 0, 0)))["se"],
        "sinus_specificity_interval": intervals(sinus)["se"],
        "per_record": {name: figures(score) for name, score in each.items()},
    }


def asystole(found: Sequence[Read]) -> dict[str, Any]:
    """Count what annotated asystole is called, per record."""
    each = {
        one.record.name: _counts(one, np.isin(one.truth, rhythms.ASYSTOLE))
        for one in found
        if np.isin(one.truth, rhythms.ASYSTOLE).any()
    }
    total = {key: sum(one[key] for one in each.values()) for key in ("seconds", "asystole", "vt_vf", "unread", "other")}
    return {
        "gross": total,
        "called_asystole": _share(total["asystole"], total["seconds"]),
        "called_vt_vf": _share(total["vt_vf"], total["seconds"]),
        "called_asystole_interval": interval([(one["asystole"], one["seconds"]) for one in each.values()]),
        "called_vt_vf_interval": interval([(one["vt_vf"], one["seconds"]) for one in each.values()]),
        "per_record": each,
    }


def _counts(one: Read, of: NDArray[np.bool_]) -> dict[str, int]:
    called = one.called[of]
    asystole_, vt_vf = np.isin(called, rhythms.ASYSTOLE), np.isin(called, rhythms.VENTRICULAR)
    unread = called < 0
    return {
        "seconds": int(of.sum()),
        "asystole": int(asystole_.sum()),
        "vt_vf": int(vt_vf.sum()),
        "unread": int(unread.sum()),
        "other": int((~asystole_ & ~vt_vf & ~unread).sum()),
    }


def paced_seconds(found: Sequence[Read]) -> dict[str, Any]:
    """Count how many annotated paced seconds are called paced, leaving one record out at a time."""
    each = {}
    for one in found:
        of = one.truth == _PACED
        called = one.called == _PACED
        score = Score(int((of & called).sum()), int((of & ~called).sum()), int((called & ~of & (one.truth >= 0)).sum()))
        each[f"{one.record.db} {one.record.name}"] = score
    return {
        "gross": figures(sum(each.values(), Score(0, 0, 0))),
        "interval": intervals(each),
        "per_record": {name: figures(score) for name, score in each.items()},
    }


def _share(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown tables."""
    vt = found["ventricular"]
    lines = [
        f"{vt['records']} records of vfdb, first lead, each read by the network of a fold that has not seen it. "
        "In brackets 95 % intervals over records.",
        "",
        "| VT or VF, seconds | Se | PPV | F1 | false seconds per hour | sinus specificity |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    titles = {"as_called": "as the gateway calls them", "at_one_false_minute_per_hour": "≤ 1 false minute per hour"}
    for key, title in titles.items():
        one = vt[key]
        rates = " | ".join(f"{one['seconds'][rate]} {_within(one['interval'][rate])}" for rate in ("se", "ppv", "f1"))
        sinus = f"{one['sinus_specificity']} {_within(one['sinus_specificity_interval'])}"
        lines.append(f"| {title} | {rates} | {one['false_s_per_hour']} | {sinus} |")
    stop = found["asystole"]
    lines += [
        "",
        "| asystole in | seconds | called asystole | called VT or VF | not read | other |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in [*stop["per_record"].items(), ("all", stop["gross"])]:
        lines.append(
            f"| {name} | {' | '.join(str(one[k]) for k in ('seconds', 'asystole', 'vt_vf', 'unread', 'other'))} |"
        )
    lines += [
        "",
        f"Called asystole {stop['called_asystole']} % {_within(stop['called_asystole_interval'])}, called VT or VF "
        f"{stop['called_vt_vf']} % {_within(stop['called_vt_vf_interval'])}.",
        "",
        "| paced, leaving the record out | seconds | called paced (Se) | called paced elsewhere in it |",
        "| --- | --- | --- | --- |",
    ]
    for name, one in [*found["paced"]["per_record"].items(), ("all", found["paced"]["gross"])]:
        lines.append(f"| {name} | {one['tp'] + one['fn']} | {one['tp']} ({one['se']} %) | {one['fp']} |")
    return "\n".join(lines)


def _within(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"({ends[0]}–{ends[1]})"
