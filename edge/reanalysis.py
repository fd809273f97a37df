"""Stored samples read again with the weights and rules of today (`anyecg reanalyze`); nobody is alerted.

One recording after the other, in slices between which live analysis has its turn, while what was said before stays
as it is. At the end everything changes in one transaction, as a repair after late data does
(`edge.store.findings.commit_passage`): findings that come out again keep id and history, others are retracted and
paired with their successor, and human marks move to it. Embeddings of other weights stay, under their encoder's id.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from edge.analyst import BATCH_HOPS, BEGINNING, Analyst, reached
from edge.encoder.contract import HOP_S
from edge.encoder.windows import hop_of, hops_in
from edge.errors import AnyecgError, BadInputError
from edge.gateway import Gateway
from edge.rhythm.session import RhythmSession
from edge.store import findings, queries
from edge.store.findings import Change, Checkpoint, Passage
from edge.store.queries import Recording

MAX_S = 14 * 86_400
"""Most seconds of one recording at once: its beats are held until they are committed, about 20 MB a day."""
MAX_RESTARTS = 5
"""Late data that arrives meanwhile makes a recording start again so many times."""
PAUSE_S = 0.02
"""Between slices, for live analysis."""


@dataclass(slots=True)
class _Job:
    """A recording on its way."""

    recording: Recording
    start: Checkpoint
    until: int
    is_complete: bool
    """It was read to its last hop and closed (a file)."""
    insertions: int
    session: RhythmSession
    passage: Passage
    restarts: int = 0


class Reanalysis:
    """One at a time per gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._running = asyncio.Lock()
        self._done_s = self._total_s = 0.0

    def progress(self) -> dict[str, Any]:
        """Return how far the run that is under way has come, in seconds of signal."""
        return {"running": self._running.locked(), "done_s": self._done_s, "total_s": self._total_s}

    async def run(self, *, wearer: str, since_ns: int | None = None) -> dict[str, Any]:
        """Read a wearer's recordings again and return what became of the findings.

        Args:
            wearer: whose.
            since_ns: from the hop of this UTC on, with the state that analysis had there; None: from the beginning.
                Where that state belongs to other rules, the recording is read from its beginning.

        Raises:
            BadInputError: the wearer is unknown, the time is no time, or it is more than `MAX_S` of a recording.
            AnyecgError: another reanalysis runs, or late data kept coming.
        """
        if not isinstance(wearer, str) or not (since_ns is None or isinstance(since_ns, int)):
            raise BadInputError("reanalyze takes a wearer, and since_ns as ns since 1970 UTC or null")
        if self._running.locked():
            raise AnyecgError("a reanalysis is running already: wait for it")
        async with self._running:
            self._done_s = self._total_s = 0.0
            analyst = self._gateway.analyst
            spans = await asyncio.to_thread(self._spans, wearer, since_ns)
            self._total_s = sum((until - first) * HOP_S for _, first, until in spans)
            news: Counter[str] = Counter()
            seconds = 0.0
            for recording, first, _ in spans:
                before_s = self._done_s
                job = await asyncio.to_thread(_begin, analyst, recording.id, first)
                while (changes := await asyncio.to_thread(_slice, analyst, job)) is None:
                    read_hops = max(job.passage.k1 - max(first, job.passage.k0), 0)
                    self._done_s = min(before_s + read_hops * HOP_S, self._total_s)
                    await asyncio.sleep(PAUSE_S)
                self._done_s = before_s + (job.passage.k1 - first) * HOP_S
                seconds += (job.passage.k1 - job.passage.k0) * HOP_S
                news.update(_kinds(changes))
            return {
                "wearer": wearer,
                "recordings": len(spans),
                "read_s": seconds,
                "analysis": self._gateway.analysis_name(wearer),
                "events": {kind: news[kind] for kind in ("new", "changed", "replaced", "retracted")},
            }

    def _spans(self, wearer: str, since_ns: int | None) -> list[tuple[Recording, int, int]]:
        """Return recordings with the hops [first, until) that were read and are to be read again."""
        spans = []
        with self._gateway.reader.connect() as conn:
            queries.find_wearer(conn, wearer)
            for recording in queries.recordings(conn, wearer):
                cursor = findings.cursor(conn, recording.id)
                if cursor is None:
                    continue
                first = 0
                if since_ns is not None:
                    inside = recording.sample_spans(since_ns, recording.to_utc_ns(recording.end_sample) + 1)
                    if not inside:
                        continue
                    first = hop_of(recording.fs_hz, min(start for start, _ in inside))
                until = max(cursor.at.k, cursor.silent_until_k)
                if first < until:
                    spans.append((recording, first, until))
        return spans


def _begin(analyst: Analyst, recording_id: int, first: int) -> _Job:
    with analyst.running, analyst.reader.connect() as conn:
        recording = queries.find_recording(conn, recording_id)
        cursor = findings.cursor(conn, recording_id)
        assert cursor is not None
        start = findings.checkpoint_before(conn, recording_id, first)
        try:
            session = analyst.session(recording, start)
        except AnyecgError:
            start = BEGINNING
            session = analyst.session(recording, start)
        until = max(cursor.at.k, cursor.silent_until_k)
        if (until - start.k) * HOP_S > MAX_S:
            raise BadInputError(
                f"{(until - start.k) * HOP_S / 86_400:.1f} days of {recording.wearer}/{recording.device} are to be "
                f"read again, at most {MAX_S // 86_400} can be at once: pass a later --since"
            )
        return _Job(
            recording,
            start,
            until,
            until >= hops_in(recording.fs_hz, recording.end_sample),
            findings.late_insertions(conn, recording_id),
            session,
            analyst.passage(recording, start),
        )


def _slice(analyst: Analyst, job: _Job) -> list[Change] | None:
    """Read the next hops; return what changed when the recording is done, None before."""
    key = job.recording.id
    with analyst.running:
        if analyst.is_repairing(key):
            return None
        with analyst.reader.connect() as conn:
            insertions = findings.late_insertions(conn, key)
        if insertions != job.insertions:
            _restart(analyst, job, insertions)
        track = analyst.track(key)
        job.until = max(job.until, track.next_k)
        passage = job.passage
        k1 = min(passage.k1 + BATCH_HOPS, job.until)
        for hop in analyst.score(job.recording, passage.k1, k1):
            analyst.fold(passage, job.session, hop)
        passage.k1 = k1
        if passage.k1 < job.until:
            analyst.keep_embeddings(passage)
            return None
        if job.is_complete:
            analyst.keep(passage, max(k1 - 1, 0), job.session.finish(job.recording.end_sample))
            passage.k1 = max(k1, 1)
        passage.end = Checkpoint(k1, job.session.dump(), reached(passage))
        passage.silent_until_k = track.silent_until_k
        return analyst.replace(track, job.session, passage, ends=job.is_complete)


def _restart(analyst: Analyst, job: _Job, insertions: int) -> None:
    job.restarts += 1
    if job.restarts > MAX_RESTARTS:
        raise AnyecgError(f"late data of {job.recording.wearer}/{job.recording.device} keeps coming: try again later")
    job.insertions = insertions
    job.session = analyst.session(job.recording, job.start)
    job.passage = analyst.passage(job.recording, job.start)


def _kinds(changes: list[Change]) -> Counter[str]:
    """Count findings by what became of them."""
    last: dict[str, str] = {}
    for change in changes:
        key = change.row["id"]
        if change.type == "retracted":
            last[key] = "replaced" if change.row["superseded_by"] else "retracted"
        elif last.get(key) != "new":
            last[key] = "new" if change.type == "new" else "changed"
    return Counter(last.values())
