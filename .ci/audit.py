"""What is installed against the advisories written down in `advisories.toml`; needs no network.

Looked at is what anyecg-edge requires, directly or not, of what is installed here: not the installers, not what else
lies in the environment. Exit code 1 if one of them is affected, or a direct requirement has no lower bound or one that
admits an affected version. No advisory service is asked: what is not in the list is not found. `make audit` asks one.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

LIST = Path(__file__).with_name("advisories.toml")
STALE_DAYS = 180
EXTRAS = ("cpu", "gpu", "export", "dev")


def closure(project: str = "anyecg-edge") -> dict[str, Version]:
    """Return name → version of the installed packages that the project asks for, extras included."""
    found: dict[str, Version] = {}
    todo = [(project, EXTRAS)]
    while todo:
        name, extras = todo.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra, or a marker, that is not installed here
        for line in distribution.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            key = canonicalize_name(requirement.name)
            if key not in found and key != canonicalize_name(project):
                try:
                    found[key] = Version(metadata.version(requirement.name))
                except metadata.PackageNotFoundError:
                    continue
                todo.append((requirement.name, tuple(requirement.extras)))
    return found


def unbounded(lines: Iterable[str]) -> list[str]:
    """Return the requirements that any old version would satisfy."""
    return [line for line in lines if not re.search(r"(>=|==|~=)", line)]


def admitted(lines: Iterable[str], advisories: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each direct requirement whose lowest version an advisory names."""
    faults = []
    for line in lines:
        requirement = Requirement(line)
        lowest = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=")]
        found = affected({canonicalize_name(requirement.name): max(lowest)}, advisories) if lowest else []
        faults += [f"pyproject.toml admits {line}: {fault}" for fault in found]
    return faults


def affected(installed: Mapping[str, Version], advisories: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each installed version that an advisory names and that was not accepted with a reason."""
    lines = []
    for entry in advisories:
        version = installed.get(canonicalize_name(entry["package"]))
        if version is None or version not in SpecifierSet(entry["affected"], prereleases=True):
            continue
        if entry.get("accepted"):
            print(f"accepted: {entry['package']} {version}, {entry['id']}: {entry['accepted']}")
            continue
        lines.append(
            f"{entry['package']} {version} is affected by {entry['id']} ({entry['affected']}): {entry['what']}"
        )
    return lines


def main() -> int:
    listed = tomllib.loads(LIST.read_text())
    project = tomllib.loads((LIST.parent.parent / "pyproject.toml").read_text())["project"]
    direct = [*project["dependencies"], *(line for one in project["optional-dependencies"].values() for line in one)]
    installed = closure()
    if len(installed) < len(project["dependencies"]):
        print(f"only {len(installed)} packages of anyecg-edge are installed here: run `make check`")
        return 1
    faults = affected(installed, listed["advisory"])
    faults += [f"{line}: give it a lower bound in pyproject.toml" for line in unbounded(direct)]
    faults += admitted(direct, listed["advisory"])
    for fault in faults:
        print(fault)
    age = (date.today() - listed["reviewed"]).days
    print(
        f"audit: {len(installed)} packages against {len(listed['advisory'])} recorded advisories, last reviewed "
        f"{listed['reviewed']}{' (stale: review it, `make audit`)' if age > STALE_DAYS else ''}; "
        f"{len(faults)} faults; no advisory service was asked"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
