"""Shipments and the simulated carrier's book."""

from alembic import op

from events import migrations

revision = "0001"
down_revision = None


def upgrade() -> None:
    migrations.create_tables_1(op.execute)
    op.execute("""
        CREATE TABLE shipments (
            id uuid NOT NULL PRIMARY KEY, order_id uuid NOT NULL, paid bytea NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(), state text NOT NULL,
            claimed_until timestamptz NOT NULL, attempts integer NOT NULL DEFAULT 0, last_error text,
            settled_at timestamptz, carrier text, tracking_number text, booked_at timestamptz,
            reason_code text, reason_message text,
            CONSTRAINT one_shipment_per_order UNIQUE (order_id),
            CONSTRAINT one_shipment_per_tracking_number UNIQUE (tracking_number))""")
    op.execute("CREATE INDEX shipments_waiting ON shipments (claimed_until) WHERE state = 'pending'")
    op.execute("COMMENT ON COLUMN shipments.paid IS 'the data of PAYMENT_CONFIRMED, as JSON'")
    op.execute("""
        CREATE TABLE carrier_bookings (
            key text NOT NULL PRIMARY KEY,
            serial bigint NOT NULL
                GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START WITH 0 MAXVALUE 2499999999),
            origin text NOT NULL, booked_at timestamptz NOT NULL DEFAULT now())""")
    op.execute("COMMENT ON COLUMN carrier_bookings.origin IS 'the country of the tracking number'")
