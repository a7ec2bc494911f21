"""An invoice keeps its seller and its day of issue as they were when it was issued."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("ALTER TABLE invoices ADD COLUMN issued_on date, ADD COLUMN seller bytea")
    op.execute(
        "COMMENT ON COLUMN invoices.issued_on IS 'the day of issue where the seller is; null in version 1'"
    )
    op.execute(
        "COMMENT ON COLUMN invoices.seller IS 'the seller as of the issue, as JSON; null in version 1'"
    )
