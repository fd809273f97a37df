"""Heart rate variability per minute."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trend", sa.Column("rmssd_ms", sa.Float(), nullable=True))
    op.add_column("trend", sa.Column("sdnn_ms", sa.Float(), nullable=True))
