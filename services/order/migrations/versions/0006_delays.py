"""The delays of orders; and waiting work says how its last try failed."""

from alembic import op

from events.migrations import upgrade_7

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    upgrade_7(op.execute)
    op.execute("""
        CREATE TABLE delays (
            order_id uuid NOT NULL REFERENCES orders (id), event_id uuid NOT NULL, type text NOT NULL,
            time timestamptz NOT NULL, facts bytea NOT NULL, PRIMARY KEY (order_id, event_id))""")
    op.execute("COMMENT ON COLUMN delays.facts IS 'what the order waits for, as JSON'")
