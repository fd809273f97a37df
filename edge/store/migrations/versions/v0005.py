"""A heart rate may come from a strap without ECG."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("trend", recreate="always") as batch_op:
        batch_op.add_column(sa.Column("pulse_s", sa.Float(), server_default="0", nullable=False))
