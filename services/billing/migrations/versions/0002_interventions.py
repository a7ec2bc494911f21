"""The record of what people did by hand."""

from alembic import op

from events.migrations import create_tables_2

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_tables_2(op.execute)
