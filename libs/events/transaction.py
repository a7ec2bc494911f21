"""One transaction: what it reads and writes, what it will announce, and what work it leaves behind."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import asyncpg

from events.bus import Message
from events.connection import Connection, answer_of
from events.contracts import AnyEvent
from events.errors import DatabaseUnavailable
from events.progress import Step

T = TypeVar("T")


class Transaction:
    """One open database transaction. Whoever is handed one neither commits it nor touches a broker.

    Its statements raise DatabaseUnavailable when the database is away, else asyncpg's own error. PostgreSQL
    has aborted the transaction then: a caller that goes on all the same gets an error from the commit.
    """

    def __init__(self, driver: Connection) -> None:
        self.started = asyncio.get_running_loop().time()
        self.events: list[AnyEvent] = []
        self.intents: list[Any] = []
        self.steps: list[Step] = []
        self.messages: Sequence[Message] = ()
        self.failure: Exception | None = None
        """What the statement raised that failed last."""
        self._driver = driver

    async def fetch(self, statement: str, *arguments: object) -> "list[asyncpg.Record]":
        """Rows of a statement, by asyncpg directly."""
        return await self._answer_of(self._driver.fetch(statement, *arguments))

    async def execute(self, statement: str, *arguments: object) -> None:
        """A statement without rows, by asyncpg directly."""
        await self._answer_of(self._driver.execute(statement, *arguments))

    def emit(self, *events: AnyEvent) -> None:
        """Announces the events: they are written to the outbox with this transaction's commit."""
        self.events.extend(events)

    def intend(self, *intents: object) -> None:
        """Work whose rows this transaction wrote, born claimed: done from memory right after the commit."""
        self.intents.extend(intents)

    def log(self, *steps: Step) -> None:
        """Progress for the log once it is committed, beside the announced events."""
        self.steps.extend(steps)

    async def _answer_of(self, call: Awaitable[T]) -> T:
        try:
            return await answer_of(call, self._driver)
        except asyncpg.InFailedSQLTransactionError:  # the consequence of an error that was swallowed
            if isinstance(self.failure, DatabaseUnavailable):
                raise self.failure from None
            raise
        except Exception as error:
            self.failure = error
            raise
