"""What goes when, and what never goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, func, insert, select

from edge.encoder.windows import hop_of
from edge.rhythm.events import Finding, TrendMinute, finding_id
from edge.store import findings, queries, retention, tables
from edge.store.database import FILE_NAME, PAGE_SIZE, open_readonly
from edge.store.findings import Checkpoint, Passage, Told
from edge.store.recordings import create_recording, ensure_wearer
from edge.store.waveform import read, write
from edge.store.writer import Writer

NS = 10**9
FS_HZ = 50.0
HOURS = 6
START_NS = 1_790_000_000 * NS
HOUR = round(3600 * FS_HZ)


def _signal(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(0, 40, (1, HOURS * HOUR)), axis=1).astype(np.int32)


def _finding(
    conn: Connection, recording: queries.Recording, rule: str, start_s: float, end_s: float, **extra: object
) -> str:
    start, end = round(start_s * FS_HZ), round(end_s * FS_HZ)
    key = finding_id(recording.key, rule, start)
    row = {
        "id": key, "recording_id": recording.id, "rule": rule, "severity": "urgent", "state": "closed", "revision": 1,
        "opened_sample": start, "start_sample": start, "end_sample": end, "detected_sample": end,
        "start_ns": recording.to_utc_ns(start), "end_ns": recording.to_utc_ns(end), "evidence": {},
        "opened_k": hop_of(FS_HZ, start), "told_k": hop_of(FS_HZ, end), "superseded_by": None, "analysis_id": 1,
    }  # fmt: skip
    conn.execute(insert(tables.finding).values(row | extra))
    return key


def _analysed(conn: Connection, recording_id: int) -> None:
    hops = HOURS * 1800
    conn.execute(
        insert(tables.cursor).values(recording_id=recording_id, next_k=hops, state=b"", analysis_id=1, beats_until=0)
    )
    conn.execute(
        insert(tables.embedding),
        [{"recording_id": recording_id, "encoder": "e", "k": k, "vector": bytes(384)} for k in range(0, hops, 10)],
    )
    conn.execute(
        insert(tables.beats), [{"recording_id": recording_id, "minute": m, "data": b""} for m in range(60 * HOURS)]
    )
    for k in range(0, hops, 1800):
        conn.execute(insert(tables.checkpoint).values(recording_id=recording_id, k=k, state=b"s", beats_until=0))


@pytest.fixture
def writer(tmp_path: Path):
    with Writer(tmp_path, spacing_s=0.0) as writer:
        yield writer


def _recording(
    conn: Connection, *, device: str = "strap", start_ns: int = START_NS, seed: int = 1
) -> queries.Recording:
    ensure_wearer(conn, "anna", "UTC", START_NS)
    key = create_recording(
        conn, wearer_id="anna", device=device, leads=["I"], fs_hz=FS_HZ, uv_per_lsb=[1.0], source="live",
        start_ns=start_ns, received_ns=start_ns,
    )  # fmt: skip
    write(conn, key, 0, _signal(seed))
    conn.execute(tables.recording.update().where(tables.recording.c.id == key).values(end_sample=HOURS * HOUR))
    version = dict.fromkeys(("encoder", "weights_sha256", "rules_hash", "code_version", "provider"), "x")
    assert findings.ensure_analysis(conn, version, START_NS) == 1
    return queries.find_recording(conn, key)


def _until_nothing_goes(writer: Writer, job, before_ns: int) -> int:
    total = 0
    while gone := writer.submit(lambda conn: job(conn, before_ns)).result():
        total += gone
    return total


def _is_there(conn: Connection, recording: queries.Recording, start_s: float, end_s: float) -> bool:
    samples = read(conn, recording.id, round(start_s * FS_HZ), round(end_s * FS_HZ)).samples
    return bool((samples != np.iinfo(np.int32).min).all())


def test_raw_goes_by_age_but_for_the_strips_of_kept_findings(writer: Writer, tmp_path: Path) -> None:
    def build(conn: Connection) -> queries.Recording:
        recording = _recording(conn)
        _analysed(conn, recording.id)
        _finding(conn, recording, "vt", 1000, 1010, evidence={"rate_bpm": 180})
        _finding(conn, recording, "vt", 2000, 2030, evidence={"rate_bpm": 150})
        _finding(conn, recording, "vt", 3000, 3020, evidence={"rate_bpm": 140})
        _finding(conn, recording, "vt", 4000, 4005, evidence={"rate_bpm": 120})  # neither extreme nor among the longest
        _finding(conn, recording, "gap", 5000, 5600)
        confirmed = _finding(conn, recording, "couplet", 6000, 6001)
        longer = [_finding(conn, recording, "couplet", at, at + 5) for at in (6300, 6600, 6900)]
        false = _finding(conn, recording, "af", 7200, 7260)
        marks = [("confirm", confirmed), ("false", false)]
        for kind, key in marks:
            conn.execute(
                insert(tables.mark).values(
                    wearer="anna", finding_id=key, kind=kind, note="", at_ns=START_NS, written_ns=START_NS
                )
            )
        conn.execute(
            insert(tables.mark).values(
                wearer="anna", kind="symptom", note="dizzy", at_ns=START_NS + 8000 * NS, written_ns=START_NS
            )
        )
        assert longer
        return recording

    recording = writer.submit(build).result()
    before_ns = START_NS + 4 * 3600 * NS
    assert _until_nothing_goes(writer, retention.expire_raw, before_ns) == 4 * 360
    reader = open_readonly(tmp_path)
    with reader.connect() as conn:
        for at in (1000, 2000, 3000, 6000, 6300, 6600):
            assert _is_there(conn, recording, at - 29, at + 30), at
        assert _is_there(conn, recording, 8000 - 29, 8030)
        for at in (4000, 5000, 6900 + 60, 7200, 500):
            assert not _is_there(conn, recording, at, at + 5), at
        assert _is_there(conn, recording, 4 * 3600, 6 * 3600)
        assert retention.expired_until(conn, recording.id) == 4 * HOUR
        assert conn.execute(select(func.min(tables.checkpoint.c.k))).scalar() == 4 * 1800
        assert conn.execute(select(func.count()).select_from(tables.finding)).scalar() == 10
    reader.dispose()


def test_what_was_not_analysed_yet_never_goes(writer: Writer, tmp_path: Path) -> None:
    recording = writer.submit(_recording).result()
    assert _until_nothing_goes(writer, retention.expire_raw, START_NS + 10**18) == 0
    with open_readonly(tmp_path).connect() as conn:
        assert _is_there(conn, recording, 0, HOURS * 3600)


def test_the_oldest_goes_first_whoever_it_belongs_to(writer: Writer) -> None:
    def build(conn: Connection) -> list[int]:
        made = [_recording(conn), _recording(conn, device="patch", start_ns=START_NS + 3600 * NS, seed=2)]
        for recording in made:
            conn.execute(
                insert(tables.cursor).values(
                    recording_id=recording.id, next_k=HOURS * 1800, state=b"", analysis_id=1, beats_until=0
                )
            )
        return [recording.id for recording in made]

    first, second = writer.submit(build).result()
    gone: list[tuple[int, int]] = []
    for _ in range(5):
        writer.submit(lambda conn: retention.expire_raw(conn, START_NS + 10**18)).result()
        gone.append(
            writer.submit(
                lambda conn: (retention.expired_until(conn, first), retention.expired_until(conn, second))
            ).result()
        )
    half = HOUR // 2
    assert gone[:2] == [(half, 0), (2 * half, 0)]
    assert gone[4] in ((3 * half, 2 * half), (4 * half, half))


def test_embeddings_trends_and_findings_go_by_their_own_age(writer: Writer, tmp_path: Path) -> None:
    def build(conn: Connection) -> tuple[queries.Recording, str]:
        recording = _recording(conn)
        _analysed(conn, recording.id)
        conn.execute(insert(tables.finding_revision).values(
            finding_id=_finding(conn, recording, "vt", 1000, 1010), revision=0, row={}, written_ns=0,
        ))  # fmt: skip
        marked = _finding(conn, recording, "vt", 2000, 2010)
        _finding(conn, recording, "vt", 20_000, 20_010)
        _finding(conn, recording, "af", 3000, 3010, state="open")
        conn.execute(
            insert(tables.mark).values(
                wearer="anna", finding_id=marked, kind="note", note="x", at_ns=0, written_ns=START_NS
            )
        )
        return recording, marked

    recording, _ = writer.submit(build).result()
    before_ns = START_NS + 2 * 3600 * NS
    assert _until_nothing_goes(writer, retention.expire_raw, before_ns)
    with open_readonly(tmp_path).connect() as conn:
        assert _is_there(conn, recording, 990, 1020)
    assert _until_nothing_goes(writer, retention.expire_embeddings, before_ns) == 360
    assert _until_nothing_goes(writer, retention.expire_trends, before_ns) == 120
    assert _until_nothing_goes(writer, retention.expire_findings, before_ns) == 1
    with open_readonly(tmp_path).connect() as conn:
        left = conn.execute(select(tables.finding.c.start_sample).order_by(tables.finding.c.start_sample)).scalars()
        assert [sample / FS_HZ for sample in left] == [2000, 3000, 20_000]
        assert conn.execute(select(func.count()).select_from(tables.finding_revision)).scalar() == 0
        assert not _is_there(conn, recording, 990, 1020)
        assert _is_there(conn, recording, 1990, 2020)
        assert conn.execute(select(func.min(tables.embedding.c.k))).scalar() == 3600


def test_a_new_reading_leaves_alone_what_was_read_from_expired_signal(writer: Writer, tmp_path: Path) -> None:
    """Other rules read from the beginning; where the signal is gone, what they do not see was still there."""

    def build(conn: Connection) -> queries.Recording:
        recording = _recording(conn)
        _analysed(conn, recording.id)
        _finding(conn, recording, "vt", 600, 610)
        _finding(conn, recording, "vt", 15_000, 15_010)
        return recording

    recording = writer.submit(build).result()
    _until_nothing_goes(writer, retention.expire_raw, START_NS + 3 * 3600 * NS)
    key = finding_id(recording.key, "gap", 0)
    blind = Finding(key, "gap", "info", "closed", 0, 0, 3 * HOUR, 3 * HOUR, {})
    passage = Passage(recording.id, 0, HOURS * 1800, 0, 1, "e", end=Checkpoint(HOURS * 1800, b"", 0))
    passage.told = [Told(5400, blind)]
    passage.trends = [TrendMinute(m, None, None, None, {}, 0.0, 0.0, "", 0.0) for m in (5, 300)]
    passage.embeddings = [(k, np.ones(192, np.float32)) for k in (10, 9000)]
    writer.submit(
        lambda conn: findings.commit_passage(conn, passage, to_utc_ns=recording.to_utc_ns, fs_hz=FS_HZ, now_ns=0)
    ).result()
    with open_readonly(tmp_path).connect() as conn:
        states = {row.start_sample / FS_HZ: row.state for row in conn.execute(select(tables.finding))}
        assert states == {600: "closed", 15_000: "retracted"}
        assert conn.execute(select(tables.trend.c.minute)).scalars().all() == [300]
        vectors = dict(conn.execute(select(tables.embedding.c.k, tables.embedding.c.vector)).all())
        assert vectors[10] == bytes(384)
        assert vectors[9000] == np.ones(192, "<f2").tobytes()


def test_deleting_makes_room_in_the_file_and_on_the_disk(writer: Writer, tmp_path: Path) -> None:
    def build(conn: Connection) -> None:
        _analysed(conn, _recording(conn).id)

    writer.submit(build).result()
    full = writer.submit(retention.usage).result()
    _until_nothing_goes(writer, retention.expire_raw, START_NS + 3 * 3600 * NS)
    freed = writer.submit(retention.usage).result()
    assert freed.free > 0.2 * full.used
    assert freed.used + freed.free == pytest.approx(full.used + full.free, rel=0.02)
    pages = freed.free // PAGE_SIZE
    assert writer.submit(retention.vacuum).result() == max(pages - retention.VACUUM_PAGES, 0) < pages
    while writer.submit(retention.vacuum).result():
        pass
    after = writer.submit(retention.usage).result()
    assert (after.used, after.free) == (pytest.approx(freed.used, rel=0.02), 0)
    writer.close()
    assert (tmp_path / FILE_NAME).stat().st_size == after.used
