"""Charges that the provider had, and a restored database did not."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE recovered_charges (
            charge text PRIMARY KEY, provider text NOT NULL, payment_id uuid NOT NULL,
            order_id uuid NOT NULL, order_reference text, key_hash text, amount bigint NOT NULL,
            currency text NOT NULL, charged_at timestamptz NOT NULL, decision text NOT NULL,
            to_refund bigint NOT NULL, refund_id uuid, refund_reference text, taken_by uuid,
            decided_at timestamptz NOT NULL DEFAULT now())""")
    op.execute("""
        CREATE INDEX recovered_charges_waiting ON recovered_charges (order_id)
        WHERE decision = 'kept' AND taken_by IS NULL""")
