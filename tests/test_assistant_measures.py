"""Figures over time and of waves: trends against the script, intervals against the cardiologists of LUDB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from sqlalchemy import Connection
from store_kit import NOW_NS, berlin, utc_ns

from edge.assistant.ask import ask
from edge.store.database import open_readonly


def course(conn: Connection, question: str) -> list[tuple[int, float]]:
    (result,) = ask(conn, question, now_ns=NOW_NS, wearer="ann").results
    assert result.step.tool == "trend"
    return [(item["start"].value, item["value"].value) for item in result.items]


def test_a_trend_is_the_course_of_the_script(conn: Connection) -> None:
    found = course(conn, "How did my heart rate develop between 8 pm on Friday and midnight?")
    assert found == [(utc_ns(berlin(27, hour)), bpm) for hour, bpm in ((20, 75.0), (21, 75.0), (22, 55.0), (23, 55.0))]


def test_a_trend_of_beats_counts_them_per_step(conn: Connection) -> None:
    found = course(conn, "How have the PVCs changed from 10 am to 3 pm yesterday?")
    assert found == [(utc_ns(berlin(28, 10 + n)), count) for n, count in enumerate((0, 0, 180, 0, 0))]


def test_what_was_not_recorded_is_no_step_of_a_trend(conn: Connection) -> None:
    found = course(conn, "How did my heart rate develop between 3 pm and 6 pm yesterday?")
    assert [(at - utc_ns(berlin(28, 15))) // (600 * 10**9) for at, _ in found] == [*range(6), *range(9, 18)]


def annotated_ms(record: Path, lead: str) -> dict[str, float]:
    """Return the medians of PR, QRS, QT and RR that LUDB's cardiologists marked in a lead."""
    marked = wfdb.rdann(str(record), lead)
    waves = [
        (marked.symbol[n], marked.sample[n - 1], marked.sample[n + 1])
        for n in range(1, len(marked.symbol) - 1)
        if (marked.symbol[n - 1], marked.symbol[n + 1]) == ("(", ")")
    ]
    found: dict[str, list[float]] = {"PR interval": [], "QRS duration": [], "QT interval": []}
    for n, (kind, start, end) in enumerate(waves):
        if kind == "N":
            found["QRS duration"].append(2.0 * (end - start))
            if n and waves[n - 1][0] == "p":
                found["PR interval"].append(2.0 * (start - waves[n - 1][1]))
            if n + 1 < len(waves) and waves[n + 1][0] == "t":
                found["QT interval"].append(2.0 * (waves[n + 1][2] - start))
    found["RR"] = (2.0 * np.diff([start for kind, start, _ in waves if kind == "N"])).tolist()
    return {name: float(np.median(values)) for name, values in found.items()}


def test_intervals_are_those_that_cardiologists_mark(ecg_data: Path, tmp_path: Path) -> None:
    record = ecg_data / "ludb/data/30"
    if not record.with_suffix(".dat").exists():
        pytest.skip(f"no LUDB in {ecg_data}: python -m export.datasets fetch ludb")
    one = wfdb.rdrecord(str(record), channel_names=["ii"], physical=False)
    again = np.tile(one.d_signal, (15, 1)).astype(int)  # its 10 s for two and a half minutes
    wfdb.wrsamp(
        "long",
        fs=one.fs,
        units=one.units,
        sig_name=["II"],
        d_signal=again,
        fmt=["16"],
        adc_gain=one.adc_gain,
        baseline=one.baseline,
        write_dir=str(tmp_path),
    )
    command = [sys.executable, "-m", "edge", "import", str(tmp_path / "long"), "--wearer", "anna"]
    command += ["--start", "2026-03-28T11:00:00Z", "--state", str(tmp_path / "state")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    engine = open_readonly(tmp_path / "state")
    with engine.connect() as conn:

        def told(name: str) -> float:
            question = f"What was the {name} on 28 March 2026 from 11:00 to 11:03?"
            (result,) = ask(conn, question, now_ns=NOW_NS, wearer="anna").results
            assert not result.missing
            assert result.facts["formula"].value == "Fridericia"
            return float(result.facts["median"].value)

        marked = annotated_ms(record, "ii")
        rr_s = marked.pop("RR") / 1000
        assert {name: told(name) for name in marked} == pytest.approx(marked, abs=15.0)
        assert told("QTc") == pytest.approx(told("QT interval") / np.cbrt(rr_s), abs=8.0)
    engine.dispose()
