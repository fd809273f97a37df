"""`python -m export.datasets fetch DB...` downloads recordings, `polar` converts the Polar CSV to WFDB, `regular`
checks with 250 h of AF records how irregular a pulse must be."""

from __future__ import annotations

import argparse

from edge.errors import AnyecgError
from edge.rhythm.rules import Rules
from export.datasets import afdb
from export.datasets.fetch import SOURCES, fetch
from export.datasets.folders import data_folder
from export.datasets.polar import convert


def main() -> None:
    """Run a command; exit code 1 with a message if it fails."""
    parser = argparse.ArgumentParser(prog="python -m export.datasets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetched = commands.add_parser("fetch", help="download databases from PhysioNet")
    fetched.add_argument("db", nargs="+", choices=SOURCES)
    commands.add_parser("polar", help="convert polar_h10_kbroman/polar_h10.csv to WFDB beside it")
    regular = commands.add_parser("regular", help="how often a limit of irregularity takes AF for a regular pulse")
    regular.add_argument("--limit", type=float, default=Rules().rhythm.regular)
    given = parser.parse_args()
    try:
        if given.command == "fetch":
            for name in given.db:
                fetch(name, data_folder() / name)
                print(f"{name}: {data_folder() / name}")
        elif given.command == "polar":
            folder = data_folder() / "polar_h10_kbroman"
            print(convert(folder / "polar_h10.csv", folder))
        else:
            found = afdb.regular(given.limit)
            print(
                f"below {found['limit']:g}: {found['af_taken_for_regular']:.2%} of {found['af_windows']:,} windows of "
                f"ten RR intervals in AF, {found['other_taken_for_regular']:.1%} of {found['other_windows']:,} others"
            )
    except (AnyecgError, OSError) as error:
        raise SystemExit(f"python -m export.datasets: {error}") from None


if __name__ == "__main__":
    main()
