"""Commits: how a transaction is opened, ended and followed up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar, cast

import asyncpg

from events import outbox
from events.connection import Connection, answer_of
from events.errors import AssumptionFailed, DatabaseUnavailable
from events.killpoints import KillPoint, reach
from events.transaction import Transaction

POOL_SECONDS: Final = 30.0
"""How long a transaction waits for a connection when all are in use."""
ROLLBACK_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 1.0
"""A database that takes longer to answer a ping is away."""

T = TypeVar("T")


class Transactions:
    """Opens transactions on one service's database.

    `async with transactions() as tx` waits for the answer to each statement. `transactions.run(work)` is for
    what happens with every order: one round trip on an ordinary day. `transactions.fetch` is one statement.

    The end of a transaction writes the outbox, commits, and then hands over what the transaction left behind
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

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Does the work in one transaction, and returns what it returned.

        The work is done optimistically first. Where the assumption is wrong it is done again, from its
        beginning, in a transaction that waits for each answer: it must change nothing but by its transaction.
        An error of the work is raised only when the assumption holds: else it may have come of that.
        """
        try:
            async with self(optimistic=True) as tx:
                try:
                    return await work(tx)
                except Exception:
                    await tx.check()
                    raise
        except AssumptionFailed:
            async with self() as tx:
                return await work(tx)

    async def fetch(self, statement: str, *arguments: object) -> "list[asyncpg.Record]":
        """Rows of one statement that is a transaction by itself: one round trip."""
        async with self._connected() as connection:
            reach(KillPoint.COMMITTING)
            try:
                rows = await answer_of(connection.fetch(statement, *arguments), connection)
            except BaseException as error:
                await _roll_back(connection, error)
                raise
            connection.used()
        reach(KillPoint.COMMITTED)
        return rows

    @asynccontextmanager
    async def __call__(self, *, optimistic: bool = False) -> AsyncIterator[Transaction]:
        """One transaction, from its BEGIN to its COMMIT; `optimistic` is for `run`."""
        async with self._connected() as connection:
            try:
                tx = Transaction(connection, optimistic=optimistic)
                yield tx
                if tx.events:
                    tx.messages = await outbox.write(tx, tx.events, lease=self.lease_of_messages())
                reach(KillPoint.COMMITTING)
                await tx.commit()
            except BaseException as error:
                await _roll_back(connection, error)
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


async def _roll_back(connection: Connection, failure: BaseException) -> None:
    """Ends a failed transaction; a connection that can't even do that is closed."""
    if connection.is_closed():
        return
    try:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS)
        elif isinstance(failure, asyncio.CancelledError | DatabaseUnavailable):
            connection.terminate()  # the pool would wait for an answer that may never come
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()
    except asyncio.CancelledError:  # the pool must not get it back with a transaction open
        connection.terminate()
        raise
