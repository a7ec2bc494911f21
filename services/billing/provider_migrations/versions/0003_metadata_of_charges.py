"""The metadata of charges, and the index for listing the newest."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the metadata, empty for the charges that are there."""
    op.execute("ALTER TABLE charges ADD COLUMN order_reference text, ADD COLUMN key_hash text")
    op.execute("CREATE INDEX charges_created_at ON charges (created_at, id)")
