"""Commits: how a transaction is opened, ended and followed up, and how many callers share one."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar, cast

import asyncpg

from events import outbox
from events.errors import DatabaseUnavailable, Unavailable
from events.killpoints import KillPoint, reach
from events.transaction import Transaction

# Connection loss, rollback by the server, resources, operator intervention; read-only; lock timeout.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_TRANSIENT_CLASSES: Final = ("08", "40", "53", "57")
_TRANSIENT_STATES: Final = ("25006", "25P03", "55P03")

IDLE_SECONDS: Final = 30.0
"""A connection that was idle for longer is asked first: it may be lost without a sign."""
PING_SECONDS: Final = 2.0
POOL_SECONDS: Final = 30.0
"""How long a transaction waits for a connection when all are in use."""

T = TypeVar("T")
R = TypeVar("R")

if TYPE_CHECKING:  # only the type checker takes it with brackets
    _Driver = asyncpg.Connection[asyncpg.Record]
else:
    _Driver = asyncpg.Connection


class Connection(_Driver):
    """A connection that knows when it was last used."""

    _used_at: float | None = None
    """By the wall clock: another may stand still while the process does."""

    def get_reset_query(self) -> str:
        """What the pool does after each use: nothing, as no transaction leaves anything in the session."""
        return ""

    def itself(self) -> Self:
        """Without what the pool wraps it in, which forgets it as soon as it is lost."""
        return self

    def used(self) -> None:
        """It has just answered."""
        self._used_at = time.time()

    async def is_there(self) -> bool:
        """Whether it is; one that was idle for long has to answer. One that is not is closed."""
        if self._used_at is None or time.time() - self._used_at < IDLE_SECONDS:
            return not self.is_closed()
        try:
            await self.execute("SELECT 1", timeout=PING_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.terminate()
            return False
        return True


class Transactions:
    """Opens transactions on one service's database: `async with transactions() as tx`.

    Leaving the block writes the outbox, commits, and then hands over what the transaction left behind
    to `committed`. Anything raised inside rolls back. When the database can't take the transaction (lost
    connection, deadlock, read-only, …) DatabaseUnavailable is raised in place of the driver's error; then
    the commit may or may not have happened, and repeating the whole is what inbox and keys are for.
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
        connection: Connection | None = None
        try:
            async with self._connected() as connection:
                try:
                    tx = Transaction(connection)
                    await connection.execute("BEGIN")
                    yield tx
                    if tx.events:
                        tx.messages = await outbox.write(tx, tx.events, lease=self.lease_of_messages())
                    reach(KillPoint.COMMITTING)
                    await connection.execute("COMMIT")
                except BaseException:
                    await _roll_back(connection)
                    raise
                connection.used()
        except Exception as error:
            if _is_transient(error) or _broke(connection, error):
                raise DatabaseUnavailable(f"{DatabaseUnavailable.__doc__} ({error})") from error
            raise
        reach(KillPoint.COMMITTED)
        self.committed(tx)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """A connection that is there; the pool replaces one that was lost while it lay there."""
        while True:
            async with self._pool.acquire(timeout=POOL_SECONDS) as pooled:
                connection = cast(Connection, pooled).itself()
                if await connection.is_there():
                    yield connection
                    return


async def _roll_back(connection: Connection) -> None:
    """Ends a failed transaction; a connection that can't even do that is closed."""
    try:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
    except asyncio.CancelledError:  # the pool must not get it back with a transaction open
        connection.terminate()
        raise


def _broke(connection: Connection | None, error: Exception) -> bool:
    """Whether the connection was lost, perhaps while it was still being opened."""
    if connection is None:
        return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError)
    return connection.is_closed()


def _is_transient(error: Exception) -> bool:
    state = getattr(error, "sqlstate", None)
    if state:
        return state.startswith(_TRANSIENT_CLASSES) or state in _TRANSIENT_STATES
    return isinstance(error, OSError | TimeoutError)


async def commit_in_halves(
    items: Sequence[T],
    commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
    refuse: Callable[[T, Exception], Awaitable[R]],
) -> list[R]:
    """The result for each item, in order: all in one commit if that goes well.

    If it does not, they are split in halves, each its own commit, until what failed stands alone and is
    refused: the failure of one never holds up its neighbours. Unavailable is nobody's fault and is raised.
    """
    try:
        return list(await commit(items))
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001  # whatever it was, it goes into the refusal
        if len(items) == 1:
            return [await refuse(items[0], error)]
    middle = len(items) // 2
    return [
        *await commit_in_halves(items[:middle], commit, refuse),
        *await commit_in_halves(items[middle:], commit, refuse),
    ]


class GroupCommit(Generic[T, R]):
    """Joins concurrent callers into the commit that is about to happen.

    While one commit is in flight the next items gather (at most `limit` go in together), and go in when it
    ends: no timer, so a lone caller never waits for company. Each caller gets its own result or error, and
    one that is cancelled cancels only its own wait.
    """

    def __init__(self, commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, limit: int = 200) -> None:
        self._commit = commit
        self._limit = limit
        self._gathered: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._committing: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """The result for this item, after its commit. Raises what `commit` raised."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._gathered.append((item, answer))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_gathered(), name="group commit")
        return await answer

    async def drain(self) -> None:
        """Returns when everything that was submitted has its answer."""
        if self._committing:
            await asyncio.shield(self._committing)

    async def _commit_gathered(self) -> None:
        try:
            while self._gathered:
                size = min(self._limit, len(self._gathered))
                batch = [self._gathered.popleft() for _ in range(size)]
                try:
                    results = await self._commit([item for item, _ in batch])
                except Exception as error:  # noqa: BLE001  # each caller gets it
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_exception(error)
                else:
                    for (_, answer), result in zip(batch, results, strict=True):
                        if not answer.done():
                            answer.set_result(result)
        finally:
            self._committing = None
