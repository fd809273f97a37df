"""Everything that can become of a chunk, each outcome with its counter."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from intake_kit import FS_HZ, START_NS, Gateway, Sender, missing, wave
from sqlalchemy import Connection, text

from edge.chunk import MISSING
from edge.errors import AnyecgError
from edge.intake import OUTCOMES, IntakeLimits
from edge.store.database import StoreError
from edge.store.tables import contact_off, inbox, recording, sender, wearer

SECOND_NS = 10**9
DAY_NS = 86400 * SECOND_NS


def test_every_outcome_has_a_test_here() -> None:
    tested = set(re.findall(r'"(\w+)": [1-9]', Path(__file__).read_text()))
    assert set(OUTCOMES) <= tested


def test_first_sight_creates_wearer_and_recording(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender().take(wave(100)))
        assert [(w.id, w.timezone) for w in gateway.rows(wearer)] == [("anna", "Europe/Berlin")]
        (row,) = gateway.rows(recording)
        assert (row.wearer, row.device, row.leads, row.fs_hz, row.uv_per_lsb) == ("anna", "strap", ["I"], FS_HZ, [1.0])
        assert (row.source, row.start_ns, row.end_sample) == ("live", START_NS, 100)
        assert row.last_received_ns == gateway.clock.utc_ns()
        assert gateway.count() == {"stored": 1, "new_recording": 1}


def test_duplicates_are_acknowledged_and_not_stored(tmp_path: Path) -> None:
    x = wave(300)
    a, b, c = Sender().cut(x, [100] * 3)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, a, c, c, b, a)
        assert gateway.count() == {"stored": 3, "duplicate": 3, "new_recording": 1}
        assert len(gateway.acknowledged) == 6
        assert np.array_equal(gateway.samples(), x)


def test_a_conflicting_duplicate_is_counted_and_the_first_wins(tmp_path: Path) -> None:
    x = wave(100)
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender().take(x), Sender().take(-x), Sender(device_start_ns=3).take(x))
        assert gateway.count("duplicate", "conflict") == {"duplicate": 2, "conflict": 2}
        assert np.array_equal(gateway.samples(), x)


def test_late_chunks_overlapping_what_is_there_lose(tmp_path: Path) -> None:
    x = wave(400)
    sender = Sender()
    a, b, c, d = sender.cut(x, [100] * 4)
    shifted = Sender(seq=1, at=50).take(-x[:, 50:150])
    inside = Sender(seq=2, at=300).take(-x[:, 300:400])
    with Gateway(tmp_path) as gateway:
        gateway.send(a, d)
        gateway.quiet()
        gateway.send(shifted, inside)
        expected = x.copy()
        expected[:, 100:150] = -x[:, 100:150]
        expected[:, 150:300] = MISSING
        assert np.array_equal(gateway.samples(), expected)
        assert gateway.final().gaps == [(150, 300)]
        assert gateway.count() == {"stored": 2, "new_recording": 1, "gap": 1, "late": 1, "overlap": 2}
        assert gateway.acknowledged[-2:] == [(1, 1), (1, 2)]
    assert b.seq == 1 and c.seq == 2  # noqa: PT018


def test_stamps_within_the_tolerance_do_not_stretch_the_grid(tmp_path: Path) -> None:
    x = wave(300)
    sender = Sender()
    a = sender.take(x[:, :100])
    b = sender.take(x[:, 100:200], device_time_ns=6 * SECOND_NS + 4_000_000)  # 0.4 samples: nothing to note
    c = sender.take(x[:, 200:], device_time_ns=7 * SECOND_NS + 14_000_000)  # 1.4 samples: a new anchor
    with Gateway(tmp_path) as gateway:
        gateway.send(a, b, c)
        assert np.array_equal(gateway.samples(), x)
        assert [s[:3] for s in gateway.final().segments] == [(0, 1, 5 * SECOND_NS), (200, 1, c.device_time_ns)]
        assert gateway.count() == {"stored": 3, "new_recording": 1}


def test_a_drifting_clock_is_followed_without_gaps(tmp_path: Path) -> None:
    """Stamps 0.8 % fast: each 1 s chunk is 0.8 samples off the one before, a minute is 48 samples off the grid."""
    x = wave(6000)
    sender = Sender()
    chunks = [
        sender.take(x[:, i : i + 100], device_time_ns=5 * SECOND_NS + round(i * 10_080_000))
        for i in range(0, 6000, 100)
    ]
    with Gateway(tmp_path) as gateway:
        gateway.send(*chunks)
        assert np.array_equal(gateway.samples(), x)
        assert gateway.final().gaps == []
        assert len(gateway.final().segments) == 60
        assert gateway.count() == {"stored": 60, "new_recording": 1}


def test_stamp_jumps_are_contiguous_in_a_new_segment(tmp_path: Path) -> None:
    x = wave(400)
    sender = Sender(has_utc=False)
    a = sender.take(x[:, :100])
    back = sender.take(x[:, 100:200], device_time_ns=0)
    far = sender.take(x[:, 200:300], device_time_ns=2 * DAY_NS)
    after = sender.take(x[:, 300:], device_time_ns=2 * DAY_NS + SECOND_NS)
    with Gateway(tmp_path) as gateway:
        for chunk in (a, back, far, after):
            gateway.send(chunk)
            gateway.clock.advance(1)
        assert np.array_equal(gateway.samples(), x)
        assert [s[:3] for s in gateway.final().segments] == [(0, 1, 5 * SECOND_NS), (100, 1, 0), (200, 1, 2 * DAY_NS)]
        assert gateway.count() == {"stored": 4, "new_recording": 1, "stamp_jump": 2}


def test_a_stamp_jump_is_sized_by_utc_where_the_sender_has_one(tmp_path: Path) -> None:
    x = wave(200)
    sender = Sender()
    a = sender.take(x[:, :100])
    sender.at += 50  # its UTC says half a second passed, its device clock started again
    b = sender.take(x[:, 100:], device_time_ns=0)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, b)
        assert gateway.final().gaps == [(100, 150)]
        assert gateway.count() == {"stored": 2, "new_recording": 1, "stamp_jump": 1, "gap": 1}


def test_a_new_boot_follows_by_utc(tmp_path: Path) -> None:
    x = wave(300)
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender(boot=8).take(x[:, :100]))
        contiguous = Sender(boot=5, device_start_ns=99, start_ns=START_NS + SECOND_NS + 14_000_000)
        gateway.send(contiguous.take(x[:, 100:200]))
        after_a_pause = Sender(boot=6, device_start_ns=77, start_ns=START_NS + 5 * SECOND_NS)
        gateway.send(after_a_pause.take(x[:, 200:]))
        final = gateway.final()
        assert final.gaps == [(200, 499)]  # 1.4 samples of the boot before are its clock's
        assert [s[:2] for s in final.segments] == [(0, 8), (100, 5), (499, 6)]
        assert gateway.intake.frontier("anna", "strap") == (6, 0)
        assert gateway.count() == {"stored": 3, "new_recording": 1, "new_boot": 2, "gap": 1}
        assert len(gateway.rows(recording)) == 1


def test_a_new_boot_without_utc_follows_by_arrival(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender(boot=1, has_utc=False).take(wave(100)))
        gateway.clock.advance(10)
        gateway.send(Sender(boot=2, has_utc=False).take(wave(100)))
        assert gateway.final().gaps == [(100, 1000)]
        assert {s[4] for s in gateway.final().segments} == {"arrival"}
        assert gateway.final().start_ns == gateway.clock.utc_ns() - 11 * SECOND_NS


def test_a_new_boot_from_the_past_goes_after_the_old_one(tmp_path: Path) -> None:
    x = wave(200)
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender(boot=1).take(x[:, :100]))
        gateway.send(Sender(boot=2, start_ns=START_NS - DAY_NS).take(x[:, 100:]))
        assert gateway.final().gaps == [(100, 101)]
        assert gateway.count("utc_backwards") == {"utc_backwards": 1}


def test_two_senders_that_alternate_lose_nothing(tmp_path: Path) -> None:
    x, y = wave(300, seed=1), wave(300, seed=2)
    one, two = Sender(boot=1).cut(x, [100] * 3), Sender(boot=2).cut(y, [100] * 3)
    with Gateway(tmp_path) as gateway:
        gateway.send(one[0], two[0], one[1], two[1], one[2], two[2])
        (lead,) = gateway.final().samples
        kept = [v for v in lead if v != MISSING]
        assert sorted(kept) == sorted([*x[0].tolist(), *y[0].tolist()])


def test_years_between_boots_are_a_day_of_gap(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender(boot=1, start_ns=START_NS - 3000 * DAY_NS).take(wave(100)))
        gateway.send(Sender(boot=2).take(wave(100)))
        assert gateway.rows(recording)[0].end_sample == 100 + 86400 * 100 + 100
        assert gateway.rows(recording)[0].start_ns == START_NS - 3000 * DAY_NS
        assert gateway.count("gap_capped") == {"gap_capped": 1}


def test_utc_that_moves_opens_a_segment(tmp_path: Path) -> None:
    x = wave(300)
    sender = Sender()
    a = sender.take(x[:, :100])
    b = sender.take(x[:, 100:200], utc_ns=START_NS + 3 * SECOND_NS)
    c = sender.take(x[:, 200:], utc_ns=START_NS + 4 * SECOND_NS)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, b, c)
        assert np.array_equal(gateway.samples(), x)
        assert [(s[0], s[3]) for s in gateway.final().segments] == [(0, START_NS), (100, START_NS + 3 * SECOND_NS)]
        assert gateway.count() == {"stored": 3, "new_recording": 1, "utc_jump": 1}


def test_utc_learnt_late_and_arrival_before_the_event(tmp_path: Path) -> None:
    sender = Sender(has_utc=False)
    chunks = sender.cut(wave(500), [100] * 5)
    with Gateway(tmp_path) as gateway:
        gateway.clock.advance(60)  # the first chunk had been under way for a minute, the rest comes at once
        gateway.send(*chunks)
        assert gateway.count("utc_jump") == {"utc_jump": 2}
        sender.has_utc = True
        gateway.send(sender.take(wave(100)))
        assert gateway.final().segments[-1][3:] == (START_NS + 5 * SECOND_NS, "sender")


def test_implausible_utc_gives_way_to_arrival(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender(start_ns=0).take(wave(100)))
        gateway.send(Sender(device="other", start_ns=gateway.clock.utc_ns() + 2 * DAY_NS).take(wave(100)))
        assert {r.start_ns for r in gateway.rows(recording)} == {gateway.clock.utc_ns() - SECOND_NS}
        assert gateway.count("utc_implausible") == {"utc_implausible": 2}


def test_other_leads_rate_or_scale_is_another_recording(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        sender = Sender()
        gateway.send(sender.take(wave(100)))
        gateway.send(sender.take(wave(100, 2), leads=("I", "II"), uv_per_lsb=(1.0, 1.0)))
        gateway.send(sender.take(wave(100), fs_hz=200.0), sender.take(wave(100), uv_per_lsb=(2.0,)))
        gateway.send(sender.take(wave(100)))
        assert [r.end_sample for r in gateway.rows(recording)] == [500, 100, 100, 100]
        assert gateway.final().gaps == [(100, 400)]
        assert gateway.intake.frontier("anna", "strap") == (1, 4)
        assert gateway.count() == {"stored": 5, "new_recording": 4, "gap": 1}
        assert len({r.key for r in gateway.rows(recording)}) == 4


def test_recordings_of_a_device_are_bounded(tmp_path: Path) -> None:
    sender = Sender()
    with Gateway(tmp_path, IntakeLimits(max_recordings=3)) as gateway:
        gateway.send(*(sender.take(wave(50), uv_per_lsb=(float(i),)) for i in range(1, 6)))
        assert gateway.count("new_recording", "too_many_recordings") == {"new_recording": 3, "too_many_recordings": 2}
        assert len(gateway.acknowledged) == 5
        assert gateway.intake.frontier("anna", "strap") == (1, 2)  # not confirmed end to end


def test_devices_are_bounded_and_quiet_ones_make_room(tmp_path: Path) -> None:
    with Gateway(tmp_path, IntakeLimits(max_devices=2)) as gateway:
        gateway.send(*(Sender(device=d).take(wave(50)) for d in "abc"))
        assert gateway.count("stored", "too_many_devices") == {"stored": 2, "too_many_devices": 1}
        gateway.quiet(3700)
        gateway.send(Sender(device="c").take(wave(50)))
        assert gateway.count("stored") == {"stored": 3}


def test_rates_are_judged_by_stamps(tmp_path: Path) -> None:
    def run(stamps_per_s: float, seconds: int) -> dict[str, int]:
        folder = tmp_path / str(stamps_per_s)
        folder.mkdir()
        sender = Sender()
        chunks = [
            sender.take(wave(100), device_time_ns=round(i * stamps_per_s * SECOND_NS), utc_ns=None)
            for i in range(seconds)
        ]
        with Gateway(folder) as gateway:
            gateway.send(*chunks)
            (row,) = gateway.rows(recording)
            assert row.end_sample >= 100 * seconds
            return gateway.count("stored", "rate_mismatch")

    assert run(1.02, 130) == {"stored": 130, "rate_mismatch": 0}
    assert run(1.08, 130) == {"stored": 130, "rate_mismatch": 2}
    assert run(0.5, 130) == {"stored": 130, "rate_mismatch": 2}


def test_replay_at_any_speed_is_no_attack(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.send(*Sender().cut(wave(20000), [100] * 200))
        assert gateway.count() == {"stored": 200, "new_recording": 1}


def test_unknown_leads_are_kept_and_counted(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender(leads=("left toe",)).take(wave(100)))
        assert gateway.rows(recording)[0].leads == ["left toe"]
        assert gateway.count() == {"stored": 1, "new_recording": 1, "unknown_lead": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": np.zeros((1, 0), np.int32)},
        {"samples": np.zeros((2, 10), np.int32)},
        {"samples": np.zeros(10, np.int32)},
        {"uv_per_lsb": (1.0, 1.0)},
        {"uv_per_lsb": (0.0,)},
        {"uv_per_lsb": (float("nan"),)},
        {"leads": ()},
        {"fs_hz": 49.0},
        {"fs_hz": float("nan")},
        {"seq": -1},
        {"oldest": 1},
        {"boot": 2**63},
        {"device_time_ns": 2**62},
        {"utc_ns": 2**62},
    ],
)
def test_contradictions_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender().take(wave(100), **wrong))
        assert gateway.count() == {"malformed": 1}
        assert len(gateway.acknowledged) == 1
        assert gateway.rows(inbox) == []


def test_oversize_is_refused(tmp_path: Path) -> None:
    with Gateway(tmp_path, IntakeLimits(max_chunk_s=2)) as gateway:
        gateway.send(Sender().take(wave(200)), Sender().take(wave(201)))
        assert gateway.count() == {"stored": 1, "new_recording": 1, "oversize": 1}


def test_a_flood_waits_and_nothing_is_dropped(tmp_path: Path) -> None:
    x = wave(10000)
    with Gateway(tmp_path, IntakeLimits(in_flight=5)) as gateway:
        depths: list[int] = []
        submit = gateway.writer.submit

        def watched(job):  # type: ignore[no-untyped-def]
            depths.append(gateway.writer.depth)
            return submit(job)

        gateway.writer.submit = watched  # type: ignore[method-assign]
        gateway.send(*Sender().cut(x, [100] * 100))
        assert max(depths) <= 5
        assert np.array_equal(gateway.samples(), x)
        assert gateway.intake.counters["waited"] > 0
        assert {**gateway.count("stored"), "waited": 1} == {"stored": 100, "waited": 1}


def test_pending_chunks_are_bounded(tmp_path: Path) -> None:
    """Stamps that stand still would keep the watermark from passing."""
    sender = Sender(has_utc=False)
    chunks = [sender.take(wave(50), device_time_ns=0) for _ in range(30)]
    with Gateway(tmp_path, IntakeLimits(max_pending=10)) as gateway:
        gateway.send(chunks[0], *chunks[2:])
        assert gateway.final().end == 29 * 50


def test_holes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.intake.sequence.MAX_RANGES", 3)
    sender = Sender()
    chunks = sender.cut(wave(1000), [100] * 10)
    with Gateway(tmp_path) as gateway:
        gateway.send(*chunks[1::2])
        assert gateway.count("hole_abandoned") == {"hole_abandoned": 2}
        assert gateway.intake.frontier("anna", "strap") == (1, 3)


def test_boots_are_bounded(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.send(*(Sender(boot=b, start_ns=START_NS + b * SECOND_NS).take(wave(100)) for b in range(30)))
        assert sorted(r.boot for r in gateway.rows(sender)) == list(range(14, 30))


def test_a_store_that_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.intake.intake.STORE_RETRY_S", 0.01)
    x = wave(300)
    a, b, c = Sender().cut(x, [100] * 3)
    with Gateway(tmp_path) as gateway:
        gateway.send(a)
        gateway.writer.submit(lambda conn: conn.execute(text("PRAGMA busy_timeout=10"))).result(20)
        other = sqlite3.connect(tmp_path / "anyecg.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def send_and_release() -> None:
            task = asyncio.gather(*(gateway.intake.accept(gateway.delivery(chunk)) for chunk in (b, c)))
            while gateway.intake.counters["store_retry"] < 1:
                await asyncio.sleep(0.01)
            assert gateway.acknowledged == [(1, 0)]
            other.execute("ROLLBACK")
            await task

        asyncio.run(send_and_release())
        other.close()
        assert sorted(gateway.acknowledged) == [(1, 0), (1, 1), (1, 2)]
        assert np.array_equal(gateway.samples(), x)
        assert {**gateway.count("stored"), "store_retry": 1} == {"stored": 3, "store_retry": 1}


def test_a_commit_that_fails_is_forgotten_before_the_next_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror in memory must not remember what the disk did not keep."""
    monkeypatch.setattr("edge.intake.intake.STORE_RETRY_S", 0.0)
    x = wave(400)
    a, b, c, d = Sender().cut(x, [100] * 4)
    with Gateway(tmp_path) as gateway:
        gateway.send(a)
        started, release = threading.Event(), threading.Event()

        def hold(_conn: Connection) -> None:
            started.set()
            release.wait(20)

        def lose_the_transaction(conn: Connection) -> None:
            conn.exec_driver_sql("ROLLBACK")  # as SQLite does by itself when the disk fails
            raise sqlite3.OperationalError("disk I/O error")

        async def fail_together() -> None:
            gateway.writer.submit(hold)
            started.wait(20)
            tasks = asyncio.gather(*(gateway.intake.accept(gateway.delivery(chunk)) for chunk in (b, d)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            lost = gateway.writer.submit(lose_the_transaction)
            release.set()
            await tasks
            with pytest.raises(StoreError, match="I/O"):
                lost.result(20)

        asyncio.run(fail_together())
        assert gateway.writer.generation == 1
        assert gateway.intake.counters["store_retry"] == 2
        gateway.send(c)
        assert np.array_equal(gateway.samples(), x)
        assert gateway.count("stored") == {"stored": 4}


def test_a_fault_of_ours_is_logged_and_not_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = wave(200)
    a, b = Sender().cut(x, [100] * 2)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with Gateway(tmp_path) as gateway:
        gateway.send(a)
        with monkeypatch.context() as patch:
            patch.setattr("edge.intake.timeline.Timeline.append", broken)
            gateway.send(b)
        assert gateway.count() == {"stored": 1, "new_recording": 1, "failed": 1}
        assert gateway.intake.frontier("anna", "strap") == (1, 0)
        gateway.send(b)
        assert np.array_equal(gateway.samples(), x)


def test_nothing_is_acknowledged_after_the_writer_closed(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.writer.close()
        with pytest.raises(AnyecgError, match="closed"):
            gateway.send(Sender().take(wave(100)))
        assert gateway.acknowledged == []


def test_lead_off_is_kept_beside_the_samples(tmp_path: Path) -> None:
    x = wave(1500)
    sender = Sender()
    states = [None, True, False, False, True, None] * 3
    chunks = [sender.take(x[:, i * 100 : (i + 1) * 100], contact=c) for i, c in zip(range(15), states, strict=False)]
    with Gateway(tmp_path) as gateway:
        gateway.send(*chunks)
        off = gateway.final().contact_off
        assert off == [*range(200, 400), *range(800, 1000), *range(1400, 1500)]
        gateway.quiet(61)
        assert gateway.rows(inbox) == []
        assert len(gateway.rows(contact_off)) == 3
        assert gateway.final().contact_off == off


def test_missing_samples_within_a_chunk(tmp_path: Path) -> None:
    x = wave(100, leads=2)
    x[0, 10:20] = MISSING
    x[:, 50:60] = MISSING
    with Gateway(tmp_path) as gateway:
        gateway.send(Sender(leads=("I", "II")).take(x))
        assert np.array_equal(gateway.samples(), x)
        assert gateway.final().gaps == []
        assert gateway.final().samples[0][50:60] == missing(10)


def test_flush_ends_the_stream(tmp_path: Path) -> None:
    x = wave(300)
    a, _, c = Sender().cut(x, [100] * 3)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, c)
        asyncio.run(gateway.intake.flush(1))
        assert gateway.final().gaps == [(100, 200)]
        assert gateway.stored[-1].horizon_sample == 300
        assert gateway.rows(inbox) == []


def test_a_frontier_is_known_after_a_restart(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        assert gateway.intake.frontier("anna", "strap") is None
        gateway.send(*Sender(boot=77).cut(wave(300), [100] * 3))
        gateway.close()
        gateway.open()
        assert gateway.intake.frontier("anna", "strap") == (77, 2)


def test_full_blocks_leave_the_inbox_while_data_flows(tmp_path: Path) -> None:
    x = wave(5000)
    chunks = Sender().cut(x, [130] * 38)
    with Gateway(tmp_path) as gateway:
        for chunk in chunks:
            gateway.send(chunk)
            gateway.tick()
            assert len(gateway.rows(inbox)) <= 10
        assert np.array_equal(gateway.samples(), x[:, : 38 * 130])
