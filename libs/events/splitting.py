"""Splitting: many items in one commit, and what fails among them found and refused alone."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from events.errors import DatabaseUnavailable, EventsError, Unavailable

T = TypeVar("T")
R = TypeVar("R")

MAX_FAILURES: Final = 3
"""Failures of a batch, each while the database answers, after which the batch is to blame."""


class NeverCommits(EventsError):
    """This fails again and again, although the database answers."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(f"{self.__doc__} ({error})")


class BatchFailures:
    """Whether the batch is to blame for what the database refuses, or the database is away.

    Make one for each batch. A failure counts while the database answers a ping on another connection. From
    the third in a row the batch is to blame: it waits for a lock that never becomes free, deadlocks each
    time, or takes longer than the database allows. A failure while the database is away forgets the earlier
    ones: such a batch is repeated without end.
    """

    def __init__(self, answers: Callable[[], Awaitable[bool]]) -> None:
        """`answers` tells whether the database answers a ping: `Transactions.ping`."""
        self.failures = 0
        """Failures in a row while the database answers; 0 when it is away."""
        self._answers = answers

    async def blames_batch(self, error: Unavailable) -> bool:
        """Counts one failure of the batch, and returns whether the batch is to blame from now on.

        A server that says so of itself (disk full, read-only, shutting down) is away, whatever it answers.
        """
        server_wide = isinstance(error, DatabaseUnavailable) and error.server_wide
        self.failures = self.failures + 1 if not server_wide and await self._answers() else 0
        return self.failures >= MAX_FAILURES


async def _never(_: Unavailable) -> bool:
    return False


async def commit_in_halves(
    items: Sequence[T],
    commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
    refuse: Callable[[T, Exception], Awaitable[R]],
    blames_batch: Callable[[Unavailable], Awaitable[bool]] = _never,
) -> list[R]:
    """The result for each item, in order: all in one commit if that goes well.

    If it does not, they are split in halves, each its own commit, until what failed stands alone and is
    refused: the failure of one never holds up its neighbours. Unavailable is raised, unless `blames_batch`
    (of a BatchFailures) says that the batch is to blame: then it splits the batch like any other failure.
    """
    failure: Exception
    try:
        return list(await commit(items))
    except Unavailable as error:
        if not await blames_batch(error):
            raise
        failure = NeverCommits(error)
        failure.__cause__ = error
    except Exception as error:  # noqa: BLE001  # whatever it was, it goes into the refusal
        failure = error
    if len(items) == 1:
        return [await refuse(items[0], failure)]
    middle = len(items) // 2
    return [
        *await commit_in_halves(items[:middle], commit, refuse, blames_batch),
        *await commit_in_halves(items[middle:], commit, refuse, blames_batch),
    ]
