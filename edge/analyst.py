"""`Analyst`: reads what is stored, hop by hop, and writes what it means.

One batch at a time: take the hops that are ready in all recordings, score them together, fold each recording's hops
through its rhythm session, and commit each passage with state, cursor and outbox in one transaction. Late data makes
it start again from the checkpoint before the change and stop as soon as its state equals a stored one: from there on
nothing can differ.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, select

from edge.clock import Clock
from edge.encoder.contract import HOP_S, HopScores
from edge.encoder.scoring import HopJob, score_hops
from edge.encoder.session import Encoder
from edge.encoder.stride import choose_stride
from edge.encoder.windows import hops_in, hops_ready, hops_touched
from edge.errors import AnyecgError
from edge.rhythm.events import Current, HopResult
from edge.rhythm.rules import Rules
from edge.rhythm.session import RhythmSession
from edge.store import findings, tables
from edge.store.findings import Change, Checkpoint, Passage, Told
from edge.store.queries import Recording, find_recording
from edge.store.waveform import read
from edge.store.writer import Writer

log = structlog.get_logger()

CHECKPOINT_HOPS = 30
"""A rhythm state is kept every minute of data."""
REST_S = 5.0
"""How long a recording waits whose analysis failed."""
BATCH_HOPS = 240
"""Most hops scored together: 8 minutes of one wearer, or 2 s of 240."""

Tell = Callable[[Connection, Recording, Sequence[Change]], None]
"""What becomes of changed findings, inside the transaction that changes them."""
Changed = Callable[[Recording, Sequence[Change]], None]
"""Called with the same changes once they are committed."""


@dataclass(slots=True)
class _Track:
    """Where the analysis of one recording stands."""

    recording: Recording
    session: RhythmSession
    next_k: int
    beats_until: int
    silent_until: int = 0
    """Hops before this one were told by an earlier analysis (other rules or code): read again, nobody is told."""
    current: Current | None = None


class Analyst:
    """Holds one rhythm session per recording; everything else is in the database.

    Everything may be called from any thread; batches run one at a time.
    """

    def __init__(
        self, reader: Engine, writer: Writer, encoder: Encoder, rules: Rules, clock: Clock, tell: Tell, analysis_id: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = encoder
        self._rules = rules
        self._clock = clock
        self._tell = tell
        self._analysis_id = analysis_id
        self.on_changed: Changed = lambda recording, changes: None
        self.stride = choose_stride(encoder)
        self._tracks: dict[int, _Track] = {}
        self._running = threading.Lock()
        self._lock = threading.Lock()
        self._horizons: dict[int, int] = {}
        self._due: set[int] = set()
        self._changed: set[int] = set()
        self._ending: set[int] = set()
        self._at_work: set[int] = set()
        self._rest_until_s: dict[int, float] = {}
        self.last_failure = ""
        self.counters = {"hops": 0, "beats": 0, "findings": 0, "repairs": 0, "repaired_hops": 0, "failures": 0}

    def stored(self, recording_id: int, horizon: int, *, changed: bool = False, ends: bool = False) -> None:
        """Note that every sample below `horizon` is decided.

        changed  late data altered samples that may have been analysed
        ends     the recording is complete (a file): its last hops run as far as they go and its findings close
        """
        with self._lock:
            self._horizons[recording_id] = max(horizon, self._horizons.get(recording_id, 0))
            self._due.add(recording_id)
            if changed:
                self._changed.add(recording_id)
            if ends:
                self._ending.add(recording_id)

    def resume(self) -> None:
        """Take up every recording where the database says analysis stopped (start of the daemon)."""
        recording, cursor = tables.recording.c, tables.cursor.c
        with self._reader.connect() as conn:
            rows = conn.execute(
                select(
                    recording.id, recording.fs_hz, recording.end_sample, recording.changed_from_sample, cursor.next_k
                ).select_from(tables.recording.outerjoin(tables.cursor))
            ).all()
        for recording_id, fs_hz, end_sample, changed_from, next_k in rows:
            if changed_from is not None or hops_ready(fs_hz, end_sample) > (next_k or 0):
                self.stored(recording_id, end_sample, changed=changed_from is not None)

    def is_finished(self, recording_id: int) -> bool:
        """Whether a complete recording was analysed to its last hop and its findings closed."""
        with self._reader.connect() as conn:
            recording = find_recording(conn, recording_id)
            cursor = findings.cursor(conn, recording_id)
        return cursor is not None and cursor.k >= hops_in(recording.fs_hz, recording.end_sample)

    def currents(self) -> list[tuple[Recording, Current]]:
        """Return the latest summary of each recording that was analysed since the start."""
        tracks = list(self._tracks.values())
        return [(track.recording, track.current) for track in tracks if track.current is not None]

    def lag_s(self) -> float:
        """Return how many seconds of ready signal wait for analysis, in the recording that waits most."""
        with self._lock:
            due = {key: self._horizons[key] for key in self._due | self._changed | self._at_work}
        tracks = dict(self._tracks)
        # of a recording that was never read the rate is not known yet: it counts as one hop
        behind = [self._ready(tracks[key], due[key]) - tracks[key].next_k if key in tracks else 1 for key in due]
        return float(HOP_S * max(0, *behind)) if behind else 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is being worked on, resting recordings included."""
        with self._lock:
            return not (self._due or self._changed or self._at_work)

    def run_batch(self) -> bool:
        """Analyse what is ready, at most `BATCH_HOPS` hops; return False when nothing was.

        A recording whose analysis fails (a damaged block, a fault in this software, a full disk) rests for `REST_S`
        and is tried again from what is committed; the others go on.
        """
        with self._running:
            with self._lock:
                now_s = self._clock.monotonic_s()
                resting = {key for key, until_s in self._rest_until_s.items() if until_s > now_s}
                due, changed = self._due - resting, self._changed - resting
                self._due -= due
                self._changed -= changed
                self._at_work = due | changed
            try:
                return self._attempt(due, changed)
            finally:
                with self._lock:
                    self._at_work = set()

    def _attempt(self, due: set[int], changed: set[int]) -> bool:
        try:
            return self._read_anew(changed) | self._forward(due)
        except Exception as error:
            concerned = due | changed
            for key in concerned:
                self._tracks.pop(key, None)
            if len(concerned) == 1:
                self._rest(due, changed, error)
                return False
            has_worked = False
            for key in sorted(concerned):
                has_worked |= self._attempt({key} & due, {key} & changed)
            return has_worked

    def _rest(self, due: set[int], changed: set[int], error: Exception) -> None:
        (key,) = due | changed
        self.counters["failures"] += 1
        self.last_failure = f"recording {key}: {error}"
        if isinstance(error, AnyecgError):
            log.error("analysis failed", recording=key, error=str(error), again_in_s=REST_S)
        else:
            log.exception("analysis failed", recording=key, again_in_s=REST_S)
        with self._lock:
            self._rest_until_s[key] = self._clock.monotonic_s() + REST_S
            self._due |= due
            self._changed |= changed

    def _track(self, recording_id: int) -> _Track:
        track = self._tracks.get(recording_id)
        if track is None:
            with self._reader.connect() as conn:
                recording = find_recording(conn, recording_id)
                cursor = findings.cursor(conn, recording_id)
            track = self._tracks[recording_id] = self._start(recording, cursor)
        return track

    def _start(self, recording: Recording, cursor: Checkpoint | None) -> _Track:
        if cursor is not None:
            try:
                return _Track(recording, self._session(recording, cursor), cursor.k, cursor.beats_until)
            except AnyecgError as error:
                log.info("analysed_anew", recording=recording.id, hops=cursor.k, reason=str(error))
        silent_until = 0 if cursor is None else cursor.k
        return _Track(recording, self._session(recording, Checkpoint(0, b"", 0)), 0, 0, silent_until)

    def _session(self, recording: Recording, at: Checkpoint) -> RhythmSession:
        return RhythmSession(recording.key, recording.fs_hz, recording.leads, self._rules, state=at.state or None)

    def _forward(self, due: set[int]) -> bool:
        ready = {key: self._ready(self._track(key), self._horizons[key]) for key in sorted(due)}
        tracks = [track for key, k in ready.items() if k > (track := self._track(key)).next_k or key in self._ending]
        if not tracks:
            return False
        share = max(1, BATCH_HOPS // len(tracks))
        spans = [(track.next_k, min(ready[track.recording.id], track.next_k + share)) for track in tracks]
        with self._reader.connect() as conn:
            for track in tracks:
                track.recording = find_recording(conn, track.recording.id)  # its clock may have a new segment
        scored = self._score([track.recording for track in tracks], spans)
        passages = []
        ended: set[int] = set()
        for track, (k0, k1), scores in zip(tracks, spans, scored, strict=True):
            passage = self._passage(track.recording, Checkpoint(k0, b"", track.beats_until))
            for hop in scores:
                track.current = self._fold(passage, track.session, hop).current
            passage.k1 = k1
            key = track.recording.id
            if key in self._ending and k1 == ready[key]:
                self._keep(passage, max(k1 - 1, 0), track.session.finish(self._horizons[key]))
                passage.k1 = max(k1, 1)
                ended.add(key)
            track.next_k = k1
            track.beats_until = _until(passage)
            passage.end = Checkpoint(k1, track.session.dump(), track.beats_until)
            passages.append((track.recording, passage, k1 > track.silent_until))
        self._commit(passages)
        with self._lock:
            self._ending -= ended
            self._due |= {track.recording.id for track in tracks if track.next_k < ready[track.recording.id]}
        return True

    def _ready(self, track: _Track, horizon: int) -> int:
        fs_hz = track.recording.fs_hz
        return hops_in(fs_hz, horizon) if track.recording.id in self._ending else hops_ready(fs_hz, horizon)

    def _score(self, recordings: Sequence[Recording], spans: Sequence[tuple[int, int]]) -> list[list[HopScores]]:
        with self._reader.connect() as conn:
            jobs = [
                HopJob(partial(_read, conn, recording.id), recording.uv_per_lsb, recording.fs_hz, k0, k1)
                for recording, (k0, k1) in zip(recordings, spans, strict=True)
            ]
            return score_hops(self._encoder, jobs, stride_hops=self.stride.hops)

    def _passage(self, recording: Recording, start: Checkpoint) -> Passage:
        return Passage(
            recording.id, start.k, start.k, start.beats_until, self._analysis_id, self._encoder.card.checkpoint
        )

    def _fold(self, passage: Passage, session: RhythmSession, hop: HopScores) -> HopResult:
        result = session.feed(hop)
        self._keep(passage, hop.k, result)
        if not np.isnan(hop.embedding[0]):
            passage.embeddings.append((hop.k, hop.embedding))
        if (hop.k + 1) % CHECKPOINT_HOPS == 0:
            passage.checkpoints.append(Checkpoint(hop.k + 1, session.dump(), _until(passage)))
        return result

    def _keep(self, passage: Passage, k: int, result: HopResult) -> None:
        passage.beats += result.beats
        passage.trends += result.trends
        passage.told += [Told(k, finding) for finding in result.findings]

    def _read_anew(self, changed: set[int]) -> bool:
        for key in sorted(changed):
            self._repair(self._track(key))
        return bool(changed)

    def _repair(self, track: _Track) -> None:
        """Analyse again what late data touched, from the checkpoint before it until nothing differs any more."""
        recording = track.recording
        with self._reader.connect() as conn:
            changed = findings.changed_span(conn, recording.id)
            if changed is None:
                return
            first, stop = hops_touched(recording.fs_hz, *changed)
            stored = findings.checkpoints(conn, recording.id)
            track.recording = recording = find_recording(conn, recording.id)
        passages = []
        if first < track.next_k:
            start = max((c for c in stored if c.k <= first), key=lambda c: c.k, default=Checkpoint(0, b"", 0))
            later = {c.k: c for c in stored if c.k >= stop}
            passage = self._passage(recording, start)
            session = self._session(recording, start)
            met = self._again(passage, session, later, track.next_k)
            if met is None:
                passage.end = Checkpoint(track.next_k, session.dump(), _until(passage))
                track.session, track.beats_until = session, _until(passage)
            else:
                passage.beats_end = met.beats_until
            passages.append((recording, passage, True))
            self.counters["repairs"] += 1
            self.counters["repaired_hops"] += passage.k1 - passage.k0
        self._commit(passages, repaired=(recording.id, changed))

    def _again(
        self, passage: Passage, session: RhythmSession, later: Mapping[int, Checkpoint], until: int
    ) -> Checkpoint | None:
        """Fold hops from the passage's start; return the stored checkpoint that the state came to equal, if any."""
        with self._reader.connect() as conn:
            recording = find_recording(conn, passage.recording_id)
        k = passage.k0
        while k < until:
            k1 = min(k + BATCH_HOPS, until)
            for hop in self._score([recording], [(k, k1)])[0]:
                self._fold(passage, session, hop)
                passage.k1 = hop.k + 1
                met = later.get(passage.k1)
                if met is not None and met.state == session.dump():
                    return met
            k = k1
        passage.k1 = until
        return None

    def _commit(
        self,
        passages: Sequence[tuple[Recording, Passage, bool]],
        *,
        repaired: tuple[int, tuple[int, int]] | None = None,
    ) -> None:
        """Write passages, each with whether anybody is told; `repaired`: the changed span of a recording is done."""
        now_ns = self._clock.utc_ns()

        def job(conn: Connection) -> list[tuple[Recording, list[Change]]]:
            news = []
            for recording, passage, is_told in passages:
                changes = findings.commit_passage(
                    conn, passage, to_utc_ns=recording.to_utc_ns, fs_hz=recording.fs_hz, now_ns=now_ns
                )
                if is_told and changes:
                    self._tell(conn, recording, changes)
                    news.append((recording, changes))
            if repaired is not None:
                findings.clear_changed(conn, *repaired)
            return news

        for recording, changes in self._writer.submit(job).result():
            self.on_changed(recording, changes)
        for _, passage, _ in passages:
            self.counters["hops"] += passage.k1 - passage.k0
            self.counters["beats"] += len(passage.beats)
            self.counters["findings"] += len({told.finding.id for told in passage.told})


def _until(passage: Passage) -> int:
    return passage.beats[-1].sample + 1 if passage.beats else passage.beats_from


def _read(conn: Connection, recording_id: int, start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    wave = read(conn, recording_id, start, end)
    return wave.samples, wave.contact_off
