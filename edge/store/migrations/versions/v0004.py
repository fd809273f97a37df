"""What was measured of a device's clock, kept with each clock segment."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("clock_segment", recreate="always") as batch_op:
        batch_op.add_column(sa.Column("stamp_ns", sa.BigInteger()))
        batch_op.add_column(sa.Column("rate_hz", sa.Float()))
        batch_op.add_column(sa.Column("drift_ppm", sa.Float()))
