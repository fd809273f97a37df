"""Reading spans across blocks and inbox, compaction, late merges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Connection, func, insert, select

from edge.chunk import MISSING
from edge.store import waveform
from edge.store.database import StoreError, open_writable
from edge.store.recordings import create_recording, ensure_wearer, recording_key
from edge.store.tables import block, contact_off, gap, inbox, recording, wearer

FS_HZ = 50.0
LENGTH = 500


@pytest.fixture
def conn(tmp_path: Path):  # type: ignore[no-untyped-def]
    with open_writable(tmp_path).connect() as conn:
        yield conn


def new_recording(conn: Connection, leads: tuple[str, ...] = ("I", "II"), start_ns: int = 5) -> int:
    ensure_wearer(conn, "anna", "Europe/Berlin", 1)
    return create_recording(
        conn,
        wearer_id="anna",
        device="strap",
        leads=leads,
        fs_hz=FS_HZ,
        uv_per_lsb=[1.0] * len(leads),
        source="live",
        start_ns=start_ns,
        received_ns=7,
    )


def signal(n: int, leads: int = 2) -> NDArray[np.int32]:
    return np.cumsum(np.random.default_rng(n).integers(-9, 10, (leads, n)), axis=1).astype(np.int32)


def put(
    conn: Connection, rec: int, seq: int, start: int | None, samples: NDArray[np.int32], contact: bool | None = None
) -> None:
    conn.execute(
        insert(inbox).values(
            recording_id=rec,
            boot=1,
            seq=seq,
            start_sample=start,
            n=samples.shape[1],
            device_time_ns=0,
            received_ns=0,
            contact=contact,
            data=samples.astype("<i4").tobytes(),
        )
    )


def test_a_wearer_keeps_its_first_timezone(conn: Connection) -> None:
    ensure_wearer(conn, "anna", "Europe/Berlin", 1)
    ensure_wearer(conn, "anna", "UTC", 2)
    assert conn.execute(select(wearer)).all() == [("anna", "Europe/Berlin", 1)]


def test_keys_tell_recordings_apart(conn: Connection) -> None:
    key = recording_key("anna", "strap", 5, ["I", "II"], 50)
    assert len(key) == 16
    assert key == recording_key("anna", "strap", 5, ("I", "II"), 50.0)
    assert key != recording_key("anna", "strap", 5, ("I", "III"), 50.0)
    first, second = new_recording(conn), new_recording(conn)
    starts = {r.id: r.start_ns for r in conn.execute(select(recording))}
    assert starts == {first: 5, second: 6}


def test_inbox_and_blocks_read_the_same(conn: Connection) -> None:
    rec = new_recording(conn)
    x = signal(1700)
    for seq, at in enumerate(range(0, 1700, 170)):
        put(conn, rec, seq, at, x[:, at : at + 170], contact=seq not in (3, 4))
    before = waveform.read(conn, rec, 0, 1700)
    assert np.array_equal(before.samples, x)
    assert np.flatnonzero(before.contact_off).tolist() == list(range(510, 850))
    assert waveform.compact(conn, rec, 1500) == 8
    assert conn.execute(select(block.c.block_no)).scalars().all() == [0, 1, 2]
    assert conn.execute(select(inbox.c.start_sample, inbox.c.n)).all() == [(1500, 30), (1530, 170)]
    assert conn.execute(select(contact_off.c.start_sample, contact_off.c.end_sample)).all() == [(510, 850)]
    for start, stop in ((0, 1700), (499, 501), (1400, 1600), (840, 860), (600, 600)):
        after = waveform.read(conn, rec, start, stop)
        assert np.array_equal(after.samples, before.samples[:, start:stop])
        assert np.array_equal(after.contact_off, before.contact_off[start:stop])
    assert waveform.compact(conn, rec, 1700) == 2
    assert conn.execute(select(func.count()).select_from(inbox)).scalar() == 0
    assert np.array_equal(waveform.read(conn, rec, 0, 1700).samples, x)


def test_outside_and_undecided_is_missing(conn: Connection) -> None:
    rec = new_recording(conn)
    put(conn, rec, 0, 0, signal(100))
    put(conn, rec, 2, None, signal(100))
    span = waveform.read(conn, rec, -50, 150)
    assert (span.samples[:, :50] == MISSING).all()
    assert np.array_equal(span.samples[:, 50:150], signal(100))
    assert (span.samples[:, 150:] == MISSING).all()
    assert not span.contact_off.any()
    waveform.compact(conn, rec, 500)
    assert conn.execute(select(inbox.c.seq)).scalars().all() == [2]


def test_late_samples_join_a_block_and_never_replace(conn: Connection) -> None:
    rec = new_recording(conn)
    x = signal(1200)
    holed = x.copy()
    holed[:, 450:550] = MISSING
    waveform.write(conn, rec, 0, holed)
    put(conn, rec, 9, 440, -x[:, 440:560])
    waveform.compact(conn, rec, 1000)
    merged = waveform.read(conn, rec, 0, 1200).samples
    assert np.array_equal(merged[:, 450:550], -x[:, 450:550])
    merged[:, 450:550] = x[:, 450:550]
    assert np.array_equal(merged, x)


def test_compaction_in_steps_gives_the_same_blocks(conn: Connection) -> None:
    x = signal(2000)
    stored = []
    for cuts in ([500, 1000, 1500, 2000], [2000], [130, 260, 1999, 2000]):
        rec = new_recording(conn)
        for seq, at in enumerate(range(0, 2000, 90)):
            put(conn, rec, seq, at, x[:, at : at + 90])
        for cut in cuts:
            waveform.compact(conn, rec, cut)
        rows = conn.execute(select(block.c.data).where(block.c.recording_id == rec).order_by(block.c.block_no))
        stored.append(rows.scalars().all())
    assert stored[0] == stored[1] == stored[2]
    assert len(stored[0]) == 4


def test_intervals_join(conn: Connection) -> None:
    rec = new_recording(conn)
    for start, end in ((10, 20), (30, 40), (50, 60), (20, 25), (24, 31)):
        waveform.add_interval(conn, gap, rec, start, end)
    rows = conn.execute(select(gap.c.start_sample, gap.c.end_sample).order_by(gap.c.start_sample)).all()
    assert rows == [(10, 40), (50, 60)]


def test_mistakes_are_told(conn: Connection) -> None:
    with pytest.raises(KeyError, match="no recording 77"):
        waveform.read(conn, 77, 0, 10)
    rec = new_recording(conn)
    with pytest.raises(ValueError, match="before start"):
        waveform.read(conn, rec, 10, 0)
    with pytest.raises(ValueError, match="3 leads"):
        waveform.write(conn, rec, 0, signal(10, leads=3))
    conn.execute(insert(block).values(recording_id=rec, block_no=0, data=b"rubbish, all of it"))
    with pytest.raises(StoreError, match="damaged"):
        waveform.read(conn, rec, 0, 10)
