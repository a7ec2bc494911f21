"""Orders, their timelines and their idempotency keys."""

from alembic import op

from events import migrations

revision = "0001"
down_revision = None


def upgrade() -> None:
    migrations.create_tables_1(op.execute)
    op.execute("""
        CREATE TABLE orders (
            id uuid NOT NULL PRIMARY KEY, created_at timestamptz NOT NULL, reference text,
            currency text NOT NULL, total bigint NOT NULL CHECK (total > 0), snapshot bytea NOT NULL)""")
    op.execute("COMMENT ON COLUMN orders.total IS 'in minor units of the currency'")
    op.execute("COMMENT ON COLUMN orders.snapshot IS 'the whole order as it was accepted, as JSON'")
    op.execute("""
        CREATE TABLE timeline (
            order_id uuid NOT NULL REFERENCES orders (id), event_id uuid NOT NULL, type text NOT NULL,
            time timestamptz NOT NULL, facts bytea NOT NULL, PRIMARY KEY (order_id, event_id))""")
    op.execute("COMMENT ON COLUMN timeline.facts IS 'what the event knows beyond the order, as JSON'")
    op.execute("""
        CREATE TABLE idempotency_keys (
            key text NOT NULL PRIMARY KEY, fingerprint bytea NOT NULL, order_id uuid NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now())""")
    op.execute("COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 of what was asked for'")
