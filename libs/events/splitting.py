"""Splitting: a batch that can't be committed is halved until the items that fail are found."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from events.errors import DatabaseUnavailable, EventsError, Unavailable

T = TypeVar("T")
R = TypeVar("R")

MAX_FAILURES: Final = 3
"""So many failures in a row, while the database answers, are the batch's own fault."""


class NeverCommits(EventsError):
    """The batch failed repeatedly although the database answers."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(f"{self.__doc__} ({error})")


class BatchFailures:
    """Decides whether a failing batch is itself to blame, or the database is away.

    Make one for each batch. A failure counts if the database answers a ping on another connection. From the
    third in a row the batch is to blame: it waits for a lock that never becomes free, deadlocks each time, or
    exceeds a time limit. A failure while the database is away resets the count.
    """

    def __init__(self, ping: Callable[[], Awaitable[bool]]) -> None:
        """`ping` tells whether the database answers: `Transactions.ping`."""
        self.failures = 0
        """Failures in a row while the database answers; 0 while it is away."""
        self._ping = ping

    async def blames_batch(self, error: Unavailable) -> bool:
        """Counts a failure, and returns whether the batch is to blame from now on.

        A server that reports a fault of its own (disk full, read-only, shutting down) is away, even if it
        answers the ping.
        """
        server_wide = isinstance(error, DatabaseUnavailable) and error.server_wide
        self.failures = self.failures + 1 if not server_wide and await self._ping() else 0
        return self.failures >= MAX_FAILURES


async def _never(_: Unavailable) -> bool:
    return False


async def commit_in_halves(
    items: Sequence[T],
    commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
    refuse: Callable[[T, Exception], Awaitable[R]],
    blames_batch: Callable[[Unavailable], Awaitable[bool]] = _never,
) -> list[R]:
    """Commits the items together, or in ever smaller halves, and returns the result for each, in order.

    A batch that fails is split in halves, each a commit of its own. An item that fails alone is refused, so
    it never holds up its neighbours. Unavailable is raised, unless `blames_batch` (of a BatchFailures) says
    that the batch is to blame: then the batch is split as after any other failure.
    """
    failure: Exception
    try:
        return list(await commit(items))
    except Unavailable as error:
        if not await blames_batch(error):
            raise
        failure = NeverCommits(error)
        failure.__cause__ = error
    except Exception as error:  # noqa: BLE001  # the refusal gets it
        failure = error
    if len(items) == 1:
        return [await refuse(items[0], failure)]
    middle = len(items) // 2
    return [
        *await commit_in_halves(items[:middle], commit, refuse, blames_batch),
        *await commit_in_halves(items[middle:], commit, refuse, blames_batch),
    ]
