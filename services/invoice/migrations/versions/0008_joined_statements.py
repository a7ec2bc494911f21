"""A statement that several are joined into can check how many rows each of them has."""

from alembic import op

from events.migrations import upgrade_8

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    upgrade_8(op.execute)
