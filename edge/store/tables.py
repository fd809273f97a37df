"""The tables. Sample indices count from a recording's first sample; `*_ns` are ns since 1970 UTC."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _recording() -> Column[int]:
    return Column("recording_id", Integer, ForeignKey("recording.id"), nullable=False)


wearer = Table(
    "wearer",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("timezone", String(64), nullable=False),  # IANA name
    Column("created_ns", BigInteger, nullable=False),
)

recording = Table(  # one device on one wearer with one lead set and rate
    "recording",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(16), nullable=False, unique=True),  # `recording_key`; part of every finding id
    Column("wearer", String(64), ForeignKey("wearer.id"), nullable=False, index=True),
    Column("device", String(64), nullable=False),
    Column("leads", JSON, nullable=False),  # list of names
    Column("fs_hz", Float, nullable=False),
    Column("uv_per_lsb", JSON, nullable=False),  # list, one per lead
    Column("source", String(16), nullable=False),  # "live" or "import"
    Column("start_ns", BigInteger, nullable=False),  # UTC of sample 0
    Column("end_sample", BigInteger, nullable=False),  # the horizon: every sample below is stored or a decided gap
    Column("last_received_ns", BigInteger, nullable=False),
    Column("changed_from_sample", BigInteger),  # late data changed what analysis may have read; null when none did
    Column("changed_until_sample", BigInteger),  # exclusive
    Column("late_insertions", Integer, nullable=False, server_default="0"),  # how often late data filled a gap
)

clock_segment = Table(  # from index0 on, sample i was taken at utc_ns + (i - index0) / chunk.utc_rate_hz
    "clock_segment",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("index0", BigInteger, primary_key=True, autoincrement=False),
    Column("boot", BigInteger, nullable=False),
    Column("device_time_ns", BigInteger, nullable=False),  # stamp at index0 that places samples
    Column("utc_ns", BigInteger, nullable=False),
    Column("utc_source", String(8), nullable=False),  # "sender", "arrival" or "file"
    Column("stamp_ns", BigInteger),  # the device's own stamp at index0, raw, where device_time_ns is a grid made of it
    Column("rate_hz", Float),  # samples per second of device time, as measured when it began; null is nominal
    Column("drift_ppm", Float),  # how much faster UTC passes than device time, likewise; null is 0
)

sender = Table(  # how far the end-to-end acknowledgement of a device has come
    "sender",
    metadata,
    Column("wearer", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("boot", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, nullable=False),  # 0, 1, 2, … in the order the boots were first seen
    Column("next_seq", BigInteger, nullable=False),  # everything below is committed or given up by the sender
    Column("ahead", JSON, nullable=False),  # sorted disjoint [first, end) ranges committed above next_seq
    Column("updated_ns", BigInteger, nullable=False),
)

assignment = Table(  # a device whose topic or binding names `wearer` is worn by `worn_by` since then
    "assignment",
    metadata,
    Column("wearer", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("since_ns", BigInteger, primary_key=True, autoincrement=False),
    Column("worn_by", String(64), ForeignKey("wearer.id"), nullable=False),
)

inbox = Table(  # committed chunks on their way into blocks
    "inbox",
    metadata,
    Column("id", Integer, primary_key=True),
    _recording(),
    Column("boot", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("start_sample", BigInteger),  # null while a hole before it is still undecided
    Column("n", Integer, nullable=False),
    Column("device_time_ns", BigInteger, nullable=False),
    Column("utc_ns", BigInteger),
    Column("received_ns", BigInteger, nullable=False),
    Column("contact", Boolean),
    Column("data", LargeBinary, nullable=False),  # int32 [leads, n], C order, little endian
    UniqueConstraint("recording_id", "boot", "seq"),
    Index("ix_inbox_start", "recording_id", "start_sample"),
)

block = Table(  # block b holds samples [b·10·fs, (b+1)·10·fs), missing ones included
    "block",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("block_no", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

gap = Table(  # decided holes: nothing was recorded in [start, end)
    "gap",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("start_sample", BigInteger, primary_key=True, autoincrement=False),
    Column("end_sample", BigInteger, nullable=False),
)

expiry = Table(  # how far retention has gone: of the signal below, only the strips of kept findings are left
    "expiry",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("until_sample", BigInteger, nullable=False),
)

contact_off = Table(  # the device said the electrodes were off the body
    "contact_off",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("start_sample", BigInteger, primary_key=True, autoincrement=False),
    Column("end_sample", BigInteger, nullable=False),
)

analysis = Table(  # what read the signal
    "analysis",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("encoder", String(64), nullable=False),  # checkpoint id of the card
    Column("weights_sha256", String(64), nullable=False),
    Column("rules_hash", String(16), nullable=False),
    Column("code_version", String(32), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    UniqueConstraint("encoder", "weights_sha256", "rules_hash", "code_version", "provider"),
)

cursor = Table(  # how far analysis of a recording has come
    "cursor",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("next_k", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),  # of the rhythm session before hop next_k
    Column("analysis_id", Integer, ForeignKey("analysis.id"), nullable=False),
    Column("beats_until", BigInteger, nullable=False),  # every beat told so far lies before this sample
    Column("silent_until_k", BigInteger, nullable=False, server_default="0"),  # hops before it were told by other rules
)

checkpoint = Table(  # rhythm states to start again from when late data arrives
    "checkpoint",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("k", BigInteger, primary_key=True, autoincrement=False),
    Column("state", LargeBinary, nullable=False),
    Column("beats_until", BigInteger, nullable=False),
)

embedding = Table(  # float16 [192] per hop
    "embedding",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("encoder", String(64), primary_key=True),
    Column("k", BigInteger, primary_key=True, autoincrement=False),
    Column("vector", LargeBinary, nullable=False),
)

beats = Table(  # packed by `edge.store.beats`; minute m covers samples [m·60·fs, (m+1)·60·fs)
    "beats",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

trend = Table(
    "trend",
    metadata,
    Column("recording_id", Integer, ForeignKey("recording.id"), primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("utc_ns", BigInteger, nullable=False, index=True),  # of the minute's first sample
    Column("hr_bpm", Float),
    Column("hr_min_bpm", Float),
    Column("hr_max_bpm", Float),
    Column("beats", JSON, nullable=False),  # count per AAMI class
    Column("readable_s", Float, nullable=False),
    Column("recorded_s", Float, nullable=False),
    Column("rhythm", String(8), nullable=False),
    Column("af_s", Float, nullable=False),
    Column("pulse_s", Float, nullable=False, server_default="0"),  # covered by a strap's own RR intervals, without ECG
    Column("rmssd_ms", Float),
    Column("sdnn_ms", Float),
)

finding = Table(
    "finding",
    metadata,
    Column("id", String(16), primary_key=True),
    _recording(),
    Column("rule", String(24), nullable=False),
    Column("severity", String(10), nullable=False),
    Column("state", String(10), nullable=False),  # open, closed, retracted (late data showed otherwise)
    Column("revision", Integer, nullable=False),
    Column("opened_sample", BigInteger, nullable=False),
    Column("start_sample", BigInteger, nullable=False),
    Column("end_sample", BigInteger, nullable=False),
    Column("detected_sample", BigInteger, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("opened_k", BigInteger, nullable=False),  # hop whose analysis opened it
    Column("told_k", BigInteger, nullable=False),  # hop whose analysis gave this revision
    Column("superseded_by", String(16)),
    Column("analysis_id", Integer, ForeignKey("analysis.id"), nullable=False),
    Index("ix_finding_recording_start", "recording_id", "start_sample"),
    Index("ix_finding_rule_start", "rule", "start_ns"),
)

finding_revision = Table(  # every earlier state of a finding
    "finding_revision",
    metadata,
    Column("finding_id", String(16), ForeignKey("finding.id"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("row", JSON, nullable=False),
    Column("written_ns", BigInteger, nullable=False),
)

mark = Table(  # what a person said; never changed, only undone
    "mark",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("wearer", String(64), ForeignKey("wearer.id"), nullable=False),
    Column("finding_id", String(16), ForeignKey("finding.id")),
    Column("kind", String(16), nullable=False),  # `edge.store.marks.KINDS`, or snooze
    Column("note", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("written_ns", BigInteger, nullable=False),
    Column("recording_id", Integer, ForeignKey("recording.id")),  # of a corrected beat or episode
    Column("start_sample", BigInteger),
    Column("end_sample", BigInteger),
    Column("value", JSON),  # what is right instead: {"type": AAMI class or null} or {"rule": name}
    Column("author", String(64), nullable=False, server_default=""),
    Column("undone_ns", BigInteger),
    Column("undone_by", String(64)),
    Index("ix_mark_wearer_at", "wearer", "at_ns"),
    Index("ix_mark_finding", "finding_id"),
)

alert = Table(  # the last word on a finding, or why there was none
    "alert",
    metadata,
    Column("finding_id", String(16), primary_key=True),
    Column("wearer", String(64), nullable=False),
    Column("rule", String(24), nullable=False),
    Column("start_ns", BigInteger, nullable=False),  # of the finding
    Column("state", String(8), nullable=False),  # told, held (may yet be told) or dropped
    Column("reason", String(16), nullable=False),  # why it was held: cooldown, quiet, snoozed; "" if it never was
    Column("severity", String(10), nullable=False),  # last told
    Column("revision", Integer, nullable=False),  # last told, 0 if none was
    Column("told_ns", BigInteger, nullable=False),  # when, 0 if never
    Index("ix_alert_cooldown", "wearer", "rule", "start_ns"),
    Index("ix_alert_state", "state"),
)

outbox = Table(  # MQTT messages committed with what they tell; deleted when the broker has them
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("topic", String(256), nullable=False),
    Column("payload", Text, nullable=False),
    Column("retain", Boolean, nullable=False),
    Column("expires_ns", BigInteger),
    Column("created_ns", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

question = Table(
    "question",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("asked_ns", BigInteger, nullable=False),
    Column("wearer", String(64)),
    Column("question", Text, nullable=False),
    Column("answer", JSON, nullable=False),
)

health = Table(  # the daemon's view of itself, for `status`: provider and reason, queues, counters, links
    "health",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
    Column("updated_ns", BigInteger, nullable=False),
)
