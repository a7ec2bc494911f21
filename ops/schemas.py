"""Schemas: the owner's transactions in one service's schema, with that service's role and nothing more."""

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


class Schemas:
    """Every service's schema, by the owner's connections."""

    def __init__(self, database: str, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """`database` is the database's name."""
        self.database = database
        self.transactions = Transactions(pool)
        """The owner's own."""

    @asynccontextmanager
    async def of(self, service: str) -> AsyncIterator[Transaction]:
        """One transaction as the service would have it."""
        async with self.transactions() as tx:
            await tx.execute(f'SET LOCAL ROLE "{role_of(self.database, service)}"')
            await tx.execute(f'SET LOCAL search_path TO "{service}"')
            yield tx


@asynccontextmanager
async def schemas(owner_url: str, command: str) -> AsyncIterator[Schemas]:
    """The schemas of the database at `owner_url`, for one command."""
    async with connect(owner_url, pool=2, application=command) as pool:
        yield Schemas(str(make_url(owner_url).database), pool)
