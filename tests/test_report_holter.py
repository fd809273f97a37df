"""The figures of a Holter report: over readable time, right across a change of clocks, corrected by people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from sqlalchemy import Connection, insert
from store_kit import ANN_START, BERLIN, FS_HZ, GAP, NOW, NOW_NS, NS, VT_AT, berlin, build, utc_ns

from edge.encoder.contract import BEAT_CLASSES
from edge.errors import BadInputError
from edge.report.chosen import MAX_STRIPS, choose, first_sample
from edge.report.holter import Holter, read_holter
from edge.report.pieces import days, free, hours
from edge.store import marks, tables
from edge.store.beats import BEAT_DTYPE
from edge.store.database import open_writable
from edge.store.recordings import create_recording

DAY = (utc_ns(berlin(28, 0)), utc_ns(berlin(29, 0)))
CHANGE = (utc_ns(berlin(29, 0)), utc_ns(berlin(30, 0)))


def ann(conn: Connection, span: tuple[int, int] = DAY) -> Holter:
    return read_holter(conn, "ann", *span, BERLIN)


def test_a_day_adds_up(conn: Connection) -> None:
    holter = ann(conn)
    total = holter.total
    assert total.recorded_s == 23.5 * 3600
    assert total.readable_s == 23.5 * 3600
    assert total.beats["V"] == 180
    assert total.per_hour(180) == pytest.approx(180 / 23.5)
    assert len(holter.hours) == 24
    assert sum(h.all_beats for h in holter.hours) == total.all_beats
    assert [h.beats["V"] for h in holter.hours] == [180 if n == 12 else 0 for n in range(24)]
    assert holter.hours[16].recorded_s == 1800  # the hole


def test_af_burden_is_of_readable_time(conn: Connection) -> None:
    total = ann(conn).total
    assert total.af_s == 1800 + 1800  # one whole, one cut by midnight
    assert total.af_share == pytest.approx(3600 / (23.5 * 3600))
    night = ann(conn, (utc_ns(berlin(29, 4, 50)), utc_ns(berlin(29, 5, 30)))).total
    assert (night.recorded_s, night.readable_s) == (2400, 1200)


def test_the_day_of_the_clock_change_has_23_hours(conn: Connection) -> None:
    holter = ann(conn, CHANGE)
    (day,) = days(*CHANGE, BERLIN)
    assert (day[1] - day[0]) / NS == 23 * 3600
    assert [datetime.fromtimestamp(h.start_ns / NS, BERLIN).hour for h in holter.hours][:4] == [0, 1, 3, 4]
    assert sum(h.end_ns - h.start_ns for h in holter.hours) == holter.end_ns - holter.start_ns
    assert holter.total.af_s == 15 * 60 + 4500  # the rest of one, and one through the change


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("Asia/Kathmandu", (2026, 3, 1), 24),
    ],
)
def test_local_hours_fill_every_day(zone: str, day: tuple[int, int, int], expected: float) -> None:
    tz = ZoneInfo(zone)
    start = datetime(*day, tzinfo=tz)
    end = datetime.combine(start.date() + timedelta(days=1), datetime.min.time(), tz)
    span = utc_ns(start.astimezone(UTC)), utc_ns(end.astimezone(UTC))
    assert (span[1] - span[0]) / NS / 3600 == expected
    found = hours(*span, tz)
    assert [a for a, _ in found][1:] == [b for _, b in found][:-1]
    assert (found[0][0], found[-1][1]) == span
    assert days(*span, tz) == [span]


def test_heart_rates_come_with_their_minute(conn: Connection) -> None:
    total = ann(conn).total
    assert total.lowest is not None
    assert total.highest is not None
    assert (total.lowest.bpm, total.highest.bpm) == (50, 120)
    assert total.lowest.at_ns == DAY[0]
    assert total.highest.at_ns == utc_ns(berlin(28, 10))


def test_no_interval_crosses_a_hole(conn: Connection) -> None:
    holter = ann(conn)
    longest = np.nanmax(holter.series.interval_s)
    assert longest < 2
    after = holter.series.between(utc_ns(GAP[1]), utc_ns(GAP[1]) + NS)
    assert np.isnan(holter.series.interval_s[after.start])


def corrected(tmp_path: Path, *requests: dict[str, object]) -> tuple[Holter, Holter]:
    """Return the figures before and after people said something."""
    state = build(tmp_path / "corrected")
    engine = open_writable(state)
    with engine.begin() as conn:
        before = ann(conn)
        for request in requests:
            marks.perform(conn, {"author": "eve", **request}, NOW_NS)
        after = ann(conn)
    engine.dispose()
    return before, after


def test_a_false_alarm_counts_nowhere(tmp_path: Path) -> None:
    before, after = corrected(tmp_path, {"kind": "false", "event": "af-0000000000001"})
    assert (before.total.af_s, after.total.af_s) == (3600, 1800)
    assert [e.id for e in after.false_alarms] == ["af-0000000000001"]
    assert [m.kind for m in after.marks] == ["false"]


def test_a_corrected_beat_changes_counts_and_its_minute(tmp_path: Path) -> None:
    state = build(tmp_path / "beat")
    engine = open_writable(state)
    with engine.begin() as conn:
        before = ann(conn)
        (index, *_) = np.flatnonzero(before.series.kind == BEAT_CLASSES.index("V"))
        place = {"recording_id": int(before.series.recording[index]), "sample": int(before.series.sample[index])}
        marks.perform(conn, {"kind": "beat", "author": "eve", "type": "N", **place}, NOW_NS)
        after = ann(conn)
    engine.dispose()
    assert after.total.beats["V"] == before.total.beats["V"] - 1
    assert after.total.beats["N"] == before.total.beats["N"] + 1


def test_two_devices_at_once_count_once(tmp_path: Path) -> None:
    state = build(tmp_path / "two")
    engine = open_writable(state)
    start = berlin(28, 11)
    with engine.begin() as conn:
        before = ann(conn).total
        second = create_recording(
            conn, wearer_id="ann", device="strap", leads=("I",), fs_hz=FS_HZ, uv_per_lsb=(5.0,), source="live",
            start_ns=utc_ns(start), received_ns=NOW_NS,
        )  # fmt: skip
        length = round(8 * 3600 * FS_HZ)
        conn.execute(tables.recording.update().where(tables.recording.c.id == second).values(end_sample=length))
        for minute in range(8 * 60):
            packed = np.zeros(60, BEAT_DTYPE)
            packed["sample"] = minute * 60 * FS_HZ + np.arange(60) * FS_HZ
            packed["type"] = BEAT_CLASSES.index("S")
            conn.execute(insert(tables.beats).values(recording_id=second, minute=minute, data=packed.tobytes()))
        after = ann(conn)
    engine.dispose()
    gap_s = (GAP[1] - GAP[0]).total_seconds()
    assert after.total.beats["S"] == before.beats["S"] + round(gap_s)  # only where the patch has its hole
    assert after.total.beats["V"] == before.beats["V"]
    assert after.total.recorded_s == 24 * 3600
    assert len(after.recordings) == 2


def test_strips_are_chosen_by_type_and_day(conn: Connection) -> None:
    holter = ann(conn, (utc_ns(ANN_START), utc_ns(NOW)))
    choices, left_out = choose(holter)
    assert left_out == 0
    assert len(choices) <= MAX_STRIPS
    by_type: dict[tuple[str, int], list[str]] = {}
    for choice in choices:
        day = datetime.fromtimestamp(choice.at_ns / NS, BERLIN).day
        by_type.setdefault((choice.type, day), []).append(choice.why)
    assert by_type["pause", 29] == ["longest", "second longest"]
    assert by_type["vt", 29] == ["fastest and longest"]
    assert len(by_type["af", 28]) == 2
    (vt,) = [c for c in choices if c.type == "vt"]
    assert vt.at_ns == utc_ns(VT_AT)
    assert first_sample(vt, FS_HZ) == vt.at_sample - round(1.5 * FS_HZ)


def test_every_symptom_has_a_strip(tmp_path: Path) -> None:
    at = [utc_ns(berlin(28, 9)), utc_ns(berlin(28, 16, 10))]  # the second in the hole: nothing to show
    said = [{"kind": "symptom", "wearer": "ann", "at_ns": ns, "note": "dizzy"} for ns in at]
    _, after = corrected(tmp_path, *said)
    assert [(c.at_ns, c.why) for c in choose(after)[0] if c.type == "symptom"] == [(at[0], "dizzy")]


def test_impossible_periods_are_refused(conn: Connection) -> None:
    with pytest.raises(BadInputError, match="nothing of ann was recorded"):
        ann(conn, (0, NS))
    with pytest.raises(BadInputError, match="at most 35 days"):
        ann(conn, (DAY[0], DAY[0] + 40 * 86_400 * NS))
    with pytest.raises(BadInputError, match="no wearer"):
        read_holter(conn, "eve", *DAY, BERLIN)


def test_spans_subtract() -> None:
    assert free(0, 10, [(2, 4), (6, 12)]) == [(0, 2), (4, 6)]
    assert free(0, 10, []) == [(0, 10)]
    assert free(3, 4, [(2, 4)]) == []


def test_variability_of_a_real_record_equals_its_reference_annotations(ecg_data: Path, tmp_path: Path) -> None:
    """mitdb 103: the engine's NN against the cardiologists' beats, through the same formulas."""
    import wfdb
    from exchange_kit import new_state, value

    from edge.report import hrv

    truth = wfdb.rdann(str(ecg_data / "mitdb/103"), "atr")
    beats = np.array([s for s, c in zip(truth.sample, truth.symbol, strict=True) if c in "NAV"])
    kinds = np.array([c for c in truth.symbol if c in "NAV"])
    intervals = np.concatenate(([np.nan], np.diff(beats) / 360))
    normal = (kinds == "N") & np.concatenate(([False], kinds[:-1] == "N"))
    expected = hrv.measure(beats / 360, intervals, normal)
    state = new_state(tmp_path / "state")
    value(state, "import", ecg_data / "mitdb/103", "--wearer", "anna", "--start", "2026-01-01T00:00:00Z")
    period = ("--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T01:00:00Z")
    found = value(state, "report", "--wearer", "anna", *period)["hrv"]
    assert found["nn"] == pytest.approx(expected.nn, rel=0.01)
    for name in ("mean_nn_ms", "sdnn_ms"):
        assert found[name] == pytest.approx(getattr(expected, name), rel=0.02)
    assert found["rmssd_ms"] == pytest.approx(expected.rmssd_ms, rel=0.1)
