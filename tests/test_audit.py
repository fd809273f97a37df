"""`.ci/audit.py`: what is affected is said, what is accepted has a reason, what is old cannot come back."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

CI = Path(__file__).resolve().parents[1] / ".ci"
pytestmark = pytest.mark.skipif(not CI.is_dir(), reason="no checkout")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", CI / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed() -> list[dict[str, str]]:
    found: list[dict[str, str]] = tomllib.loads((CI / "advisories.toml").read_text())["advisory"]
    return found


def test_an_affected_version_is_said_and_an_accepted_one_not(audit: ModuleType) -> None:
    assert "CVE-2026-26209" in audit.affected({"cbor2": Version("5.8.0")}, listed())[0]
    assert audit.affected({"cbor2": Version("5.9.0")}, listed()) == []
    assert audit.affected({"diskcache": Version("5.6.3")}, listed()) == []
    assert audit.affected({"Not-There": Version("1")}, listed()) == []


def test_a_requirement_that_admits_one_is_said(audit: ModuleType) -> None:
    assert audit.admitted(["starlette>=0.46"], listed())
    assert audit.admitted(["starlette>=1.3.1"], listed()) == []
    assert audit.unbounded(["numpy", "scipy>=1", "torch==2.0"]) == ["numpy"]


def test_what_is_installed_here_is_looked_at_with_all_it_brings(audit: ModuleType) -> None:
    found = audit.closure()
    assert {"numpy", "starlette", "paho-mqtt", "cbor2", "h11"} <= found.keys()  # h11 comes with uvicorn


def test_the_list_is_whole() -> None:
    for entry in listed():
        assert entry.keys() - {"accepted"} == {"package", "id", "affected", "what"}
        assert str(SpecifierSet(entry["affected"]))
    assert all(len(entry["accepted"]) > 20 for entry in listed() if "accepted" in entry)
