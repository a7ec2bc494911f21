"""Refunds that a person made by hand."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE refunds ADD COLUMN by_hand boolean NOT NULL DEFAULT false")
