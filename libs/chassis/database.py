"""The database as a process uses it: one pool, the service's own role."""

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
"""A statement that takes longer is given up, and its transaction repeated."""
CLOSE_SECONDS: Final = 5.0
"""How long a transaction in flight may take when everything is closed."""

Plans: TypeAlias = Literal["auto", "force_generic_plan"]

_NOT_MIGRATED: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.InvalidAuthorizationSpecificationError,  # no such role, or not with this password
    asyncpg.InvalidCatalogNameError,  # no such database
)

logger = logging.getLogger(__name__)


def role_of(database: str, service: str) -> str:
    """Name of the role that owns a service's schema, and can reach nothing else."""
    return f"{database}_{service}"


@asynccontextmanager
async def connect(
    url: str, *, pool: int, application: str, plans: Plans = "auto"
) -> "AsyncIterator[asyncpg.Pool[asyncpg.Record]]":
    """A pool of at most `pool` connections, opened when needed and closed at the end.

    `plans` is PostgreSQL's plan_cache_mode. The statements of the services are few and of one shape, so with
    `force_generic_plan` each is planned once a connection; else most would be planned anew in each call
    (https://www.postgresql.org/docs/current/runtime-config-query.html#GUC-PLAN-CACHE-MODE).

    The URL is written as SQLAlchemy has it, `postgresql+asyncpg://…`; the connections are asyncpg's own.
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
        with suppress(TimeoutError):  # they are cut off then
            async with asyncio.timeout(CLOSE_SECONDS):
                await connections.close()


async def wait_for_schema(pool: "asyncpg.Pool[asyncpg.Record]", revision: str) -> None:
    """Returns when the database answers and `orderflow migrate` has brought it to `revision`, or further.

    A newer schema serves this version too: a migration only adds, so that processes of two versions can run
    side by side while one takes the other's place. Each look opens a new session, because a session keeps the
    settings (search_path among them) that its role had when it was opened.
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
