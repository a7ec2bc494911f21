"""The tables of `events`, as a service's Alembic history makes them. A change is a new function here."""

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

_CREATE_4 = (
    "CREATE INDEX outbox_published_at ON outbox USING brin (published_at)",
    "CREATE INDEX inbox_received_at ON inbox USING brin (received_at)",
    """
    CREATE FUNCTION renew_partitions(passed_over text[], moment timestamptz DEFAULT NULL,
        OUT act text, OUT partition_name text, OUT detail text)
    LANGUAGE plpgsql SET search_path FROM CURRENT SET timezone TO 'UTC' AS $function$
    DECLARE
        present timestamptz := coalesce(moment, clock_timestamp());
        parent text;
        parent_key text;
        lifetime interval;
        in_use text;
        week timestamptz;
        bounds uuid[];
        moved bigint;
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('partitions ' || current_schema));

        FOR parent, parent_key IN VALUES ('outbox', 'id'), ('inbox', 'event_id') LOOP
            FOR week IN SELECT generate_series(
                date_trunc('week', present), present + interval '3 weeks', interval '1 week')
            LOOP
                partition_name := format('%s_%s', parent, to_char(week, 'YYYYMMDD'));
                CONTINUE WHEN EXISTS (SELECT FROM pg_inherits
                    WHERE inhparent = parent::regclass AND inhrelid = to_regclass(partition_name));
                SELECT array_agg(
                    (lpad(to_hex((extract(epoch FROM edge) * 1000)::bigint), 12, '0')
                        || repeat('0', 20))::uuid ORDER BY edge)
                    INTO bounds FROM (VALUES (week), (week + interval '1 week')) edges (edge);
                EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
                EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_default');
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition_name, parent);
                EXECUTE format(
                    'WITH moved AS (DELETE FROM %I WHERE %I >= $1 AND %2$I < $2 RETURNING *)
                        INSERT INTO %3$I SELECT * FROM moved',
                    parent || '_default', parent_key, partition_name) USING bounds[1], bounds[2];
                GET DIAGNOSTICS moved = ROW_COUNT;
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                    parent, partition_name, bounds[1], bounds[2]);
                act := 'made';
                IF moved > 0 THEN
                    detail := format('%s rows of its week were in %s_default', moved, parent);
                END IF;
                RETURN;
            END LOOP;
        END LOOP;

        FOR parent, lifetime, in_use IN VALUES
            ('outbox', interval '30 days', $in_use$
                SELECT 'held back' AS act, string_agg(format('%%s %%s', number, state), ' and ')
                    || format(', the first of them %%s', min(first)) AS detail
                FROM (SELECT state, count(*) AS number, min(id::text) AS first FROM %1$I
                        WHERE state = 'pending' GROUP BY state
                    UNION ALL SELECT state, count(*), min(id::text) FROM %1$I
                        WHERE state = 'dead' GROUP BY state) unfinished
                HAVING count(*) > 0
                UNION ALL
                SELECT 'kept', 'messages of it were published later'
                WHERE EXISTS (SELECT FROM %1$I WHERE published_at > $1)
                ORDER BY act LIMIT 1 $in_use$),
            ('inbox', interval '60 days', $in_use$
                SELECT 'kept', 'events of it were taken over later'
                WHERE EXISTS (SELECT FROM %1$I WHERE received_at > $1) $in_use$)
        LOOP
            FOR partition_name IN SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent = parent::regclass AND relname ~ ('^' || parent || '_[0-9]{8}$')
                    AND relname <= format('%s_%s', parent,
                        to_char(present - lifetime - interval '1 week', 'YYYYMMDD'))
                    AND relname <> ALL (passed_over)
                ORDER BY relname
            LOOP
                EXECUTE format(in_use, partition_name) INTO act, detail USING present - lifetime;
                IF act IS NULL THEN
                    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', parent);
                    EXECUTE format('LOCK TABLE %I, %I IN ACCESS EXCLUSIVE MODE NOWAIT',
                        partition_name, parent || '_default');
                    EXECUTE format(in_use, partition_name) INTO act, detail USING present - lifetime;
                END IF;
                IF act IS NULL THEN
                    EXECUTE format('DROP TABLE %I', partition_name);
                    act := 'dropped';
                    detail := format('its week ended over %s days ago', extract(day FROM lifetime));
                END IF;
                RETURN;
            END LOOP;
        END LOOP;
        partition_name := NULL;
    END $function$""",
    """
    COMMENT ON FUNCTION renew_partitions IS
        'Makes or drops one partition of outbox or inbox: the first that is due and not passed over.
Call it in transactions of its own with a short lock_timeout until act is null. Acts: made, dropped, kept
(rows of it are young), held back (rows of it are unfinished). Pass over the last two in the next call.'""",
)


def lease_columns_3(table: str) -> tuple[str, ...]:
    """Adds counters of failures, and an index of dead rows, to a table of leased work."""
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
    """The interventions; `execute` is Alembic's."""
    for statement in _CREATE_2:
        execute(statement)


def upgrade_3(execute: Callable[[str], object], *tables: str) -> None:
    """Counters of failed tries for outbox, parked events, and the service's own tables of leased work."""
    for table in ("outbox", "parked", *tables):
        for statement in lease_columns_3(table):
            execute(statement)


def upgrade_4(execute: Callable[[str], object]) -> None:
    """The function that makes and drops partitions, and its indexes; `execute` is Alembic's."""
    for statement in _CREATE_4:
        execute(statement)


def upgrade_5(execute: Callable[[str], object]) -> None:
    """The digest in the inbox, to find an event id with two payloads; `execute` is Alembic's."""
    execute("ALTER TABLE inbox ADD COLUMN digest bigint")
    execute("COMMENT ON COLUMN inbox.digest IS 'CRC-32 of the event as it came'")


def upgrade_7(execute: Callable[[str], object], *tables: str) -> None:
    """The last failure of leased work, and the reasons for which its delay was announced."""
    for table in ("outbox", "parked", *tables):
        execute(f"ALTER TABLE {table} ADD COLUMN last_failure text, ADD COLUMN delayed_for text[]")


def upgrade_8(execute: Callable[[str], object]) -> None:
    """The check of joined statements (`statements.joined`); `execute` is Alembic's."""
    execute("""
    CREATE FUNCTION expect_rows(expected bigint, actual bigint, statement text) RETURNS boolean
    LANGUAGE plpgsql AS $function$
    BEGIN
        IF actual <> expected THEN
            RAISE EXCEPTION 'expected % rows, but found %: %', expected, actual, statement USING
                HINT = 'This is no fault: the work is done again, waiting for each answer.';
        END IF;
        RETURN true;
    END $function$""")
    execute("COMMENT ON FUNCTION expect_rows IS 'Fails a statement with an unexpected number of rows.'")


def create_tables_8(execute: Callable[[str], object]) -> None:
    """Every table of `events` as of change 8: where the history of a new service begins."""
    create_tables_1(execute)
    create_tables_2(execute)
    upgrade_3(execute)
    upgrade_4(execute)
    upgrade_5(execute)
    upgrade_7(execute)
    upgrade_8(execute)
