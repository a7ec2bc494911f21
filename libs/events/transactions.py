"""Transactions: how one is opened, run and ended, and what follows its commit."""

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
    what happens with every order: one round trip on an ordinary day. `transactions.fetch` is one statement.

    The end of a transaction writes the outbox, commits, and then gives what the transaction left behind to
    the handover. Anything raised inside rolls back, and is raised.

    Raises DatabaseUnavailable when the database can't take the transaction (lost connection, deadlock,
    read-only, ...): then the commit may or may not have happened, and repeating the whole is what inbox and
    keys are for. Only what the driver raised means that; an OSError of the block's own does not. Raises
    Aborted when the block swallowed the error of a statement: PostgreSQL answers such a COMMIT with ROLLBACK.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", handover: Handover | None = None) -> None:
        """The pool's connections are of the class Connection."""
        self._pool = pool
        self.handover = handover or Handover()

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
                await connection.roll_back(error)
                raise
            connection.mark_used()
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
        """Whether the database answers within a second, on a connection of the ping's own."""
        return await connection_pool.ping(self._pool)

    def _connected(self) -> AbstractAsyncContextManager[Connection]:
        return connection_pool.connected(self._pool)
