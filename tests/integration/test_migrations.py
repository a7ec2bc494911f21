"""A service's schema is as its code expects, only that service reaches it, and any migration is safe."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from chassis import database
from chassis.revisions import head
from events.partitions import INBOX_LIFETIME, OUTBOX_LIFETIME
from events.transactions import Transactions
from ops.migrate import AUDITOR, CARRIER, HISTORIES, ROLES, migrate, migrate_service, url_for
from ops.services import SERVICES
from services.shipment import s10, simulated
from services.shipment.carrier import Booked, Label
from tests.conftest import create_tables, new_database
from tests.factories import an_order
from tests.waiting import eventually

PASSWORDS = {role: role for role in ROLES}
LABEL = Label("Ana Souza", an_order().shipping_address)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def expected_metadata(connection: Connection, history: str) -> Any:
    """The tables that the history's env.py names as expected."""
    found: list[Any] = []

    def capture(_: object, context: MigrationContext) -> Iterator[Any]:
        found.append(context.opts["target_metadata"])
        return iter(())

    config = Config()
    config.set_main_option("script_location", history)
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(config, script, fn=capture):
        script.run_env()
    [metadata] = found
    return metadata


def differences(connection: Connection, history: str) -> list[Any]:
    """Changes that the database needs to be as the code expects, without partitions."""
    partitions = set(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))

    def is_compared(_: object, name: str | None, kind: str, reflected: bool, __: object) -> bool:
        return not (kind == "table" and reflected and name in partitions)

    options = {"include_object": is_compared, "compare_server_default": True}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, expected_metadata(connection, history)))


@pytest.mark.parametrize("schema", HISTORIES)
def test_services_wait_for_the_head_that_alembic_knows(schema: str) -> None:
    config = Config()
    config.set_main_option("script_location", HISTORIES[schema])
    assert head(HISTORIES[schema]) == ScriptDirectory.from_config(config).get_current_head()


@pytest.mark.parametrize("schema", HISTORIES)
async def test_the_migrated_schema_is_the_one_that_the_code_expects(fresh_database: str, schema: str) -> None:
    await migrate(fresh_database, PASSWORDS)
    async with connected(url_for(fresh_database, schema, password=schema)) as connection:
        assert await connection.run_sync(differences, HISTORIES[schema]) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE shipments DROP COLUMN carrier",
        "CREATE TABLE extra (id int)",
        "DROP INDEX shipments_waiting",
    ],
)
async def test_a_schema_that_differs_from_the_code_is_noticed(fresh_database: str, change: str) -> None:
    await migrate_service(fresh_database, "shipment", password="shipment")
    async with connected(url_for(fresh_database, "shipment", password="shipment")) as connection:
        await connection.execute(text(change))
        assert await connection.run_sync(differences, HISTORIES["shipment"]) != []


RELATIONS = text("""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(:schemas) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')""")
GRANTS = text("""
    SELECT n.nspname || '.' || c.relname, privilege_type
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid,
        LATERAL (SELECT * FROM aclexplode(c.relacl) UNION SELECT * FROM aclexplode(a.attacl)) granted
    WHERE n.nspname = ANY(:schemas) AND n.nspname <> :own AND grantee IN (0, to_regrole(:role))""")
"""Privileges on tables, views, sequences and columns of other schemas, for the role or for everybody."""
VIEWS = text("""
    SELECT DISTINCT v.relname, n.nspname || '.' || c.relname
    FROM pg_class v JOIN pg_rewrite r ON r.ev_class = v.oid
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE v.relnamespace = to_regnamespace(:own) AND c.relnamespace <> v.relnamespace""")
"""The service's views of relations in other schemas."""
GRANTS_FOR_ONE_VERSION = {"shipment": {("carrier.bookings", each) for each in ("SELECT", "INSERT", "UPDATE")}}
VIEWS_FOR_ONE_VERSION = {"shipment": {("carrier_bookings", "carrier.bookings")}}
"""The only exception: the previous version books through this view, whose owner needs the grants."""


async def test_a_service_reaches_its_own_schema_and_for_one_version_the_carriers_bookings(
    fresh_database: str,
) -> None:
    await migrate(fresh_database, PASSWORDS)
    async with connected(fresh_database) as owner:
        found = (await owner.execute(RELATIONS, {"schemas": list(HISTORIES)})).all()
    assert {schema for schema, _ in found} == set(HISTORIES)
    for service in HISTORIES:
        url = url_for(fresh_database, service, PASSWORDS[service])
        names = {"schemas": list(HISTORIES), "own": service, "role": f'"{make_url(url).username}"'}
        async with connected(url) as connection:
            reachable = {schema for schema, relation in found if await can_read(connection, schema, relation)}
            assert reachable == {service}
            grants = {tuple(row) for row in await connection.execute(GRANTS, names)}
            assert grants == GRANTS_FOR_ONE_VERSION.get(service, set())
            views = {tuple(row) for row in await connection.execute(VIEWS, {"own": service})}
            assert views == VIEWS_FOR_ONE_VERSION.get(service, set())
            assert await is_denied(connection, "CREATE TABLE public.mine (id int)")
            assert await is_denied(connection, "CREATE SCHEMA mine")


async def test_the_database_has_the_lifetimes_that_the_code_states(fresh_database: str) -> None:
    await create_tables(fresh_database)  # as the history of a new service begins
    await migrate(fresh_database, PASSWORDS)
    stated = {"outbox": OUTBOX_LIFETIME, "inbox": INBOX_LIFETIME}
    async with connected(fresh_database) as owner:
        functions = "SELECT pronamespace::regnamespace::text, prosrc FROM pg_proc WHERE proname = :name"
        rows = (await owner.execute(text(functions), {"name": "renew_partitions"})).all()
    assert {schema.strip('"') for schema, _ in rows} == {*SERVICES, "public"}
    for schema, body in rows:
        lifetimes = re.findall(r"\('(outbox|inbox)', interval '(\d+) days'", body)
        assert {table: timedelta(days=int(days)) for table, days in lifetimes} == stated, (
            f"renew_partitions in the schema {schema} drops partitions after other lifetimes than those of "
            "events.partitions. Replace the function in a new upgrade_N of events.migrations, call it in a "
            "new migration of every service, and let new services begin with a create_tables_N that has "
            "it (tests/conftest.py and docs/adding-a-service.md name the present one)."
        )


async def test_the_auditor_reads_every_schema_and_writes_none(fresh_database: str) -> None:
    await migrate(fresh_database, PASSWORDS)
    async with connected(url_for(fresh_database, "shipment", PASSWORDS["shipment"])) as service:
        await service.execute(text("CREATE TABLE made_later (id int)"))
    async with connected(fresh_database) as owner:
        tables = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY(:schemas)"
        found = (await owner.execute(text(tables), {"schemas": list(HISTORIES)})).all()
    async with connected(url_for(fresh_database, AUDITOR, PASSWORDS[AUDITOR])) as auditor:
        for schema, table in found:
            assert await can_read(auditor, schema, table)
        await auditor.execute(text("SET default_transaction_read_only TO off"))
        for schema, table in found:
            assert await is_denied(auditor, f'DELETE FROM "{schema}"."{table}"')
        assert await is_denied(auditor, "CREATE TABLE public.mine (id int)")


async def can_read(connection: AsyncConnection, schema: str, table: str) -> bool:
    return not await is_denied(connection, f'SELECT 1 FROM "{schema}"."{table}" LIMIT 1')


async def is_denied(connection: AsyncConnection, statement: str) -> bool:
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    try:
        await driver.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


async def test_migrating_again_and_by_two_at_once_changes_nothing(fresh_database: str) -> None:
    await asyncio.gather(migrate(fresh_database, PASSWORDS), migrate(fresh_database, PASSWORDS))
    async with connected(fresh_database) as owner:
        before = await owner.run_sync(everything)
    await migrate(fresh_database, PASSWORDS)
    async with connected(fresh_database) as owner:
        assert await owner.run_sync(everything) == before


def everything(connection: Connection) -> list[Any]:
    """Every relation and function in the services' schemas, with its owner, and every revision."""
    relations = connection.execute(
        text("""
            SELECT n.nspname, c.oid, c.relname, c.relkind, pg_get_userbyid(c.relowner)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = ANY(:schemas) ORDER BY c.oid"""),
        {"schemas": list(HISTORIES)},
    )
    revisions = [
        (schema, *connection.execute(text(f'SELECT version_num FROM "{schema}".alembic_version')).scalars())
        for schema in HISTORIES
    ]
    return [*relations, *revisions]


async def test_a_service_that_is_started_before_its_migration_waits_for_it(fresh_database: str) -> None:
    url = url_for(fresh_database, "shipment", password="shipment")
    async with database.connect(url, pool=2, application="early") as pool:
        waiting = asyncio.create_task(database.wait_for_schema(pool, head(HISTORIES["shipment"])))
        for _ in range(3):  # it has looked for its schema, and still waits
            await asyncio.wait([waiting], timeout=0.3)
            assert not waiting.done()
        await migrate_service(fresh_database, "shipment", password="shipment")
        async with asyncio.timeout(20):
            await waiting


async def test_a_service_that_logged_in_before_its_role_had_its_settings_goes_on(fresh_database: str) -> None:
    url = url_for(fresh_database, "shipment", password="shipment")
    role = str(make_url(url).username)
    async with connected(fresh_database) as owner:
        await owner.execute(text(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'shipment'"))

        async def sessions() -> int:
            query = text("SELECT count(*) FROM pg_stat_activity WHERE usename = :role AND query ~ 'alembic'")
            return int(await owner.scalar(query, {"role": role}) or 0)

        async with database.connect(url, pool=2, application="early") as pool:
            waiting = asyncio.create_task(database.wait_for_schema(pool, head(HISTORIES["shipment"])))
            await eventually(sessions, bool)
            await migrate_service(fresh_database, "shipment", password="shipment")
            async with asyncio.timeout(20):
                await waiting
            async with Transactions(pool)() as tx:
                await tx.fetch("SELECT FROM shipments")


async def test_no_service_can_log_in_before_its_role_has_its_settings(fresh_database: str) -> None:
    url = url_for(fresh_database, "shipment", password="shipment")
    name, role = make_url(url).database, str(make_url(url).username)
    async with connected(fresh_database) as owner, connected(fresh_database) as other:

        async def waits() -> int:
            query = "datname = current_database() AND wait_event_type = 'Lock'"
            return int(await owner.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {query}")) or 0)

        await other.execute(text("BEGIN"))
        await other.execute(text(f'GRANT CONNECT ON DATABASE "{name}" TO PUBLIC'))
        migrating = asyncio.create_task(migrate_service(fresh_database, "shipment", password="shipment"))
        await eventually(waits, bool)  # the migration is between the role's first statement and its last
        roles = await owner.scalar(
            text("SELECT count(*) FROM pg_roles WHERE rolname = :role"), {"role": role}
        )
        await other.execute(text("ROLLBACK"))
        await migrating
        assert roles == 0
        settings = text("SELECT setconfig FROM pg_db_role_setting WHERE setrole = to_regrole(:role)")
        assert "search_path=shipment" in await owner.scalar(settings, {"role": f'"{role}"'})


async def test_a_process_accepts_a_schema_that_a_newer_version_has_brought_further(
    fresh_database: str,
) -> None:
    await migrate_service(fresh_database, "shipment", password="shipment")
    url = url_for(fresh_database, "shipment", password="shipment")
    async with connected(url) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    async with database.connect(url, pool=2, application="older") as pool, asyncio.timeout(5):
        await database.wait_for_schema(pool, head(HISTORIES["shipment"]))


async def test_an_older_migration_leaves_a_newer_schema_as_it_is(fresh_database: str) -> None:
    await migrate(fresh_database, PASSWORDS)
    async with connected(fresh_database) as owner:
        await owner.execute(text("UPDATE shipment.alembic_version SET version_num = '9999'"))
        before = await owner.run_sync(everything)
    await migrate(fresh_database, PASSWORDS)
    async with connected(fresh_database) as owner:
        assert await owner.run_sync(everything) == before


BOOK = """
    INSERT INTO carrier_bookings (key, origin)
    SELECT row.key, row.origin FROM unnest($1::TEXT[], $2::TEXT[]) AS row (key, origin)
    ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING key, serial, origin, booked_at"""
"""How processes of the version before the carrier's own schema book, as shipment's role."""


@pytest.fixture
async def before_the_carriers_schema(postgres: str) -> AsyncIterator[str]:
    """A database whose carrier's bookings are shipment's; its owner is no superuser, as on RDS."""
    async with new_database(postgres) as url, connected(url) as server:
        name = make_url(url).database
        owner = f"{name}_owner"
        await server.execute(text(f"CREATE ROLE \"{owner}\" LOGIN CREATEROLE PASSWORD 'owner'"))
        await server.execute(text(f'ALTER DATABASE "{name}" OWNER TO "{owner}"'))
        owned = make_url(url).set(username=owner, password="owner").render_as_string(hide_password=False)
        for service in SERVICES:
            await migrate_service(owned, service, PASSWORDS[service])
        yield owned


@asynccontextmanager
async def of_the_previous_version(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(url_for(url, "shipment", "shipment").replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def test_both_versions_get_the_same_booking_for_the_same_key(before_the_carriers_schema: str) -> None:
    url = before_the_carriers_schema
    async with of_the_previous_version(url) as previous:
        book = await previous.prepare(BOOK)
        old = await book.fetch(["order-1", "order-2"], ["BR", "BR"])
        for _ in range(2):
            await migrate(url, PASSWORDS)
        assert await book.fetch(["order-1", "order-2"], ["PT", "PT"]) == old
        async with simulated.connect(url_for(url, CARRIER, CARRIER), "PT") as carrier:
            for record in old:
                answer = await carrier.book(record["key"], LABEL)
                assert answer == Booked(s10.identifier(record["serial"], "BR"), record["booked_at"])
            new = await carrier.book("order-3", LABEL)
        [again, other] = await book.fetch(["order-3", "order-4"], ["BR", "BR"])
        assert new == Booked(s10.identifier(again["serial"], "PT"), again["booked_at"])
        assert len({record["serial"] for record in (*old, again, other)}) == 4


async def test_a_booking_made_while_the_table_moves_is_kept(
    before_the_carriers_schema: str,
) -> None:
    url = before_the_carriers_schema
    async with (
        of_the_previous_version(url) as first,
        of_the_previous_version(url) as second,
        connected(url) as owner,
    ):

        async def waiting() -> int:
            query = "datname = current_database() AND wait_event_type = 'Lock'"
            return int(await owner.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {query}")) or 0)

        async with first.transaction():
            [booked] = await first.fetch(BOOK, ["order-1"], ["BR"])
            migrating = asyncio.create_task(migrate(url, PASSWORDS))
            await eventually(waiting, lambda count: count == 1)
            booking = asyncio.create_task(second.fetch(BOOK, ["order-1", "order-2"], ["BR", "BR"]))
            await eventually(waiting, lambda count: count == 2)
        await migrating
        [again, other] = await booking
        assert again == booked
        assert other["serial"] != booked["serial"]
        rows = await owner.execute(text("SELECT key FROM carrier.bookings ORDER BY key"))
        assert rows.scalars().all() == ["order-1", "order-2"]
