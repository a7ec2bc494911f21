"""The database of a process: a pool with the service's role, and the wait for its schema."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal, TypeAlias

import asyncpg
from sqlalchemy.engine import make_url

from events.connection import Connection
from events.errors import DatabaseUnavailable
from events.transactions import Transactions

STATEMENT_SECONDS: Final = 30.0
"""A statement that takes longer is cancelled, and its transaction repeated."""
CLOSE_SECONDS: Final = 5.0
"""How long running transactions may take when the pool is closed."""

Plans: TypeAlias = Literal["auto", "force_generic_plan"]

_NOT_MIGRATED: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.InvalidAuthorizationSpecificationError,  # no such role, or not with this password
    asyncpg.InvalidCatalogNameError,  # no such database
)

logger = logging.getLogger(__name__)


def role_of(database: str, service: str) -> str:
    """Name of the role that owns a service's schema, and can access nothing else."""
    return f"{database}_{service}"


@asynccontextmanager
async def connect(
    url: str, *, pool: int, application: str, plans: Plans = "auto"
) -> "AsyncIterator[asyncpg.Pool[asyncpg.Record]]":
    """A pool of at most `pool` connections, opened when needed and closed at the end.

    `plans` is PostgreSQL's plan_cache_mode. The services have few statements of fixed shape: with
    `force_generic_plan` each is planned once per connection, otherwise in most calls
    (https://www.postgresql.org/docs/current/runtime-config-query.html#GUC-PLAN-CACHE-MODE).

    `url` has SQLAlchemy's form, `postgresql+asyncpg://…`; the connections are asyncpg's.
    """
    parsed = make_url(url)
    _, where = parsed.get_dialect()().create_connect_args(parsed)
    connections = await asyncpg.create_pool(
        **where,
        min_size=0,
        max_size=pool,
        connection_class=Connection,
        timeout=5,
        command_timeout=STATEMENT_SECONDS,
        server_settings={"application_name": f"orderflow {application}", "plan_cache_mode": plans},
    )
    try:
        yield connections
    finally:
        with suppress(TimeoutError):  # then they are terminated
            async with asyncio.timeout(CLOSE_SECONDS):
                await connections.close()


async def wait_for_schema(pool: "asyncpg.Pool[asyncpg.Record]", revision: str) -> None:
    """Returns when the database answers and its schema is at `revision` or newer.

    A newer schema works with this version: migrations only add, so that processes of two versions can run
    side by side during an upgrade. Each check opens a new session, because a session keeps the settings (such
    as search_path) that its role had when it was opened.
    """
    transactions = Transactions(pool)
    waited_for = ""
    while True:
        try:
            async with transactions() as tx:
                found = [record["version_num"] for record in await tx.fetch("SELECT * FROM alembic_version")]
        except DatabaseUnavailable as error:
            missing = str(error)
        except asyncpg.PostgresError as error:
            if not isinstance(error, _NOT_MIGRATED):
                raise
            missing = f"'orderflow migrate' has not run: {error}"
        else:
            if max(found, default="") >= revision:
                return
            missing = f"the schema is at {found}, this version needs {revision}: run 'orderflow migrate'"
        if missing != waited_for:
            logger.warning("waiting for the database: %s", missing)
            waited_for = missing
        await pool.expire_connections()
        await asyncio.sleep(0.5)
