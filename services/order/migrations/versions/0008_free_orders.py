"""An order's total may be 0."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE orders DROP CONSTRAINT orders_total_check,
            ADD CONSTRAINT orders_total_check CHECK (total >= 0)""")
