"""Waiting work says how its last try failed, and for which reasons its delay was announced."""

from alembic import op

from events.migrations import upgrade_7

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    upgrade_7(op.execute, "shipments")
