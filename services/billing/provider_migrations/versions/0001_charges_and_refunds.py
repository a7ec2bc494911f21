"""The ledger of the simulated payment provider."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the ledger's tables."""
    op.execute("""
        CREATE TABLE charges (
            id text PRIMARY KEY, key text NOT NULL UNIQUE, payment_id uuid NOT NULL, order_id uuid NOT NULL,
            amount bigint NOT NULL, currency text NOT NULL, payment_method text NOT NULL,
            status text NOT NULL, decline_code text, created_at timestamptz NOT NULL DEFAULT now())""")
    op.execute("CREATE INDEX charges_payment_id ON charges (payment_id)")
    op.execute("""
        CREATE TABLE refunds (
            id text PRIMARY KEY, key text NOT NULL UNIQUE, refund_id uuid NOT NULL,
            charge_id text NOT NULL REFERENCES charges, amount bigint NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now())""")
    op.execute("CREATE INDEX refunds_charge_id ON refunds (charge_id)")
