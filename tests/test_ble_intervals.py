"""Straps without ECG: their RR intervals are kept to the tick, their heart rate is shown, and nobody calls it ECG."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ble_kit import ADDRESS, UTC0_NS, FastClock, SimClock, bluetooth, bus, run, until
from bluez.bus import PrivateBus
from bluez.straps import RrStrap
from sqlalchemy import Connection, select
from test_ble_daemon import FastDaemon
from typer.testing import CliRunner

from edge.cli import register
from edge.cli.app import app
from edge.intake.intervals import IntervalIntake
from edge.intervals import TICKS_HZ, Intervals
from edge.report.status import read_status
from edge.sources.ble.bindings import Binding, change_bindings
from edge.sources.ble.frame import Heart
from edge.sources.ble.interval_track import IntervalTrack
from edge.store import queries, tables
from edge.store.database import open_readonly
from edge.store.writer import Writer

__all__ = ["bus"]
register.all_commands()


def a_day_of(rng: np.random.Generator, n: int) -> list[int]:
    """RR intervals in ticks, irregular as in AF."""
    return [int(t) for t in rng.integers(500, 1400, n)]


def played(rr: list[int], clock: SimClock, rng: np.random.Generator, skip: range = range(0)) -> list[Intervals]:
    """Send each interval as a report of its own, late by up to 0.15 s and 2 s now and then; leave out `skip`."""
    track = IntervalTrack("anna", "hrm", clock)
    taken: list[Intervals] = []
    at_s = 0.0
    for i, ticks in enumerate(rr):
        at_s += ticks / TICKS_HZ
        clock.now_s = max(clock.now_s, at_s + rng.uniform(0, 0.15) + 2.0 * (i % 97 == 96))
        if i not in skip:
            taken += track.take(Heart(75, True, (ticks / TICKS_HZ,), None))
    return [*taken, *track.end()]


def test_intervals_are_never_changed_and_utc_follows() -> None:
    rng, clock = np.random.default_rng(3), SimClock()
    rr = a_day_of(rng, 3000)
    done = played(rr, clock, rng)
    assert [ticks for piece in done for ticks in piece.rr_ticks] == rr
    assert len({piece.run for piece in done}) == 1, "late is no hole"
    ends = np.cumsum([sum(piece.rr_ticks) for piece in done]) / TICKS_HZ
    late_s = np.array([(piece.utc_ns - UTC0_NS) / 1e9 for piece in done]) - ends
    assert (late_s >= -1e-3).all()
    assert np.median(late_s) < 0.05


def test_left_out_intervals_end_the_run() -> None:
    rng, clock = np.random.default_rng(4), SimClock()
    rr = a_day_of(rng, 400)
    done = played(rr, clock, rng, skip=range(200, 210))
    assert len({piece.run for piece in done}) == 2
    missing_s = sum(rr[200:210]) / TICKS_HZ
    before = [piece for piece in done if piece.run == done[0].run]
    after = [piece for piece in done if piece.run != done[0].run]
    begins_ns = after[0].utc_ns - sum(after[0].rr_ticks) * 1e9 / TICKS_HZ
    assert (begins_ns - before[-1].utc_ns) / 1e9 == pytest.approx(missing_s, abs=0.3)


def test_what_is_no_heartbeat_ends_the_run_and_off_the_body_there_is_none() -> None:
    clock = SimClock()
    track = IntervalTrack("anna", "hrm", clock)
    first = track.take(Heart(75, True, (0.8, 0.05, 0.8), None))
    assert [piece.rr_ticks for piece in first] == [(819,)]
    clock.now_s = 6.0
    (off,) = track.take(Heart(75, False, (0.8,), None))
    assert (off.rr_ticks, off.contact) == ((819,), False)
    assert track.counters["implausible_intervals"] == 1
    clock.now_s = 12.0
    (still,) = track.take(Heart(0, False, (), None))
    assert (still.rr_ticks, still.mean_bpm, still.contact) == ((), None, False)


def kept(state: Path, pieces: Iterable[Intervals]) -> int:
    writer = Writer(state)
    intake = IntervalIntake(writer, lambda wearer: "UTC")

    async def accept() -> int:
        return [(await intake.accept(piece))[0] for piece in pieces][-1]

    recording_id = asyncio.run(accept())
    writer.close()
    return recording_id


def piece(run: int, end_s: float, rr: Iterable[int] = (), bpm: Iterable[int] = ()) -> Intervals:
    ns = UTC0_NS + round(end_s * 1e9)
    return Intervals("anna", "hrm", run, ns, tuple(rr), tuple(bpm), ns, None)


def beats(conn: Connection, recording_id: int) -> np.ndarray:
    recording = queries.find_recording(conn, recording_id)
    return queries.beats(conn, recording, 0, recording.end_sample + 1)["sample"]


def test_kept_to_the_tick_across_restarts(tmp_path: Path) -> None:
    """Two runs, the second in another process: every interval as sent, the hole between them as long as UTC says."""
    rr = a_day_of(np.random.default_rng(5), 300)
    seconds = np.cumsum(rr) / TICKS_HZ
    first = [piece(1, seconds[i + 9], rr[i : i + 10]) for i in range(0, 150, 10)]
    second = [piece(2, seconds[i + 9] + 100, rr[i : i + 10]) for i in range(150, 300, 10)]
    kept(tmp_path, first)
    recording_id = kept(tmp_path, second)
    engine = open_readonly(tmp_path)
    with engine.connect() as conn:
        found = beats(conn, recording_id)
        steps = np.diff(found).tolist()
        assert steps[:150] == rr[:150]
        assert steps[151:] == rr[150:]
        assert steps[150] == 100 * TICKS_HZ
        assert [(g.start_sample, g.end_sample) for g in conn.execute(select(tables.gap))] == [
            (int(found[150]), int(found[151]))
        ]
        recording = queries.find_recording(conn, recording_id)
        assert abs(recording.to_utc_ns(int(found[-1])) - UTC0_NS - (seconds[-1] + 100) * 1e9) < 2e6
        for row in queries.trends(conn, "anna", UTC0_NS, UTC0_NS + 600 * 10**9):
            inside = (found[1:] // (60 * TICKS_HZ) == row["minute"]) & (np.diff(found) < 5 * TICKS_HZ)
            if np.count_nonzero(inside) < 5:
                assert (row["hr_bpm"], row["pulse_s"]) == (None, 0)
                continue
            assert row["hr_bpm"] == pytest.approx(60 * TICKS_HZ / np.diff(found)[inside].mean())
            assert row["hr_min_bpm"] <= row["hr_bpm"] <= row["hr_max_bpm"]
            assert row["pulse_s"] == pytest.approx(min(np.diff(found)[inside].sum() / TICKS_HZ, 60))
            assert (row["readable_s"], row["recorded_s"], row["af_s"], row["rhythm"]) == (0, 0, 0, "")
        coverage = queries.coverage(conn, "anna", UTC0_NS, UTC0_NS + 300 * 10**9)
        assert (coverage.recorded_s, coverage.readable_s) == (0, 0)
        assert queries.recordings(conn, "anna") == []
    engine.dispose()


def test_a_strap_that_tells_no_intervals_still_gives_a_rate(tmp_path: Path) -> None:
    kept(tmp_path, [piece(1, 5.0 * n, bpm=[60 + n] * 5) for n in range(1, 25)])
    engine = open_readonly(tmp_path)
    with engine.connect() as conn:
        rows = queries.trends(conn, "anna", UTC0_NS, UTC0_NS + 120 * 10**9)
        assert rows[0]["hr_bpm"] == pytest.approx(66.5, abs=1)
        assert rows[0]["pulse_s"] == pytest.approx(60, abs=5)
        assert conn.execute(select(tables.gap)).all() == []
    engine.dispose()


def test_through_the_daemon(bus: PrivateBus, tmp_path: Path) -> None:
    """Emulated strap → bleak → daemon → database, page and commands; the strap is lost once."""
    state = tmp_path / "state"
    rr = a_day_of(np.random.default_rng(6), 400)
    strap = RrStrap(ADDRESS, [ticks / TICKS_HZ for ticks in rr], speed=20.0)
    binding = Binding(wearer="anna", address=ADDRESS, kind="heart_rate")

    async def scenario() -> None:
        change_bindings(state, lambda bound: bound.update(hrm=binding))
        async with bluetooth(bus, strap):
            daemon = FastDaemon(state, FastClock(20.0))

            def device(status: dict[str, Any]) -> dict[str, Any]:
                return dict(status["ble"]["devices"]["hrm"])

            await daemon.wait(lambda s: device(s)["intervals"] > 150, 120, "intervals")
            strap.visible = False
            strap.drop()
            await asyncio.sleep(0.5)
            strap.visible = True
            await until(lambda: strap.connections == 2, 60, "a second connection")
            before = (await daemon.wait(lambda s: True, 60, "status"))["intake"]["interval_jobs"]
            status = await daemon.wait(
                lambda s: (
                    device(s)["intervals"] > 300
                    and s["intake"]["interval_jobs"] > before + 5
                    and s["links"] == {"anna": {"hrm": "online"}}
                ),  # stale after half a second of this machine's time
                120,
                "more of them",
            )
            assert (status["analysis"]["failures"], status["analysis"]["hops"]) == (0, 0)
            while (document := (await asyncio.to_thread(_states, state))["anna"])["hr_bpm"] is None:
                await asyncio.sleep(0.1)
            assert 44 < document["hr_bpm"] < 123
            assert (document["rhythm"], document["signal"], document["readable"]) == (None, None, False)
            assert await daemon.stop() == 0

    run(scenario(), 300)
    engine = open_readonly(state)
    with engine.connect() as conn:
        (row,) = conn.execute(select(tables.recording)).all()
        assert (row.leads, row.fs_hz) == ([], TICKS_HZ)
        steps = np.diff(beats(conn, row.id)).tolist()
        gaps = conn.execute(select(tables.gap)).all()
        assert len(gaps) == 1
        at = next(i for i in range(len(steps)) if steps[i] not in rr or steps[: i + 1] != rr[: i + 1])
        assert at > 100
        assert steps[at + 1 :] == rr[: len(steps) - at - 1], "the strap plays its list from the start again"
        (wearer,) = read_status(conn, row.last_received_ns).wearers
        assert wearer.hr_bpm is None or 40 < wearer.hr_bpm < 130
    engine.dispose()
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    result = CliRunner().invoke(app, ["trends", "--since", "24h", "--until", tomorrow, "--state", str(state)])
    assert result.exception is None, result.output
    assert "by a strap without ECG" in result.output


def _states(state: Path) -> dict[str, Any]:
    from edge.control import request

    return dict(request(state, "state"))
