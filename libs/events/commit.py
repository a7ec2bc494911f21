"""Commits: how a transaction is opened, ended and followed up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

import asyncpg

from events import outbox
from events.connection import Connection, answer_of
from events.errors import Aborted, DatabaseUnavailable
from events.killpoints import KillPoint, reach
from events.transaction import Transaction

POOL_SECONDS: Final = 30.0
"""How long a transaction waits for a connection when all are in use."""
ROLLBACK_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 1.0
"""A database that takes longer to answer a ping is away."""


class Transactions:
    """Opens transactions on one service's database: `async with transactions() as tx`.

    Leaving the block writes the outbox, commits, and then hands over what the transaction left behind
    to `committed`. Anything raised inside rolls back, and is raised.

    Raises DatabaseUnavailable when the database can't take the transaction (lost connection, deadlock,
    read-only, ...): then the commit may or may not have happened, and repeating the whole is what inbox and
    keys are for. Only what the driver raised means that; an OSError of the block's own does not. Raises
    Aborted when the block swallowed the error of a statement: PostgreSQL answers such a COMMIT with ROLLBACK.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """The pool's connections are of the class Connection."""
        self._pool = pool
        self.committed: Callable[[Transaction], None] = lambda _: None
        self.lease_of_messages: Callable[[], float] = lambda: 0.0
        """Seconds for which the outbox rows of a transaction are born claimed."""

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Transaction]:
        """One transaction, from its BEGIN to its COMMIT."""
        async with self._connected() as connection:
            try:
                tx = Transaction(connection)
                await answer_of(connection.execute("BEGIN"), connection)
                yield tx
                if tx.events:
                    tx.messages = await outbox.write(tx, tx.events, lease=self.lease_of_messages())
                reach(KillPoint.COMMITTING)
                answer = await answer_of(connection.execute("COMMIT"), connection)
                if answer != "COMMIT":
                    raise (
                        tx.failure if isinstance(tx.failure, DatabaseUnavailable) else Aborted
                    ) from tx.failure
            except BaseException:
                await _roll_back(connection)
                raise
            connection.used()
        reach(KillPoint.COMMITTED)
        self.committed(tx)

    async def answers(self) -> bool:
        """Whether the database answers a ping within ANSWER_SECONDS, on a connection of the ping's own."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._connected() as connection:
                try:
                    await answer_of(connection.execute("SELECT 1"), connection)
                except BaseException:  # the pool would wait for an answer that may never come
                    connection.terminate()
                    raise
        except (DatabaseUnavailable, TimeoutError, asyncpg.PostgresError):
            return False
        return True

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """A connection that is there; the pool replaces one that was lost while it lay there."""
        while True:
            pooled = await answer_of(self._pool.acquire(timeout=POOL_SECONDS))
            connection = cast(Connection, pooled).raw()
            try:
                if await connection.is_there():
                    yield connection
                    return
            finally:
                await answer_of(self._pool.release(pooled), connection)


async def _roll_back(connection: Connection) -> None:
    """Ends a failed transaction; a connection that can't even do that is closed."""
    if connection.is_closed():
        return
    try:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()
    except asyncio.CancelledError:  # the pool must not get it back with a transaction open
        connection.terminate()
        raise
