"""Raw signal may expire; a device may move to another wearer."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "expiry",
        sa.Column("recording_id", sa.Integer(), nullable=False),
        sa.Column("until_sample", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name=op.f("fk_expiry_recording_id")),
        sa.PrimaryKeyConstraint("recording_id", name=op.f("pk_expiry")),
    )
    op.create_table(
        "assignment",
        sa.Column("wearer", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("since_ns", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("worn_by", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["worn_by"], ["wearer.id"], name=op.f("fk_assignment_worn_by")),
        sa.PrimaryKeyConstraint("wearer", "device", "since_ns", name=op.f("pk_assignment")),
    )
