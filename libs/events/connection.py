"""Connections to PostgreSQL: what their errors mean, and how a failed transaction ends."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, Self, TypeVar

import asyncpg

from events.errors import DatabaseUnavailable

# Connection loss, rollback by the server, resources, operator intervention; read-only; time limits of a
# transaction; lock timeout. https://www.postgresql.org/docs/current/errcodes-appendix.html
_TRANSIENT_CLASSES: Final = ("08", "40", "53", "57")
_TRANSIENT_STATES: Final = ("25006", "25P03", "25P04", "55P03")
_SERVER_WIDE_STATES: Final = ("25006", "53100", "53300", "57P02", "57P03")
"""Read-only, disk full, too many connections, crashed, starting or shutting down."""

DRIVER_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Everything that asyncpg raises; TimeoutError is an OSError.

A server that restarts while a statement is under way can cause each of them, the last one included.
"""

IDLE_SECONDS: Final = 30.0
"""A connection that was idle for longer is pinged before use: it may have been lost silently."""
PING_SECONDS: Final = 2.0
ROLLBACK_SECONDS: Final = 5.0

T = TypeVar("T")

if TYPE_CHECKING:  # only the type checker accepts the brackets
    _Driver = asyncpg.Connection[asyncpg.Record]
else:
    _Driver = asyncpg.Connection


class Connection(_Driver):
    """A connection that knows when the server last answered on it."""

    _used_at: float | None = None
    """Wall clock: a monotonic clock may stop while the process is suspended."""

    def get_reset_query(self) -> str:
        """Skips asyncpg's reset query: our transactions leave no session state."""
        return ""

    def raw(self) -> Self:
        """The raw connection. asyncpg's pool proxy loses its reference when the connection drops."""
        return self

    def mark_used(self) -> None:
        """Notes that the server has just answered."""
        self._used_at = time.time()

    async def is_alive(self) -> bool:
        """Whether the connection works. One that was idle is pinged; one that does not answer is closed."""
        if self._used_at is None or time.time() - self._used_at < IDLE_SECONDS:
            return not self.is_closed()
        try:
            await answer_of(self.execute("SELECT 1", timeout=PING_SECONDS), self)
        except (DatabaseUnavailable, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.terminate()
            return False
        return True

    async def roll_back(self, failure: BaseException) -> None:
        """Rolls back after this failure. A connection on which that fails is closed."""
        if self.is_closed():
            return
        try:
            if self.is_in_transaction():
                await self.execute("ROLLBACK", timeout=ROLLBACK_SECONDS)
            elif isinstance(failure, asyncio.CancelledError | DatabaseUnavailable):
                self.terminate()  # the pool would wait for an answer that may never come
        except DRIVER_ERRORS:
            self.terminate()
        except asyncio.CancelledError:  # the pool must not get it back with a transaction open
            self.terminate()
            raise


async def answer_of(call: Awaitable[T], connection: Connection | None = None) -> T:
    """Returns the result of the driver's call. Raises DatabaseUnavailable when a later try may succeed.

    That is after a lost connection, a time limit, or a rollback by the server (deadlock, resources, shutdown,
    read-only, ...). Other errors of the driver are raised unchanged: the statement or its arguments are
    wrong. `connection` is None while a connection is being opened.
    """
    try:
        return await call
    except Exception as error:
        if not _is_transient(error, connection):
            raise
        raise DatabaseUnavailable(
            f"{DatabaseUnavailable.__doc__} ({str(error) or repr(error)})",
            server_wide=getattr(error, "sqlstate", None) in _SERVER_WIDE_STATES,
        ) from error


def _is_transient(error: Exception, connection: Connection | None) -> bool:
    if connection is not None and connection.is_closed():
        return True
    if isinstance(error, asyncpg.InterfaceError):  # the driver was misused
        return connection is None
    if isinstance(error, asyncpg.InvalidCachedStatementError):  # a migration: the next try prepares it again
        return True
    state = getattr(error, "sqlstate", None)
    if state:
        return state.startswith(_TRANSIENT_CLASSES) or state in _TRANSIENT_STATES
    return isinstance(error, OSError | asyncpg.InternalClientError)  # TimeoutError is an OSError
