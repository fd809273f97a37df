"""The page's unit as systemd itself judges it."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_systemd import UNITS, analyze, needs_systemd

NAME = "anyecg-web.service"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = (UNITS / NAME).read_text()
    assert text.count("ExecStart=/opt/anyecg/bin/anyecg web ") == 1
    (tmp_path / NAME).write_text(text.replace("ExecStart=/opt/anyecg/bin/anyecg", "ExecStart=/bin/true"))
    return tmp_path


@needs_systemd
def test_verify_prints_nothing(folder: Path) -> None:
    result = analyze(folder, "verify", str(folder / NAME))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
def test_it_is_as_closed_as_the_daemon(folder: Path) -> None:
    result = analyze(folder, "security", "--offline=yes", "--threshold=20", str(folder / NAME))
    assert result.returncode == 0, result.stdout


def test_it_runs_as_the_daemon_does() -> None:
    """Both must be one user, or the control socket refuses the page."""
    texts = [(UNITS / name).read_text().splitlines() for name in (NAME, "anyecg.service")]
    both = [dict(line.split("=", 1) for line in text if "=" in line and line[0] != "#") for text in texts]
    for key in ("User", "DynamicUser", "StateDirectory", "UMask"):
        assert both[0][key] == both[1][key]
