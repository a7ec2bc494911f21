"""One transaction: its statements, the events that it emits, and the work that it leaves to runners."""

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
    """A source of rows: an open Transaction, or Transactions, where each read is a transaction of its own."""

    async def fetch(self, statement: str, *arguments: object) -> "list[asyncpg.Record]":
        """Rows of a statement."""
        ...


class Transaction:
    """One database transaction. Code that is given one neither commits it nor calls a broker.

    A careful transaction waits for the answer to each statement. An optimistic one assumes the ordinary case:
    every row is new, or as its claim left it. It collects its writes and sends them at its end as one
    statement, which is a transaction by itself. If the assumption is wrong, that statement raises
    AssumptionFailed and changes nothing.

    Statements raise DatabaseUnavailable when the database is away, otherwise asyncpg's error. After an error
    PostgreSQL has aborted the transaction: if the caller swallows it, the commit fails.
    """

    def __init__(self, driver: Connection, *, optimistic: bool = False) -> None:
        self.started = asyncio.get_running_loop().time()
        self.events: list[AnyEvent] = []
        self.intents: list[Any] = []
        self.steps: list[Step] = []
        self.messages: Sequence[Message] = ()
        self.failure: Exception | None = None
        """The error of the last statement that failed."""
        self._driver = driver
        self._optimistic = optimistic
        self._begun = False
        self._collected: list[tuple[Part, Sequence[object]]] = []

    async def fetch(self, statement: str, *arguments: object) -> "list[asyncpg.Record]":
        """Returns the rows of a statement. It sees all earlier writes of this transaction."""
        await self._begin()
        await self._send_collected()
        return await self._answer_of(self._driver.fetch(statement, *arguments))

    async def fetch_keys(self, statement: str, *arguments: object, expected: Collection[K]) -> set[K]:
        """Returns the keys of the rows that a statement writes or finds: its only column.

        `expected` are the keys of the ordinary case. An optimistic transaction returns them at once, and
        raises AssumptionFailed at its end if the statement has another number of rows.
        """
        if self._optimistic:
            keys = set(expected)
            self._collected.append((Part(statement, counted=True), (*arguments, len(keys))))
            return keys
        return {record[0] for record in await self.fetch(statement, *arguments)}

    async def execute(self, statement: str, *arguments: object) -> None:
        """Executes a statement without rows.

        Two INSERTs, UPDATEs or DELETEs, here or in `fetch_keys`, must not write the same row without a
        `fetch` between them.
        """
        if self._optimistic and statements.can_be_joined(statement):
            self._collected.append((Part(statement), arguments))
        else:
            await self._begin()
            await self._send_collected()
            await self._answer_of(self._driver.execute(statement, *arguments))

    async def check(self) -> None:
        """Only for Transactions. Raises AssumptionFailed if an assumption made so far is wrong."""
        if self._collected:
            await self._begin()
            await self._send_collected()

    async def commit(self) -> None:
        """Only for Transactions. Raises AssumptionFailed or Aborted: then nothing has changed."""
        await self._send_collected()
        if not self._begun:
            return
        if await answer_of(self._driver.execute("COMMIT"), self._driver) != "COMMIT":
            if isinstance(self.failure, DatabaseUnavailable | AssumptionFailed):
                raise self.failure
            raise Aborted from self.failure

    def emit(self, *events: AnyEvent) -> None:
        """Publishes the events: the commit writes them to the outbox, and the relay publishes them."""
        self.events.extend(events)

    def intend(self, *intents: object) -> None:
        """Leaves work to runners, who begin after the commit. Its rows are written here, born claimed."""
        self.intents.extend(intents)

    def log(self, *steps: Step) -> None:
        """Logs progress after the commit, beside that of the emitted events."""
        self.steps.extend(steps)

    async def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        try:
            await self._answer_of(self._driver.execute("BEGIN"))
        except BaseException:
            self._driver.terminate()  # without BEGIN each statement would commit by itself
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
        except asyncpg.InFailedSQLTransactionError:  # an earlier error was swallowed
            if isinstance(self.failure, DatabaseUnavailable | AssumptionFailed):
                raise self.failure from None
            raise
        except Exception as error:
            self.failure = error
            raise
