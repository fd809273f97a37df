"""Marks say who, can be undone, and hold corrections of beats and episodes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("mark", recreate="always") as batch:
        batch.add_column(sa.Column("recording_id", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("start_sample", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("end_sample", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("value", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("author", sa.String(length=64), server_default="", nullable=False))
        batch.add_column(sa.Column("undone_ns", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("undone_by", sa.String(length=64), nullable=True))
        batch.create_foreign_key(op.f("fk_mark_recording_id"), "recording", ["recording_id"], ["id"])
        batch.create_index("ix_mark_wearer_at", ["wearer", "at_ns"])
        batch.create_index("ix_mark_finding", ["finding_id"])
