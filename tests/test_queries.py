"""Reading the database: clock mapping both ways, findings that count, coverage that knows what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection
from store_kit import AF_IDS, ANN_START, FS_HZ, GAP, NOW_NS, NS, UNREADABLE, VT_AT, berlin, build, utc_ns

from edge.errors import BadInputError
from edge.store import queries


def test_wearers_come_with_their_zone_and_an_unknown_one_is_told_who_is_known(conn: Connection) -> None:
    zones = {w.id: w.timezone for w in queries.wearers(conn)}
    assert zones["ann"] == "Europe/Berlin"
    assert zones["cyd"] == "Asia/Tokyo"
    with pytest.raises(BadInputError, match="ann, bob, cyd, dan"):
        queries.find_wearer(conn, "eve")


@given(sample=st.integers(0, 10**9), fs_hz=st.sampled_from([62.5, 128.0, 130.0, 250.0, 256.0, 360.0, 1000.0]))
def test_a_sample_maps_to_utc_and_back_to_itself(sample: int, fs_hz: float) -> None:
    recording = _recording(fs_hz, ((0, utc_ns(ANN_START)),), end_sample=sample + 10)
    at = recording.to_utc_ns(sample)
    assert recording.sample_spans(at, at + 2) == [(sample, sample + 1)]


def test_a_jump_of_the_clock_leaves_a_hole_in_utc_and_setting_it_back_makes_times_happen_twice() -> None:
    start = utc_ns(ANN_START)
    forward = _recording(100.0, ((0, start), (1000, start + 110 * NS)), end_sample=2000)
    assert forward.sample_spans(start + 20 * NS, start + 100 * NS) == []
    assert forward.sample_spans(start, start + 200 * NS) == [(0, 2000)]
    back = _recording(100.0, ((0, start), (1000, start + 5 * NS)), end_sample=2000)
    assert back.sample_spans(start + 6 * NS, start + 7 * NS) == [(600, 700), (1100, 1200)]
    assert back.to_utc_ns(1000) == start + 5 * NS


def _recording(fs_hz: float, segments: tuple[tuple[int, int], ...], end_sample: int) -> queries.Recording:
    return queries.Recording(
        id=1,
        key="k",
        wearer="w",
        device="d",
        leads=("I",),
        fs_hz=fs_hz,
        uv_per_lsb=(1.0,),
        source="live",
        start_ns=segments[0][1],
        end_sample=end_sample,
        last_received_ns=0,
        segments=tuple(queries.ClockSegment(*segment, fs_hz) for segment in segments),
    )


def test_superseded_and_retracted_findings_are_left_out_unless_asked_for(conn: Connection) -> None:
    ids = [row["id"] for row in queries.findings(conn, wearer="ann", rules=("af",))]
    assert ids == list(AF_IDS)
    everything = queries.findings(
        conn, wearer="ann", rules=("af",), states=("open", "closed", "retracted"), current_only=False
    )
    assert len(everything) == 5


def test_a_period_takes_the_findings_that_overlap_it(conn: Connection) -> None:
    def ids(start_ns: int, end_ns: int) -> list[str]:
        rows = queries.findings(conn, wearer="ann", rules=("af",), start_ns=start_ns, end_ns=end_ns)
        return [row["id"] for row in rows]

    assert ids(utc_ns(berlin(28, 10, 29)), utc_ns(berlin(28, 23, 30))) == [AF_IDS[0]]
    assert ids(utc_ns(berlin(28, 10, 30)), utc_ns(berlin(28, 23, 30))) == []
    assert ids(utc_ns(berlin(28, 23, 59)), utc_ns(berlin(29, 0, 1))) == [AF_IDS[1]]


def test_findings_filter_by_severity_state_and_limit(conn: Connection) -> None:
    assert {r["rule"] for r in queries.findings(conn, severities=("urgent", "critical"))} == {"af", "vt"}
    assert [r["rule"] for r in queries.findings(conn, states=("open",))] == ["tachycardia"]
    assert len(queries.findings(conn, limit=3)) == 3
    assert queries.findings(conn, limit=-1) == []
    newest = queries.findings(conn, wearer="ann", newest_first=True, limit=1)
    assert newest[0]["rule"] == "tachycardia"


def test_a_finding_is_found_by_the_beginning_of_its_id(conn: Connection) -> None:
    assert queries.find_finding(conn, "bob-af-0")["wearer"] == "bob"
    with pytest.raises(BadInputError, match="several events begin"):
        queries.find_finding(conn, "af-000")
    with pytest.raises(BadInputError, match="no event"):
        queries.find_finding(conn, "%%%%")
    with pytest.raises(BadInputError, match="too short"):
        queries.find_finding(conn, "a")


def test_beats_are_cut_to_the_sample(conn: Connection) -> None:
    recording = queries.recordings(conn, "ann")[0]
    minute = round((berlin(28, 12) - ANN_START).total_seconds() * FS_HZ)
    beats = queries.beats(conn, recording, minute, minute + round(60 * FS_HZ))
    assert len(beats) == 75
    assert (beats["type"] == 2).sum() == 3
    assert len(queries.beats(conn, recording, minute + 1, minute + round(60 * FS_HZ))) == 74
    assert len(queries.beats(conn, recording, minute, minute)) == 0


def test_coverage_counts_gaps_and_unreadable_time_and_cut_minutes(conn: Connection) -> None:
    whole = queries.coverage(conn, "ann", utc_ns(berlin(28, 0)), utc_ns(berlin(29, 0)))
    assert whole.period_s == 24 * 3600
    assert whole.recorded_s == pytest.approx(23.5 * 3600)
    assert whole.readable_s == pytest.approx(23.5 * 3600)
    inside = queries.coverage(conn, "ann", utc_ns(GAP[0]), utc_ns(GAP[1]))
    assert (inside.recorded_s, inside.readable_s) == (0.0, 0.0)
    noisy = queries.coverage(conn, "ann", utc_ns(UNREADABLE[0]), utc_ns(UNREADABLE[1]))
    assert (noisy.recorded_s, noisy.analysed_s, noisy.readable_s) == (1200.0, 1200.0, 0.0)
    half = queries.coverage(conn, "ann", utc_ns(VT_AT) + 30 * NS, utc_ns(VT_AT) + 60 * NS)
    assert half.readable_s == pytest.approx(30.0)


def test_coverage_outside_any_recording_is_nothing(conn: Connection) -> None:
    for wearer in ("ann", "dan"):
        before = queries.coverage(conn, wearer, utc_ns(ANN_START) - 3600 * NS, utc_ns(ANN_START))
        assert (before.recorded_s, before.readable_s) == (0.0, 0.0)


def test_the_day_of_the_change_of_clocks_has_23_hours(conn: Connection) -> None:
    midnight, next_midnight = utc_ns(berlin(29, 0)), utc_ns(berlin(30, 0))
    assert next_midnight - midnight == 23 * 3600 * NS
    recorded = queries.recorded_spans(conn, "ann", midnight, next_midnight)
    assert recorded == [(midnight, NOW_NS)]


def test_analysed_until_and_health_and_backlog(conn: Connection) -> None:
    recording = queries.recordings(conn, "ann")[0]
    assert queries.analysed_until_ns(conn, recording, 2.0) == NOW_NS - 4 * NS
    assert queries.analysed_until_ns(conn, queries.recordings(conn, "bob")[0], 2.0) is None
    value, written_ns = queries.health(conn)["daemon"]
    assert value["pid"] == 4242
    assert written_ns == NOW_NS - 3 * NS
    assert queries.backlog(conn) == {"inbox": 0, "outbox": 0}


def test_two_devices_at_once_cover_time_once(tmp_path: Path) -> None:
    from edge.store import tables
    from edge.store.database import open_writable

    engine = open_writable(build(tmp_path))
    with engine.begin() as conn:
        row = conn.execute(tables.recording.select().where(tables.recording.c.wearer == "ann")).mappings().one()
        copy = {**row, "id": 99, "key": "second", "device": "strap"}
        conn.execute(tables.recording.insert().values(copy))
        trend = tables.trend.select().where(tables.trend.c.recording_id == row["id"])
        rows = [{**r, "recording_id": 99, "readable_s": 30.0} for r in conn.execute(trend).mappings()]
        conn.execute(tables.trend.insert(), rows)
        found = queries.coverage(conn, "ann", utc_ns(VT_AT), utc_ns(VT_AT + timedelta(hours=1)))
    engine.dispose()
    assert (found.recorded_s, found.readable_s) == (3600.0, 3600.0)


def test_a_recording_without_segments_counts_from_its_start(conn: Connection) -> None:
    recording = replace(
        queries.recordings(conn, "ann")[0], segments=(queries.ClockSegment(0, utc_ns(ANN_START), 250.0),)
    )
    assert recording.to_utc_ns(250) == utc_ns(ANN_START) + NS
    with pytest.raises(BadInputError, match="no recording"):
        queries.find_recording(conn, 12345)
