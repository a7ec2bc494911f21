"""Retention: a function of the schema makes and drops partitions; indexes find old rows."""

from alembic import op

from events.migrations import upgrade_4

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    upgrade_4(op.execute)
    op.execute("""
        CREATE INDEX mails_with_event ON mails (written_at)
        WHERE state IN ('sent', 'refused') AND event <> ''""")
    op.execute("COMMENT ON COLUMN mails.event IS 'the event as JSON; empty once the mail is old'")
