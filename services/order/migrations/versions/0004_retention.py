"""Retention: a function of the schema makes and drops partitions; indexes find old rows."""

from alembic import op

from events.migrations import upgrade_4

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    upgrade_4(op.execute)
    op.execute("CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at)")
