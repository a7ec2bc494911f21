"""The tables of `events` as a service's Alembic history makes them. A change here is a new function."""

from collections.abc import Callable

_CREATE_1 = (
    """
    CREATE TABLE outbox (
        id uuid NOT NULL PRIMARY KEY, type text NOT NULL, body bytea NOT NULL, event_ids uuid[] NOT NULL,
        order_ids uuid[] NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), published_at timestamptz,
        state text NOT NULL, claimed_until timestamptz NOT NULL, attempts integer NOT NULL DEFAULT 0,
        last_error text) PARTITION BY RANGE (id)""",
    "CREATE INDEX outbox_waiting ON outbox (claimed_until) WHERE state = 'pending'",
    "CREATE TABLE outbox_default PARTITION OF outbox DEFAULT",
    """
    CREATE TABLE inbox (
        event_id uuid NOT NULL PRIMARY KEY, received_at timestamptz NOT NULL DEFAULT now()
    ) PARTITION BY RANGE (event_id)""",
    "CREATE TABLE inbox_default PARTITION OF inbox DEFAULT",
    """
    CREATE TABLE attempts (
        event_id uuid NOT NULL PRIMARY KEY, count integer NOT NULL,
        last_at timestamptz NOT NULL DEFAULT now())""",
    """
    CREATE TABLE parked (
        id uuid NOT NULL PRIMARY KEY, type text NOT NULL, order_id uuid, body bytea NOT NULL,
        reason text NOT NULL, first_failed_at timestamptz NOT NULL DEFAULT now(),
        last_failed_at timestamptz NOT NULL DEFAULT now(), state text NOT NULL,
        claimed_until timestamptz NOT NULL, attempts integer NOT NULL DEFAULT 0, last_error text)""",
    "CREATE INDEX parked_waiting ON parked (claimed_until) WHERE state = 'retry'",
    "COMMENT ON COLUMN parked.id IS 'the event''s id'",
    "COMMENT ON COLUMN parked.body IS 'the event as JSON'",
)

_CREATE_2 = (
    """
    CREATE TABLE interventions (
        id bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(),
        actor text NOT NULL, act text NOT NULL, event_id uuid, type text, order_id uuid, reason text,
        error text, note text)""",
    "COMMENT ON COLUMN interventions.actor IS 'who did it: the account on the operating system'",
    "COMMENT ON COLUMN interventions.event_id IS 'of the event, or of the row of work'",
    "COMMENT ON COLUMN interventions.reason IS 'why it was dead'",
)


def lease_columns_3(table: str) -> tuple[str, ...]:
    """What a table of waiting work gains: counters of its failures, and an index of what was given up."""
    return (
        f"""
        ALTER TABLE {table} ADD COLUMN defects integer NOT NULL DEFAULT 0,
            ADD COLUMN unknowns integer NOT NULL DEFAULT 0,
            ADD COLUMN waits_since timestamptz NOT NULL DEFAULT now()""",
        f"CREATE INDEX {table}_dead ON {table} (waits_since) WHERE state = 'dead'",
    )


def create_tables_1(execute: Callable[[str], object]) -> None:
    """Outbox, inbox, attempts and parked events, as of the first release; `execute` is Alembic's."""
    for statement in _CREATE_1:
        execute(statement)


def create_tables_2(execute: Callable[[str], object]) -> None:
    """The record of what people did by hand; `execute` is Alembic's."""
    for statement in _CREATE_2:
        execute(statement)


def upgrade_3(execute: Callable[[str], object], *tables: str) -> None:
    """Counters of failed tries for outbox, parked events, and the service's own tables of waiting work."""
    for table in ("outbox", "parked", *tables):
        for statement in lease_columns_3(table):
            execute(statement)
