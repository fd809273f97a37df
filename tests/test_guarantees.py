"""Guarantees 4 and 5 of ARCHITECTURE.md through the whole gateway, in one process and with a clock of our own."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_kit import START_NS, cut, stored_beats, stored_findings

from edge.chunk import MISSING, Delivery
from edge.clock import ManualClock
from edge.config import Config
from edge.gateway import Gateway
from edge.importing import chunks
from edge.sources.record import Record, read_record
from edge.store import queries


def fed(state: Path, record: Record, wall_steps: dict[int, float] | None = None) -> list[dict[str, Any]]:
    """Feed a record chunk by chunk to a gateway whose wall clock jumps; return the trends, leave the database."""

    async def feed() -> list[dict[str, Any]]:
        clock = ManualClock(START_NS)
        gateway = Gateway(state, Config(), clock)
        analysis = asyncio.create_task(gateway.analyse())
        for number, chunk in enumerate(chunks(record, "anna", "patch", 7, START_NS)):
            clock.advance(10)
            clock.step_wall((wall_steps or {}).get(number, 0.0))
            await gateway.intake.accept(Delivery(chunk, clock.utc_ns(), lambda: None))
        (recording,) = await asyncio.to_thread(_recordings, gateway)
        await gateway.intake.flush(recording.id)
        await gateway.finish(recording.id, record.n)
        trends = await asyncio.to_thread(_trends, gateway)
        analysis.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await analysis
        gateway.close()
        return trends

    return asyncio.run(feed())


def _recordings(gateway: Gateway) -> list[queries.Recording]:
    with gateway.reader.connect() as conn:
        return queries.recordings(conn)


def _trends(gateway: Gateway) -> list[dict[str, Any]]:
    with gateway.reader.connect() as conn:
        return queries.trends(conn, "anna", 0, 2**62)


def test_the_wall_clock_changes_no_finding(ecg_data: Path, tmp_path: Path) -> None:
    record = cut(read_record(ecg_data / "vfdb/422"), 300, 1000)
    fed(tmp_path / "steady", record)
    fed(tmp_path / "jumping", record, {3: 3600.0, 9: -7200.0, 15: 0.7, 20: 86400.0})
    steady, jumping = stored_findings(tmp_path / "steady"), stored_findings(tmp_path / "jumping")
    assert steady, "nothing was found: the test proves nothing"
    same = (
        "rule",
        "severity",
        "state",
        "start_sample",
        "end_sample",
        "detected_sample",
        "evidence",
        "start_ns",
        "revision",
    )
    assert {key: [row[n] for n in same] for key, row in steady.items()} == {
        key: [row[n] for n in same] for key, row in jumping.items()
    }
    assert np.array_equal(stored_beats(tmp_path / "steady"), stored_beats(tmp_path / "jumping"))


@pytest.mark.parametrize("kind", ["gap", "flat"])
def test_missing_is_never_normal_and_never_a_pause(ecg_data: Path, tmp_path: Path, kind: str) -> None:
    """60 s without signal in a minute-long stretch of sinus rhythm: a state of its own, and no rhythm finding."""
    record = cut(read_record(ecg_data / "mitdb/103"), 240)
    hole = slice(round(90 * record.fs_hz), round(150 * record.fs_hz))
    record.samples[:, hole] = MISSING if kind == "gap" else 0
    trends = fed(tmp_path, record)
    findings = stored_findings(tmp_path)
    assert [row["rule"] for row in findings.values()] == [kind]
    (found,) = findings.values()
    assert abs(found["start_sample"] - hole.start) <= 4 * record.fs_hz
    assert abs(found["end_sample"] - hole.stop) <= 4 * record.fs_hz
    beats = stored_beats(tmp_path)["sample"]
    assert not ((beats > hole.start) & (beats < hole.stop)).any()
    assert sum(trend["readable_s"] for trend in trends) == pytest.approx(180, abs=8)
    assert sum(trend["recorded_s"] for trend in trends) == pytest.approx(180 if kind == "gap" else 240, abs=3)
    readable = [trend for trend in trends if trend["readable_s"] > 20]
    assert all(50 < trend["hr_bpm"] < 100 for trend in readable)
