"""The whole first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "analysis",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("encoder", sa.String(length=64), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("rules_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_analysis")),
        sa.UniqueConstraint(
            "encoder",
            "weights_sha256",
            "rules_hash",
            "code_version",
            "provider",
            name=op.f("uq_analysis_encoder_weights_sha256_rules_hash_code_version_provider"),
        ),
    )
    op.create_table(
        "health",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_health")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("topic", sa.String(length=256), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("retain", sa.Boolean(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=True),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "question",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("asked_ns", sa.BigInteger(), nullable=False),
        sa.Column("wearer", sa.String(length=64), nullable=True),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_question")),
    )
    op.create_table(
        "sender",
        sa.Column("wearer", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("next_seq", sa.BigInteger(), nullable=False),
        sa.Column("ahead", sa.JSON(), nullable=False),
        sa.Column("updated_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("wearer", "device", "boot", name=op.f("pk_sender")),
    )
    op.create_table(
        "wearer",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wearer")),
    )
    op.create_table(
        "recording",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=16), nullable=False),
        sa.Column("wearer", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("leads", sa.JSON(), nullable=False),
        sa.Column("fs_hz", sa.Float(), nullable=False),
        sa.Column("uv_per_lsb", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_sample", sa.BigInteger(), nullable=False),
        sa.Column("last_received_ns", sa.BigInteger(), nullable=False),
        sa.Column("changed_from_sample", sa.BigInteger(), nullable=True),
        sa.Column("changed_until_sample", sa.BigInteger(), nullable=True),
        sa.Column("late_insertions", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["wearer"], ["wearer.id"], name=op.f("fk_recording_wearer")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recording")),
        sa.UniqueConstraint("key", name=op.f("uq_recording_key")),
    )
    with op.batch_alter_table("recording", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_recording_wearer"), ["wearer"], unique=False)

    op.create_table(
        "beats",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_beats_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", "minute", name=op.f("pk_beats")),
    )
    op.create_table(
        "block",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("block_no", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_block_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", "block_no", name=op.f("pk_block")),
    )
    op.create_table(
        "checkpoint",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("k", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("beats_until", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_checkpoint_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", "k", name=op.f("pk_checkpoint")),
    )
    op.create_table(
        "clock_segment",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("index0", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("device_time_ns", sa.BigInteger(), nullable=False),
        sa.Column("utc_ns", sa.BigInteger(), nullable=False),
        sa.Column("utc_source", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_clock_segment_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", "index0", name=op.f("pk_clock_segment")),
    )
    op.create_table(
        "contact_off",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("start_sample", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_sample", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_contact_off_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", "start_sample", name=op.f("pk_contact_off")),
    )
    op.create_table(
        "cursor",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("next_k", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("analysis_id", sa.Integer(), nullable=False),
        sa.Column("beats_until", sa.BigInteger(), nullable=False),
        sa.Column("silent_until_k", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"], name=op.f("fk_cursor_analysis_id")),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_cursor_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", name=op.f("pk_cursor")),
    )
    op.create_table(
        "embedding",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("encoder", sa.String(length=64), nullable=False),
        sa.Column("k", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_embedding_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", "encoder", "k", name=op.f("pk_embedding")),
    )
    op.create_table(
        "finding",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(length=24), nullable=False),
        sa.Column("severity", sa.String(length=10), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("opened_sample", sa.BigInteger(), nullable=False),
        sa.Column("start_sample", sa.BigInteger(), nullable=False),
        sa.Column("end_sample", sa.BigInteger(), nullable=False),
        sa.Column("detected_sample", sa.BigInteger(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("opened_k", sa.BigInteger(), nullable=False),
        sa.Column("told_k", sa.BigInteger(), nullable=False),
        sa.Column("superseded_by", sa.String(length=16), nullable=True),
        sa.Column("analysis_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"], name=op.f("fk_finding_analysis_id")),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_finding_recording_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_finding")),
    )
    with op.batch_alter_table("finding", schema=None) as batch_op:
        batch_op.create_index("ix_finding_recording_start", ["recording_id", "start_sample"], unique=False)
        batch_op.create_index("ix_finding_rule_start", ["rule", "start_ns"], unique=False)

    op.create_table(
        "gap",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("start_sample", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_sample", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_gap_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", "start_sample", name=op.f("pk_gap")),
    )
    op.create_table(
        "inbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("start_sample", sa.BigInteger(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("device_time_ns", sa.BigInteger(), nullable=False),
        sa.Column("utc_ns", sa.BigInteger(), nullable=True),
        sa.Column("received_ns", sa.BigInteger(), nullable=False),
        sa.Column("contact", sa.Boolean(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_inbox_recording_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox")),
        sa.UniqueConstraint("recording_id", "boot", "seq", name=op.f("uq_inbox_recording_id_boot_seq")),
    )
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.create_index("ix_inbox_start", ["recording_id", "start_sample"], unique=False)

    op.create_table(
        "trend",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("utc_ns", sa.BigInteger(), nullable=False),
        sa.Column("hr_bpm", sa.Float(), nullable=True),
        sa.Column("hr_min_bpm", sa.Float(), nullable=True),
        sa.Column("hr_max_bpm", sa.Float(), nullable=True),
        sa.Column("beats", sa.JSON(), nullable=False),
        sa.Column("readable_s", sa.Float(), nullable=False),
        sa.Column("recorded_s", sa.Float(), nullable=False),
        sa.Column("rhythm", sa.String(length=8), nullable=False),
        sa.Column("af_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_trend_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", "minute", name=op.f("pk_trend")),
    )
    with op.batch_alter_table("trend", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_trend_utc_ns"), ["utc_ns"], unique=False)

    op.create_table(
        "finding_revision",
        sa.Column("finding_id", sa.String(length=16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.Column("written_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["finding_id"], ["finding.id"], name=op.f("fk_finding_revision_finding_id")),
        sa.PrimaryKeyConstraint("finding_id", "revision", name=op.f("pk_finding_revision")),
    )
    op.create_table(
        "mark",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("wearer", sa.String(length=64), nullable=False),
        sa.Column("finding_id", sa.String(length=16), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("written_ns", sa.BigInteger(), nullable=False),
        sa.Column("recording_id", sa.Integer(), nullable=True),
        sa.Column("start_sample", sa.BigInteger(), nullable=True),
        sa.Column("end_sample", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.JSON(), nullable=True),
        sa.Column("author", sa.String(length=64), server_default="", nullable=False),
        sa.Column("undone_ns", sa.BigInteger(), nullable=True),
        sa.Column("undone_by", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["finding_id"], ["finding.id"], name=op.f("fk_mark_finding_id")),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_mark_recording_id")),
        sa.ForeignKeyConstraint(["wearer"], ["wearer.id"], name=op.f("fk_mark_wearer")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mark")),
    )
    with op.batch_alter_table("mark", schema=None) as batch_op:
        batch_op.create_index("ix_mark_finding", ["finding_id"], unique=False)
        batch_op.create_index("ix_mark_wearer_at", ["wearer", "at_ns"], unique=False)
