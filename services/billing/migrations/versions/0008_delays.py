"""Waiting work says how its last try failed, and for which reasons its delay was announced."""

from alembic import op

from events.migrations import upgrade_7

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    upgrade_7(op.execute, "payments", "refunds")
