"""What people say about a recording: verdicts, notes, symptoms, corrections of beats and episodes.

A mark is written once and never changed; it can be undone, and the undone mark stays with the name of who undid it.
The machine's reading stays as it is: `correct_beats` and `correct_findings` lay the corrections over it for whoever
counts (burden, report, page).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, RowMapping, func, insert, select, update

from edge.encoder.contract import BEAT_CLASSES, MORPHOLOGIES
from edge.errors import BadInputError
from edge.rhythm.events import RULES
from edge.store import queries
from edge.store.beats import BEAT_DTYPE
from edge.store.tables import mark

KINDS = ("confirm", "false", "note", "ack", "snooze", "symptom", "beat", "episode")
VERDICTS = ("confirm", "false", "episode")
"""A finding with one of these is reviewed; the newest one counts."""
HUMAN_ID = "mark-"
"""What the id of an episode that only a person saw begins with."""
MAX_NOTE = 2_000
"""Characters."""
MAX_AUTHOR = 64
MAX_MARKS = 100_000
"""Per wearer."""
MAX_PER_FINDING = 1_000
MAX_SHOWN = 10_000
MAX_SNOOZE_S = 7 * 86_400
BEAT_TOLERANCE_S = 0.1
"""A correction means the beat that lies no farther from it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of `mark`."""

    id: int
    wearer: str
    finding_id: str | None
    kind: str
    note: str
    at_ns: int
    written_ns: int
    recording_id: int | None
    start_sample: int | None
    end_sample: int | None
    value: dict[str, Any] | None
    author: str
    undone_ns: int | None
    undone_by: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def perform(conn: Connection, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
    """Do what the control command `mark` asks, in the caller's transaction; return the mark as JSON.

    `{"undo": ID, "author": WHO}`, or a new mark: `kind`, `author` and
    confirm, false, ack: `event` (and `note`);
    note: `note` and `event`, or `wearer` and `at_ns`;
    symptom: `wearer` and `at_ns` (now if missing), `note`;
    snooze: `wearer`, `seconds` from now and, if not everything is meant, `rule`;
    beat: `recording_id`, `sample`, `type` (an AAMI class; null: there is no beat);
    episode: `event` and what is right instead of `rule`, `start_sample`, `end_sample`; without `event` an episode
    that the machine did not see: `recording_id` and all three.

    Raises:
        BadInputError: anything else.
    """
    author = _text(request, "author", MAX_AUTHOR)
    if "undo" in request:
        if request.keys() - {"undo", "author"}:
            raise BadInputError("an undo takes the number of the mark and its author, nothing else")
        return undo(conn, _integer(request, "undo"), author=author, now_ns=now_ns).as_json()
    kind = request.get("kind")
    if kind not in KINDS:
        raise BadInputError(f"there is no mark {kind!r}; choose from {', '.join(KINDS)}")
    allowed = {"kind", "author", "note", *_FIELDS[kind]}
    if request.keys() - allowed:
        raise BadInputError(f"mark {kind!r} takes no {', '.join(sorted(request.keys() - allowed))}")
    row = _ROWS[kind](conn, request, now_ns) | {
        "kind": kind,
        "note": _text(request, "note", MAX_NOTE, needed=kind == "note"),
        "author": author,
        "written_ns": now_ns,
    }
    _check_bounds(conn, row)
    return find(conn, int(conn.execute(insert(mark).values(row).returning(mark.c.id)).scalar_one())).as_json()


def undo(conn: Connection, mark_id: int, *, author: str, now_ns: int) -> Mark:
    """Take a mark back; it stays, with who did so and when. Raises `BadInputError` if it is unknown or undone."""
    found = find(conn, mark_id)
    if found.undone_ns is not None:
        raise BadInputError(f"mark {mark_id} was already undone by {found.undone_by or 'somebody'}")
    conn.execute(update(mark).where(mark.c.id == mark_id).values(undone_ns=now_ns, undone_by=author))
    return find(conn, mark_id)


def find(conn: Connection, mark_id: int) -> Mark:
    """Return one mark. Raises `BadInputError` if there is none."""
    row = conn.execute(select(mark).where(mark.c.id == mark_id)).mappings().first()
    if row is None:
        raise BadInputError(f"there is no mark {mark_id}")
    return _mark(row)


def of_finding(conn: Connection, finding_id: str) -> list[Mark]:
    """Return every mark of a finding, undone ones too, oldest first."""
    return _select(conn, mark.c.finding_id == finding_id, limit=MAX_PER_FINDING)


def of_episode(conn: Connection, event_id: str) -> list[Mark]:
    """Return every mark of a finding; of an episode that only a person saw, the mark it is."""
    number = event_id.removeprefix(HUMAN_ID)
    return of_finding(conn, event_id) if number == event_id else [find(conn, int(number))]


def in_period(
    conn: Connection, wearer: str, start_ns: int, end_ns: int, *, kinds: Sequence[str] = KINDS, undone: bool = False
) -> list[Mark]:
    """Return a wearer's marks at [start_ns, end_ns), oldest written first; undone ones only if asked for."""
    where = (mark.c.wearer == wearer) & (mark.c.at_ns >= start_ns) & (mark.c.at_ns < end_ns) & mark.c.kind.in_(kinds)
    return _select(conn, where if undone else where & mark.c.undone_ns.is_(None), limit=MAX_MARKS)


def snoozes(conn: Connection, wearer: str, now_ns: int) -> list[Mark]:
    """Return the snoozes of a wearer that are in force; `value` has `until_ns` and `rule` (None: every rule)."""
    since_ns = now_ns - MAX_SNOOZE_S * queries.NS
    found = in_period(conn, wearer, since_ns, now_ns + 1, kinds=("snooze",))
    return [one for one in found if one.value is not None and one.value["until_ns"] > now_ns]


def said(conn: Connection, finding_id: str) -> str | None:
    """Return what counts of what people said of an event: "false", "ack" or None; the newest verdict wins."""
    kinds = ("ack", "false", "confirm")
    where = (mark.c.finding_id == finding_id) & mark.c.kind.in_(kinds) & mark.c.undone_ns.is_(None)
    newest = _select(conn, where, limit=MAX_PER_FINDING)
    verdict = next((one.kind for one in reversed(newest) if one.kind != "ack"), None)
    if verdict == "false":
        return "false"
    return "ack" if newest else None


def verdicts(conn: Connection, finding_ids: Iterable[str]) -> dict[str, Mark]:
    """Return the verdict that counts for each finding that has one."""
    wanted, found = list(finding_ids), {}
    for at in range(0, len(wanted), 500):
        where = (
            mark.c.finding_id.in_(wanted[at : at + 500]) & mark.c.kind.in_(VERDICTS) & mark.c.undone_ns.is_(None)
        )  # fmt: skip
        found.update({m.finding_id: m for m in _select(conn, where, limit=MAX_MARKS) if m.finding_id is not None})
    return found


def corrected_beats(
    conn: Connection, recording: queries.Recording, start_sample: int, end_sample: int
) -> NDArray[np.void]:
    """Return the beats of a recording with start_sample ≤ sample < end_sample, as people corrected them."""
    margin = round(BEAT_TOLERANCE_S * recording.fs_hz)
    where = (
        (mark.c.recording_id == recording.id)
        & (mark.c.kind == "beat")
        & mark.c.undone_ns.is_(None)
        & (mark.c.start_sample >= start_sample - margin)
        & (mark.c.start_sample < end_sample + margin)
    )
    marks = _select(conn, where, limit=MAX_MARKS)
    read = queries.beats(conn, recording, start_sample - margin, end_sample + margin)
    beats = correct_beats(read, marks, recording.fs_hz)
    return beats[(beats["sample"] >= start_sample) & (beats["sample"] < end_sample)]


def correct_beats(beats: NDArray[np.void], marks: Sequence[Mark], fs_hz: float) -> NDArray[np.void]:
    """Return a `BEAT_DTYPE` array with beat marks laid over it, oldest first.

    A mark gives its class to the beat within `BEAT_TOLERANCE_S` of it (confidence 1), or makes one where there is
    none, or, without a class, removes it.
    """
    tolerance = round(BEAT_TOLERANCE_S * fs_hz)
    changed = beats.copy()
    for one in marks:
        assert one.start_sample is not None
        near = np.abs(changed["sample"] - one.start_sample)
        at = int(near.argmin()) if near.size else -1
        is_there = at >= 0 and near[at] <= tolerance
        kind = (one.value or {}).get("type")
        if kind is None:
            if is_there:
                changed = np.delete(changed, at)
        elif is_there:
            changed["type"][at], changed["confidence"][at] = BEAT_CLASSES.index(kind), 1.0
        else:
            new = (one.start_sample, BEAT_CLASSES.index(kind), MORPHOLOGIES.index("other"), 1.0)
            row = np.array([new], BEAT_DTYPE)
            changed = np.insert(changed, int(np.searchsorted(changed["sample"], one.start_sample)), row)
    return changed


def correct_findings(conn: Connection, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of `queries.findings` as people corrected them, each with `verdict`: confirm, false, episode or None.

    False alarms stay in the list, for whoever shows them; who counts leaves them out. A corrected episode has its
    right rule and span.
    """
    said = verdicts(conn, [row["id"] for row in rows])
    corrected = []
    clocks: dict[int, queries.Recording] = {}
    for row in rows:
        verdict = said.get(row["id"])
        new = {**row, "verdict": verdict.kind if verdict else None}
        if verdict is not None and verdict.kind == "episode":
            assert verdict.value is not None
            new |= {"rule": verdict.value["rule"]} | _span(conn, verdict, clocks)
        corrected.append(new)
    return corrected


def human_episodes(conn: Connection, wearer: str, start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Return the episodes that only a person saw, overlapping [start_ns, end_ns); their id is `mark-N`."""
    where = (mark.c.wearer == wearer) & (mark.c.kind == "episode") & mark.c.finding_id.is_(None)
    clocks: dict[int, queries.Recording] = {}
    standing = _select(conn, where & mark.c.undone_ns.is_(None) & (mark.c.at_ns < end_ns), limit=MAX_MARKS)
    rows = [_episode(conn, one, clocks) for one in standing]
    return [row for row in rows if row["end_ns"] > start_ns]


def find_episode(conn: Connection, event_id: str) -> dict[str, Any]:
    """Return a finding, or by `mark-N` an episode that only a person saw, undone or not, as a row of findings.

    Raises:
        BadInputError: there is none, or several findings begin so.
    """
    number = event_id.removeprefix(HUMAN_ID)
    if number == event_id:
        return queries.find_finding(conn, event_id)
    one = find(conn, int(number)) if number.isascii() and number.isdigit() and len(number) < 18 else None
    if one is None or one.kind != "episode" or one.finding_id is not None:
        raise BadInputError(f"there is no event {event_id!r}; `anyecg review list` shows what people added")
    return _episode(conn, one, {})


def place_span(conn: Connection, wearer: str, start_ns: int, end_ns: int, device: str | None = None) -> dict[str, int]:
    """Return `recording_id`, `start_sample` and `end_sample` of the recording that holds most of [start_ns, end_ns).

    Raises:
        BadInputError: nothing was recorded then (by that device).
    """
    spans = [
        (last - first, recording.id, first, last)
        for recording in queries.recordings(conn, wearer)
        if device in (None, recording.device)
        for first, last in recording.sample_spans(start_ns, end_ns)
    ]
    if not spans:
        by = f" by {device}" if device else ""
        raise BadInputError(f"nothing of {wearer} was recorded{by} then")
    _, recording_id, first, last = max(spans)
    return {"recording_id": recording_id, "start_sample": first, "end_sample": last}


def _episode(conn: Connection, one: Mark, clocks: dict[int, queries.Recording]) -> dict[str, Any]:
    assert one.value is not None
    span = _span(conn, one, clocks)
    return span | {
        "id": f"{HUMAN_ID}{one.id}",
        "wearer": one.wearer,
        "device": clocks[span["recording_id"]].device,
        "rule": one.value["rule"],
        "severity": "info",
        "state": "closed" if one.undone_ns is None else "undone",
        "evidence": {},
        "verdict": "episode" if one.undone_ns is None else None,
    }


def _span(conn: Connection, one: Mark, clocks: dict[int, queries.Recording]) -> dict[str, Any]:
    assert one.recording_id is not None
    assert one.start_sample is not None
    assert one.end_sample is not None
    if one.recording_id not in clocks:
        clocks[one.recording_id] = queries.find_recording(conn, one.recording_id)
    clock = clocks[one.recording_id]
    return {
        "recording_id": one.recording_id,
        "start_sample": one.start_sample,
        "end_sample": one.end_sample,
        "start_ns": clock.to_utc_ns(one.start_sample),
        "end_ns": clock.to_utc_ns(one.end_sample),
    }


def _select(conn: Connection, where: ColumnElement[bool], limit: int) -> list[Mark]:
    rows = conn.execute(select(mark).where(where).order_by(mark.c.id).limit(limit)).mappings()
    return [_mark(row) for row in rows]


def _mark(row: RowMapping) -> Mark:
    return Mark(**dict(row))


def _check_bounds(conn: Connection, row: dict[str, Any]) -> None:
    count = select(func.count()).select_from(mark)
    if int(conn.execute(count.where(mark.c.wearer == row["wearer"])).scalar_one()) >= MAX_MARKS:
        raise BadInputError(f"{row['wearer']} has {MAX_MARKS} marks already, which is the limit")
    finding_id = row.get("finding_id")
    if finding_id is None:
        return
    if int(conn.execute(count.where(mark.c.finding_id == finding_id)).scalar_one()) >= MAX_PER_FINDING:
        raise BadInputError(f"event {finding_id} has {MAX_PER_FINDING} marks already, which is the limit")


def _event_row(conn: Connection, request: dict[str, Any], _now_ns: int) -> dict[str, Any]:
    found = queries.find_finding(conn, _text(request, "event", 16, needed=True))
    return {"wearer": found["wearer"], "finding_id": found["id"], "at_ns": found["start_ns"]}


def _time_row(conn: Connection, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
    if request.get("event") is not None:
        return _event_row(conn, request, now_ns)
    wearer = queries.find_wearer(conn, _text(request, "wearer", 64, needed=True))
    at_ns = _integer(request, "at_ns") if request.get("at_ns") is not None else now_ns
    if not 0 <= at_ns <= now_ns + 86_400 * queries.NS:
        raise BadInputError("the time of a mark lies between 1970 and now")
    return {"wearer": wearer.id, "at_ns": at_ns}


def _snooze_row(conn: Connection, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
    wearer = queries.find_wearer(conn, _text(request, "wearer", 64, needed=True))
    seconds, rule = _integer(request, "seconds"), request.get("rule")
    if not 0 < seconds <= MAX_SNOOZE_S:
        raise BadInputError(f"a snooze lasts 1 s to {MAX_SNOOZE_S // 86_400} days, not {seconds} s")
    if rule is not None and rule not in RULES:
        raise BadInputError(f"there is no rule {rule!r}; choose from {', '.join(RULES)}")
    return {"wearer": wearer.id, "at_ns": now_ns, "value": {"until_ns": now_ns + seconds * queries.NS, "rule": rule}}


def _beat_row(conn: Connection, request: dict[str, Any], _now_ns: int) -> dict[str, Any]:
    recording = queries.find_recording(conn, _integer(request, "recording_id"))
    sample, kind = _integer(request, "sample"), request.get("type", "")
    if kind is not None and kind not in BEAT_CLASSES:
        raise BadInputError(f"there is no beat class {kind!r}; choose from {', '.join(BEAT_CLASSES)}, or none at all")
    if not 0 <= sample < recording.end_sample:
        raise BadInputError(f"sample {sample} lies outside the recording, which has {recording.end_sample}")
    margin = round(BEAT_TOLERANCE_S * recording.fs_hz)
    if kind is None and not corrected_beats(conn, recording, sample - margin, sample + margin + 1).size:
        raise BadInputError(f"there is no beat within {BEAT_TOLERANCE_S:g} s of sample {sample} to be removed")
    return _piece(recording, sample, sample + 1) | {"value": {"type": kind}}


def _episode_row(conn: Connection, request: dict[str, Any], _now_ns: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if request.get("event") is not None:
        found = queries.find_finding(conn, _text(request, "event", 16, needed=True))
        if request.get("recording_id", found["recording_id"]) != found["recording_id"]:
            raise BadInputError(f"event {found['id']} is of recording {found['recording_id']}")
    right = {
        name: request.get(name, found.get(name)) for name in ("recording_id", "rule", "start_sample", "end_sample")
    }
    recording = queries.find_recording(conn, _integer(right, "recording_id"))
    start, end, rule = _integer(right, "start_sample"), _integer(right, "end_sample"), right["rule"]
    if rule not in RULES:
        raise BadInputError(f"there is no rule {rule!r}; choose from {', '.join(RULES)}")
    if not 0 <= start < end <= recording.end_sample:
        raise BadInputError(f"samples {start} to {end} are no span of a recording of {recording.end_sample}")
    return _piece(recording, start, end) | {"finding_id": found.get("id"), "value": {"rule": rule}}


def _piece(recording: queries.Recording, start: int, end: int) -> dict[str, Any]:
    return {
        "wearer": recording.wearer,
        "at_ns": recording.to_utc_ns(start),
        "recording_id": recording.id,
        "start_sample": start,
        "end_sample": end,
    }


_ROWS = {
    "confirm": _event_row,
    "false": _event_row,
    "ack": _event_row,
    "note": _time_row,
    "symptom": _time_row,
    "snooze": _snooze_row,
    "beat": _beat_row,
    "episode": _episode_row,
}
_FIELDS: dict[str, tuple[str, ...]] = {
    "confirm": ("event",),
    "false": ("event",),
    "ack": ("event",),
    "note": ("event", "wearer", "at_ns"),
    "symptom": ("wearer", "at_ns"),
    "snooze": ("wearer", "seconds", "rule"),
    "beat": ("recording_id", "sample", "type"),
    "episode": ("event", "recording_id", "rule", "start_sample", "end_sample"),
}


def _text(request: dict[str, Any], name: str, longest: int, *, needed: bool = False) -> str:
    value = request.get(name) or ""
    if not isinstance(value, str) or len(value) > longest:
        raise BadInputError(f"{name} must be text of at most {longest} characters")
    value = "".join(c for c in value if c.isprintable() or c == "\n").strip()
    if needed and not value:
        raise BadInputError(f"{name} is missing")
    return value


def _integer(request: dict[str, Any], name: str) -> int:
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise BadInputError(f"{name} must be a whole number, not {value!r}")
    return value
