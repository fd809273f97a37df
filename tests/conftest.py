"""Fixtures every test may use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from sqlalchemy import Connection

from edge.sources.data_folder import data_folder

DATA = data_folder()

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI (`ANYECG_NO_SKIP=1`) a skipped test is a failed one: the machine there lacks nothing."""
    report = yield
    if os.environ.get("ANYECG_NO_SKIP") and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _logs_outlive_a_test() -> None:
    """Log to the process's own stderr: a thread that ends late must not find its test's captured file closed."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))


@pytest.fixture(scope="session")
def ecg_data() -> Path:
    """The folder of recordings, or a skip that says how to get them."""
    if not (DATA / "mitdb/100.dat").exists():
        pytest.skip(f"no recordings in {DATA}: python -m export.datasets fetch mitdb (or set ECG_DATA)")
    return DATA


@pytest.fixture
def mosquitto_path() -> str:
    """Path of mosquitto, or a skip."""
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip("mosquitto is not installed: sudo make system")
    return path


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the scripted days of `store_kit`."""
    from store_kit import build

    return build(tmp_path_factory.mktemp("scripted"))


@pytest.fixture
def conn(state: Path) -> Iterator[Connection]:
    """A reading connection to them."""
    from store_kit import reader

    engine = reader(state)
    with engine.connect() as connection:
        yield connection
    engine.dispose()
