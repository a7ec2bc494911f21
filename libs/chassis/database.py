"""The database as a process uses it: one engine, one pool, the service's own role."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from events.commit import Transactions
from events.errors import DatabaseUnavailable

STATEMENT_SECONDS: Final = 30.0
"""A statement that takes longer is given up, and its transaction repeated."""

_NOT_MIGRATED: Final = ("28", "3D")  # no such role, or not with this password; no such database

logger = logging.getLogger(__name__)


def role_of(database: str, service: str) -> str:
    """Name of the role that owns a service's schema, and can reach nothing else."""
    return f"{database}_{service}"


@asynccontextmanager
async def connect(url: str, *, pool: int, application: str) -> AsyncIterator[AsyncEngine]:
    """An engine with at most `pool` connections, opened when needed and closed at the end.

    Transactions are begun and ended by `events.commit`, so SQLAlchemy itself is in autocommit.
    """
    engine = create_async_engine(
        make_url(url),
        isolation_level="AUTOCOMMIT",
        pool_size=pool,
        max_overflow=0,
        connect_args={
            "timeout": 5,
            "command_timeout": STATEMENT_SECONDS,
            "server_settings": {"application_name": f"orderflow {application}"},
        },
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def wait_for_schema(transactions: Transactions, revision: str) -> None:
    """Returns when the database answers and `orderflow migrate` has brought it to `revision`."""
    waited_for = ""
    while True:
        try:
            async with transactions() as tx:
                found = [record["version_num"] for record in await tx.fetch("SELECT * FROM alembic_version")]
        except DatabaseUnavailable as error:
            missing = str(error)
        except asyncpg.UndefinedTableError as error:
            missing = f"'orderflow migrate' has not run: {error}"
        except DBAPIError as error:
            if not str(getattr(error.orig, "sqlstate", "")).startswith(_NOT_MIGRATED):
                raise
            missing = f"'orderflow migrate' has not run: {error.orig}"
        else:
            if revision in found:
                return
            missing = f"the schema is at {found}, this version needs {revision}: run 'orderflow migrate'"
        if missing != waited_for:
            logger.warning("waiting for the database: %s", missing)
            waited_for = missing
        await asyncio.sleep(0.5)
