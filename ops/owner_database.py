"""The owner's access to the database, for commands that act on a service's tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
from sqlalchemy import make_url

from chassis.database import connect, role_of
from events.transaction import Transaction
from events.transactions import Transactions

BATCH: Final = 500
"""Most rows that one transaction of a command changes."""


class OwnerDatabase:
    """The database, connected as its owner."""

    def __init__(self, database: str, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """`database` is the database's name."""
        self.database = database
        self.transactions = Transactions(pool)
        """Transactions as the owner."""

    @asynccontextmanager
    async def as_service(self, service: str) -> AsyncIterator[Transaction]:
        """A transaction with the service's role and schema: it can reach nothing else."""
        async with self.transactions() as tx:
            await tx.execute(f'SET LOCAL ROLE "{role_of(self.database, service)}"')
            await tx.execute(f'SET LOCAL search_path TO "{service}"')
            yield tx


@asynccontextmanager
async def connect_as_owner(owner_url: str, command: str) -> AsyncIterator[OwnerDatabase]:
    """Connects to the database at `owner_url`, under the name of the command."""
    async with connect(owner_url, pool=2, application=command) as pool:
        yield OwnerDatabase(str(make_url(owner_url).database), pool)
