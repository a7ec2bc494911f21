"""Transactions: opens, runs and ends them, and hands over what they left behind."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import asyncpg

from events import connection_pool, outbox
from events.connection import Connection, answer_of
from events.errors import AssumptionFailed
from events.handover import Handover
from events.killpoints import KillPoint, reach
from events.transaction import Transaction

T = TypeVar("T")


class Transactions:
    """Opens transactions on one service's database.

    `async with transactions() as tx` waits for the answer to each statement. `transactions.run(work)` is for
    work that every order needs: one round trip in the ordinary case. `transactions.fetch` is one statement.

    At its end a transaction writes the outbox and commits; then the handover gets its messages and intents.
    An exception in the block rolls back, and is raised.

    Raises DatabaseUnavailable when the database can't take the transaction (lost connection, deadlock,
    read-only, ...). The commit may or may not have happened; inbox and keys make it safe to repeat the whole
    block. Only errors of the driver are translated, not an OSError that the block raises. Raises Aborted when
    the block swallowed the error of a statement: PostgreSQL answers such a COMMIT with ROLLBACK.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", handover: Handover | None = None) -> None:
        """The pool's connections are of the class Connection."""
        self._pool = pool
        self.handover = handover or Handover()

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Does the work in one transaction, and returns its result.

        The transaction is optimistic. If its assumption is wrong, the work is repeated from the beginning in
        a careful transaction, so it must change nothing but through its transaction. An error of the work is
        raised only if the assumption holds; otherwise the assumption may have caused it.
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
        """Returns the rows of one statement, a transaction by itself: one round trip."""
        async with self._connected() as connection:
            reach(KillPoint.COMMITTING)
            try:
                rows = await answer_of(connection.fetch(statement, *arguments), connection)
            except BaseException as error:
                await connection.roll_back(error)
                raise
            connection.mark_used()
        reach(KillPoint.COMMITTED)
        return rows

    @asynccontextmanager
    async def __call__(self, *, optimistic: bool = False) -> AsyncIterator[Transaction]:
        """One transaction. `optimistic` is for `run`."""
        async with self._connected() as connection:
            try:
                tx = Transaction(connection, optimistic=optimistic)
                yield tx
                if tx.events:
                    tx.messages = await outbox.write(tx, tx.events, lease=self.handover.message_lease())
                reach(KillPoint.COMMITTING)
                await tx.commit()
            except BaseException as error:
                await connection.roll_back(error)
                raise
            connection.mark_used()
        reach(KillPoint.COMMITTED)
        self.handover.hand_over(tx)

    async def ping(self) -> bool:
        """Whether the database answers within a second, on another connection."""
        return await connection_pool.ping(self._pool)

    def _connected(self) -> AbstractAsyncContextManager[Connection]:
        return connection_pool.connected(self._pool)
