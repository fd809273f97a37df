"""Who is trained on, who chooses checkpoint and thresholds, and who is only ever reported: patient-wise, as code."""

from __future__ import annotations

from typing import Literal

from edge.errors import BadInputError
from export.datasets import ptbxl
from export.datasets.folders import tables_folder

Part = Literal["train", "validation", "test"]

DS2 = (
    "100",
    "103",
    "105",
    "111",
    "113",
    "117",
    "121",
    "123",
    "200",
    "202",
    "210",
    "212",
    "213",
    "214",
    "219",
    "221",
    "222",
    "228",
    "231",
    "232",
    "233",
    "234",
)
"""de Chazal's test half of mitdb."""
DS1 = (
    "101",
    "106",
    "108",
    "109",
    "112",
    "114",
    "115",
    "116",
    "118",
    "119",
    "122",
    "124",
    "201",
    "203",
    "205",
    "207",
    "208",
    "209",
    "215",
    "220",
    "223",
    "230",
)
PACED = ("102", "104", "107", "217")
"""Paced records of mitdb: trained on, never part of DS2's figures (EC57)."""
SAME_PERSON_AS_TEST = ("201",)
"""201 (DS1) and 202 (DS2) are one person: 201 is used nowhere."""

_TEST = {
    "mitdb": frozenset(DS2),
    "svdb": frozenset(("806", "821", "829", "847", "855", "863", "871", "879", "887")),
    "vfdb": frozenset(("419", "422", "424", "602", "609", "611")),
}
_VALIDATION = {
    "mitdb": frozenset(("119", "124", "220", "223")),
    "svdb": frozenset(("804", "823", "841", "865")),
    "vfdb": frozenset(("418", "421", "423")),
}
_UNUSED = {"mitdb": frozenset(SAME_PERSON_AS_TEST), "svdb": frozenset[str](), "vfdb": frozenset[str]()}

_PTBXL: dict[int, Part] = {9: "validation", 10: "test"}

_CINC2017: tuple[Part | None, ...] = (None, "test", "validation", "train", "train")

DATABASES = ("mitdb", "svdb", "vfdb", "cinc2017", "ludb", "ptbxl")

FOLDS = 5
"""Patient-wise folds over what is too thin for one test part: all of vfdb, the paced records, LUDB."""
_FOLD = {
    "vfdb": (
        ("418", "422", "427", "614"),
        ("419", "421", "425", "607"),
        ("420", "428", "430", "612"),
        ("424", "426", "429", "605", "615"),
        ("423", "602", "609", "610", "611"),
    ),
    "mitdb": (("102",), ("104",), ("107",), ("217",)),
}
"""Each fold holds asystole and one of the five paced records (602 in the last)."""


def fold(db: str, record: str) -> int | None:
    """Return the fold that tests a record, None for records outside the folds."""
    if db == "ludb":
        return int(record) % FOLDS
    return next((i for i, names in enumerate(_FOLD.get(db, ())) if record in names), None)


def part(db: str, record: str) -> Part | None:
    """Return which part a record belongs to, None if it is used nowhere.

    cinc2017 is split by record number modulo 5: 1 test, 2 validation, 3 and 4 train, 0 unused (kept apart). LUDB's
    fold 0 validates; its test figures come from the folds. PTB-XL keeps its own folds: 10 test, 9 validation.
    """
    if db == "cinc2017":
        return _CINC2017[int(record.removeprefix("A")) % 5]
    if db == "ludb":
        return "validation" if fold(db, record) == 0 else "train"
    if db == "ptbxl":
        return _PTBXL.get(int(ptbxl.rows(tables_folder(db))[record]["strat_fold"]), "train")
    if db not in _TEST:
        raise BadInputError(f"no split for database {db!r}: known are {', '.join(DATABASES)}")
    if record in _UNUSED[db]:
        return None
    if record in _TEST[db]:
        return "test"
    return "validation" if record in _VALIDATION[db] else "train"
