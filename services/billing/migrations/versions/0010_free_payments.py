"""Payments of 0, which have no payment method; the form of the requests to the payment provider."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """The payments that are there, and those that a process of the previous version adds, have form 1."""
    op.execute("""
        ALTER TABLE payments ALTER COLUMN payment_method DROP NOT NULL,
            ADD COLUMN form smallint NOT NULL DEFAULT 1""")
