"""The connection pool of a service: lends live connections, and pings the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import asyncpg

from events.connection import Connection, answer_of
from events.errors import DatabaseUnavailable

POOL_SECONDS: Final = 30.0
"""How long a transaction waits for a free connection."""
ANSWER_SECONDS: Final = 1.0
"""A database that takes longer to answer a ping counts as away."""


@asynccontextmanager
async def connected(pool: "asyncpg.Pool[asyncpg.Record]") -> AsyncIterator[Connection]:
    """Lends a live connection. The pool replaces one that was lost while idle.

    The pool's connections are of the class Connection. Raises DatabaseUnavailable.
    """
    while True:
        pooled = await answer_of(pool.acquire(timeout=POOL_SECONDS))
        connection = cast(Connection, pooled).raw()
        try:
            if await connection.is_alive():
                yield connection
                return
        finally:
            await answer_of(pool.release(pooled), connection)


async def ping(pool: "asyncpg.Pool[asyncpg.Record]") -> bool:
    """Whether the database answers within ANSWER_SECONDS, on another connection."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), connected(pool) as connection:
            try:
                await answer_of(connection.execute("SELECT 1"), connection)
            except BaseException:  # the pool would wait for an answer that may never come
                connection.terminate()
                raise
    except (DatabaseUnavailable, TimeoutError, asyncpg.PostgresError):
        return False
    return True
