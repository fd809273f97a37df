"""What the page is told: samples as stored, corrections laid over, events with their evidence, likeness, health."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Connection, insert
from store_kit import AF_IDS, GAP, NOW_NS, NS, berlin, build, utc_ns

from edge.chunk import MISSING
from edge.config import Config
from edge.encoder.windows import hop_of
from edge.errors import BadInputError
from edge.store import marks, queries, tables, waveform
from edge.store.database import open_writable
from edge.web import review, similar, wire
from edge.web.answering import Answerer
from edge.web.health import faults, read_health
from edge.web.live import Hub, Stream, read_people
from edge.web.reader import Reader


def unpacked(piece: dict[str, Any]) -> NDArray[np.int64]:
    kind, missing = (("<i2", -(2**15)), ("<i4", MISSING))[piece["bits"] == 32]
    rows = [np.frombuffer(base64.b64decode(text), kind).astype(np.int64) for text in piece["data"]]
    return np.array([np.where(row == missing, MISSING, row) for row in rows])


@pytest.mark.parametrize("largest", [100, 2**15 - 1, 2**15, 2**31 - 1])
def test_samples_arrive_as_they_are_stored(largest: int) -> None:
    samples = np.array([[0, -largest, MISSING, largest], [1, 2, 3, MISSING]], np.int32)
    piece = wire.pack(samples)
    assert piece["bits"] == (16 if largest < 2**15 else 32)
    assert (unpacked(piece) == samples).all()


def test_a_stretch_of_waveform_is_the_stored_one_with_its_beats(conn: Connection) -> None:
    recording = queries.recordings(conn, "ann")[0]
    start_ns = recording.to_utc_ns(2500)
    (piece,) = review.wave(conn, "ann", start_ns, start_ns + 10 * NS)
    stored = waveform.read(conn, recording.id, 2500, 5000)
    assert (unpacked(piece) == stored.samples).all()
    assert (piece["first"], piece["n"], piece["fs_hz"]) == (2500, 2500, 250.0)
    assert abs(piece["t_ms"] * 1e6 - start_ns) < 1000
    inside = queries.beats(conn, recording, 2500, 5000)
    assert piece["beats"]["samples"] == inside["sample"].tolist()


def test_a_day_has_every_minute_every_event_and_its_hole(conn: Connection) -> None:
    start, end = utc_ns(berlin(28, 0)), utc_ns(berlin(29, 0))
    found = review.overview(conn, "ann", start, end)
    assert len(found["minutes"]["t"]) == len(queries.trends(conn, "ann", start, end)) > 1000
    assert {len(column) for column in found["minutes"].values()} == {len(found["minutes"]["t"])}
    ids = {e["id"] for e in found["events"]}
    assert {AF_IDS[0], AF_IDS[1]} <= ids
    (before, after) = [s for s in found["spans"] if s[1] == wire.ms(utc_ns(GAP[0])) or s[0] == wire.ms(utc_ns(GAP[1]))]
    assert after[0] - before[1] == 30 * 60_000
    assert len(wire.dump(found)) < 150_000


def test_corrections_show_in_the_day_the_event_and_the_beats(tmp_path: Path) -> None:
    state = build(tmp_path)
    engine = open_writable(state)
    with engine.begin() as conn:
        marks.perform(conn, {"kind": "false", "event": AF_IDS[0], "author": "eva"}, NOW_NS)
        marks.perform(conn, {"kind": "episode", "event": AF_IDS[1], "rule": "svt", "author": "eva"}, NOW_NS)
        marks.perform(
            conn, {"kind": "symptom", "wearer": "ann", "at_ns": utc_ns(berlin(28, 11)), "author": "e"}, NOW_NS
        )
        day = review.overview(conn, "ann", utc_ns(berlin(28, 0)), utc_ns(berlin(29, 0)))
        event = review.event(conn, AF_IDS[1], Config())
        recording = queries.find_recording(conn, event["recording"])
        sample = int(queries.beats(conn, recording, 0, recording.end_sample)["sample"][0])
        beat = {"kind": "beat", "recording_id": recording.id, "sample": sample, "type": "V", "author": "eva"}
        marks.perform(conn, beat, NOW_NS)
        at_ns = recording.to_utc_ns(sample)
        beats = review.beats(conn, "ann", at_ns - NS, at_ns + NS)
    engine.dispose()
    shown = {e["id"]: e for e in day["events"]}
    assert (shown[AF_IDS[0]]["verdict"], shown[AF_IDS[1]]["verdict"], shown[AF_IDS[1]]["rule"]) == (
        "false",
        "episode",
        "svt",
    )
    assert [m["kind"] for m in day["marks"]] == ["symptom"]
    assert (event["rule"], event["right"]["rule"], event["verdict"]) == ("af", "svt", "episode")
    assert [m["author"] for m in event["marks"]] == ["eva"]
    assert beats[0]["types"][0] == "V"


def test_an_episode_that_only_a_person_saw_is_an_event_too(tmp_path: Path) -> None:
    state = build(tmp_path)
    engine = open_writable(state)
    with engine.begin() as conn:
        start, end = utc_ns(berlin(28, 8)), utc_ns(berlin(28, 8, 1))
        span = marks.place_span(conn, "ann", start, end)
        said = marks.perform(conn, {"kind": "episode", "rule": "svt", "author": "eva", **span}, NOW_NS)
        day = review.overview(conn, "ann", utc_ns(berlin(28, 0)), utc_ns(berlin(29, 0)))
        event = review.event(conn, f"mark-{said['id']}", Config())
    engine.dispose()
    assert f"mark-{said['id']}" in {e["id"] for e in day["events"]}
    assert (event["by_person"], event["rule"], event["analysis"]) == (True, "svt", None)
    assert (event["start_ms"], event["end_ms"]) == (wire.ms(start), wire.ms(end))
    assert [(m["author"], m["kind"]) for m in event["marks"]] == [("eva", "episode")]
    assert event["beats"]["count"] > 0


def test_an_event_names_its_evidence_rule_thresholds_and_analysis(conn: Connection) -> None:
    config = Config(rules={"af": {"min_s": 45}})
    event = review.event(conn, AF_IDS[0], config)
    thresholds = {t["name"]: t["value"] for t in event["rule_table"]["thresholds"]}
    assert thresholds["min_s"] == 45.0, "the threshold in force, not the default"
    assert event["rule_table"]["source"]
    assert event["evidence"] == {"hr_bpm": 110.0}
    assert event["analysis"]["encoder"]
    assert event["rule_table"]["meaning"]
    assert review.rule_table("symptom", "anna", config) is None
    with pytest.raises(BadInputError, match="no event"):
        review.event(conn, "zzzzzz", config)


def test_what_looks_alike_is_found_by_its_embedding(tmp_path: Path) -> None:
    state = build(tmp_path)
    engine = open_writable(state)
    rng = np.random.default_rng(3)
    odd = rng.normal(size=192)
    with engine.begin() as conn:
        (row,) = queries.findings(conn, wearer="ann", rules=("vt",))
        recording = queries.find_recording(conn, row["recording_id"])
        k = hop_of(recording.fs_hz, row["start_sample"])
        twin = k - 3000
        conn.execute(tables.embedding.delete())
        rows = []
        for n in range(k - 4000, k + 500):
            vector = (
                odd + rng.normal(size=192) * 0.1 if k <= n <= k + 4 or twin <= n <= twin + 4 else rng.normal(size=192)
            )
            rows.append(
                {"recording_id": recording.id, "encoder": "test-1", "k": n, "vector": vector.astype("<f2").tobytes()}
            )
        older = [row | {"encoder": "z-older", "vector": np.ones(192, "<f2").tobytes()} for row in rows]
        conn.execute(insert(tables.embedding), older)  # kept beside those of the encoder that reads now
        rows[5]["vector"] = np.full(192, np.nan, "<f2").tobytes()
        conn.execute(insert(tables.embedding), rows)
        found = similar.similar(conn, row["id"])
        conn.execute(tables.embedding.delete())
        none = similar.similar(conn, row["id"])
    engine.dispose()
    best = found["places"][0]
    assert best["similarity"] > 0.9 > found["places"][1]["similarity"]
    assert abs(best["t_ms"] - (row["start_ns"] / 1e6 - 6000_000)) < 12_000
    assert found["searched"] == 4500
    assert none == {"places": [], "searched": 0}


def test_health_tells_faults_and_when_the_disk_is_full(conn: Connection, state: Path) -> None:
    found = read_health(conn, state, NOW_NS)
    assert {"malformed": 1}.items() <= {f["what"]: f["count"] for f in found["faults"]}.items()
    assert found["disk"]["database_bytes"] > 0
    assert found["disk"]["days_left"] > 0
    assert [w["wearer"] for w in found["wearers"]] == ["ann", "bob", "cyd", "dan"]
    assert faults({}) == []
    assert faults({"analysis": {"last_failure": "out of memory", "hops": 5}})[0]["what"] == "out of memory"


def test_a_stream_begins_with_the_past_and_goes_on_with_what_is_committed(tmp_path: Path) -> None:
    state = build(tmp_path)
    engine = open_writable(state)
    with engine.connect() as conn:
        recording = queries.recordings(conn, "ann")[0]
    end = recording.end_sample

    async def listen() -> list[tuple[str, Any]]:
        page = Reader(state)
        hub = Hub(state, page)
        watching = asyncio.create_task(hub.run())
        heard: list[tuple[str, Any]] = []
        messages = Stream(hub, page, recording.id, [0]).messages()
        async for block in messages:
            for text in block.decode().split("\n\n"):
                if text.startswith("event: "):
                    name, _, data = text.partition("\ndata: ")
                    heard.append((name.removeprefix("event: "), json.loads(data)))
            if len([1 for name, _ in heard if name == "wave"]) == 1 and "more" not in dict(heard):
                heard.append(("more", None))
                with engine.begin() as conn:
                    waveform.write(conn, recording.id, end, np.full((len(recording.leads), 500), 7, np.int32))
                    grown = tables.recording.update().where(tables.recording.c.id == recording.id)
                    conn.execute(grown.values(end_sample=end + 500))
            if len([1 for name, _ in heard if name == "wave"]) == 2:
                break
        await messages.aclose()
        assert hub.streams == 0
        watching.cancel()
        page.close()
        return heard

    heard = asyncio.run(asyncio.wait_for(listen(), 120))
    engine.dispose()
    past, fresh = [data for name, data in heard if name == "wave"]
    assert (past["first"] + past["n"], fresh["first"], fresh["n"]) == (end, end, 500)
    assert (unpacked(fresh) == 7).all()
    names = [name for name, _ in heard]
    assert {"people", "states", "events"} <= set(names)
    first_news = next(data for name, data in heard if name == "events")
    assert first_news["first"], "what was there before the page is no news"
    assert AF_IDS[0] in {e["id"] for e in first_news["events"]}
    assert dict(heard)["states"]["daemon"] in ("off", "unknown"), "no daemon runs, and none is made up"


def test_a_missing_database_is_told_as_trouble(tmp_path: Path) -> None:
    async def look() -> tuple[str | None, list[dict[str, Any]]]:
        page = Reader(tmp_path)
        hub = Hub(tmp_path, page)
        await hub.look()
        page.close()
        return hub.trouble, hub.people

    trouble, people = asyncio.run(look())
    assert people == []
    assert "no database in" in str(trouble)


def test_people_are_listed_with_their_newest_devices(conn: Connection) -> None:
    people = {p["id"]: p for p in read_people(conn)}
    assert people["dan"]["devices"] == []
    assert people["dan"]["first_ms"] is None
    assert people["ann"]["devices"][0]["leads"]


def test_an_assistant_that_dies_costs_one_question(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> list[list[dict[str, Any]]]:
        answerer = Answerer(state)
        first = []
        async for said in answerer.ask("How long was ann in AF on 2026-03-28?", "ann"):
            first.append(said)
            if "stage" in said and answerer._process is not None:
                answerer._process.kill()
        second = [said async for said in answerer.ask("What is your name?", "ann")]
        await answerer.close()
        assert answerer.counters == {"questions": 2, "failed": 1, "timeouts": 0}
        return [first, second]

    first, second = asyncio.run(asyncio.wait_for(ask(), 300))
    assert "ended unexpectedly" in first[-1]["error"]
    assert "done" in second[-1]
