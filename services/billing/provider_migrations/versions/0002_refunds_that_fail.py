"""Refunds of the simulated provider that fail, or stay pending for a while."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the status of a refund; those made so far succeeded."""
    op.execute("ALTER TABLE refunds ADD COLUMN status text NOT NULL DEFAULT 'succeeded'")
