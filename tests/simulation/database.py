"""The simulation's database: a real PostgreSQL whose now() and random() are simulated."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from chassis import database
from events.connection import Connection
from events.errors import DatabaseUnavailable
from events.transaction import Transaction
from events.transactions import Transactions
from ops import migrate
from tests.simulation.endings import HANDLING, PING, TRANSACTION, Ending
from tests.simulation.scheduler import SWEEP, Scheduler

BEFORE_NOW: Final = timedelta(days=3)
"""A schedule begins so long ago that all of it is in the past for checks by the real clock."""

_SIMULATED: Final = """
    CREATE SCHEMA simulation;
    GRANT USAGE ON SCHEMA simulation TO PUBLIC;
    CREATE FUNCTION simulation.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS $$ SELECT pg_catalog.current_setting('simulation.now')::timestamptz $$;
    CREATE FUNCTION simulation.random() RETURNS float8 LANGUAGE sql STABLE AS $$ SELECT 0.5::float8 $$"""
_DEFAULTS: Final = """
    SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT simulation.now()',
        a.attrelid::regclass, a.attname)
    FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE pg_get_expr(d.adbin, d.adrelid) = 'now()'"""
_TABLES: Final = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname = ANY($1::text[]) AND c.relname <> 'alembic_version' ORDER BY 1"""
_SETTINGS: Final = (
    "enable_hashjoin TO off",  # the order of rows must not depend on hashes of ids
    "enable_hashagg TO off",
    "jit TO off",
    "synchronous_commit TO off",
)
_SWEEPING: Final = ("relay", "retries", "upkeep", "payments", "refunds", "bookings", "delivery")
"""Parts that sweep their tables, by the last words of their tasks' names."""


class SimulatedDatabase:
    """One database for many schedules; it is emptied between them and keeps its connections."""

    def __init__(
        self, url: str, pools: Mapping[str, "asyncpg.Pool[asyncpg.Record]"], owner: "asyncpg.Connection[Any]"
    ) -> None:
        self.url = url
        self.pools = pools
        self.owner = owner
        self._tables: list[str] = []

    async def empty(self) -> None:
        """Deletes every row."""
        if not self._tables:
            self._tables = [row[0] for row in await self.owner.fetch(_TABLES, list(self.pools))]
        query = " UNION ALL ".join(f"SELECT '{t}' WHERE EXISTS (SELECT FROM {t})" for t in self._tables)
        if full := [row[0] for row in await self.owner.fetch(query)]:
            await self.owner.execute(f"TRUNCATE {', '.join(full)} CASCADE")


@asynccontextmanager
async def simulated_database(url: str) -> AsyncIterator[SimulatedDatabase]:
    """A migrated database in which `now()` and `random()` are simulated."""
    passwords = {role: role for role in migrate.ROLES}
    await migrate.migrate(url, passwords)
    async with AsyncExitStack() as stack:
        owner = await asyncpg.connect(url.replace("+asyncpg", "", 1))
        stack.push_async_callback(owner.close)
        await owner.execute(_SIMULATED)
        for row in await owner.fetch(_DEFAULTS):
            await owner.execute(row[0])
        name = await owner.fetchval("SELECT current_database()")
        for schema in migrate.HISTORIES:
            role = database.role_of(name, schema)
            for setting in (f'search_path TO "{schema}", simulation, pg_catalog', *_SETTINGS):
                await owner.execute(f'ALTER ROLE "{role}" SET {setting}')
        await owner.execute("SET session_replication_role TO replica; SET synchronous_commit TO off")
        pools = {
            schema: await stack.enter_async_context(
                database.connect(
                    migrate.url_for(url, schema, passwords[schema]), pool=8, application="simulation"
                )
            )
            for schema in migrate.HISTORIES
        }
        yield SimulatedDatabase(url, pools, owner)


class TimedTransactions(Transactions):
    """Transactions whose `now()` is the loop's virtual time."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", scheduler: Scheduler, start: datetime) -> None:
        super().__init__(pool)
        self._scheduler = scheduler
        self._start = start

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        async with super()._connected() as connection:
            now = self._start + timedelta(seconds=self._scheduler.loop.time())
            await connection.execute("SELECT set_config('simulation.now', $1, false)", now.isoformat())
            yield connection


class SteppedTransactions(TimedTransactions):
    """Transactions that are one step each."""

    @asynccontextmanager
    async def __call__(self, *, optimistic: bool = False) -> AsyncIterator[Transaction]:
        what, endings = _work()
        async with self._scheduler.step(what, endings) as step:
            if step.ending is Ending.REFUSED:
                raise DatabaseUnavailable
            async with super().__call__(optimistic=optimistic) as tx:
                yield tx
                step.notes += [
                    f"→ {type(event).__name__} {event.data.order.reference}" for event in tx.events
                ]

    async def ping(self) -> bool:
        async with self._scheduler.step("ping", PING) as step:
            return step.ending is Ending.WELL and await super().ping()


def _work() -> tuple[str, tuple[Ending, ...]]:
    """The part of the participant that commits, and the possible endings of its step."""
    task = asyncio.current_task()
    name, _, rest = task.get_name().partition(": ") if task else ("", "", "")
    part = name.rpartition(" ")[2]
    if part in _SWEEPING and not rest:
        return f"{part} {SWEEP}", TRANSACTION
    if rest == "settle":
        return f"{part} settle", TRANSACTION
    return part, HANDLING if part in ("worker", "retries") else TRANSACTION


def start_of_schedule() -> datetime:
    """The time in the database at which a schedule begins."""
    return datetime.now(UTC) - BEFORE_NOW
