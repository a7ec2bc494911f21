"""Waiting work counts its defects and unknown outcomes apart, and what was given up has an index."""

from alembic import op

from events.migrations import upgrade_3

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    upgrade_3(op.execute, "shipments")
