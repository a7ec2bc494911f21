"""Invoice numbers that were lost in a restore."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE lost_numbers (
            year integer NOT NULL, first bigint NOT NULL, last bigint NOT NULL,
            recorded_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (year, first),
            CONSTRAINT lost_numbers_from_first_to_last CHECK (first <= last))""")
