"""One transaction: what it reads and writes, what it will announce, and what work it leaves behind."""

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, Protocol, TypeVar

import asyncpg

from events import statements
from events.bus import Message
from events.connection import Connection, answer_of
from events.contracts import AnyEvent
from events.errors import Aborted, AssumptionFailed, DatabaseUnavailable
from events.progress import Step
from events.statements import Part

T = TypeVar("T")
K = TypeVar("K")


class Reads(Protocol):
    """Where rows are read from: an open Transaction, or Transactions, each of whose reads stands alone."""

    async def fetch(self, statement: str, *arguments: object) -> "list[asyncpg.Record]":
        """Rows of a statement."""
        ...


class Transaction:
    """One database transaction. Whoever is handed one neither commits it nor touches a broker.

    A careful transaction waits for the answer to each statement. An optimistic one assumes that every row is
    what it is on an ordinary day: new, or as its claim left it. So it does not wait: it collects what it
    writes, and sends that at its end as one statement, a transaction by itself. Where the assumption is
    wrong, the statement raises AssumptionFailed, and nothing has changed.

    Statements raise DatabaseUnavailable when the database is away, else asyncpg's own error. PostgreSQL
    has aborted the transaction then: a caller that goes on all the same gets an error from the commit.
    """

    def __init__(self, driver: Connection, *, optimistic: bool = False) -> None:
        self.started = asyncio.get_running_loop().time()
        self.events: list[AnyEvent] = []
        self.intents: list[Any] = []
        self.steps: list[Step] = []
        self.messages: Sequence[Message] = ()
        self.failure: Exception | None = None
        """What the statement raised that failed last."""
        self._driver = driver
        self._optimistic = optimistic
        self._begun = False
        self._collected: list[tuple[Part, Sequence[object]]] = []

    async def fetch(self, statement: str, *arguments: object) -> "list[asyncpg.Record]":
        """Rows of a statement, by asyncpg directly. It sees everything that was written before."""
        await self._begin()
        await self._send_collected()
        return await self._answer_of(self._driver.fetch(statement, *arguments))

    async def fetch_keys(self, statement: str, *arguments: object, expected: Collection[K]) -> set[K]:
        """The keys of the rows that a statement writes or finds: its only column.

        `expected` are those of an ordinary day. An optimistic transaction returns these at once, and raises
        AssumptionFailed at its end if the statement has another number of rows.
        """
        if self._optimistic:
            keys = set(expected)
            self._collected.append((Part(statement, counted=True), (*arguments, len(keys))))
            return keys
        return {record[0] for record in await self.fetch(statement, *arguments)}

    async def execute(self, statement: str, *arguments: object) -> None:
        """A statement without rows, by asyncpg directly.

        No two INSERTs, UPDATEs or DELETEs, here or in `fetch_keys`, may write the same row without a `fetch`
        in between.
        """
        if self._optimistic and statements.can_be_joined(statement):
            self._collected.append((Part(statement), arguments))
        else:
            await self._begin()
            await self._send_collected()
            await self._answer_of(self._driver.execute(statement, *arguments))

    async def check(self) -> None:
        """For Transactions only. Raises AssumptionFailed if an assumption made so far is wrong."""
        if self._collected:
            await self._begin()
            await self._send_collected()

    async def commit(self) -> None:
        """For Transactions only. Raises AssumptionFailed or Aborted: then nothing has changed."""
        await self._send_collected()
        if not self._begun:
            return
        if await answer_of(self._driver.execute("COMMIT"), self._driver) != "COMMIT":
            if isinstance(self.failure, DatabaseUnavailable | AssumptionFailed):
                raise self.failure
            raise Aborted from self.failure

    def emit(self, *events: AnyEvent) -> None:
        """Announces the events: they are written to the outbox with this transaction's commit."""
        self.events.extend(events)

    def intend(self, *intents: object) -> None:
        """Work whose rows this transaction wrote, born claimed: done from memory right after the commit."""
        self.intents.extend(intents)

    def log(self, *steps: Step) -> None:
        """Progress for the log once it is committed, beside the announced events."""
        self.steps.extend(steps)

    async def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        try:
            await self._answer_of(self._driver.execute("BEGIN"))
        except BaseException:
            self._driver.terminate()  # a later statement would be a transaction by itself
            raise

    async def _send_collected(self) -> None:
        collected, self._collected = self._collected, []
        if not collected:
            return
        statement = statements.joined(tuple(part for part, _ in collected))
        arguments = [argument for _, given in collected for argument in given]
        try:
            await self._answer_of(self._driver.execute(statement, *arguments))
        except (asyncpg.RaiseError, asyncpg.IntegrityConstraintViolationError) as error:
            self.failure = AssumptionFailed()
            raise self.failure from error

    async def _answer_of(self, call: Awaitable[T]) -> T:
        try:
            return await answer_of(call, self._driver)
        except asyncpg.InFailedSQLTransactionError:  # the consequence of an error that was swallowed
            if isinstance(self.failure, DatabaseUnavailable | AssumptionFailed):
                raise self.failure from None
            raise
        except Exception as error:
            self.failure = error
            raise
