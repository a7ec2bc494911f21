"""The record of mails."""

from alembic import op

from events.migrations import create_tables_1

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_tables_1(op.execute)
    op.execute("""
        CREATE TABLE mails (
            id uuid NOT NULL PRIMARY KEY, order_id uuid NOT NULL, stage text NOT NULL,
            recipient text NOT NULL, event bytea NOT NULL, written_at timestamptz NOT NULL DEFAULT now(),
            state text NOT NULL, claimed_until timestamptz NOT NULL, attempts integer NOT NULL DEFAULT 0,
            last_error text, message_id text, outcome text, sent_at timestamptz,
            CONSTRAINT mails_one_per_order_and_stage UNIQUE (order_id, stage))""")
    op.execute("CREATE INDEX mails_waiting ON mails (claimed_until) WHERE state = 'pending'")
    op.execute("COMMENT ON COLUMN mails.id IS 'the id of the event that it tells of'")
    op.execute("COMMENT ON COLUMN mails.stage IS 'the event''s type'")
    op.execute("COMMENT ON COLUMN mails.event IS 'the event as JSON'")
    op.execute("COMMENT ON COLUMN mails.outcome IS 'what the mail server said'")
