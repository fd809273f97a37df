"""`python -m export.datasets fetch DB...` downloads recordings; `… polar` converts the Polar CSV to WFDB."""

from __future__ import annotations

import argparse

import wfdb

from edge.errors import AnyecgError
from export.datasets.folders import data_folder
from export.datasets.polar import convert

FETCHED = ("mitdb", "svdb", "vfdb", "nstdb", "ludb")
"""Databases whose files lie on PhysioNet as they do here. cinc2017 is one archive there: unpack training2017.zip and
REFERENCE-v3.csv of challenge-2017 into the folder `cinc2017`."""


def main() -> None:
    """Run a command; exit code 1 with a message if it fails."""
    parser = argparse.ArgumentParser(prog="python -m export.datasets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="download databases from PhysioNet")
    fetch.add_argument("db", nargs="+", choices=FETCHED)
    commands.add_parser("polar", help="convert polar_h10_kbroman/polar_h10.csv to WFDB beside it")
    given = parser.parse_args()
    try:
        if given.command == "fetch":
            for db in given.db:
                folder = data_folder() / db
                folder.mkdir(parents=True, exist_ok=True)
                wfdb.dl_database(db, str(folder))
                print(f"{db}: {folder}")
        else:
            folder = data_folder() / "polar_h10_kbroman"
            print(convert(folder / "polar_h10.csv", folder))
    except (AnyecgError, OSError) as error:
        raise SystemExit(f"python -m export.datasets: {error}") from None


if __name__ == "__main__":
    main()
