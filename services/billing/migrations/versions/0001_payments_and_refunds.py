"""Payments and refunds."""

from alembic import op

from events import migrations

revision = "0001"
down_revision = None

_LEASE = """
    state text NOT NULL, claimed_until timestamptz NOT NULL, attempts integer NOT NULL DEFAULT 0,
    last_error text"""


def upgrade() -> None:
    migrations.create_tables_1(op.execute)
    op.execute(f"""
        CREATE TABLE payments (
            id uuid PRIMARY KEY, order_id uuid NOT NULL UNIQUE, amount bigint NOT NULL,
            currency text NOT NULL, payment_method text NOT NULL, snapshot bytea NOT NULL,
            generation integer NOT NULL DEFAULT 1,
            first_tried_at timestamptz NOT NULL DEFAULT now(), provider text, provider_reference text,
            reason_code text, reason_message text, created_at timestamptz NOT NULL DEFAULT now(),
            settled_at timestamptz, {_LEASE})""")
    op.execute("CREATE INDEX payments_waiting ON payments (claimed_until) WHERE state = 'pending'")
    op.execute(f"""
        CREATE TABLE refunds (
            id uuid PRIMARY KEY, order_id uuid NOT NULL, cause text NOT NULL,
            payment_id uuid NOT NULL REFERENCES payments, amount bigint NOT NULL, currency text NOT NULL,
            snapshot bytea NOT NULL, generation integer NOT NULL DEFAULT 1,
            first_tried_at timestamptz NOT NULL DEFAULT now(), provider_reference text,
            created_at timestamptz NOT NULL DEFAULT now(), settled_at timestamptz, {_LEASE},
            UNIQUE (order_id, cause))""")
    op.execute("CREATE INDEX refunds_waiting ON refunds (claimed_until) WHERE state = 'pending'")
