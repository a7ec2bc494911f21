"""Invoices and the counters of their numbers."""

from alembic import op

from events import migrations

revision = "0001"
down_revision = None


def upgrade() -> None:
    migrations.create_tables_1(op.execute)
    op.execute("""
        CREATE TABLE invoices (
            year integer NOT NULL, serial bigint NOT NULL CHECK (serial > 0), order_id uuid NOT NULL,
            issued_at timestamptz NOT NULL, snapshot bytea NOT NULL,
            PRIMARY KEY (year, serial), CONSTRAINT one_invoice_per_order UNIQUE (order_id))""")
    op.execute("COMMENT ON COLUMN invoices.snapshot IS 'the order as it was invoiced, as JSON'")
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'An issued invoice is never changed or deleted.'
                USING ERRCODE = 'restrict_violation', HINT = 'A correction is a document of its own.';
        END $$""")
    op.execute("""
        CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON invoices
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()""")
    op.execute("CREATE TABLE invoice_counters (year integer NOT NULL PRIMARY KEY, last bigint NOT NULL)")
    op.execute("COMMENT ON COLUMN invoice_counters.last IS 'the highest serial issued'")
