"""What every test can stand on: a real PostgreSQL, from Docker where it answers, else embedded."""

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from chassis import database
from events import migrations, partitions
from events.commit import Transactions
from ops import migrate


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server for this run, as its owner."""
    yield os.environ.get("TEST_POSTGRES_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/postgres")


@pytest.fixture
async def fresh_database(postgres: str) -> AsyncIterator[str]:
    """URL of an empty database of the test's own, as its owner."""
    name = f"orderflow_{uuid.uuid4().hex[:12]}"
    server = create_async_engine(postgres, isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f'CREATE DATABASE "{name}"'))
    yield server.url.set(database=name).render_as_string(hide_password=False)
    async with server.connect() as connection:
        await connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    await server.dispose()


@pytest.fixture
async def transactions(fresh_database: str) -> AsyncIterator[Transactions]:
    """Transactions on a database with the tables of `events` and nothing else."""

    def create(connection: Connection) -> None:
        migrations.create_tables_1(Operations(MigrationContext.configure(connection)))

    async with database.connect(fresh_database, pool=8, application="test") as engine:
        async with engine.connect() as connection:
            await connection.run_sync(create)
        transactions = Transactions(engine)
        async with transactions() as tx:
            await partitions.renew(tx, datetime.now(UTC))
        yield transactions


@pytest.fixture
async def service_url(fresh_database: str) -> Callable[[str], Awaitable[str]]:
    """Migrates one service's schema in the test's database and gives the URL of the service's own role."""

    async def migrated(service: str) -> str:
        await migrate.migrate_service(fresh_database, service, password=service)
        return migrate.url_for(fresh_database, service, password=service)

    return migrated
