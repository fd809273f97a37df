"""Reading again what late data changed, finishing files, and one recording that fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gateway_kit import START_NS, assert_same_as_batch, cut
from sqlalchemy import select, update

from edge.chunk import MISSING, Chunk, Delivery
from edge.clock import ManualClock
from edge.config import Config, Wearer
from edge.errors import AnyecgError
from edge.gateway import Gateway
from edge.importing import chunks, import_record
from edge.rhythm.rules import Rules, rules_hash
from edge.sources.record import Record, read_record
from edge.store import queries, tables


@contextlib.asynccontextmanager
async def running(state: Path, config: Config | None = None) -> AsyncIterator[Gateway]:
    gateway = Gateway(state, config or Config(), ManualClock(START_NS))
    analysis = asyncio.create_task(gateway.analyse())
    try:
        yield gateway
    finally:
        analysis.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await analysis
        gateway.close()


async def settled(gateway: Gateway) -> None:
    while not gateway.analyst.is_idle:
        await asyncio.sleep(0.02)


async def accept(gateway: Gateway, parts: list[Chunk]) -> None:
    for chunk in parts:
        await gateway.intake.accept(Delivery(chunk, START_NS, lambda: None))


def parts_of(record: Record) -> list[Chunk]:
    return list(chunks(record, "anna", "patch", 7, START_NS))


@pytest.mark.parametrize(
    ("name", "start_s", "seconds", "late", "hole_s"),
    [
        ("mitdb/103", 0, 600, [10], (150, 400)),  # a gap that closes long after the late chunk
        ("mitdb/202", 1150, 600, [3, 20], None),  # atrial fibrillation: the state does not converge
        ("vfdb/422", 1000, 600, [12, 13, 40], (500, 520)),
    ],
)
def test_late_data_leaves_what_timely_data_would(
    ecg_data: Path,
    tmp_path: Path,
    name: str,
    start_s: float,
    seconds: float,
    late: list[int],
    hole_s: tuple[float, float] | None,
) -> None:
    record = cut(read_record(ecg_data / name), seconds, start_s)
    if hole_s is not None:
        record.samples[:, round(hole_s[0] * record.fs_hz) : round(hole_s[1] * record.fs_hz)] = MISSING

    async def feed() -> None:
        async with running(tmp_path) as gateway:
            parts = parts_of(record)
            await accept(gateway, [chunk for chunk in parts if chunk.seq not in late])
            await settled(gateway)
            for chunk in parts:
                if chunk.seq in late:
                    await accept(gateway, [chunk])
                    await asyncio.sleep(0.05)
            await settled(gateway)
            assert gateway.intake.counters["late"] == len(late)
            assert gateway.analyst.counters["repairs"] > 0

    asyncio.run(feed())
    assert_same_as_batch(tmp_path, record, same_ids=False)


def test_a_repair_goes_on_after_a_restart(ecg_data: Path, tmp_path: Path) -> None:
    record = cut(read_record(ecg_data / "mitdb/202"), 400, 1150)
    parts = parts_of(record)

    async def first() -> None:
        async with running(tmp_path) as gateway:
            await accept(gateway, [chunk for chunk in parts if chunk.seq != 5])
            await settled(gateway)
        gateway = Gateway(tmp_path, Config(), ManualClock(START_NS))  # nobody analyses
        await accept(gateway, [parts[5]])
        gateway.close()

    async def second() -> None:
        async with running(tmp_path) as gateway:
            await settled(gateway)
            assert gateway.analyst.counters["repairs"] >= 1

    asyncio.run(first())
    asyncio.run(second())
    assert_same_as_batch(tmp_path, record, same_ids=False)


def test_files_finish_while_the_analysis_is_at_work(
    ecg_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = read_record(ecg_data / "mitdb/100")
    records = {str(n): replace(cut(base, 40 + 13 * n, 3 * n), name=f"r{n}") for n in range(12)}
    monkeypatch.setattr("edge.importing.read_record", lambda path, leads: records[path])

    async def feed() -> list[int]:
        async with running(tmp_path) as gateway, asyncio.timeout(120):
            return [(await import_record(gateway, record=name, wearer="w"))["beats"] for name in records]

    beats = asyncio.run(feed())
    assert len(beats) == 12
    assert np.all(np.diff(beats) > 5)


def test_a_damaged_recording_rests_and_the_others_go_on(ecg_data: Path, tmp_path: Path) -> None:
    record = cut(read_record(ecg_data / "mitdb/100"), 120)

    async def feed() -> None:
        async with running(tmp_path) as gateway:
            await accept(gateway, parts_of(record))
            await settled(gateway)
            await gateway.intake.flush(1)
            damage = update(tables.block).values(data=b"rubbish")
            gateway.writer.submit(lambda conn: conn.execute(damage)).result()
            longer = replace(parts_of(record)[0], seq=12, device_time_ns=120 * 10**9, utc_ns=START_NS + 120 * 10**9)
            await accept(gateway, [longer])
            await accept(gateway, [replace(chunk, wearer="ben") for chunk in parts_of(record)])
            async with asyncio.timeout(60):
                while gateway.analyst.counters["failures"] == 0 or await asyncio.to_thread(hops, gateway, 2) < 55:
                    await asyncio.sleep(0.05)
            with pytest.raises(AnyecgError, match="analysis fails"):
                gateway.analyst.is_finished(1)
            assert gateway.analyst.busy_s() < 30

    asyncio.run(feed())


def hops(gateway: Gateway, recording_id: int) -> int:
    with gateway.reader.connect() as conn:
        cursor = tables.cursor.c
        return conn.execute(select(cursor.next_k).where(cursor.recording_id == recording_id)).scalar() or 0


def test_other_rules_read_anew_and_tell_nobody(ecg_data: Path, tmp_path: Path) -> None:
    record = cut(read_record(ecg_data / "vfdb/422"), 400, 1000)

    async def feed(config: Config) -> tuple[int, str]:
        async with running(tmp_path, config) as gateway:
            await accept(gateway, parts_of(record))
            await settled(gateway)
            with gateway.reader.connect() as conn:
                waiting = len(conn.execute(select(tables.outbox.c.id)).all())
                hash_ = conn.execute(
                    select(tables.analysis.c.rules_hash).join(tables.cursor).where(tables.cursor.c.recording_id == 1)
                ).scalar_one()
            return waiting, hash_

    told, rules = asyncio.run(feed(Config()))
    assert told > 0
    told_again, other_rules = asyncio.run(feed(Config(rules={"pause": {"min_s": 2.5}})))
    assert other_rules != rules
    assert told_again == told


def test_each_wearer_is_read_by_rules_of_their_own(ecg_data: Path, tmp_path: Path) -> None:
    record = cut(read_record(ecg_data / "mitdb/200"), 200)
    own = Config(wearers={"anna": Wearer(rules={"ectopy_rate": {"enabled": False}})})

    async def feed() -> dict[str, tuple[set[str], str]]:
        async with running(tmp_path, own) as gateway:
            for wearer in ("anna", "ben"):
                await accept(gateway, [replace(chunk, wearer=wearer) for chunk in parts_of(record)])
            await settled(gateway)
            found = {}
            with gateway.reader.connect() as conn:
                for wearer in ("anna", "ben"):
                    rows = queries.findings(conn, wearer=wearer)
                    hashes = select(tables.analysis.c.rules_hash).where(tables.analysis.c.id == rows[0]["analysis_id"])
                    found[wearer] = ({row["rule"] for row in rows}, conn.execute(hashes).scalar_one())
            return found

    found = asyncio.run(feed())
    assert found["ben"][0] - found["anna"][0] == {"ectopy_rate"}
    assert found["ben"][1] == rules_hash(Rules())
    assert found["anna"][1] == rules_hash(own.rules_of("anna")) != found["ben"][1]
