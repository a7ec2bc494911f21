"""The simulated carrier's bookings, which the previous version kept in the schema `shipment`.

Its processes go on booking through the view `shipment.carrier_bookings` while both versions run.
"""

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None

_OWNER_OF_THE_TABLE = text("""
    SELECT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'shipment' AND c.relname = 'carrier_bookings' AND c.relkind = 'r'""")


def upgrade() -> None:
    """Moves the table with all its rows. Where the schema `shipment` has none, creates it."""
    connection = op.get_bind()
    shipment = connection.scalar(_OWNER_OF_THE_TABLE)
    if shipment is None:
        op.execute("""
            CREATE TABLE bookings (
                key text PRIMARY KEY,
                serial bigint NOT NULL
                    GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START WITH 0 MAXVALUE 2499999999),
                origin text NOT NULL, booked_at timestamptz NOT NULL DEFAULT now())""")
        op.execute("COMMENT ON COLUMN bookings.origin IS 'the country of the tracking number'")
        return
    carrier = connection.scalar(text("SELECT current_user"))
    op.execute("RESET ROLE")  # the user who migrates is a member of both roles
    for statement in (
        "ALTER TABLE shipment.carrier_bookings SET SCHEMA carrier",
        "ALTER TABLE carrier.carrier_bookings RENAME TO bookings",
        "ALTER INDEX carrier.carrier_bookings_pkey RENAME TO bookings_pkey",
        "ALTER SEQUENCE carrier.carrier_bookings_serial_seq RENAME TO bookings_serial_seq",
        f'ALTER TABLE carrier.bookings OWNER TO "{carrier}"',
        f'GRANT SELECT, INSERT, UPDATE ON carrier.bookings TO "{shipment}"',
        "CREATE VIEW shipment.carrier_bookings AS SELECT * FROM carrier.bookings",
        f'ALTER VIEW shipment.carrier_bookings OWNER TO "{shipment}"',
    ):
        op.execute(statement)
    op.execute(f'SET LOCAL ROLE "{carrier}"')
