"""`Analyst`: reads what is stored, hop by hop, and writes what it means.

One batch at a time: take the hops that are ready in all recordings, score them together, fold each recording's hops
through its rhythm session, and commit each passage with state, cursor and outbox in one transaction. Late data makes
it start again from the checkpoint before the change and stop as soon as its state equals a stored one: from there on
nothing can differ. Such a repair goes in slices between the batches, so it never holds up another recording.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
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
from edge.encoder.windows import hops_in, hops_ready, hops_touched, samples_needed
from edge.errors import AnyecgError
from edge.rhythm.events import Current, HopResult
from edge.rhythm.rules import Rules, rules_hash
from edge.rhythm.session import RhythmSession
from edge.store import findings, tables
from edge.store.findings import Change, Checkpoint, Cursor, LateData, Passage, Told
from edge.store.queries import AFTER_ALL, Recording, find_recording, utc_at
from edge.store.waveform import Waveform, read
from edge.store.writer import Writer

log = structlog.get_logger()

BEGINNING = Checkpoint(0, b"", 0)
CHECKPOINT_HOPS = 30
"""A rhythm state is kept every minute of data."""
REST_S = 5.0
"""How long a recording waits whose analysis failed."""
BATCH_HOPS = 240
"""Most hops scored together: 8 minutes of one wearer, or 2 s of 240."""
COMMIT_HOPS = 60
"""Most hops written in one job, but for a single passage: samples wait behind it to be kept."""

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
    silent_until_k: int = 0
    """Hops before this one were told by an analysis with other rules: read again, nobody is told."""


@dataclass(slots=True)
class _Repair:
    """Late data on its way into what was said before."""

    late: LateData
    stop: int
    """From this hop on nothing was touched: the first equal state ends the repair."""
    session: RhythmSession
    passage: Passage


class Analyst:
    """Holds one rhythm session per recording; everything else is in the database.

    Everything may be called from any thread; batches run one at a time.
    """

    def __init__(
        self,
        reader: Engine,
        writer: Writer,
        encoder: Encoder,
        rules_of: Callable[[str], Rules],
        clock: Clock,
        tell: Tell,
        analysis_of: Callable[[str], int],
    ) -> None:
        """`rules_of` and `analysis_of` return the rules of a wearer and the id of the analysis that uses them."""
        self.reader = reader
        self._writer = writer
        self._encoder = encoder
        self._rules_of = rules_of
        self._clock = clock
        self._tell = tell
        self._analysis_of = analysis_of
        self.on_changed: Changed = lambda recording, changes: None
        self.stride = choose_stride(encoder)
        self._tracks: dict[int, _Track] = {}
        self.running = threading.Lock()
        self._lock = threading.Lock()
        self._horizons: dict[int, int] = {}
        self._due: set[int] = set()
        self._changed: set[int] = set()
        self._ending: set[int] = set()
        self._at_work: set[int] = set()
        self._busy_since_s: float | None = None
        self._repairs: dict[int, _Repair] = {}
        self._currents: dict[int, tuple[Recording, Current]] = {}
        self._rest_until_s: dict[int, float] = {}
        self._failing: dict[int, str] = {}
        self.last_failure = ""
        self.counters = {
            "hops": 0,
            "beats": 0,
            "findings": 0,
            "repairs": 0,
            "repaired_hops": 0,
            "reread_hops": 0,
            "failures": 0,
        }

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
        """Take up every recording where the database says analysis stopped, or went by other rules."""
        recording, cursor, analysis = tables.recording.c, tables.cursor.c, tables.analysis.c
        columns = (
            *(recording.id, recording.wearer, recording.leads, recording.fs_hz),
            *(recording.end_sample, recording.changed_from_sample),
        )
        source = tables.recording.outerjoin(tables.cursor).outerjoin(tables.analysis)
        with self.reader.connect() as conn:
            rows = conn.execute(select(*columns, cursor.next_k, analysis.rules_hash).select_from(source)).all()
        hashes = {wearer: rules_hash(self._rules_of(wearer)) for wearer in {row.wearer for row in rows}}
        for recording_id, wearer, leads, fs_hz, end_sample, changed_from, next_k, read_by in rows:
            if not leads:
                continue  # heartbeats of a strap without ECG
            rules = hashes[wearer]
            if changed_from is not None or read_by != rules or hops_ready(fs_hz, end_sample) > (next_k or 0):
                self.stored(recording_id, end_sample, changed=changed_from is not None)

    def is_finished(self, recording_id: int) -> bool:
        """Whether a complete recording was analysed to its last hop and its findings closed.

        Raises `AnyecgError` if its analysis fails.
        """
        with self._lock:
            failure = self._failing.get(recording_id)
        if failure is not None:
            raise AnyecgError(f"the recording is stored, but its analysis fails: {failure}")
        with self.reader.connect() as conn:
            recording = find_recording(conn, recording_id)
            cursor = findings.cursor(conn, recording_id)
        return cursor is not None and cursor.at.k >= hops_in(recording.fs_hz, recording.end_sample)

    def take_currents(self) -> list[tuple[Recording, Current]]:
        """Return how things stand at the end of each recording that was read since the last call."""
        with self._lock:
            taken, self._currents = self._currents, {}
        return list(taken.values())

    def lag_s(self) -> float:
        """Return how many seconds of ready signal wait for analysis, in the recording that waits most."""
        with self._lock:
            due = {key: self._horizons[key] for key in self._due | self._changed | self._at_work}
        tracks = dict(self._tracks)
        # of a recording that was never read the rate is not known yet: it counts as one hop
        behind = [self._ready(tracks[key], due[key]) - tracks[key].next_k if key in tracks else 1 for key in due]
        return float(HOP_S * max(0, *behind)) if behind else 0.0

    def busy_s(self) -> float:
        """Return for how long the batch that runs now has been running; 0 between batches."""
        with self._lock:
            return 0.0 if self._busy_since_s is None else self._clock.monotonic_s() - self._busy_since_s

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is being worked on, resting recordings included."""
        with self._lock:
            return not (self._due or self._changed or self._at_work)

    @property
    def failing(self) -> str:
        """Why a recording cannot be read now; empty when all of them can."""
        with self._lock:
            return next((f"recording {key}: {why}" for key, why in self._failing.items()), "")

    def forget(self, recording_ids: Sequence[int]) -> None:
        """Drop what is remembered of recordings; waits for the batch that runs."""
        with self.running, self._lock:
            for key in recording_ids:
                for known in (self._tracks, self._repairs, self._horizons, self._currents, self._rest_until_s):
                    known.pop(key, None)
                self._failing.pop(key, None)
                for waiting in (self._due, self._changed, self._ending):
                    waiting.discard(key)

    def run_batch(self) -> bool:
        """Analyse what is ready, at most `BATCH_HOPS` hops; return False when nothing was.

        A recording whose analysis fails (a damaged block, a fault in this software, a full disk) rests for `REST_S`
        and is tried again from what is committed; the others go on.
        """
        with self.running:
            with self._lock:
                now_s = self._clock.monotonic_s()
                resting = {key for key, until_s in self._rest_until_s.items() if until_s > now_s}
                due, changed = self._due - resting, self._changed - resting
                self._due -= due
                self._changed -= changed
                self._at_work = due | changed
                self._busy_since_s = now_s
            try:
                return self._attempt(due, changed)
            finally:
                with self._lock:
                    self._at_work = set()
                    self._busy_since_s = None

    def _attempt(self, due: set[int], changed: set[int]) -> bool:
        try:
            has_worked = self._forward(due)
            for key in sorted(changed):
                has_worked |= self._repair(self.track(key))
        except Exception as error:
            concerned = due | changed
            for key in concerned:
                self._tracks.pop(key, None)
                self._repairs.pop(key, None)
            if len(concerned) == 1:
                self._rest(due, changed, error)
                return False
            has_worked = False
            for key in sorted(concerned):
                has_worked |= self._attempt({key} & due, {key} & changed)
            return has_worked
        with self._lock:
            for key in due | changed:
                self._failing.pop(key, None)
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
            self._failing[key] = str(error)
            self._due |= due
            self._changed |= changed

    def track(self, recording_id: int) -> _Track:
        track = self._tracks.get(recording_id)
        if track is None:
            with self.reader.connect() as conn:
                recording = find_recording(conn, recording_id, since_sample=AFTER_ALL)
                cursor = findings.cursor(conn, recording_id)
            track = self._tracks[recording_id] = self._start(recording, cursor)
        return track

    def _start(self, recording: Recording, cursor: Cursor | None) -> _Track:
        if cursor is None:
            return _Track(recording, self.session(recording, BEGINNING), 0, 0)
        at = cursor.at
        try:
            return _Track(recording, self.session(recording, at), at.k, at.beats_until, cursor.silent_until_k)
        except AnyecgError as error:
            log.info("recording is read anew", recording=recording.id, hops=at.k, reason=str(error))
        return _Track(recording, self.session(recording, BEGINNING), 0, 0, max(at.k, cursor.silent_until_k))

    def session(self, recording: Recording, at: Checkpoint) -> RhythmSession:
        return RhythmSession(
            recording.key, recording.fs_hz, recording.leads, self._rules_of(recording.wearer), state=at.state or None
        )

    def _forward(self, due: set[int]) -> bool:
        """Read the next hops of recordings; one that is being repaired waits for that."""
        with self._lock:
            self._due |= due & self._repairs.keys()
            due = due - self._repairs.keys()
            horizons = {key: self._horizons[key] for key in due}
            ending = due & self._ending
        ready = {key: self._ready(self.track(key), horizons[key], key in ending) for key in sorted(due)}
        tracks = [track for key, k in ready.items() if k > (track := self.track(key)).next_k or key in ending]
        if not tracks:
            return False
        share = max(1, BATCH_HOPS // len(tracks))
        spans = [self._span(track, ready[track.recording.id], share) for track in tracks]
        scored = self._score(tracks, spans)
        passages = []
        for track, (k0, k1), scores in zip(tracks, spans, scored, strict=True):
            key = track.recording.id
            passage = self.passage(track.recording, Checkpoint(k0, b"", track.beats_until))
            for hop in scores:
                current = self.fold(passage, track.session, hop).current
                with self._lock:
                    self._currents[key] = (track.recording, current)
            passage.k1 = k1
            if key in ending and k1 == ready[key]:
                self.keep(passage, max(k1 - 1, 0), track.session.finish(horizons[key]))
                passage.k1 = max(k1, 1)
            track.next_k = k1
            track.beats_until = reached(passage)
            passage.end = Checkpoint(k1, track.session.dump(), track.beats_until)
            passage.silent_until_k = track.silent_until_k
            passages.append((track.recording, passage, k1 > track.silent_until_k))
        for group in _groups(passages):
            self._commit(group)
        with self._lock:
            for track in tracks:
                key = track.recording.id
                if track.next_k < ready[key]:
                    self._due.add(key)
                elif key in ending:  # complete: nothing more will come
                    self._ending.discard(key)
                    self._tracks.pop(key, None)
        return True

    def _ready(self, track: _Track, horizon: int, ends: bool = False) -> int:
        fs_hz = track.recording.fs_hz
        return hops_in(fs_hz, horizon) if ends else hops_ready(fs_hz, horizon)

    def _span(self, track: _Track, ready: int, share: int) -> tuple[int, int]:
        """Return the next hops of a recording; none of them are told if the first is not."""
        k1 = min(ready, track.next_k + share)
        if track.next_k < track.silent_until_k:
            k1 = min(k1, track.silent_until_k)
        return track.next_k, k1

    def score(self, recording: Recording, k0: int, k1: int) -> list[HopScores]:
        """Score hops [k0, k1) of one recording."""
        return self._score([_Track(recording, self.session(recording, BEGINNING), k0, 0)], [(k0, k1)])[0]

    def is_repairing(self, recording_id: int) -> bool:
        """Whether late data is on its way into a recording."""
        return recording_id in self._repairs

    def keep_embeddings(self, passage: Passage) -> None:
        """Write the embeddings of a long passage before the rest of it."""
        self._writer.submit(lambda conn: findings.write_embeddings(conn, passage)).result()
        passage.embeddings.clear()

    def replace(self, track: _Track, session: RhythmSession, passage: Passage, *, ends: bool) -> list[Change]:
        """Put a passage up to the end of what was read in the place of what was said before; nobody is told.

        ends  the recording is complete, and the passage closed its findings
        """
        with self.reader.connect() as conn:
            track.recording = recording = find_recording(conn, passage.recording_id)
        now_ns = self._clock.utc_ns()
        changes = self._writer.submit(
            lambda conn: findings.commit_passage(
                conn, passage, to_utc_ns=recording.to_utc_ns, fs_hz=recording.fs_hz, now_ns=now_ns
            )
        ).result()
        assert passage.end is not None
        track.session, track.next_k, track.beats_until = session, passage.end.k, passage.end.beats_until
        if ends:
            self._tracks.pop(recording.id, None)
        self.counters["reread_hops"] += passage.k1 - passage.k0
        self.on_changed(recording, changes)
        return changes

    def _score(self, tracks: Sequence[_Track], spans: Sequence[tuple[int, int]]) -> list[list[HopScores]]:
        jobs = []
        with self.reader.connect() as conn:
            for track, (k0, k1) in zip(tracks, spans, strict=True):
                key, fs_hz = track.recording.id, track.recording.fs_hz
                first, stop = (max(sample, 0) for sample in samples_needed(fs_hz, k0, max(k1, k0 + 1)))
                # its clock may have a segment more
                track.recording = recording = find_recording(conn, key, since_sample=first)
                wave = read(conn, key, first, stop if k1 > k0 else first)
                reader = partial(_stored, wave, first)
                jobs.append(HopJob(reader, recording.uv_per_lsb, recording.fs_hz, k0, k1))
        scored = iter(
            score_hops(self._encoder, [job for job in jobs if job.stop > job.first], stride_hops=self.stride.hops)
        )
        return [next(scored) if job.stop > job.first else [] for job in jobs]

    def passage(self, recording: Recording, start: Checkpoint) -> Passage:
        analysis_id = self._analysis_of(recording.wearer)
        return Passage(recording.id, start.k, start.k, start.beats_until, analysis_id, self._encoder.card.checkpoint)

    def fold(self, passage: Passage, session: RhythmSession, hop: HopScores) -> HopResult:
        result = session.feed(hop)
        self.keep(passage, hop.k, result)
        if not np.isnan(hop.embedding[0]):
            passage.embeddings.append((hop.k, hop.embedding))
        if (hop.k + 1) % CHECKPOINT_HOPS == 0:
            passage.checkpoints.append(Checkpoint(hop.k + 1, session.dump(), reached(passage)))
        return result

    def keep(self, passage: Passage, k: int, result: HopResult) -> None:
        passage.beats += result.beats
        passage.trends += result.trends
        passage.told += [Told(k, finding) for finding in result.findings]

    def _repair(self, track: _Track) -> bool:
        """Read again, a slice further, what late data touched: from the checkpoint before it until nothing differs."""
        key = track.recording.id
        repair = self._repairs.get(key) or self._begin_repair(track)
        if repair is None:
            return False
        passage, session = repair.passage, repair.session
        met: Checkpoint | None = None
        k1 = min(passage.k1 + BATCH_HOPS, track.next_k)
        for hop in self._score([track], [(passage.k1, k1)])[0]:
            self.fold(passage, session, hop)
            passage.k1 = hop.k + 1
            met = self._met(repair)
            if met is not None:
                break
        if met is None and passage.k1 < track.next_k:
            with self._lock:
                self._changed.add(key)
            return True
        if met is None:
            passage.end = Checkpoint(track.next_k, session.dump(), reached(passage))
            passage.silent_until_k = track.silent_until_k
            track.session, track.beats_until = session, reached(passage)
        else:
            passage.beats_end = met.beats_until
            track.beats_until = max(track.beats_until, reached(passage))
        self.counters["repairs"] += 1
        self.counters["repaired_hops"] += passage.k1 - passage.k0
        self._commit([(track.recording, passage, True)], repaired=(key, repair.late))
        del self._repairs[key]
        self._look_again(key)
        return True

    def _begin_repair(self, track: _Track) -> _Repair | None:
        """Return the repair that is due, None if late data lies ahead of everything that was read."""
        recording = track.recording
        with self.reader.connect() as conn:
            late = findings.late_data(conn, recording.id)
            if late is None:
                return None
            first, stop = hops_touched(recording.fs_hz, late.start, late.end)
            start = findings.checkpoint_before(conn, recording.id, first)
        if first >= track.next_k:
            self._commit([], repaired=(recording.id, late))
            self._look_again(recording.id)
            return None
        repair = _Repair(late, stop, self.session(recording, start), self.passage(recording, start))
        self._repairs[recording.id] = repair
        return repair

    def _met(self, repair: _Repair) -> Checkpoint | None:
        """Return the stored checkpoint after the repair's last hop if the repair came to the same state."""
        passage = repair.passage
        if passage.k1 < repair.stop or passage.k1 % CHECKPOINT_HOPS:
            return None
        with self.reader.connect() as conn:
            stored = findings.checkpoint_at(conn, passage.recording_id, passage.k1)
        return stored if stored is not None and stored.state == repair.session.dump() else None

    def _look_again(self, key: int) -> None:
        """Take up late data that came while a repair ran."""
        with self.reader.connect() as conn:
            more = findings.late_data(conn, key) is not None
        with self._lock:
            self._due.add(key)
            if more:
                self._changed.add(key)

    def _commit(
        self,
        passages: Sequence[tuple[Recording, Passage, bool]],
        *,
        repaired: tuple[int, LateData] | None = None,
    ) -> None:
        """Write passages, each with whether anybody is told; `repaired`: the late data of a recording is dealt with."""
        now_ns = self._clock.utc_ns()

        def job(conn: Connection) -> list[tuple[Recording, list[Change]]]:
            news = []
            for recording, passage, is_told in passages:
                to_utc_ns = partial(utc_at, conn, recording)
                changes = findings.commit_passage(
                    conn, passage, to_utc_ns=to_utc_ns, fs_hz=recording.fs_hz, now_ns=now_ns
                )
                if is_told and changes:
                    self._tell(conn, recording, changes)
                    news.append((recording, changes))
            if repaired is not None:
                findings.settle_late_data(conn, *repaired)
            return news

        for recording, changes in self._writer.submit(job).result():
            self.on_changed(recording, changes)
        for _, passage, _ in passages:
            self.counters["hops"] += passage.k1 - passage.k0
            self.counters["beats"] += len(passage.beats)
            self.counters["findings"] += len({told.finding.id for told in passage.told})


def _groups(passages: Sequence[tuple[Recording, Passage, bool]]) -> Iterator[list[tuple[Recording, Passage, bool]]]:
    """Cut passages into what one job may write."""
    group: list[tuple[Recording, Passage, bool]] = []
    hops = 0
    for one in passages:
        n = one[1].k1 - one[1].k0
        if group and hops + n > COMMIT_HOPS:
            yield group
            group, hops = [], 0
        group.append(one)
        hops += n
    if group:
        yield group


def reached(passage: Passage) -> int:
    return passage.beats[-1].sample + 1 if passage.beats else passage.beats_from


def _stored(wave: Waveform, first: int, start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    return wave.samples[:, start - first : end - first], wave.contact_off[start - first : end - first]
