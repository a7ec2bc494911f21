"""The inbox keeps a digest of each event: another payload under its id is noticed."""

from alembic import op

from events.migrations import upgrade_5

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    upgrade_5(op.execute)
